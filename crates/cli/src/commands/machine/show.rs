//! `machine list` and `machine status`.

use anyhow::Result;
use hangar_api::check::{CheckStatus, Health};
use hangar_api::machine::Machine;
use hangar_client::MachineFilter;

use super::select;
use crate::args::{OneMachine, ShowArgs};
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
    } else if machines.is_empty() {
        output::say(&format!("No machines are available on this app {app}"));
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
            "Volume",
            "Created",
            "Last Updated",
            "Process Group",
            "Size",
        ];
        let rows: Vec<Vec<String>> = machines.iter().map(row).collect();
        output::table(None, &headers, &rows)?;
        if !machines.iter().all(is_reachable) {
            output::data("* These Machines' hosts could not be reached.")?;
        }
    }
    Ok(Exit::Done)
}

fn is_reachable(machine: &Machine) -> bool {
    matches!(machine.host_status.as_str(), "" | "ok")
}

/// Returns the volume that is mounted, as the configuration has it.
fn volume(machine: &Machine) -> String {
    let config = serde_json::to_value(&machine.config).unwrap_or_default();
    let volume = config.pointer("/mounts/0/volume");
    let volume = volume.and_then(serde_json::Value::as_str);
    volume.unwrap_or_default().to_owned()
}

fn row(machine: &Machine) -> Vec<String> {
    let guest = machine.config.guest.clone().unwrap_or_default();
    let mark = if is_reachable(machine) { "" } else { "*" };
    vec![
        format!("{}{mark}", machine.id),
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
        volume(machine),
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

/// Returns whether a Machine runs an image: by the name that the list shows, by the name in its
/// configuration, or by its digest.
pub(super) fn runs_image(machine: &Machine, name: &str) -> bool {
    let known = [
        image(machine),
        machine.config.image.clone(),
        machine.image_ref.digest.clone(),
    ];
    !name.is_empty() && known.iter().any(|known| known == name)
}

pub(super) async fn status(
    context: &Context,
    which: &OneMachine,
    json: bool,
    config: bool,
) -> Result<Exit> {
    let (_, machine) = select::one(context, which).await?;
    if json {
        output::json(&machine)?;
        return Ok(Exit::Done);
    }
    if config {
        output::json(&machine.config)?;
        return Ok(Exit::Done);
    }
    let guest = machine.config.guest.clone().unwrap_or_default();
    let mut fields = vec![
        ("ID", machine.id.to_string()),
        ("Instance ID", machine.instance_id.to_string()),
        ("State", machine.state.to_string()),
        ("HostStatus", machine.host_status.clone()),
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
        Some(&format!("\nChecks [{}]", passing_of_all(&machine.checks))),
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
