//! `machine list` and `machine status`.

use anyhow::Result;
use hangar_api::check::{CheckStatus, Health};
use hangar_api::id::MachineId;
use hangar_api::machine::Machine;
use hangar_client::MachineFilter;

use super::act::app_of;
use crate::args::ShowArgs;
use crate::context::Context;
use crate::error::Exit;
use crate::output::{self, rfc3339};

pub(super) async fn list(context: &Context, args: &ShowArgs, quiet: bool) -> Result<Exit> {
    let app = context.app(&args.app).await?.name;
    let machines = context
        .client
        .machines(&app, &MachineFilter::default())
        .await?;
    if args.json {
        output::json(&machines)?;
    } else if quiet {
        let ids: Vec<&str> = machines.iter().map(|m| m.id.as_str()).collect();
        output::data(&ids.join("\n"))?;
    } else {
        let headers = [
            "ID",
            "Name",
            "State",
            "Checks",
            "Region",
            "Role",
            "Image",
            "IP Address",
            "Created",
            "Last Updated",
            "Process Group",
            "Size",
        ];
        let rows: Vec<Vec<String>> = machines.iter().map(row).collect();
        output::table(None, &headers, &rows)?;
    }
    Ok(Exit::Done)
}

fn row(machine: &Machine) -> Vec<String> {
    let guest = machine.config.guest.clone().unwrap_or_default();
    vec![
        machine.id.to_string(),
        machine.name.clone(),
        machine.state.to_string(),
        passing_of_all(&machine.checks),
        machine.region.to_string(),
        machine
            .config
            .metadata
            .get("role")
            .cloned()
            .unwrap_or_default(),
        image(machine),
        machine.private_ip.clone(),
        rfc3339(machine.created_at),
        rfc3339(machine.updated_at),
        machine.process_group().to_owned(),
        format!("{}:{}MB", guest.size_name(), guest.memory_mb),
    ]
}

fn passing_of_all(checks: &[CheckStatus]) -> String {
    if checks.is_empty() {
        return String::new();
    }
    let passing = checks
        .iter()
        .filter(|c| c.status == Health::Passing)
        .count();
    format!("{passing}/{}", checks.len())
}

/// Returns repository and tag of a Machine's image.
pub(in crate::commands) fn image(machine: &Machine) -> String {
    let image = &machine.image_ref;
    if image.tag.is_empty() {
        image.repository.clone()
    } else {
        format!("{}:{}", image.repository, image.tag)
    }
}

pub(super) async fn status(
    context: &Context,
    args: &ShowArgs,
    id: &MachineId,
    config: bool,
) -> Result<Exit> {
    let app = app_of(context, &args.app, id).await?;
    let machine = context.client.machine(&app, id).await?;
    if args.json {
        output::json(&machine)?;
        return Ok(Exit::Done);
    }
    let guest = machine.config.guest.clone().unwrap_or_default();
    let mut fields = vec![
        ("ID", machine.id.to_string()),
        ("Instance ID", machine.instance_id.to_string()),
        ("State", machine.state.to_string()),
        ("Name", machine.name.clone()),
        ("Image", image(&machine)),
        ("Private IP", machine.private_ip.clone()),
        ("Region", machine.region.to_string()),
        ("Process Group", machine.process_group().to_owned()),
        ("CPU Kind", guest.cpu_kind),
        ("vCPUs", guest.cpus.to_string()),
        ("Memory", format!("{} MB", guest.memory_mb)),
        ("Created", rfc3339(machine.created_at)),
        ("Updated", rfc3339(machine.updated_at)),
        ("Entrypoint", words(machine.config.init.entrypoint.as_ref())),
        ("Command", words(machine.config.init.cmd.as_ref())),
    ];
    if let Some(reason) = &machine.reason {
        fields.push(("Reason", reason.clone()));
    }
    output::record("VM", &fields)?;
    checks(&machine)?;
    events(&machine)?;
    if config {
        output::json(&machine.config)?;
    }
    Ok(Exit::Done)
}

fn words(list: Option<&Vec<String>>) -> String {
    list.map_or_else(|| "the image's".to_owned(), |words| format!("{words:?}"))
}

fn checks(machine: &Machine) -> Result<()> {
    if machine.checks.is_empty() {
        return Ok(());
    }
    let rows: Vec<Vec<String>> = machine
        .checks
        .iter()
        .map(|c| {
            vec![
                c.name.clone(),
                health(c.status).to_owned(),
                rfc3339(c.updated_at),
                c.output.clone(),
            ]
        })
        .collect();
    output::table(
        Some("\nChecks"),
        &["Name", "Status", "Last Updated", "Output"],
        &rows,
    )
}

fn events(machine: &Machine) -> Result<()> {
    let rows: Vec<Vec<String>> = machine
        .events
        .iter()
        .map(|event| {
            let time = hangar_api::Timestamp::from_millisecond(event.timestamp).unwrap_or_default();
            let exit = event.request.as_ref().and_then(|r| r.exit_event.as_ref());
            let info = exit.map_or_else(String::new, |exit| {
                format!(
                    "exit_code={},oom_killed={},requested_stop={}",
                    exit.exit_code, exit.oom_killed, exit.requested_stop
                )
            });
            vec![
                event.status.clone(),
                event.kind.clone(),
                event.source.clone(),
                rfc3339(time),
                info,
            ]
        })
        .collect();
    output::table(
        Some("\nEvent Logs"),
        &["State", "Event", "Source", "Timestamp", "Info"],
        &rows,
    )
}

/// Returns the word for a check's status.
pub(in crate::commands) fn health(status: Health) -> &'static str {
    match status {
        Health::Passing => "passing",
        Health::Warning => "warning",
        Health::Critical => "critical",
    }
}
