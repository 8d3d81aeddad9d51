//! `machine clone` and `machine update`.

use std::time::Duration;

use anyhow::Result;
use hangar_api::id::AppName;
use hangar_api::machine::guest::Guest;
use hangar_api::machine::{LaunchInput, Machine, MachineConfig, MachineState};
use hangar_client::MachineFilter;

use super::edit::{self, STANDBY_FOR, diff};
use super::lease::holding;
use super::wait::{self, Settle};
use super::{disk, inputs, select};
use crate::args::{CloneArgs, MachineUpdateArgs, VmArgs};
use crate::commands::scale::{Wanted, with_volume};
use crate::context::Context;
use crate::error::Exit;
use crate::output;

/// Copies a Machine's whole configuration, metadata included: the copy is in the same group.
pub(super) async fn clone(context: &Context, args: &CloneArgs) -> Result<Exit> {
    let (app, source) = select::one(context, &args.which).await?;
    reachable(&source)?;
    let mut config = copy(&source, args)?;
    config.image = pinned(&source);
    let planned = disk::plan(context, &app, &source, args).await?;
    config.mounts = planned.mounts;
    if config.auto_destroy {
        output::say(
            "Auto destroy enabled and will destroy Machine on exit. Use --clear-auto-destroy to remove this setting.",
        );
    }
    output::say(&format!(
        "Provisioning a new Machine with image {}...",
        source.config.image
    ));
    let skip_launch = !config.standbys.is_empty();
    let input = LaunchInput {
        config: Some(config),
        name: args.name.clone(),
        region: Some(planned.region.to_string()),
        skip_launch,
        ..LaunchInput::default()
    };
    let volume = planned.disk.as_ref().map(|disk| Wanted {
        disk,
        snapshot: planned.snapshot.as_deref(),
        unique_zone: args.volume_requires_unique_zone,
    });
    let (made, _) = with_volume(context, &app, input, volume).await?;
    output::say(&format!("  Machine {} has been created...", made.id));
    if !args.detach && !skip_launch {
        output::say(&format!(
            "  Waiting for Machine {} to start and pass its checks",
            made.id
        ));
        wait::settle(context, &app, &made.id, Settle::Healthy).await?;
    }
    output::say("Machine has been successfully cloned!");
    output::data(made.id.as_str())?;
    Ok(Exit::Done)
}

fn copy(source: &Machine, args: &CloneArgs) -> Result<MachineConfig> {
    let mut config = source.config.clone();
    config.guest = Some(guest(config.guest.unwrap_or_default(), &args.vm)?);
    if args.clear_cmd {
        config.init.cmd = None;
    }
    if let Some(command) = &args.override_cmd {
        let words = edit::split("--override-cmd", command);
        config.init.cmd = Some(words.map_err(|error| Exit::Usage.with(error))?);
    }
    if args.clear_auto_destroy {
        config.auto_destroy = false;
    }
    if let Some(list) = &args.standby_for {
        let mut ids = edit::standbys(list);
        for id in &mut ids {
            if id == "source" {
                *id = source.id.to_string();
            }
        }
        config.env.insert(STANDBY_FOR.to_owned(), ids.join(","));
        config.standbys = ids;
    }
    Ok(config)
}

pub(super) async fn update(context: &Context, args: &MachineUpdateArgs) -> Result<Exit> {
    let Some(group) = &args.process_group else {
        let (app, machine) = select::one(context, &args.which).await?;
        return Box::pin(update_one(context, &app, machine, args)).await;
    };
    let app = context.app(&args.which.app).await?.name;
    let mut machines = context
        .client
        .machines(&app, &MachineFilter::default())
        .await?;
    machines.retain(|machine| machine.state.is_active() && machine.config.group_or_app() == *group);
    if machines.is_empty() {
        return Err(Exit::NotFound.with(format!("app {app} has no Machines in group {group}")));
    }
    for machine in machines {
        Box::pin(update_one(context, &app, machine, args)).await?;
    }
    Ok(Exit::Done)
}

async fn update_one(
    context: &Context,
    app: &AppName,
    machine: Machine,
    args: &MachineUpdateArgs,
) -> Result<Exit> {
    reachable(&machine)?;
    let id = &machine.id;
    let shown = if args.yes {
        None
    } else {
        let config = changed(&machine, args)?;
        if !confirm(&machine, &config)? {
            output::say("No changes to apply");
            return Ok(Exit::Done);
        }
        Some((machine.clone(), config))
    };
    // Not before somebody has said yes: whoever thinks about it holds nobody up.
    holding(context, app, id, async |nonce| {
        let (machine, config) = match shown {
            // Refused if it has changed since it was shown.
            Some(shown) => shown,
            None => {
                let machine = context.client.machine(app, id).await?;
                let config = changed(&machine, args)?;
                (machine, config)
            }
        };
        output::say(&format!("Updating Machine {id}"));
        let how = Applied {
            repin: args.image.is_none(),
            skip_start: args.skip_start,
            skip_health_checks: args.skip_health_checks,
            limit: Duration::from_secs(args.wait_timeout),
        };
        apply(context, app, &machine, config, nonce, &how).await?;
        output::data(&format!("Machine {id} updated successfully!"))?;
        Ok(Exit::Done)
    })
    .await
}

/// How an update is carried out.
#[derive(Debug)]
pub(in crate::commands) struct Applied {
    /// The image stays what it is, by digest.
    pub(in crate::commands) repin: bool,
    pub(in crate::commands) skip_start: bool,
    pub(in crate::commands) skip_health_checks: bool,
    /// How long it may take.
    pub(in crate::commands) limit: Duration,
}

/// Gives a Machine another configuration and waits until it has it, and is healthy if it ran.
pub(in crate::commands) async fn apply(
    context: &Context,
    app: &AppName,
    machine: &Machine,
    mut config: MachineConfig,
    nonce: Option<&str>,
    how: &Applied,
) -> Result<()> {
    if how.repin {
        // What its name means may have changed since; nobody asked for another image.
        config.image = pinned(machine);
    }
    let skip_launch = how.skip_start || !config.standbys.is_empty();
    let input = LaunchInput {
        config: Some(config),
        skip_launch,
        current_version: Some(machine.instance_id.to_string()),
        ..LaunchInput::default()
    };
    let id = &machine.id;
    context
        .client
        .update_machine(app, id, &input, nonce)
        .await?;
    wait::state_within(context, app, id, "settled", how.limit)
        .await
        .map_err(too_long)?;
    if machine.state == MachineState::Started && !skip_launch {
        let until = if how.skip_health_checks {
            Settle::Started
        } else {
            Settle::Healthy
        };
        wait::settle_within(context, app, id, until, how.limit).await?;
    }
    Ok(())
}

fn too_long(error: anyhow::Error) -> anyhow::Error {
    let is_timeout = error
        .downcast_ref::<hangar_client::ClientError>()
        .is_some_and(|e| e.status() == Some(408));
    if !is_timeout {
        return error;
    }
    Exit::Failed.with(format!(
        "timeout reached waiting for machine's state to change: {error}\nhint: Try increasing the --wait-timeout"
    ))
}

/// Shows what would change and asks. Fails when nothing would.
fn confirm(machine: &Machine, config: &MachineConfig) -> Result<bool> {
    let lines = diff::lines(&machine.config, config)?;
    if lines.is_empty() {
        return Err(Exit::Failed.with("no config changes found"));
    }
    output::say(&format!(
        "Configuration changes to be applied to machine: {} ({})\n\n{}\n",
        machine.id,
        machine.name,
        lines.join("\n")
    ));
    output::confirm("Apply changes?")
}

fn reachable(machine: &Machine) -> Result<()> {
    if matches!(machine.host_status.as_str(), "" | "ok") {
        return Ok(());
    }
    Err(Exit::Failed.with("the machine is on an unreachable host, try again later"))
}

fn changed(machine: &Machine, args: &MachineUpdateArgs) -> Result<MachineConfig> {
    let usage = |error: String| Exit::Usage.with(error);
    let edit = inputs::read(&args.config)?;
    let edited = edit::apply(machine.config.clone(), &edit).map_err(usage)?;
    for note in &edited.notes {
        output::say(note);
    }
    let mut config = edited.config;
    if let Some(image) = &args.image {
        config.image.clone_from(image);
    }
    if let Some(command) = &args.command {
        let words = edit::split("--command", command).map_err(usage)?;
        config.init.cmd = (!words.is_empty()).then_some(words);
    }
    if let Some(path) = &args.mount_point {
        edit::mounts::move_to(&mut config.mounts, path).map_err(usage)?;
    }
    Ok(config)
}

/// Returns the size that flags make of one.
pub(in crate::commands) fn guest(from: Guest, vm: &VmArgs) -> Result<Guest> {
    edit::guest(from, vm).map_err(|error| Exit::Usage.with(error))
}

/// Splits NAME=VALUE arguments.
pub(in crate::commands) fn pairs(list: &[String]) -> Result<Vec<(String, String)>> {
    edit::pairs("it", list)
        .map_err(|error| Exit::Usage.with(error.trim_start_matches("it ").to_owned()))
}

/// Returns the image by digest, so that a copy runs what its source runs.
pub(in crate::commands) fn pinned(machine: &Machine) -> String {
    let image = &machine.image_ref;
    if image.digest.is_empty() || machine.config.image.contains('@') {
        return machine.config.image.clone();
    }
    format!("{}@{}", machine.config.image, image.digest)
}
