//! `hangar ssh console`: a shell or a command in a Machine that runs. No ssh is needed: it goes
//! over the API.

use anyhow::Result;
use hangar_api::id::AppName;
use hangar_api::machine::{Machine, MachineState};
use hangar_client::MachineFilter;

use super::session::{self, Terminal};
use super::target;
use crate::args::{SshArgs, SshCommand};
use crate::context::Context;
use crate::error::Exit;
use crate::output;

pub(super) async fn run(context: &Context, command: SshCommand) -> Result<Exit> {
    let SshCommand::Console(args) = command;
    let command = session::words(args.run.command.as_deref())?;
    let (app, machine) = machine(context, &args).await?;
    let kind = match (&args.run.command, args.pty) {
        (_, true) => Terminal::Always,
        (None, false) => Terminal::IfThere,
        (Some(_), false) => Terminal::Never,
    };
    session::run(context, (&app, &machine.id), command, &args.run, kind).await
}

async fn machine(context: &Context, args: &SshArgs) -> Result<(AppName, Machine)> {
    if args.select && args.machine.is_some() {
        return Err(Exit::Usage.with("--machine can't be used with -s/--select"));
    }
    let target = args
        .address
        .as_deref()
        .map(target::parse)
        .transpose()
        .map_err(|error| Exit::Usage.with(error))?;
    let named = target.as_ref().and_then(|target| target.app.clone());
    let app = match named {
        Some(app) => app,
        None => match &args.machine {
            Some(id) => super::machine::app_of(context, &args.app, id).await?,
            None => context.app(&args.app).await?.name,
        },
    };
    let mut machines = started(context, &app).await?;
    if let Some(id) = &args.machine {
        machines.retain(|m| m.id == *id);
        let missing = || Exit::NotFound.with(format!("--machine={id:?} not found/started"));
        let found = machines.into_iter().next().ok_or_else(missing)?;
        return Ok((app, found));
    }
    if machines.is_empty() {
        return Err(Exit::Failed.with(format!(
            "app {app} has no started VMs.\nIt may be unhealthy or not have been deployed yet.\nTry the following command to verify:\n\nhangar status"
        )));
    }
    let empty = |what: String| Exit::Failed.with(format!("app {app} has no VMs {what}"));
    if let Some(region) = &args.region {
        machines.retain(|m| m.region == *region);
        if machines.is_empty() {
            return Err(empty(format!("in region {region}")));
        }
    }
    if let Some(group) = &args.process_group {
        machines.retain(|m| m.process_group() == group.as_str());
        if machines.is_empty() {
            return Err(empty(format!("in process group {group}")));
        }
    }
    if let Some(target) = &target {
        machines.retain(|m| target.is(m));
        if machines.is_empty() {
            return Err(empty("at that address that is started".to_owned()));
        }
    }
    let at = if args.select { choose(&machines)? } else { 0 };
    let missing = || Exit::Usage.with("nothing was chosen");
    let machine = machines.into_iter().nth(at).ok_or_else(missing)?;
    Ok((app, machine))
}

/// Returns the started Machines of an app.
pub(super) async fn started(context: &Context, app: &AppName) -> Result<Vec<Machine>> {
    let mut machines = context
        .client
        .machines(app, &MachineFilter::default())
        .await?;
    machines.retain(|m| m.state == MachineState::Started);
    Ok(machines)
}

/// Lets one be chosen.
pub(super) fn choose(machines: &[Machine]) -> Result<usize> {
    if !output::is_interactive() {
        return Err(Exit::Usage.with("--select needs a terminal to choose on"));
    }
    let options: Vec<String> = machines.iter().map(shown).collect();
    output::choose("Select VM:", &options)
}

/// Returns a Machine as a list to choose from shows it.
pub(super) fn shown(machine: &Machine) -> String {
    format!(
        "{}: {} {} {} {}",
        machine.region,
        machine.id,
        machine.process_group(),
        machine.private_ip,
        machine.name
    )
}
