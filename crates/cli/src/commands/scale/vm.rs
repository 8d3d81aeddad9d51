//! `scale vm`, `scale memory` (process-groups-and-deploy.md 5.2) and `platform vm-sizes`.

use std::time::Duration;

use anyhow::Result;
use hangar_api::formation::{FormationUpdate, GroupUpdate};
use hangar_api::id::{AppName, GroupName};
use hangar_api::machine::Machine;
use hangar_api::machine::guest::Guest;
use hangar_api::release::{Release, ReleaseStatus};
use hangar_client::MachineFilter;
use serde_json::json;

use super::super::machine::{Applied, apply, guest, holding_all};
use super::RELEASES;
use crate::args::{AppArgs, VmArgs};
use crate::context::{AppChoice, Context};
use crate::error::Exit;
use crate::output;

/// How long one Machine may take.
const LIMIT: Duration = Duration::from_secs(300);
/// The groups whose Machines nobody scales.
const ASIDE: [&str; 2] = [
    hangar_api::machine::config::GROUP_RELEASE_COMMAND,
    hangar_api::machine::config::GROUP_CONSOLE,
];

/// What was asked for.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) size: Option<String>,
    pub(super) memory: Option<String>,
    pub(super) group: Option<GroupName>,
}

pub(super) async fn run(context: &Context, args: &AppArgs, wanted: Wanted) -> Result<Exit> {
    let flags = VmArgs {
        vm_size: wanted.size.clone(),
        vm_memory: wanted.memory.clone(),
        ..VmArgs::default()
    };
    // A size that there is not is told before anybody is asked.
    if let Some(name) = &wanted.size {
        Guest::preset(name).map_err(|error| Exit::Usage.with(error.to_string()))?;
    }
    let choice = context.app(args).await?;
    let app = &choice.name;
    let group = match &wanted.group {
        Some(group) => group.clone(),
        None => only_group(context, app).await?,
    };
    let machines = of_group(context, app, &group).await?;
    if machines.is_empty() {
        return without_machines(context, &choice, &group, &flags).await;
    }
    for machine in &machines {
        guest(size_of(machine), &flags)?;
    }
    // Before any Machine is touched: it is refused while somebody deploys.
    if let Some(first) = machines.first()
        && context
            .client
            .formations(app)
            .await?
            .groups
            .contains_key(&group)
    {
        remember(context, app, &group, &guest(size_of(first), &flags)?).await?;
    }
    let ids: Vec<_> = machines.iter().map(|m| m.id.clone()).collect();
    holding_all(context, app, &ids, async |leases| {
        for id in &ids {
            let machine = context.client.machine(app, id).await?;
            let mut config = machine.config.clone();
            config.guest = Some(guest(size_of(&machine), &flags)?);
            output::say(&format!("Updating Machine {id}"));
            let how = Applied {
                repin: true,
                skip_start: false,
                skip_health_checks: false,
                limit: LIMIT,
            };
            apply(context, app, &machine, config, leases.nonce(id), &how).await?;
        }
        Ok(())
    })
    .await?;
    let first = machines.first().map_or_else(Guest::default, size_of);
    let size = guest(first, &flags)?;
    told(wanted.group.as_ref(), &size)?;
    warn_of_the_next_deploy(&choice, &group, &size);
    Ok(Exit::Done)
}

/// Sets the size of a group that is scaled to 0: its next Machines have it.
async fn without_machines(
    context: &Context,
    choice: &AppChoice,
    group: &GroupName,
    flags: &VmArgs,
) -> Result<Exit> {
    let app = &choice.name;
    let formations = context.client.formations(app).await?;
    let Some(formation) = formations.groups.get(group) else {
        return Err(Exit::Failed.with(format!(
            "No active machines in process group '{group}', check `hangar status` output"
        )));
    };
    let size = guest(formation.guest.clone().unwrap_or_default(), flags)?;
    remember(context, app, group, &size).await?;
    told(Some(group), &size)?;
    output::say(&format!(
        "Group '{group}' has no Machines: those of the next `hangar scale count {group}=N` have this size"
    ));
    warn_of_the_next_deploy(choice, group, &size);
    Ok(Exit::Done)
}

/// Has the server keep the size, for when the group has no Machine to copy.
async fn remember(context: &Context, app: &AppName, group: &GroupName, size: &Guest) -> Result<()> {
    let update = GroupUpdate {
        guest: Some(size.clone()),
        ..GroupUpdate::default()
    };
    let update = FormationUpdate {
        groups: [(group.clone(), update)].into(),
        dry_run: false,
    };
    context.client.update_formations(app, &update).await?;
    Ok(())
}

fn told(group: Option<&GroupName>, size: &Guest) -> Result<()> {
    let of_group = group.map_or_else(String::new, |group| format!("for '{group}' "));
    output::data(&format!(
        "Scaled VM Type {of_group}to '{}'\n{:>15}: {}\n{:>15}: {}",
        size.size_name(),
        "CPU Cores",
        size.cpus,
        "Memory",
        memory(size.memory_mb)
    ))
}

fn size_of(machine: &Machine) -> Guest {
    machine.config.guest.clone().unwrap_or_default()
}

/// Fly's client cuts what is between two gigabytes; here it stays what it is.
fn memory(megabytes: u64) -> String {
    if megabytes < 1024 || !megabytes.is_multiple_of(1024) {
        format!("{megabytes} MB")
    } else {
        format!("{} GB", megabytes / 1024)
    }
}

/// Returns the group of an app that has one.
async fn only_group(context: &Context, app: &AppName) -> Result<GroupName> {
    let releases = context.client.releases(app, RELEASES).await?;
    let complete = |r: &&Release| r.status == ReleaseStatus::Complete;
    let release = releases.iter().find(complete).or(releases.first());
    let names: Vec<&GroupName> = release.map_or_else(Vec::new, |r| r.groups.keys().collect());
    match names.as_slice() {
        [] => Ok(GroupName::app()),
        [only] => Ok((*only).clone()),
        many => {
            let names: Vec<String> = many.iter().map(|name| format!("'{name}'")).collect();
            Err(Exit::Usage.with(format!(
                "scaling an app with multiple process groups requires specifying a group with '--process-group <name>'\n * this app has the following process groups: [{}]",
                names.join(", ")
            )))
        }
    }
}

/// Returns the active Machines of a group, managed or not.
async fn of_group(context: &Context, app: &AppName, group: &GroupName) -> Result<Vec<Machine>> {
    let mut machines = context
        .client
        .machines(app, &MachineFilter::default())
        .await?;
    machines.retain(|m| {
        let name = m.process_group();
        m.state.is_active() && name == group.as_str() && !ASIDE.contains(&name)
    });
    Ok(machines)
}

/// Says when the fly.toml here has another size for the group: the next deploy brings that back.
fn warn_of_the_next_deploy(choice: &AppChoice, group: &GroupName, size: &Guest) {
    let Some(path) = &choice.file else { return };
    let Some(written) = super::super::config::guest_of_group(path, group) else {
        return;
    };
    if written.size_name() == size.size_name() && written.memory_mb == size.memory_mb {
        return;
    }
    let shown = |g: &Guest| format!("size={} memory={}MB", g.size_name(), g.memory_mb);
    output::say(&format!(
        "\nWARNING Your fly.toml has a [[vm]] section with different settings than what was just applied.\n  Machines now: {}\n  fly.toml:     {}\nThe next hangar deploy will override these changes with the fly.toml values.\nUpdate the [[vm]] section in fly.toml to make your changes permanent.",
        shown(size),
        shown(&written)
    ));
}

/// The presets by kind of CPU.
const PRESETS: [(&str, &[u32]); 2] = [
    ("shared-cpu", &[1, 2, 4, 6, 8]),
    ("performance", &[1, 2, 4, 6, 8, 10, 12, 14, 16]),
];

/// Prints the sizes that Machines can have.
pub(in crate::commands) fn sizes(json: bool) -> Result<Exit> {
    let mut all = Vec::new();
    for (kind, counts) in PRESETS {
        let mut rows = Vec::new();
        for count in counts {
            let name = format!("{kind}-{count}x");
            let size =
                Guest::preset(&name).map_err(|error| Exit::Failed.with(error.to_string()))?;
            all.push(json!({
                "name": name, "cpu_cores": size.cpus, "cpu_kind": size.cpu_kind,
                "memory_mb": size.memory_mb,
            }));
            rows.push(vec![name, size.cpus.to_string(), memory(size.memory_mb)]);
        }
        if !json {
            output::table(None, &["Name", "CPU Cores", "Memory"], &rows)?;
            output::data("")?;
        }
    }
    if json {
        output::json(&all)?;
    }
    Ok(Exit::Done)
}
