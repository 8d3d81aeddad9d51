//! `hangar explain`: asks all that the API says of a Machine and prints [`crate::explain`]'s sentences.

use anyhow::Result;
use hangar_api::id::AppName;
use hangar_api::logs::{LogQuery, Provider};
use hangar_api::machine::Machine;
use hangar_client::MachineFilter;
use serde_json::json;

use crate::args::migrate::ExplainArgs;
use crate::context::Context;
use crate::error::Exit;
use crate::explain::{Facts, Finding, explain};
use crate::output;

/// Lines of its log that are shown.
const LINES: usize = 8;
/// Events that are looked at.
const EVENTS: usize = 20;

pub(super) async fn run(context: &Context, args: &ExplainArgs) -> Result<Exit> {
    let app = context.app(&args.app).await?.name;
    let mut machine = context.client.machine(&app, &args.id).await?;
    machine.events = context
        .client
        .machine_events(&app, &machine.id, EVENTS)
        .await?;
    let siblings = context
        .client
        .machines(&app, &MachineFilter::default())
        .await?;
    let lease = match context.client.current_lease(&app, &machine.id).await {
        Ok(lease) => Some(lease),
        Err(error) if error.status() == Some(404) => None,
        Err(error) => return Err(error.into()),
    };
    let deployments = context.client.deployments(&app).await?;
    let log = last_lines(context, &app, &machine).await?;
    let formations = context.client.formations(&app).await?;
    let found = explain(&Facts {
        machine: &machine,
        siblings: &siblings,
        lease: lease.as_ref(),
        formation: formations.groups.get(&machine.config.group_or_app()),
        deployment: deployments.first(),
        log: &log,
        now: hangar_api::env::Env::real().now(),
    });
    if args.json {
        output::json(&json!({
            "app": app, "machine": machine.id, "group": machine.config.group_or_app(),
            "state": machine.state, "region": machine.region, "findings": found,
        }))?;
        return Ok(Exit::Done);
    }
    output::data(&format!(
        "Machine {} ({}) of {app}",
        machine.id,
        machine.config.group_or_app()
    ))?;
    for finding in &found {
        output::data(&lines(finding).join("\n"))?;
    }
    Ok(Exit::Done)
}

fn lines(finding: &Finding) -> Vec<String> {
    let mut out = vec![format!("- {}", finding.text)];
    out.extend(finding.shows.iter().map(|line| format!("    {line}")));
    out.extend(finding.hint.iter().map(|hint| format!("  hint: {hint}")));
    out
}

/// Returns the last lines that its program wrote.
async fn last_lines(context: &Context, app: &AppName, machine: &Machine) -> Result<Vec<String>> {
    let query = LogQuery {
        app: app.clone(),
        group: None,
        machine: Some(machine.id.clone()),
        region: None,
        // Others than the program write lines too.
        tail: 4 * LINES,
        follow: false,
        since: None,
    };
    let mut logs = context.client.logs(&query).await?;
    let mut lines = Vec::new();
    while let Some(line) = logs.next().await? {
        if matches!(line.provider, Provider::App) {
            lines.push(line.message);
        }
    }
    let from = lines.len().saturating_sub(LINES);
    Ok(lines.split_off(from))
}
