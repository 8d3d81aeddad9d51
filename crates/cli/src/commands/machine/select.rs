//! Which Machines are meant: those named, else one chosen from a list.

use anyhow::Result;
use hangar_api::id::{AppName, MachineId};
use hangar_api::machine::Machine;
use hangar_client::MachineFilter;

use super::show::image;
use crate::args::{AppArgs, MachineIds, OneMachine};
use crate::context::Context;
use crate::error::Exit;
use crate::output;

/// Returns the app of the Machines: the one named, else the one that has the first of them.
pub(in crate::commands) async fn app_of(
    context: &Context,
    args: &AppArgs,
    id: &MachineId,
) -> Result<AppName> {
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

/// Returns the Machine that is meant, and its app.
pub(super) async fn one(context: &Context, which: &OneMachine) -> Result<(AppName, Machine)> {
    let id = match (&which.id, which.select) {
        (Some(_), true) => return Err(both()),
        (Some(id), false) => id.clone(),
        (None, _) => choose(context, &which.app).await?,
    };
    let app = app_of(context, &which.app, &id).await?;
    let machine = context.client.machine(&app, &id).await?;
    Ok((app, machine))
}

/// Returns the ids that are meant.
pub(super) async fn many(context: &Context, which: &MachineIds) -> Result<Vec<MachineId>> {
    match (which.ids.is_empty(), which.select) {
        (false, true) => Err(both()),
        (false, false) => Ok(which.ids.clone()),
        (true, _) => Ok(vec![choose(context, &which.app).await?]),
    }
}

fn both() -> anyhow::Error {
    Exit::Usage.with("machine IDs can't be used with --select")
}

async fn choose(context: &Context, args: &AppArgs) -> Result<MachineId> {
    if !output::is_interactive() {
        return Err(
            Exit::Usage.with("a machine ID must be specified when not running interactively")
        );
    }
    let app = context.app(args).await?.name;
    let machines = context
        .client
        .machines(&app, &MachineFilter::default())
        .await?;
    if machines.is_empty() {
        return Err(Exit::NotFound.with(format!("{app} has no Machines")));
    }
    let options: Vec<String> = machines
        .iter()
        .map(|m| {
            let group = m.process_group();
            let group = if group.is_empty() {
                String::new()
            } else {
                format!(" {group}")
            };
            format!("{} {} ({}){group} {}", m.id, m.state, m.region, image(m))
        })
        .collect();
    let at = output::choose("Select a machine:", &options)?;
    machines
        .get(at)
        .map(|m| m.id.clone())
        .ok_or_else(|| Exit::Usage.with("no such choice"))
}
