//! `hangar machine`.

mod act;
mod change;
mod show;
mod suspend;
pub(super) mod wait;

pub(super) use change::{guest, pairs};
pub(super) use show::{health, image as image_name};

use anyhow::Result;

use crate::args::MachineCommand;
use crate::context::Context;
use crate::error::Exit;

pub(super) async fn run(context: &Context, command: MachineCommand) -> Result<Exit> {
    match command {
        MachineCommand::List { show, quiet } => show::list(context, &show, quiet).await,
        MachineCommand::Status {
            id,
            show,
            display_config,
        } => show::status(context, &show, &id, display_config).await,
        MachineCommand::Clone {
            id,
            app,
            region,
            name,
            detach,
            vm,
        } => {
            let wanted = change::CloneInput {
                region,
                name,
                detach,
                vm,
            };
            change::clone(context, &app, &id, wanted).await
        }
        MachineCommand::Update(args) => change::update(context, args).await,
        MachineCommand::Start(ids) => act::start(context, &ids).await,
        MachineCommand::Stop {
            ids,
            signal,
            timeout,
        } => act::stop(context, &ids, signal.as_deref(), timeout).await,
        MachineCommand::Suspend { ids, wait_timeout } => {
            suspend::suspend(context, &ids, wait_timeout).await
        }
        MachineCommand::Restart {
            ids,
            signal,
            time,
            force,
            skip_health_checks,
        } => {
            let signal = if force {
                Some("SIGKILL".to_owned())
            } else {
                signal
            };
            act::restart(context, &ids, signal.as_deref(), time, skip_health_checks).await
        }
        MachineCommand::Destroy { ids, force } => act::destroy(context, &ids, force).await,
        MachineCommand::Exec {
            id,
            command,
            app,
            timeout,
        } => act::exec(context, &app, &id, command, timeout).await,
    }
}
