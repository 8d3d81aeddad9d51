//! Start, stop, restart, kill, destroy, cordon, wait, exec.

use std::time::Duration;

use anyhow::Result;
use hangar_api::exec::ExecRequest;
use hangar_api::id::{AppName, MachineId};
use hangar_api::machine::{Machine, MachineState};
use hangar_client::MachineFilter;

use super::lease::holding;
use super::select::{self, app_of};
use super::show;
use super::wait::{self, Settle};
use crate::args::{AppArgs, MachineIds, OneMachine, RestartArgs, StopArgs};
use crate::context::Context;
use crate::error::Exit;
use crate::output;

pub(super) async fn start(context: &Context, which: &MachineIds) -> Result<Exit> {
    for id in &select::many(context, which).await? {
        let app = app_of(context, &which.app, id).await?;
        holding(context, &app, id, async |nonce| {
            let machine = context.client.machine(&app, id).await?;
            if machine.state != MachineState::Started {
                let newest = machine.events.first().map(|event| event.id.clone());
                context.client.start_machine(&app, id, nonce).await?;
                wait::restarted(context, &app, id, newest.as_ref()).await?;
            }
            Ok(())
        })
        .await?;
        output::data(&format!("{id} has been started"))?;
    }
    Ok(Exit::Done)
}

pub(super) async fn stop(context: &Context, how: &StopArgs) -> Result<Exit> {
    let which = &how.ids;
    let timeout = how.timeout.map(|t| Duration::from_secs(u64::from(t)));
    let signal = how.signal.as_deref();
    let limit = match &how.wait_timeout {
        Some(text) => wait::duration("--wait-timeout", text)?,
        None => wait::LIMIT,
    };
    for id in &select::many(context, which).await? {
        let app = app_of(context, &which.app, id).await?;
        output::say(&format!("Sending kill signal to machine {id}..."));
        holding(context, &app, id, async |nonce| {
            context
                .client
                .stop_machine(&app, id, signal, timeout, nonce)
                .await?;
            wait::state_within(context, &app, id, "stopped", limit).await
        })
        .await?;
        output::data(&format!("{id} has been successfully stopped"))?;
    }
    Ok(Exit::Done)
}

/// How Machines are restarted.
#[derive(Debug)]
pub(in crate::commands) struct Restart {
    pub(in crate::commands) signal: Option<String>,
    pub(in crate::commands) time: Option<u32>,
    pub(in crate::commands) skip_health_checks: bool,
}

pub(super) async fn restart(context: &Context, args: &RestartArgs) -> Result<Exit> {
    let how = Restart {
        signal: if args.force {
            Some("SIGKILL".to_owned())
        } else {
            args.signal.clone()
        },
        time: args.time,
        skip_health_checks: args.skip_health_checks,
    };
    for id in &select::many(context, &args.ids).await? {
        let app = app_of(context, &args.ids.app, id).await?;
        restart_one(context, &app, id, &how).await?;
        output::data(&format!("Machine {id} restarted successfully!"))?;
    }
    Ok(Exit::Done)
}

/// Restarts a Machine under its lease and waits for it.
pub(in crate::commands) async fn restart_one(
    context: &Context,
    app: &AppName,
    id: &MachineId,
    how: &Restart,
) -> Result<()> {
    let timeout = how.time.map(|t| Duration::from_secs(u64::from(t)));
    holding(context, app, id, async |nonce| {
        let machine = context.client.machine(app, id).await?;
        let newest = machine.events.first().map(|event| event.id.clone());
        context
            .client
            .restart_machine(app, id, how.signal.as_deref(), timeout, nonce)
            .await?;
        wait::restarted(context, app, id, newest.as_ref()).await?;
        if !how.skip_health_checks {
            wait::settle(context, app, id, Settle::Healthy).await?;
        }
        Ok(())
    })
    .await
}

/// Sends SIGKILL. Signals are not gated by leases.
pub(super) async fn kill(context: &Context, which: &OneMachine) -> Result<Exit> {
    let (app, machine) = select::one(context, which).await?;
    let (id, state) = (&machine.id, machine.state);
    if state == MachineState::Destroyed {
        return Err(Exit::Failed.with(format!("machine {id} has already been destroyed")));
    }
    output::data(&format!(
        "machine {id} was found and is currently in a {state} state, attempting to kill..."
    ))?;
    context
        .client
        .signal_machine(&app, id, "SIGKILL", None)
        .await?;
    output::data("kill signal has been sent")?;
    Ok(Exit::Done)
}

pub(super) async fn destroy(context: &Context, which: &MachineIds, force: bool) -> Result<Exit> {
    for id in &select::many(context, which).await? {
        let app = app_of(context, &which.app, id).await?;
        destroy_one(context, &app, id, force).await?;
    }
    Ok(Exit::Done)
}

/// Destroys all Machines of an app that run an image, once somebody has said yes.
pub(super) async fn destroy_image(
    context: &Context,
    args: &AppArgs,
    image: &str,
    force: bool,
    yes: bool,
) -> Result<Exit> {
    let app = context.app(args).await?.name;
    let all = context
        .client
        .machines(&app, &MachineFilter::default())
        .await?;
    let found: Vec<&Machine> = all.iter().filter(|m| show::runs_image(m, image)).collect();
    if found.is_empty() {
        output::say("No machine to destroy, exiting");
        return Ok(Exit::Done);
    }
    let ids: Vec<&str> = found.iter().map(|m| m.id.as_str()).collect();
    let question = format!(
        "{} Machines ({}) will be destroyed, continue?",
        ids.len(),
        ids.join(",")
    );
    if !yes && !output::confirm(&question)? {
        return Ok(Exit::Done);
    }
    for machine in found {
        destroy_one(context, &app, &machine.id, force).await?;
    }
    Ok(Exit::Done)
}

async fn destroy_one(context: &Context, app: &AppName, id: &MachineId, force: bool) -> Result<()> {
    holding(context, app, id, async |nonce| {
        let state = context.client.machine(app, id).await?.state;
        let refusal = match state {
            MachineState::Destroyed => Some(format!("machine {id} has already been destroyed")),
            MachineState::Started if !force => Some(format!(
                "Machine {id} is currently started, either stop first or use --force flag"
            )),
            MachineState::Stopped | MachineState::Created | MachineState::Failed => None,
            _ if !force && state.as_str() != "suspended" => Some(format!(
                "machine {id} is in a {state} state and cannot be destroyed since it is not stopped or suspended, either stop first or use --force flag"
            )),
            _ => None,
        };
        if let Some(text) = refusal {
            return Err(Exit::Failed.with(text));
        }
        output::say(&format!(
            "machine {id} was found and is currently in {state} state, attempting to destroy..."
        ));
        context.client.destroy_machine(app, id, force, nonce).await?;
        wait::state(context, app, id, "destroyed").await
    })
    .await?;
    output::data(&format!("{id} has been destroyed"))
}

/// Whether a Machine takes part in what the proxy does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cordon {
    On,
    Off,
}

pub(super) async fn cordon(context: &Context, which: &MachineIds, to: Cordon) -> Result<Exit> {
    for id in &select::many(context, which).await? {
        let app = app_of(context, &which.app, id).await?;
        let word = match to {
            Cordon::On => "Activating",
            Cordon::Off => "Deactivating",
        };
        output::data(&format!("{word} cordon on machine {id}..."))?;
        holding(context, &app, id, async |nonce| {
            match to {
                Cordon::On => context.client.cordon_machine(&app, id, nonce).await?,
                Cordon::Off => context.client.uncordon_machine(&app, id, nonce).await?,
            };
            Ok(())
        })
        .await?;
        output::data("done!")?;
    }
    Ok(Exit::Done)
}

pub(super) async fn wait(
    context: &Context,
    which: &OneMachine,
    state: &str,
    timeout: &str,
) -> Result<Exit> {
    if state.is_empty() {
        return Err(Exit::Usage.with("state cannot be empty"));
    }
    let limit = wait::duration("--wait-timeout", timeout)?;
    let (app, machine) = select::one(context, which).await?;
    let id = &machine.id;
    output::say(&format!(
        "Waiting up to {timeout} for machine {id} to reach {state:?}..."
    ));
    wait::state_within(context, &app, id, state, limit)
        .await
        .map_err(|error| {
            let text = format!("machine {id} did not reach {state:?} within {timeout}: {error:#}");
            Exit::of(&error).with(text)
        })?;
    let reached = if state == "settled" {
        context.client.machine(&app, id).await?.state.to_string()
    } else {
        state.to_owned()
    };
    output::data(&format!("Machine {id} reached state {reached:?}"))?;
    Ok(Exit::Done)
}

pub(super) async fn exec(
    context: &Context,
    app: &AppArgs,
    id: &MachineId,
    command: Vec<String>,
    timeout: Option<u64>,
) -> Result<Exit> {
    let app = app_of(context, app, id).await?;
    let answer = context
        .client
        .exec(&app, id, &request(command, timeout))
        .await?;
    output::raw(&answer.stdout, &answer.stderr)?;
    let code = u8::try_from(answer.exit_code & 0xff).unwrap_or(1);
    if answer.truncated {
        // Half of an output is no success, whatever the command says.
        return Err(Exit::Command(code.max(1)).with(
            "the output was cut at 1 MiB: write it to a file in the Machine, or fetch it in parts",
        ));
    }
    Ok(Exit::Command(code))
}

/// One word that holds spaces is a command line, as flyctl takes it; more are the command.
fn request(command: Vec<String>, timeout: Option<u64>) -> ExecRequest {
    match command.as_slice() {
        [line] if line.contains(' ') => ExecRequest {
            cmd: Some(line.clone()),
            timeout,
            ..ExecRequest::default()
        },
        _ => ExecRequest {
            command,
            timeout,
            ..ExecRequest::default()
        },
    }
}
