//! `hangar checks`.

use std::collections::BTreeMap;

use anyhow::Result;
use hangar_client::MachineFilter;

use super::machine::health;
use crate::args::ChecksCommand;
use crate::context::Context;
use crate::error::Exit;
use crate::output::{self, rfc3339};

pub(super) async fn run(context: &Context, command: ChecksCommand) -> Result<Exit> {
    let ChecksCommand::List { show, check_name } = command;
    let app = context.app(&show.app).await?.name;
    let mut machines = context
        .client
        .machines(&app, &MachineFilter::default())
        .await?;
    machines.sort_by(|a, b| a.id.cmp(&b.id));
    if show.json {
        let all: BTreeMap<_, _> = machines
            .iter()
            .map(|m| (m.id.to_string(), &m.checks))
            .collect();
        output::json(&all)?;
        return Ok(Exit::Done);
    }
    let mut rows = Vec::new();
    for machine in &machines {
        let mut checks = machine.checks.clone();
        checks.retain(|check| check_name.as_ref().is_none_or(|name| *name == check.name));
        checks.sort_by(|a, b| a.name.cmp(&b.name));
        rows.extend(checks.into_iter().map(|check| {
            let status = health(check.status).to_owned();
            vec![
                check.name,
                status,
                machine.id.to_string(),
                rfc3339(check.updated_at),
                check.output,
            ]
        }));
    }
    let title = format!("Health Checks for {app}");
    output::table(
        Some(&title),
        &["Name", "Status", "Machine", "Last Updated", "Output"],
        &rows,
    )?;
    Ok(Exit::Done)
}
