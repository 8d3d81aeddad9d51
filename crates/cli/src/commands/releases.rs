//! `hangar releases`.

use anyhow::Result;
use hangar_api::deployment::{CreateDeployment, DeploymentSource};
use hangar_api::release::{Release, ReleaseStatus};

use super::deploy::options_of;
use super::follow;
use crate::args::{AppArgs, ReleasesArgs, ReleasesCommand, ShowArgs};
use crate::context::Context;
use crate::error::Exit;
use crate::output::{self, rfc3339};

/// As many as flyctl shows.
const SHOWN: usize = 25;
/// Releases looked through for an earlier complete one: all that are kept.
const SEARCHED: usize = 100;

pub(super) async fn run(context: &Context, args: ReleasesArgs) -> Result<Exit> {
    match args.command {
        Some(ReleasesCommand::Rollback {
            version,
            app,
            detach,
        }) => {
            let app = AppArgs {
                app: app.app.or(args.show.app.app),
                config: app.config.or(args.show.app.config),
            };
            rollback(context, &app, version.as_deref(), detach).await
        }
        None => list(context, &args.show, args.image).await,
    }
}

async fn list(context: &Context, args: &ShowArgs, image: bool) -> Result<Exit> {
    let app = context.app(&args.app).await?.name;
    let releases = context.client.releases(&app, SHOWN).await?;
    if args.json {
        output::json(&releases)?;
        return Ok(Exit::Done);
    }
    let rows: Vec<Vec<String>> = releases
        .iter()
        .map(|r| {
            let mut row = vec![
                format!("v{}", r.version),
                r.status.to_string(),
                r.description.clone(),
                r.user.clone(),
                rfc3339(r.created_at),
            ];
            row.extend(image.then(|| format!("{}@{}", r.image_ref.repository, r.image_ref.digest)));
            row
        })
        .collect();
    let mut headers = vec!["Version", "Status", "Description", "User", "Date"];
    headers.extend(image.then_some("Docker Image"));
    output::table(None, &headers, &rows)?;
    Ok(Exit::Done)
}

async fn rollback(
    context: &Context,
    args: &AppArgs,
    version: Option<&str>,
    detach: bool,
) -> Result<Exit> {
    let app = context.app(args).await?.name;
    let version: u64 = match version {
        Some(text) => text.trim_start_matches('v').parse().map_err(|_| {
            Exit::Usage.with(format!(
                "{text:?} is not a release: say its number, such as v3 (see `hangar releases`)"
            ))
        })?,
        None => before_current(context, args).await?,
    };
    let release = context.client.release(&app, version).await?;
    output::say(&format!("Rolling {app} back to v{version}"));
    let body = CreateDeployment {
        source: DeploymentSource::Release { version },
        options: options_of(&release.definition),
        dry_run: false,
    };
    let deployment = context.client.create_deployment(&app, &body).await?;
    follow::to_the_end(context, deployment, detach).await
}

/// Returns the release whose configuration is the app's, of releases newest first: the newest
/// complete one, else the newest.
pub(super) fn current(releases: &[Release]) -> Option<&Release> {
    let complete = |release: &&Release| release.status == ReleaseStatus::Complete;
    releases.iter().find(complete).or(releases.first())
}

/// Returns the complete release before the newest complete one.
async fn before_current(context: &Context, args: &AppArgs) -> Result<u64> {
    let app = context.app(args).await?.name;
    let releases = context.client.releases(&app, SEARCHED).await?;
    let mut complete = releases
        .iter()
        .filter(|r| r.status == ReleaseStatus::Complete)
        .map(|r| r.version);
    let (_current, before) = (complete.next(), complete.next());
    before.ok_or_else(|| {
        Exit::Failed.with(format!(
            "{app} has no earlier complete release to go back to"
        ))
    })
}
