//! `hangar secrets`.

use std::collections::BTreeMap;
use std::io::Read;

use anyhow::{Context as _, Result};
use hangar_api::deployment::{CreateDeployment, DeployOptions, DeploymentSource};
use hangar_api::id::AppName;
use hangar_api::secret::{Secret, SecretStatus, SecretsUpdate};
use hangar_client::MachineFilter;
use serde_json::json;

use super::deploy::options_of;
use super::follow;
use super::machine::pairs;
use super::releases::current;
use crate::args::{SecretsArgs, SecretsCommand, ShowArgs};
use crate::context::Context;
use crate::error::Exit;
use crate::output;

mod lines;

/// Releases looked through for the newest complete one.
const RELEASES: usize = 25;

pub(super) async fn run(context: &Context, command: SecretsCommand) -> Result<Exit> {
    match command {
        SecretsCommand::List(args) => list(context, &args).await,
        SecretsCommand::Set { secrets, how } => {
            let values = pairs(&secrets)?
                .into_iter()
                .map(|(name, value)| (name, Some(value)))
                .collect();
            apply(context, values, &how).await
        }
        SecretsCommand::Unset { names, how } => {
            apply(
                context,
                names.into_iter().map(|name| (name, None)).collect(),
                &how,
            )
            .await
        }
        SecretsCommand::Import { how } => {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .context("read secrets from standard input")?;
            let values = lines::parse(&text).map_err(|error| Exit::Usage.with(error))?;
            apply(
                context,
                values
                    .into_iter()
                    .map(|(name, value)| (name, Some(value)))
                    .collect(),
                &how,
            )
            .await
        }
    }
}

async fn list(context: &Context, args: &ShowArgs) -> Result<Exit> {
    let app = context.app(&args.app).await?.name;
    let secrets = context.client.secrets(&app).await?.secrets;
    if args.json {
        let all: Vec<_> = secrets
            .iter()
            .map(|s| json!({"name": s.name, "digest": s.digest, "status": status(s)}))
            .collect();
        output::json(&all)?;
    } else {
        let rows: Vec<Vec<String>> = secrets
            .iter()
            .map(|s| {
                let mark = match s.status {
                    Some(SecretStatus::Staged) => "* ",
                    Some(SecretStatus::Partial) => "! ",
                    _ => "",
                };
                let status = status(s).to_string();
                vec![format!("{mark}{}", s.name), s.digest.clone(), status]
            })
            .collect();
        output::table(None, &["Name", "Digest", "Status"], &rows)?;
    }
    Ok(Exit::Done)
}

fn status(secret: &Secret) -> SecretStatus {
    secret.status.unwrap_or(SecretStatus::Unknown)
}

async fn apply(
    context: &Context,
    values: BTreeMap<String, Option<String>>,
    how: &SecretsArgs,
) -> Result<Exit> {
    let app = context.app(&how.app).await?.name;
    if values.is_empty() {
        return Err(Exit::Usage.with("no secrets were given"));
    }
    context
        .client
        .update_secrets(&app, &SecretsUpdate { values })
        .await?;
    if how.stage {
        output::data(
            "Secrets have been staged, but not set on VMs. Deploy or update machines in this app for the secrets to take effect.",
        )?;
        return Ok(Exit::Done);
    }
    // Whatever becomes of the restart: what was said is stored.
    restart(context, &app, how.detach).await.map_err(|error| {
        let text = format!(
            "{error:#}\nThe secrets are stored: Machines get them when they are next deployed or updated"
        );
        Exit::of(&error).with(text)
    })
}

/// Takes the new secrets to the Machines: a restart-only deployment.
async fn restart(context: &Context, app: &AppName, detach: bool) -> Result<Exit> {
    let machines = context
        .client
        .machines(app, &MachineFilter::default())
        .await?;
    if !machines.iter().any(|m| m.config.is_managed()) {
        output::data("Secrets are staged for the first deployment")?;
        return Ok(Exit::Done);
    }
    let releases = context.client.releases(app, RELEASES).await?;
    let body = CreateDeployment {
        source: DeploymentSource::Restart {
            description: "Secrets".to_owned(),
        },
        options: current(&releases).map_or_else(DeployOptions::default, |release| {
            options_of(&release.definition)
        }),
        dry_run: false,
    };
    let deployment = context.client.create_deployment(app, &body).await?;
    follow::to_the_end(context, deployment, detach).await
}
