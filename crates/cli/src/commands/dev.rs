//! `hangar dev`: a server, and one API client that deploys an app and follows its logs.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hangar_api::deployment::{CreateDeployment, Deployment, DeploymentSource};
use hangar_api::id::{AppName, GroupName, MachineId};
use hangar_api::logs::LogQuery;
use hangar_api::machine::MachineState;
use hangar_api::release::GroupSpec;
use hangar_client::MachineFilter;

use super::deploy::{self, DeployInput};
use super::machine::wait;
use super::server::{self, StopSignal};
use super::{follow, logs};
use crate::args::DevArgs;
use crate::context::{Choice, Context};
use crate::error::Exit;
use crate::output;

/// Machines that were stopped by Ctrl-C, to be started again the next time.
const STOPPED_FILE: &str = "dev-stopped.json";
/// Pause between two looks at a deployment that turns back.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Log lines from before that are shown.
const TAIL: usize = 20;

pub(super) fn run(args: &DevArgs) -> Result<Exit> {
    let config = crate::context::config_file(Some(&args.dir))?;
    let Some(config) = config else {
        return Err(Exit::Usage.with(format!("there is no fly.toml in {}", args.dir.display())));
    };
    // What happens is told as progress; a log beside it says everything twice.
    server::start_logging(&args.node, tracing::Level::WARN);
    server::runtime()?.block_on(async {
        let mut stop = StopSignal::new()?;
        let node = server::start(&args.node).await?;
        let token = std::fs::read_to_string(node.token_file()).context("read the admin token")?;
        let ours = Choice {
            url: node.url(),
            token: token.trim().to_owned(),
            fingerprint: node.certificate().map(|(fingerprint, _)| *fingerprint),
        };
        let context = Context { client: ours.client()? };
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
        match outcome {
            // What went wrong first is what there is to tell.
            Err(error) => {
                if let Err(second) = stopped {
                    output::say(&format!("Not all Machines were stopped: {second:#}"));
                }
                Err(error)
            }
            Ok(exit) => stopped.map(|()| exit),
        }
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
    let groups = summaries(&prepared.body);
    for deployment in unfinished(context, &prepared.app).await? {
        output::say(&format!(
            "The deploy of v{} goes on first",
            deployment.version
        ));
        if let Err(error) = follow::to_the_end_undisturbed(context, deployment).await {
            output::say(&format!("Error: {error:#}"));
        }
    }
    let deployment = context
        .client
        .create_deployment(&prepared.app, &prepared.body)
        .await?;
    // A deploy that failed has put back what ran before: that goes on, with its logs.
    if let Err(error) = follow::to_the_end_undisturbed(context, deployment).await {
        let machines = context
            .client
            .machines(&prepared.app, &MachineFilter::default())
            .await?;
        if machines.iter().all(|m| m.state != MachineState::Started) {
            return Err(error);
        }
        output::say(&format!("Error: {error:#}"));
    }
    welcome(context, &prepared.app, &groups).await?;
    follow_logs(context, &prepared.app).await
}

async fn welcome(context: &Context, app: &AppName, groups: &[GroupSummary]) -> Result<()> {
    let about = context.client.app(app).await?;
    let url = about.app_url.map_or_else(
        || "It has no service to open.".to_owned(),
        |url| format!("Open {url}"),
    );
    let hangar = program();
    let counts = counts(groups);
    let group = groups.first().map_or("app", |group| group.name.as_str());
    output::say(&format!(
        "\n{app} is running. {url}\n\nIn another terminal, try:\n  {hangar} status -a {app}\n  {hangar} scale count {counts} -a {app}\n  {hangar} logs --group {group} -a {app}\n\nIts logs follow; Ctrl-C stops everything.\n"
    ));
    Ok(())
}

/// A process group of the app, as far as the welcome cares.
struct GroupSummary {
    name: GroupName,
    has_service: bool,
}

/// Returns the groups of what is deployed, those with services first.
fn summaries(body: &CreateDeployment) -> Vec<GroupSummary> {
    let DeploymentSource::Config { groups, .. } = &body.source else {
        return Vec::new();
    };
    let summary = |(name, spec): (&GroupName, &GroupSpec)| GroupSummary {
        name: name.clone(),
        has_service: !spec.config.services.is_empty(),
    };
    let mut all: Vec<GroupSummary> = groups.iter().map(summary).collect();
    all.sort_by_key(|group| !group.has_service);
    all
}

/// Returns what to try with `scale count`: more of the first group with a service, and one more
/// of one without.
fn counts(groups: &[GroupSummary]) -> String {
    let with = groups.iter().find(|group| group.has_service);
    let without = groups.iter().rfind(|group| !group.has_service);
    let with = with.map(|group| format!("{}=3", group.name));
    let without = without.map(|group| format!("{}=2", group.name));
    let counts: Vec<String> = with.into_iter().chain(without).collect();
    counts.join(" ")
}

/// Returns how this program is called from a shell: by its name where that finds it.
fn program() -> String {
    let path = crate::context::variable("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&path);
    if folders.any(|folder| folder.join("hangar").is_file()) {
        return "hangar".to_owned();
    }
    let Ok(full) = std::env::current_exe() else {
        return "hangar".to_owned();
    };
    let here = std::env::current_dir().unwrap_or_default();
    full.strip_prefix(&here)
        .unwrap_or(&full)
        .display()
        .to_string()
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

/// Returns the deployments of an app that are not over.
async fn unfinished(context: &Context, app: &AppName) -> Result<Vec<Deployment>> {
    let all = context.client.deployments(app).await?;
    Ok(all.into_iter().filter(|d| !d.status.is_over()).collect())
}

/// Turns every deployment back that is under way, and waits until it has: it would start what
/// is stopped here.
async fn cancel_all(context: &Context) -> Result<()> {
    for app in context.client.apps().await?.apps {
        loop {
            let left = unfinished(context, &app.name).await?;
            if left.is_empty() {
                break;
            }
            for deployment in left {
                // It may have ended by itself.
                let _over = context
                    .client
                    .cancel_deployment(&app.name, &deployment.id)
                    .await;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
    Ok(())
}

/// Stops the started Machines of all apps and remembers them.
async fn stop_all(context: &Context, data_dir: &Path) -> Result<()> {
    cancel_all(context).await?;
    // What the time before has stopped and this time has not started yet is still to be started.
    let mut stopped = remembered(data_dir);
    let mut running = Vec::new();
    for app in context.client.apps().await?.apps {
        for machine in context
            .client
            .machines(&app.name, &MachineFilter::default())
            .await?
        {
            if matches!(
                machine.state,
                MachineState::Started | MachineState::Starting | MachineState::Restarting
            ) {
                running.push((app.name.clone(), machine.id));
            }
        }
    }
    stopped.retain(|machine| !running.contains(machine));
    stopped.extend(running.iter().cloned());
    let file = data_dir.join(STOPPED_FILE);
    std::fs::write(&file, serde_json::to_vec(&stopped)?)
        .with_context(|| format!("write {}", file.display()))?;
    // Each is tried; the first that failed is the error.
    let mut result = Ok(());
    let mut asked = Vec::new();
    for (app, id) in &running {
        match context.client.stop_machine(app, id, None, None, None).await {
            Ok(_) => asked.push((app, id)),
            // Destroyed meanwhile.
            Err(error) if error.status() == Some(404) => {}
            Err(error) => result = result.and(Err(error.into())),
        }
    }
    for (app, id) in asked {
        result = result.and(wait::state(context, app, id, "stopped").await);
    }
    result
}

/// Returns the Machines that a Ctrl-C has stopped and nobody has started again.
fn remembered(data_dir: &Path) -> Vec<(AppName, MachineId)> {
    let bytes = std::fs::read(data_dir.join(STOPPED_FILE)).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// Starts the Machines that the last Ctrl-C stopped.
async fn start_again(context: &Context, data_dir: &Path) -> Result<()> {
    let file = data_dir.join(STOPPED_FILE);
    let stopped = remembered(data_dir);
    for (app, id) in &stopped {
        if let Err(error) = context.client.start_machine(app, id, None).await {
            output::say(&format!(
                "Machine {id} of {app} was not started again: {error}"
            ));
        }
    }
    match std::fs::remove_file(&file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", file.display()))
        }
        _ => Ok(()),
    }
}
