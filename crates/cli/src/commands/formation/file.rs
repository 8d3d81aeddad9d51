//! `hangar formation show|set`: what all groups should have, as a file.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use hangar_api::formation::{FormationUpdate, Formations, GroupUpdate, PoolUpdate};
use hangar_api::id::{AppName, GroupName};
use hangar_api::release::ReleaseStatus;

use super::super::migrate::read;
use super::{Manner, Outcome, change, machines};
use crate::args::{FormationCommand, FormationSetArgs, ShowArgs};
use crate::context::Context;
use crate::error::Exit;
use crate::output;

/// Releases looked through for a complete one.
const RELEASES: usize = 100;

pub(in crate::commands) async fn run(context: &Context, command: FormationCommand) -> Result<Exit> {
    match command {
        FormationCommand::Show(args) => show(context, &args).await,
        FormationCommand::Set(args) => set(context, args).await,
    }
}

async fn show(context: &Context, args: &ShowArgs) -> Result<Exit> {
    let app = context.app(&args.app).await?.name;
    let formations = context.client.formations(&app).await?;
    if args.json {
        output::json(&as_file(formations))?;
        return Ok(Exit::Done);
    }
    let row = |(group, formation): (&GroupName, &hangar_api::formation::GroupFormation)| {
        let regions = formation.regions.iter();
        let regions: Vec<String> = regions.map(|(r, n)| format!("{r}({n})")).collect();
        let backup = formation.backup_regions.iter();
        let backup: Vec<&str> = backup.map(hangar_api::id::Region::as_str).collect();
        let dash = || "-".to_owned();
        vec![
            group.to_string(),
            formation.count.to_string(),
            regions.join(","),
            if backup.is_empty() {
                dash()
            } else {
                backup.join(",")
            },
            formation
                .max_per_region
                .map_or_else(dash, |max| max.to_string()),
            formation
                .guest
                .as_ref()
                .map_or_else(dash, |guest| guest.size_name()),
        ]
    };
    let rows: Vec<Vec<String>> = formations.groups.iter().map(row).collect();
    let headers = [
        "Name",
        "Count",
        "Regions",
        "Backup",
        "Max per region",
        "Size",
    ];
    output::table(None, &headers, &rows)?;
    Ok(Exit::Done)
}

/// Returns formations in the form in which `set` takes them.
fn as_file(formations: Formations) -> FormationUpdate {
    let groups = formations.groups.into_iter().map(|(group, formation)| {
        let update = GroupUpdate {
            regions: Some(PoolUpdate::Exact(formation.regions)),
            backup_regions: Some(formation.backup_regions),
            max_per_region: Some(formation.max_per_region.unwrap_or(0)),
            guest: formation.guest,
            ..GroupUpdate::default()
        };
        (group, update)
    });
    FormationUpdate {
        groups: groups.collect(),
        dry_run: false,
    }
}

async fn set(context: &Context, args: FormationSetArgs) -> Result<Exit> {
    let groups = parse(&args.file, &read(&args.file)?)?;
    let app = context.app(&args.app).await?.name;
    if is_empty(context, &app).await? {
        let update = FormationUpdate {
            groups,
            dry_run: false,
        };
        context.client.update_formations(&app, &update).await?;
        output::say(&format!(
            "The formation of app {app} is set: its first deploy begins with that"
        ));
        return Ok(Exit::Done);
    }
    let manner = Manner {
        yes: args.yes,
        detach: args.detach,
    };
    if let Outcome::Changed(_) = change(context, &app, groups, manner).await? {
        output::say(&format!("The formation of app {app} is set"));
    }
    Ok(Exit::Done)
}

/// Reads a file; what is wrong with it is said with its place.
fn parse(file: &Path, text: &str) -> Result<BTreeMap<GroupName, GroupUpdate>> {
    let refused = |why: String| Exit::Usage.with(format!("{}: {why}", file.display()));
    let update: FormationUpdate =
        serde_json::from_str(text).map_err(|error| refused(error.to_string()))?;
    if update.dry_run {
        let why = "\"dry_run\" is not for files: without --yes it is shown before anything is done";
        return Err(refused(why.to_owned()));
    }
    if update.groups.is_empty() {
        let why = "it names no group: write {\"groups\": {\"web\": {\"count\": 2, \"regions\": [\"iad\"]}}}";
        return Err(refused(why.to_owned()));
    }
    Ok(update.groups)
}

/// Returns whether nothing is there that a formation would change at once.
async fn is_empty(context: &Context, app: &AppName) -> Result<bool> {
    let releases = context.client.releases(app, RELEASES).await?;
    let is_deployed = releases.iter().any(|r| r.status == ReleaseStatus::Complete);
    Ok(!is_deployed && machines(context, app).await?.is_empty())
}
