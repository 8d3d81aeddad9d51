//! `machine run` and `machine create`.

use anyhow::Result;
use hangar_api::id::AppName;
use hangar_api::machine::{LaunchInput, MachineConfig};

use super::super::console::{SLEEP, while_it_lasts};
use super::super::session::{self, Terminal};
use super::edit::{self, mounts};
use super::wait::{self, Settle};
use super::{disk, inputs};
use crate::args::{CommandArgs, MachineRunArgs, RunArgs};
use crate::context::{self, Context};
use crate::error::Exit;
use crate::output;

/// Whether the new Machine is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Launch {
    Run,
    Create,
}

pub(super) async fn run(context: &Context, args: &MachineRunArgs, how: Launch) -> Result<Exit> {
    let config = config(args)?;
    let Some(app) = app(context, args).await? else {
        return Ok(Exit::Done);
    };
    disk::ensure_free(context, &app, &config.mounts, args.region.as_ref()).await?;
    let skip_launch = how == Launch::Create || !config.standbys.is_empty();
    let input = LaunchInput {
        config: Some(config),
        name: args.name.clone(),
        region: args.region.as_ref().map(ToString::to_string),
        skip_launch,
        ..LaunchInput::default()
    };
    let made = context.client.create_machine(&app, &input).await?;
    let verb = match how {
        Launch::Run => "launched",
        Launch::Create => "created",
    };
    output::data(&format!(
        "Success! A Machine has been successfully {verb} in app {app}\n Machine ID: {}\n Instance ID: {}\n State: {}",
        made.id, made.instance_id, made.state
    ))?;
    if skip_launch {
        return Ok(Exit::Done);
    }
    output::data("\n Attempting to start machine...\n")?;
    wait::settle(context, &app, &made.id, Settle::Started).await?;
    if !args.detach {
        output::data("==> Monitoring health checks")?;
        wait::settle(context, &app, &made.id, Settle::Healthy).await?;
        output::data("")?;
    }
    output::data(&format!(
        "Machine started, you can connect via the following private ip\n  {}",
        made.private_ip
    ))?;
    Ok(Exit::Done)
}

/// Opens a shell in a Machine that is made for it.
pub(super) async fn shell(context: &Context, mut args: RunArgs) -> Result<Exit> {
    args.run.rm = true;
    let mut config = config(&args.run)?;
    if config.init.cmd.is_none() {
        config.init.exec = Some(SLEEP.map(str::to_owned).to_vec());
    }
    let command = session::words(args.shell_command.as_deref())?;
    let Some(app) = app(context, &args.run).await? else {
        return Ok(Exit::Done);
    };
    disk::ensure_free(context, &app, &config.mounts, args.run.region.as_ref()).await?;
    let input = LaunchInput {
        config: Some(config),
        name: args.run.name.clone(),
        region: args.run.region.as_ref().map(ToString::to_string),
        ..LaunchInput::default()
    };
    let made = context.client.create_machine(&app, &input).await?;
    output::say(&format!(
        "Success! A Machine has been successfully launched in app {app}\n Machine ID: {}",
        made.id
    ));
    let who = CommandArgs {
        command: args.shell_command,
        user: args.user,
    };
    while_it_lasts(context, &app, &made, async {
        session::run(context, (&app, &made.id), command, &who, Terminal::IfThere).await
    })
    .await
}

fn config(args: &MachineRunArgs) -> Result<MachineConfig> {
    if args.image.trim().is_empty() {
        return Err(Exit::Usage.with("image argument can't be an empty string"));
    }
    let from = MachineConfig {
        auto_destroy: args.rm,
        ..MachineConfig::default()
    };
    let edit = inputs::read(&args.config)?;
    let edited = edit::apply(from, &edit).map_err(|error| Exit::Usage.with(error))?;
    let mut notes = edited.notes;
    let mut config = edited.config;
    config.mounts = mounts::apply(config.mounts, &args.volume, &mut notes)
        .map_err(|error| Exit::Usage.with(error))?;
    for note in &notes {
        output::say(note);
    }
    config.image.clone_from(&args.image);
    let says_nothing = args.config.restart.is_none() && config.restart.is_none();
    if says_nothing && config.schedule().is_ok_and(|schedule| schedule.is_some()) {
        // Written down, so that a deploy takes one that ends well for a job, not for a crash.
        config.restart.get_or_insert_default().policy = Some("on-failure".to_owned());
    }
    if !args.command.is_empty() {
        config.init.cmd = Some(args.command.clone());
    }
    Ok(config)
}

/// Returns the app, made when it is not there and somebody says yes.
async fn app(context: &Context, args: &MachineRunArgs) -> Result<Option<AppName>> {
    let name = context.app(&args.app).await?.name;
    match context.client.app(&name).await {
        Ok(_) => Ok(Some(name)),
        Err(error) if error.status() == Some(404) => {
            let question = format!("App '{name}' does not exist, would you like to create it?");
            if !output::is_interactive() {
                return Err(Exit::NotFound.with(format!(
                    "{error}: create it first with `hangar apps create {name}`"
                )));
            }
            if !output::confirm(&question)? {
                return Ok(None);
            }
            context
                .client
                .create_app(&name, context::org().as_deref(), None)
                .await?;
            Ok(Some(name))
        }
        Err(error) => Err(error.into()),
    }
}
