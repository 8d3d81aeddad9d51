//! `hangar regions`: the region pool of each process group (process-groups-and-deploy.md 7, 8.1).

use std::collections::BTreeMap;

use anyhow::Result;
use hangar_api::formation::{Formations, GroupFormation, GroupUpdate, PoolUpdate};
use hangar_api::id::{AppName, GroupName, Region};
use serde_json::json;

use super::formation::{Manner, Outcome, change};
use crate::args::{BackupArgs, RegionsArgs, RegionsCommand, RegionsHow, RegionsListArgs};
use crate::context::Context;
use crate::error::Exit;
use crate::output;

/// The word for no backup regions.
const NONE: &str = "none";

pub(super) async fn run(context: &Context, command: RegionsCommand) -> Result<Exit> {
    match command {
        RegionsCommand::List(args) => list(context, &args).await,
        RegionsCommand::Add(args) => {
            let change = |regions| GroupUpdate {
                add_regions: regions,
                ..GroupUpdate::default()
            };
            apply(context, args, change).await
        }
        RegionsCommand::Remove(args) => {
            let change = |regions| GroupUpdate {
                remove_regions: regions,
                ..GroupUpdate::default()
            };
            apply(context, args, change).await
        }
        RegionsCommand::Set(args) => {
            let change = |regions| GroupUpdate {
                regions: Some(PoolUpdate::Spread(regions)),
                ..GroupUpdate::default()
            };
            apply(context, args, change).await
        }
        RegionsCommand::Backup(BackupArgs { mut regions, how }) => {
            if regions.iter().any(|region| region.as_str() == NONE) {
                regions.clear();
            }
            let change = |regions| GroupUpdate {
                backup_regions: Some(regions),
                ..GroupUpdate::default()
            };
            apply(context, RegionsArgs { regions, how }, change).await
        }
    }
}

async fn list(context: &Context, args: &RegionsListArgs) -> Result<Exit> {
    let app = context.app(&args.app).await?.name;
    let formations = context.client.formations(&app).await?;
    let chosen = chosen(&app, formations, args.group.as_ref())?;
    if args.json {
        let groups: Vec<_> = chosen
            .iter()
            .map(|(group, formation)| {
                let regions: Vec<&Region> = formation.regions.keys().collect();
                json!({"Name": group, "Regions": regions, "BackupRegions": formation.backup_regions})
            })
            .collect();
        output::json(&json!({"ProcessGroupRegions": groups}))?;
        return Ok(Exit::Done);
    }
    for (group, formation) in &chosen {
        let pool = codes(formation.regions.keys(), ", ");
        output::data(&format!("Regions [{group}]: {pool}"))?;
        if !formation.backup_regions.is_empty() {
            let backup = codes(&formation.backup_regions, ", ");
            output::data(&format!("Backup Regions [{group}]: {backup}"))?;
        }
    }
    Ok(Exit::Done)
}

async fn apply(
    context: &Context,
    args: RegionsArgs,
    update: impl Fn(Vec<Region>) -> GroupUpdate,
) -> Result<Exit> {
    let RegionsArgs { regions, how } = args;
    let RegionsHow {
        app,
        group,
        yes,
        detach,
        json,
    } = how;
    let app = context.app(&app).await?.name;
    let formations = context.client.formations(&app).await?;
    let groups = chosen(&app, formations, group.as_ref())?.into_keys();
    let updates = groups.map(|group| (group, update(regions.clone())));
    let manner = Manner { yes, detach };
    match change(context, &app, updates.collect(), manner).await? {
        Outcome::Declined => Ok(Exit::Done),
        Outcome::Changed(formations) => {
            show(&chosen(&app, formations, group.as_ref())?, json)?;
            Ok(Exit::Done)
        }
    }
}

/// Returns the group that was named, or all.
fn chosen(
    app: &AppName,
    mut formations: Formations,
    group: Option<&GroupName>,
) -> Result<BTreeMap<GroupName, GroupFormation>> {
    let Some(group) = group else {
        if formations.groups.is_empty() {
            return Err(Exit::Failed.with(format!(
                "app {app} has no process groups yet. Run `hangar deploy` first"
            )));
        }
        return Ok(formations.groups);
    };
    match formations.groups.remove_entry(group) {
        Some(entry) => Ok([entry].into()),
        None => {
            let names: Vec<&str> = formations.groups.keys().map(GroupName::as_str).collect();
            Err(Exit::Usage.with(format!(
                "app {app} has no process group {group}; it has {}",
                names.join(", ")
            )))
        }
    }
}

/// Prints the pools after a change, as the first platform did; with the group's name where there
/// are several.
fn show(groups: &BTreeMap<GroupName, GroupFormation>, json: bool) -> Result<()> {
    if json {
        let record = |formation: &GroupFormation| {
            let regions: Vec<&Region> = formation.regions.keys().collect();
            json!({"Regions": regions, "BackupRegions": formation.backup_regions})
        };
        let mut all = groups.iter();
        return match (all.next(), all.next()) {
            (Some((_, only)), None) => output::json(&record(only)),
            _ => {
                let all = groups
                    .iter()
                    .map(|(group, f)| (group.to_string(), record(f)));
                output::json(&all.collect::<serde_json::Map<_, _>>())
            }
        };
    }
    for (group, formation) in groups {
        let of = if groups.len() > 1 {
            format!(" [{group}]")
        } else {
            String::new()
        };
        output::data(&format!("Region Pool{of}: "))?;
        output::data(&codes(formation.regions.keys(), "\n"))?;
        output::data(&format!("Backup Region{of}: "))?;
        if !formation.backup_regions.is_empty() {
            output::data(&codes(&formation.backup_regions, "\n"))?;
        }
    }
    Ok(())
}

fn codes<'a>(regions: impl IntoIterator<Item = &'a Region>, between: &str) -> String {
    let codes: Vec<&str> = regions.into_iter().map(Region::as_str).collect();
    codes.join(between)
}
