//! `hangar deployments`: what was begun with `deploy --detach`, or by somebody else.

use anyhow::Result;
use hangar_api::deployment::{Deployment, DeploymentStatus};
use hangar_api::id::{AppName, DeploymentId};

use super::follow;
use crate::args::{DeploymentCancelArgs, DeploymentsCommand, ShowArgs};
use crate::context::Context;
use crate::error::Exit;
use crate::output::{self, rfc3339};

pub(super) async fn run(context: &Context, command: DeploymentsCommand) -> Result<Exit> {
    match command {
        DeploymentsCommand::List(args) => list(context, &args).await,
        DeploymentsCommand::Show { id, show } => one(context, id, &show).await,
        DeploymentsCommand::Cancel(args) => cancel(context, args).await,
    }
}

async fn list(context: &Context, args: &ShowArgs) -> Result<Exit> {
    let app = context.app(&args.app).await?.name;
    let deployments = context.client.deployments(&app).await?;
    if args.json {
        output::json(&deployments)?;
        return Ok(Exit::Done);
    }
    let rows: Vec<Vec<String>> = deployments.iter().map(row).collect();
    let headers = ["ID", "Release", "Status", "User", "Begun", "Ended"];
    output::table(None, &headers, &rows)?;
    Ok(Exit::Done)
}

fn row(deployment: &Deployment) -> Vec<String> {
    let ended = deployment.finished_at.map(rfc3339);
    vec![
        deployment.id.to_string(),
        format!("v{}", deployment.version),
        status(deployment.status).to_owned(),
        deployment.user.clone(),
        rfc3339(deployment.created_at),
        ended.unwrap_or_else(|| "-".to_owned()),
    ]
}

fn status(status: DeploymentStatus) -> &'static str {
    match status {
        DeploymentStatus::Running => "running",
        DeploymentStatus::RollingBack => "rolling back",
        DeploymentStatus::Complete => "complete",
        DeploymentStatus::RolledBack => "rolled back",
        DeploymentStatus::Failed => "failed",
    }
}

async fn one(context: &Context, id: Option<DeploymentId>, args: &ShowArgs) -> Result<Exit> {
    let app = context.app(&args.app).await?.name;
    let deployment = match id {
        Some(id) => context.client.deployment(&app, &id).await?,
        None => find(context, &app, |_| true, "has no deployments yet").await?,
    };
    if args.json {
        output::json(&deployment)?;
        return Ok(Exit::Done);
    }
    let headers = ["ID", "Release", "Status", "User", "Begun", "Ended"];
    output::table(None, &headers, &[row(&deployment)])?;
    for event in &deployment.events {
        output::data(&format!("{} {}", rfc3339(event.at), event.message))?;
    }
    if let Some(error) = &deployment.error {
        output::data(&format!("Error: {error}"))?;
    }
    Ok(Exit::Done)
}

async fn cancel(context: &Context, args: DeploymentCancelArgs) -> Result<Exit> {
    let app = context.app(&args.app).await?.name;
    let deployment = match args.id {
        Some(id) => context.client.deployment(&app, &id).await?,
        None => {
            find(
                context,
                &app,
                |d| !d.status.is_over(),
                "is not being deployed",
            )
            .await?
        }
    };
    let (id, version) = (deployment.id.clone(), deployment.version);
    context.client.cancel_deployment(&app, &id).await?;
    output::say(&format!("Cancelling the deploy of v{version}"));
    if args.detach {
        return Ok(Exit::Done);
    }
    // How it ended is told below: that it failed is what was asked for.
    let followed = follow::to_the_end_undisturbed(context, deployment).await;
    let over = context.client.deployment(&app, &id).await?;
    match over.status {
        DeploymentStatus::RolledBack => {
            output::say(&format!("The deploy of v{version} is undone"));
            Ok(Exit::Done)
        }
        DeploymentStatus::Complete => Err(Exit::Failed.with(format!(
            "it was too late to cancel: the deploy of v{version} is complete; `hangar releases rollback` goes back"
        ))),
        DeploymentStatus::Failed | DeploymentStatus::Running | DeploymentStatus::RollingBack => {
            followed
        }
    }
}

/// Returns the newest deployment of a kind.
async fn find(
    context: &Context,
    app: &AppName,
    wanted: impl Fn(&Deployment) -> bool,
    else_it: &str,
) -> Result<Deployment> {
    let all = context.client.deployments(app).await?;
    all.into_iter()
        .find(wanted)
        .ok_or_else(|| Exit::NotFound.with(format!("app {app} {else_it}")))
}
