//! `hangar apps`.

use anyhow::{Context as _, Result};
use hangar_api::env::Env;
use hangar_api::id::AppName;
use hangar_client::MachineFilter;

use super::machine::{Restart, restart_one};
use crate::args::{AppArgs, AppsCommand};
use crate::context::Context;
use crate::error::Exit;
use crate::names;
use crate::output::{self, rfc3339};

pub(super) async fn run(context: &Context, command: AppsCommand) -> Result<Exit> {
    match command {
        AppsCommand::List { form, quiet, org } => {
            list(context, form.json, quiet, org.as_deref()).await
        }
        AppsCommand::Create {
            name,
            named,
            generate_name,
            org,
            network,
        } => {
            let name = match name.or(named) {
                Some(name) => name,
                None if generate_name => {
                    let name = names::generate(None, Env::real().random_u64());
                    AppName::new(name).context("make a name")?
                }
                None => {
                    return Err(Exit::Usage.with(
                        "name argument or flag must be specified: hangar apps create NAME, or --generate-name",
                    ));
                }
            };
            let made = context
                .client
                .create_app(&name, org.as_deref(), network.as_deref());
            made.await?;
            output::data(&format!("New app created: {name}"))?;
            Ok(Exit::Done)
        }
        AppsCommand::Destroy { names, yes } => destroy(context, &names, yes).await,
        AppsCommand::Restart {
            name,
            force_stop,
            skip_health_checks,
        } => {
            let app = context
                .app(&AppArgs {
                    app: name,
                    config: None,
                })
                .await?
                .name;
            restart(context, &app, force_stop, skip_health_checks).await
        }
    }
}

async fn list(context: &Context, json: bool, quiet: bool, org: Option<&str>) -> Result<Exit> {
    let mut apps = context.client.apps().await?.apps;
    apps.retain(|app| org.is_none_or(|org| app.organization.slug.as_str() == org));
    if json {
        output::json(&apps)?;
        return Ok(Exit::Done);
    }
    if quiet {
        let names: Vec<&str> = apps.iter().map(|app| app.name.as_str()).collect();
        output::data(&names.join("\n"))?;
        return Ok(Exit::Done);
    }
    let mut rows = Vec::new();
    for app in &apps {
        let newest = context
            .client
            .releases(&app.name, 1)
            .await?
            .into_iter()
            .next();
        let latest = newest.map_or_else(String::new, |release| rfc3339(release.created_at));
        let (name, owner) = (app.name.to_string(), app.organization.slug.to_string());
        rows.push(vec![name, owner, app.status.clone(), latest]);
    }
    output::table(None, &["Name", "Owner", "Status", "Latest Deploy"], &rows)?;
    Ok(Exit::Done)
}

async fn destroy(context: &Context, names: &[AppName], yes: bool) -> Result<Exit> {
    for name in names {
        let machines = context
            .client
            .machines(name, &MachineFilter::default())
            .await?
            .len();
        if !yes
            && !output::confirm(&format!(
                "Destroy app {name} with its {machines} Machines, secrets and releases?"
            ))?
        {
            return Err(Exit::Failed.with(format!("{name} was not destroyed")));
        }
        context.client.delete_app(name).await?;
        output::data(&format!("Destroyed app {name}"))?;
    }
    Ok(Exit::Done)
}

/// Restarts the managed and started Machines, one after another.
async fn restart(
    context: &Context,
    app: &AppName,
    force_stop: bool,
    skip_health_checks: bool,
) -> Result<Exit> {
    let machines = context
        .client
        .machines(app, &MachineFilter::default())
        .await?;
    let started: Vec<_> = machines
        .iter()
        .filter(|m| m.config.is_managed() && m.state == hangar_api::machine::MachineState::Started)
        .collect();
    if started.is_empty() {
        output::say(&format!("{app} has no started Machines to restart"));
    }
    let how = Restart {
        signal: force_stop.then(|| "SIGKILL".to_owned()),
        time: None,
        skip_health_checks,
    };
    for machine in started {
        restart_one(context, app, &machine.id, &how).await?;
        output::data(&format!("Machine {} restarted", machine.id))?;
    }
    Ok(Exit::Done)
}
