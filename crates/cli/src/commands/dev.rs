//! `hangar dev`: a server, and one API client that deploys an app and follows its logs.

use std::path::Path;

use anyhow::{Context as _, Result};
use hangar_api::id::{AppName, MachineId};
use hangar_api::logs::LogQuery;
use hangar_api::machine::MachineState;
use hangar_client::{Client, MachineFilter};

use super::deploy::{self, DeployInput};
use super::machine::wait;
use super::server::{self, StopSignal};
use super::{follow, logs};
use crate::args::DevArgs;
use crate::context::Context;
use crate::error::Exit;
use crate::output;

/// Machines that were stopped by Ctrl-C, to be started again the next time.
const STOPPED_FILE: &str = "dev-stopped.json";
/// Log lines from before that are shown.
const TAIL: usize = 20;

pub(super) fn run(args: &DevArgs) -> Result<Exit> {
    let config = crate::context::config_file(Some(&args.dir))?;
    let Some(config) = config else {
        return Err(Exit::Usage.with(format!("there is no fly.toml in {}", args.dir.display())));
    };
    server::start_logging(&args.node);
    server::runtime()?.block_on(async {
        let mut stop = StopSignal::new()?;
        let node = server::start(&args.node).await?;
        let token = std::fs::read_to_string(node.token_file()).context("read the admin token")?;
        let context = Context { client: Client::new(&node.url(), token.trim())? };
        let outcome = tokio::select! {
            biased;
            () = stop.wait() => Ok(Exit::Done),
            role = node.failed() => Err(Exit::Failed.with(format!("the {role} role ended by itself"))),
            outcome = live(&context, args, &config) => outcome,
        };
        output::say("Stopping all Machines (again: leave them running)");
        let stopping = stop_all(&context, &args.node.data_dir);
        let stopped = tokio::select! {
            biased;
            () = stop.wait() => Ok(()),
            stopped = stopping => stopped,
        };
        node.shutdown().await;
        stopped?;
        outcome
    })
}

/// Deploys the app and follows its logs.
async fn live(context: &Context, args: &DevArgs, config: &Path) -> Result<Exit> {
    start_again(context, &args.node.data_dir).await?;
    let input = DeployInput {
        image: args.image.clone(),
        ha: Some(false),
        ..DeployInput::of_file(config.to_owned())
    };
    let prepared = deploy::prepare(context, &input).await?;
    let deployment = context
        .client
        .create_deployment(&prepared.app, &prepared.body)
        .await?;
    // A deploy that failed has put back what ran before: that goes on, with its logs.
    if let Err(error) = follow::to_the_end(context, deployment, false).await {
        output::say(&format!("Error: {error:#}"));
    }
    welcome(context, &prepared.app).await?;
    follow_logs(context, &prepared.app).await
}

async fn welcome(context: &Context, app: &AppName) -> Result<()> {
    let about = context.client.app(app).await?;
    let url = about.app_url.map_or_else(
        || "It has no service to open.".to_owned(),
        |url| format!("Open {url}"),
    );
    output::say(&format!(
        "\n{app} is running. {url}\n\nIn another terminal, try:\n  hangar status -a {app}\n  hangar scale count web=3 worker=2 -a {app}\n  hangar logs --group web -a {app}\n\nIts logs follow; Ctrl-C stops everything.\n"
    ));
    Ok(())
}

async fn follow_logs(context: &Context, app: &AppName) -> Result<Exit> {
    let query = LogQuery {
        app: app.clone(),
        group: None,
        machine: None,
        region: None,
        tail: TAIL,
        follow: true,
        since: None,
    };
    let mut lines = context.client.logs(&query).await?;
    while let Some(line) = lines.next().await? {
        logs::show(&line, false)?;
    }
    Err(Exit::Failed.with("the log ended"))
}

/// Stops the started Machines of all apps and remembers them.
async fn stop_all(context: &Context, data_dir: &Path) -> Result<()> {
    let mut stopped: Vec<(AppName, MachineId)> = Vec::new();
    for app in context.client.apps().await?.apps {
        for machine in context
            .client
            .machines(&app.name, &MachineFilter::default())
            .await?
        {
            if matches!(
                machine.state,
                MachineState::Started | MachineState::Starting
            ) {
                stopped.push((app.name.clone(), machine.id));
            }
        }
    }
    let file = data_dir.join(STOPPED_FILE);
    std::fs::write(&file, serde_json::to_vec(&stopped)?)
        .with_context(|| format!("write {}", file.display()))?;
    for (app, id) in &stopped {
        context
            .client
            .stop_machine(app, id, None, None, None)
            .await?;
    }
    for (app, id) in &stopped {
        wait::state(context, app, id, "stopped").await?;
    }
    Ok(())
}

/// Starts the Machines that the last Ctrl-C stopped.
async fn start_again(context: &Context, data_dir: &Path) -> Result<()> {
    let file = data_dir.join(STOPPED_FILE);
    let Ok(bytes) = std::fs::read(&file) else {
        return Ok(());
    };
    let stopped: Vec<(AppName, MachineId)> = serde_json::from_slice(&bytes).unwrap_or_default();
    for (app, id) in &stopped {
        if let Err(error) = context.client.start_machine(app, id, None).await {
            output::say(&format!(
                "Machine {id} of {app} was not started again: {error}"
            ));
        }
    }
    std::fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))
}
