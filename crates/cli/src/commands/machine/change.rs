//! `machine clone` and `machine update`.

use anyhow::Result;
use hangar_api::id::{MachineId, Region};
use hangar_api::machine::guest::Guest;
use hangar_api::machine::{LaunchInput, MachineConfig, MachineState};

use super::act::app_of;
use super::wait::{self, Settle};
use crate::args::{AppArgs, MachineUpdateArgs, VmArgs};
use crate::context::Context;
use crate::error::Exit;
use crate::output;

/// What a clone differs in.
pub(super) struct CloneInput {
    pub(super) region: Option<Region>,
    pub(super) name: Option<String>,
    pub(super) detach: bool,
    pub(super) vm: VmArgs,
}

/// Copies a Machine's whole configuration, metadata included: the copy is in the same group.
pub(super) async fn clone(
    context: &Context,
    args: &AppArgs,
    id: &MachineId,
    wanted: CloneInput,
) -> Result<Exit> {
    let app = app_of(context, args, id).await?;
    let source = context.client.machine(&app, id).await?;
    let is_standby = !source.config.standbys.is_empty();
    let mut config = source.config.clone();
    config.image = pinned(&source);
    config.guest = Some(guest(config.guest.unwrap_or_default(), &wanted.vm)?);
    let region = wanted.region.unwrap_or(source.region);
    output::say(&format!("Cloning Machine {id} into region {region}"));
    let input = LaunchInput {
        config: Some(config),
        name: wanted.name,
        region: Some(region.to_string()),
        skip_launch: is_standby,
        ..LaunchInput::default()
    };
    let made = context.client.create_machine(&app, &input).await?;
    output::say(&format!("  Machine {} has been created", made.id));
    if !wanted.detach && !is_standby {
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

pub(super) async fn update(context: &Context, args: MachineUpdateArgs) -> Result<Exit> {
    let app = app_of(context, &args.app, &args.id).await?;
    let machine = context.client.machine(&app, &args.id).await?;
    let mut config = changed(&machine.config, &args)?;
    if !args.yes {
        let lines = difference(&machine.config, &config)?;
        if lines.is_empty() {
            return Err(Exit::Failed.with("no config changes found"));
        }
        output::say(&format!(
            "Configuration changes to be applied to Machine {}:\n{}",
            args.id,
            lines.join("\n")
        ));
        if !output::confirm("Apply changes?")? {
            output::say("No changes to apply");
            return Ok(Exit::Done);
        }
    }
    if args.image.is_none() {
        // What its name means may have changed since; nobody asked for another image.
        config.image = pinned(&machine);
    }
    let runs = machine.state == MachineState::Started;
    let input = LaunchInput {
        config: Some(config),
        skip_launch: args.skip_start,
        current_version: Some(machine.instance_id.to_string()),
        ..LaunchInput::default()
    };
    output::say(&format!("Updating Machine {}", args.id));
    context
        .client
        .update_machine(&app, &args.id, &input, None)
        .await?;
    wait::state(context, &app, &args.id, "settled").await?;
    if runs && !args.skip_start {
        let how = if args.skip_health_checks {
            Settle::Started
        } else {
            Settle::Healthy
        };
        wait::settle(context, &app, &args.id, how).await?;
    }
    output::data(&format!("Machine {} updated successfully!", args.id))?;
    Ok(Exit::Done)
}

fn changed(from: &MachineConfig, args: &MachineUpdateArgs) -> Result<MachineConfig> {
    let mut config = from.clone();
    if let Some(image) = &args.image {
        config.image.clone_from(image);
    }
    config.metadata.extend(pairs(&args.metadata)?);
    config.env.extend(pairs(&args.env)?);
    if let Some(command) = &args.command {
        let words = hangar_config::words::split(command)
            .map_err(|e| Exit::Usage.with(format!("--command: {e}")))?;
        config.init.cmd = (!words.is_empty()).then_some(words);
    }
    if let Some(policy) = &args.restart {
        let policy = match policy.as_str() {
            "on-fail" | "on-failure" => "on-failure",
            "no" | "always" => policy,
            _ => {
                return Err(Exit::Usage.with(format!(
                    "--restart {policy:?}: use no, always or on-failure"
                )));
            }
        };
        config.restart.get_or_insert_default().policy = Some(policy.to_owned());
    }
    config.guest = Some(guest(config.guest.unwrap_or_default(), &args.vm)?);
    Ok(config)
}

/// Returns the size that flags make of one: the preset first, then the single numbers.
pub(in crate::commands) fn guest(from: Guest, vm: &VmArgs) -> Result<Guest> {
    let usage = |error: String| Exit::Usage.with(error);
    let mut guest = match &vm.vm_size {
        Some(name) => Guest::preset(name).map_err(|e| usage(e.to_string()))?,
        None => from,
    };
    if let Some(cpus) = vm.vm_cpus {
        guest.cpus = cpus;
    }
    if let Some(kind) = &vm.vm_cpu_kind {
        guest.cpu_kind.clone_from(kind);
    }
    if let Some(memory) = &vm.vm_memory {
        guest.memory_mb = memory_mb(memory)?;
    }
    guest.validate().map_err(|e| usage(e.to_string()))?;
    Ok(guest)
}

fn memory_mb(text: &str) -> Result<u64> {
    let size = hangar_config::size::parse(text, hangar_config::size::Unit::MemoryMb);
    let size = size.map_err(|e| Exit::Usage.with(format!("--vm-memory: {e}")))?;
    u64::try_from(size)
        .map_err(|_| Exit::Usage.with(format!("--vm-memory {text}: memory cannot be negative")))
}

/// Splits NAME=VALUE arguments.
pub(in crate::commands) fn pairs(list: &[String]) -> Result<Vec<(String, String)>> {
    list.iter()
        .map(|pair| match pair.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(Exit::Usage.with(format!(
                "must be provided as NAME=VALUE pairs ({pair} is invalid)"
            ))),
        })
        .collect()
}

/// Returns a line for each line of the JSON that goes or comes.
fn difference(from: &MachineConfig, to: &MachineConfig) -> Result<Vec<String>> {
    let (from, to) = (
        serde_json::to_string_pretty(from)?,
        serde_json::to_string_pretty(to)?,
    );
    let (old, new): (Vec<&str>, Vec<&str>) = (from.lines().collect(), to.lines().collect());
    let head = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let tail = old[head..]
        .iter()
        .rev()
        .zip(new[head..].iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    let gone = old[head..old.len() - tail]
        .iter()
        .map(|line| format!("- {line}"));
    let come = new[head..new.len() - tail]
        .iter()
        .map(|line| format!("+ {line}"));
    Ok(gone.chain(come).collect())
}

/// Returns the image by digest, so that a copy runs what its source runs.
pub(in crate::commands) fn pinned(machine: &hangar_api::machine::Machine) -> String {
    let image = &machine.image_ref;
    if image.digest.is_empty() || machine.config.image.contains('@') {
        return machine.config.image.clone();
    }
    format!("{}@{}", machine.config.image, image.digest)
}
