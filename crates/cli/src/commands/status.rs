//! `hangar status`.

mod groups;

use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::Result;
use hangar_api::check::{CheckStatus, Health};
use hangar_api::machine::Machine;
use hangar_client::MachineFilter;
use serde_json::json;

use super::machine::image_name;
use crate::args::{ShowArgs, StatusArgs};
use crate::context::Context;
use crate::error::Exit;
use crate::interrupt;
use crate::output::{self, rfc3339};

/// What clears a terminal and goes to its first line.
const CLEAR: &str = "\u{1b}[2J\u{1b}[H";

pub(super) async fn run(context: &Context, args: &StatusArgs) -> Result<Exit> {
    if !args.watch {
        return show(context, &args.show).await;
    }
    let mut ticks = tokio::time::interval(Duration::from_secs(args.rate));
    loop {
        tokio::select! {
            biased;
            pressed = interrupt::pressed() => {
                pressed?;
                return Ok(Exit::Done);
            }
            _ = ticks.tick() => {
                if std::io::stdout().is_terminal() {
                    output::data(CLEAR)?;
                }
                show(context, &args.show).await?;
            }
        }
    }
}

async fn show(context: &Context, args: &ShowArgs) -> Result<Exit> {
    let name = context.app(&args.app).await?.name;
    let app = context.client.app(&name).await?;
    let machines = context
        .client
        .machines(&name, &MachineFilter::default())
        .await?;
    let releases = context.client.releases(&name, 1).await?;
    let (managed, other): (Vec<Machine>, Vec<Machine>) =
        machines.into_iter().partition(|m| m.config.is_managed());
    if args.json {
        let mut whole = json!({
            "ID": app.name, "Name": app.name, "Deployed": app.status != "pending", "Status": app.status,
            "Hostname": app.hostname, "Version": releases.first().map_or(0, |r| r.version),
            "AppURL": app.app_url, "Organization": app.organization, "PlatformVersion": "machines",
            "Machines": managed,
        });
        if app.network != "default" {
            whole["Network"] = json!(app.network);
        }
        output::json(&whole)?;
        return Ok(Exit::Done);
    }
    let image = managed
        .iter()
        .max_by_key(|m| release_version(m))
        .map_or_else(|| "-".to_owned(), image_name);
    let mut fields = vec![
        ("Name", app.name.to_string()),
        ("Owner", app.organization.slug.to_string()),
        ("Hostname", app.hostname.clone()),
        ("Image", image),
    ];
    if app.network != "default" {
        fields.push(("Network", app.network.clone()));
    }
    if let Some(url) = &app.app_url {
        fields.push(("URL", url.clone()));
    }
    output::record("App", &fields)?;
    groups::show(&context.client.formations(&name).await?, &managed)?;
    let mut rows: Vec<Vec<String>> = managed.iter().map(row).collect();
    rows.sort();
    let headers = [
        "Process",
        "ID",
        "Version",
        "Region",
        "State",
        "Role",
        "Checks",
        "Last Updated",
    ];
    output::table(Some("\nMachines"), &headers, &rows)?;
    notes(&managed)?;
    if !other.is_empty() {
        output::say(
            "Found machines that aren't part of Fly Launch, run hangar machine list to see them.",
        );
    }
    Ok(Exit::Done)
}

fn row(machine: &Machine) -> Vec<String> {
    let group = machine.process_group();
    let group = if group.is_empty() { "<default>" } else { group };
    let standby = if machine.config.standbys.is_empty() {
        ""
    } else {
        "†"
    };
    let away = if is_away(machine) { "💀" } else { "" };
    vec![
        format!("{group}{standby}{away}"),
        machine.id.to_string(),
        release_version(machine).to_string(),
        machine.region.to_string(),
        machine.state.to_string(),
        machine
            .config
            .metadata
            .get("role")
            .cloned()
            .unwrap_or_default(),
        summary(&machine.checks),
        rfc3339(machine.updated_at),
    ]
}

fn is_away(machine: &Machine) -> bool {
    !matches!(machine.host_status.as_str(), "" | "ok")
}

fn notes(machines: &[Machine]) -> Result<()> {
    if machines.iter().any(is_away) {
        output::data("\n 💀 The machine's host is unreachable")?;
    }
    if machines.iter().any(|m| !m.config.standbys.is_empty()) {
        output::data(
            "\n † Standby machine (it will take over only in case of host hardware failure)",
        )?;
    }
    for machine in machines {
        if let Some(reason) = &machine.reason {
            output::data(&format!("\n {} is {}: {reason}", machine.id, machine.state))?;
        }
    }
    Ok(())
}

fn release_version(machine: &Machine) -> u64 {
    let version = machine
        .config
        .metadata
        .get(hangar_api::machine::config::RELEASE_VERSION);
    version.and_then(|v| v.parse().ok()).unwrap_or(0)
}

fn summary(checks: &[CheckStatus]) -> String {
    if checks.is_empty() {
        return String::new();
    }
    let count = |status| checks.iter().filter(|c| c.status == status).count();
    let parts = [
        (Health::Passing, "passing"),
        (Health::Warning, "warning"),
        (Health::Critical, "critical"),
    ];
    let parts = parts
        .iter()
        .map(|(status, word)| (count(*status), word))
        .filter(|(n, _)| *n > 0);
    let parts: Vec<String> = parts.map(|(n, word)| format!("{n} {word}")).collect();
    format!("{} total, {}", checks.len(), parts.join(", "))
}
