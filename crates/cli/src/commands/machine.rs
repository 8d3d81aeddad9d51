//! `hangar machine`.

mod act;
mod change;
mod disk;
mod edit;
mod inputs;
mod lease;
mod leases;
mod run;
mod select;
mod show;
mod suspend;
pub(super) mod wait;

pub(super) use act::{Restart, restart_one};
pub(super) use change::{Applied, apply, guest, pairs};
pub(super) use edit::apply as apply_edit;
pub(super) use inputs::read as read_inputs;
pub(super) use lease::{Leases, holding_all};
pub(super) use select::app_of;
pub(super) use show::{health, image as image_name};

use anyhow::Result;

use self::act::Cordon;
use self::run::Launch;
use crate::args::MachineCommand;
use crate::context::Context;
use crate::error::Exit;

pub(super) async fn run(context: &Context, command: MachineCommand) -> Result<Exit> {
    match command {
        MachineCommand::List { show, quiet } => show::list(context, &show, quiet).await,
        MachineCommand::Status {
            which,
            json,
            display_config,
        } => show::status(context, &which, json, display_config).await,
        MachineCommand::Run(args) if args.shell => run::shell(context, *args).await,
        MachineCommand::Run(args) => run::run(context, &args.run, Launch::Run).await,
        MachineCommand::Create(args) => run::run(context, &args, Launch::Create).await,
        MachineCommand::Clone(args) => change::clone(context, &args).await,
        MachineCommand::Update(args) => change::update(context, &args).await,
        MachineCommand::Start(ids) => act::start(context, &ids).await,
        MachineCommand::Stop(args) => act::stop(context, &args).await,
        MachineCommand::Restart(args) => act::restart(context, &args).await,
        MachineCommand::Suspend { ids, wait_timeout } => {
            suspend::suspend(context, &ids, wait_timeout).await
        }
        MachineCommand::Kill(which) => act::kill(context, &which).await,
        MachineCommand::Destroy {
            ids,
            force,
            image,
            yes,
        } => match image {
            Some(image) => act::destroy_image(context, &ids.app, &image, force, yes).await,
            None => act::destroy(context, &ids, force).await,
        },
        MachineCommand::Cordon(ids) => act::cordon(context, &ids, Cordon::On).await,
        MachineCommand::Uncordon(ids) => act::cordon(context, &ids, Cordon::Off).await,
        MachineCommand::Wait {
            which,
            state,
            wait_timeout,
        } => act::wait(context, &which, &state, &wait_timeout).await,
        MachineCommand::Leases(command) => leases::run(context, command).await,
        MachineCommand::Exec {
            id,
            command,
            app,
            timeout,
        } => act::exec(context, &app, &id, command, timeout).await,
    }
}
