//! Start, stop, restart, destroy, exec.

use std::time::Duration;

use anyhow::Result;
use hangar_api::exec::ExecRequest;
use hangar_api::id::{AppName, MachineId};
use hangar_api::machine::MachineState;

use super::wait::{self, Settle};
use crate::args::{AppArgs, MachineIds};
use crate::context::Context;
use crate::error::Exit;
use crate::output;

/// Returns the app of the Machines: the one named, else the one that has the first of them.
pub(super) async fn app_of(context: &Context, args: &AppArgs, id: &MachineId) -> Result<AppName> {
    if let Some(choice) = crate::context::named_app(args)? {
        let app = choice.name;
        return match context.client.machine(&app, id).await {
            Ok(_) => Ok(app),
            Err(error) if error.status() == Some(404) => {
                Err(Exit::NotFound.with(format!("app {app} has no Machine {id}: {error}")))
            }
            Err(error) => Err(error.into()),
        };
    }
    for app in context.client.apps().await?.apps {
        match context.client.machine(&app.name, id).await {
            Ok(_) => return Ok(app.name),
            Err(error) if error.status() == Some(404) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Exit::NotFound.with(format!("no app has a Machine {id}")))
}

pub(super) async fn start(context: &Context, ids: &MachineIds) -> Result<Exit> {
    for id in &ids.ids {
        let app = app_of(context, &ids.app, id).await?;
        let machine = context.client.machine(&app, id).await?;
        if machine.state != MachineState::Started {
            let newest = machine.events.first().map(|event| event.id.clone());
            context.client.start_machine(&app, id, None).await?;
            wait::restarted(context, &app, id, newest.as_ref()).await?;
        }
        output::data(&format!("{id} has been started"))?;
    }
    Ok(Exit::Done)
}

pub(super) async fn stop(
    context: &Context,
    ids: &MachineIds,
    signal: Option<&str>,
    timeout: Option<u32>,
) -> Result<Exit> {
    let timeout = timeout.map(|t| Duration::from_secs(u64::from(t)));
    for id in &ids.ids {
        let app = app_of(context, &ids.app, id).await?;
        context
            .client
            .stop_machine(&app, id, signal, timeout, None)
            .await?;
        wait::state(context, &app, id, "stopped").await?;
        output::data(&format!("{id} has been successfully stopped"))?;
    }
    Ok(Exit::Done)
}

pub(super) async fn restart(
    context: &Context,
    ids: &MachineIds,
    signal: Option<&str>,
    timeout: Option<u32>,
    skip_health_checks: bool,
) -> Result<Exit> {
    let timeout = timeout.map(|t| Duration::from_secs(u64::from(t)));
    for id in &ids.ids {
        let app = app_of(context, &ids.app, id).await?;
        let newest = context
            .client
            .machine(&app, id)
            .await?
            .events
            .first()
            .map(|event| event.id.clone());
        context
            .client
            .restart_machine(&app, id, signal, timeout, None)
            .await?;
        wait::restarted(context, &app, id, newest.as_ref()).await?;
        if !skip_health_checks {
            wait::settle(context, &app, id, Settle::Healthy).await?;
        }
        output::data(&format!("Machine {id} restarted successfully!"))?;
    }
    Ok(Exit::Done)
}

pub(super) async fn destroy(context: &Context, ids: &MachineIds, force: bool) -> Result<Exit> {
    for id in &ids.ids {
        let app = app_of(context, &ids.app, id).await?;
        let machine = context.client.machine(&app, id).await?;
        if !force && machine.state == MachineState::Started {
            let text =
                format!("Machine {id} is currently started, either stop first or use --force flag");
            return Err(Exit::Failed.with(text));
        }
        context
            .client
            .destroy_machine(&app, id, force, None)
            .await?;
        wait::state(context, &app, id, "destroyed").await?;
        output::data(&format!("{id} has been destroyed"))?;
    }
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
