//! `hangar scale`.

use std::collections::BTreeMap;

use anyhow::Result;
use futures_util::{StreamExt, stream};
use hangar_api::id::{AppName, GroupName, Region};
use hangar_api::machine::{LaunchInput, Machine};
use hangar_api::release::{Release, ReleaseStatus};
use hangar_client::MachineFilter;
use hangar_deploy::scale::{self, ScaleAction, ScaleMachine, ScaleOptions};
use serde_json::json;

use super::machine::wait;
use crate::args::{AppArgs, ScaleCommand, ShowArgs};
use crate::context::Context;
use crate::error::Exit;
use crate::output;

/// Machines created or destroyed at the same time.
const AT_ONCE: usize = 5;
/// Releases looked through for the newest complete one.
const RELEASES: usize = 100;

/// What `scale count` was told.
struct CountInput {
    counts: Vec<String>,
    group: Option<GroupName>,
    regions: Vec<Region>,
    max_per_region: Option<usize>,
    yes: bool,
}

pub(super) async fn run(context: &Context, command: ScaleCommand) -> Result<Exit> {
    match command {
        ScaleCommand::Show(args) => show(context, &args).await,
        ScaleCommand::Count {
            counts,
            app,
            process_group,
            region,
            max_per_region,
            yes,
        } => {
            let input = CountInput {
                counts,
                group: process_group,
                regions: region,
                max_per_region,
                yes,
            };
            count(context, &app, input).await
        }
    }
}

async fn count(context: &Context, args: &AppArgs, input: CountInput) -> Result<Exit> {
    let app = context.app(args).await?.name;
    let usage = |error: scale::ScaleError| Exit::Usage.with(error.to_string());
    let counts = scale::parse_counts(&input.counts, input.group.as_ref()).map_err(usage)?;
    let release = complete_release(context, &app).await?;
    let machines = managed(context, &app).await?;
    let options = ScaleOptions {
        regions: input.regions,
        primary_region: primary_region(context, &release).await?,
        max_per_region: input
            .max_per_region
            .map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
        guest: None,
    };
    let views: Vec<ScaleMachine> = machines.iter().map(ScaleMachine::from).collect();
    let actions = scale::plan_count(&counts, &release, &views, &options).map_err(usage)?;
    if actions.is_empty() {
        output::say("App already scaled to desired state. No need for changes");
        return Ok(Exit::Done);
    }
    output::say(&format!(
        "App '{app}' is going to be scaled according to this plan:"
    ));
    for line in scale::describe(&actions, &views) {
        output::say(&line);
    }
    if !input.yes && !output::confirm(&format!("Scale app {app}?"))? {
        return Ok(Exit::Done);
    }
    output::say("Executing scale plan");
    let image = pin(&release, &machines);
    let done = stream::iter(
        actions
            .iter()
            .map(|action| act(context, &app, action, &image)),
    );
    let results: Vec<Result<String>> = done
        .buffer_unordered(AT_ONCE)
        .inspect(|r| {
            if let Ok(line) = r {
                output::say(line);
            }
        })
        .collect()
        .await;
    // Every step is tried; the first that failed is the error.
    results.into_iter().collect::<Result<Vec<_>>>()?;
    Ok(Exit::Done)
}

async fn act(
    context: &Context,
    app: &AppName,
    action: &ScaleAction,
    image: &str,
) -> Result<String> {
    match action {
        ScaleAction::Create {
            group,
            region,
            config,
        } => {
            let mut config = config.as_ref().clone();
            if config.image.is_empty() {
                image.clone_into(&mut config.image);
            }
            let size = config.guest.clone().unwrap_or_default().size_name();
            let input = LaunchInput {
                config: Some(config),
                region: Some(region.to_string()),
                ..LaunchInput::default()
            };
            let made = context.client.create_machine(app, &input).await?;
            Ok(format!(
                "  Created {} group:{group} region:{region} size:{size}",
                made.id
            ))
        }
        ScaleAction::Destroy {
            group,
            region,
            machine,
            ..
        } => {
            context
                .client
                .destroy_machine(app, machine, true, None)
                .await?;
            wait::state(context, app, machine, "destroyed").await?;
            Ok(format!(
                "  Destroyed {machine} group:{group} region:{region}"
            ))
        }
    }
}

/// Returns the image for a group that has no Machine to copy: the release's, by digest.
fn pin(release: &Release, machines: &[Machine]) -> String {
    let of_release = release
        .groups
        .values()
        .map(|g| g.config.image.clone())
        .find(|image| !image.is_empty());
    of_release
        .or_else(|| machines.first().map(|m| m.config.image.clone()))
        .unwrap_or_default()
}

async fn complete_release(context: &Context, app: &AppName) -> Result<Release> {
    let releases = context.client.releases(app, RELEASES).await?;
    releases.into_iter().find(|r| r.status == ReleaseStatus::Complete).ok_or_else(|| {
        Exit::Failed.with("this app has no complete releases. Run `hangar deploy` to create one before scaling")
    })
}

async fn primary_region(context: &Context, release: &Release) -> Result<Region> {
    let named = release
        .definition
        .get("primary_region")
        .and_then(serde_json::Value::as_str);
    if let Some(region) = named.and_then(|text| Region::new(text).ok()) {
        return Ok(region);
    }
    let regions = context.client.regions().await?;
    regions
        .into_iter()
        .next()
        .map(|r| r.code)
        .ok_or_else(|| Exit::Failed.with("the server has no region to place on"))
}

async fn managed(context: &Context, app: &AppName) -> Result<Vec<Machine>> {
    let machines = context
        .client
        .machines(app, &MachineFilter::default())
        .await?;
    Ok(machines
        .into_iter()
        .filter(|m| m.config.is_managed() && m.state.is_active())
        .collect())
}

async fn show(context: &Context, args: &ShowArgs) -> Result<Exit> {
    let app = context.app(&args.app).await?.name;
    let machines = managed(context, &app).await?;
    let mut groups: BTreeMap<&str, Vec<&Machine>> = BTreeMap::new();
    for machine in &machines {
        groups
            .entry(machine.process_group())
            .or_default()
            .push(machine);
    }
    let mut rows = Vec::new();
    let mut records = Vec::new();
    for (group, machines) in groups {
        let guest = machines
            .first()
            .and_then(|m| m.config.guest.clone())
            .unwrap_or_default();
        let mut regions: BTreeMap<&str, usize> = BTreeMap::new();
        for machine in &machines {
            *regions.entry(machine.region.as_str()).or_default() += 1;
        }
        let names = regions.iter().map(|(name, n)| {
            if *n > 1 {
                format!("{name}({n})")
            } else {
                (*name).to_owned()
            }
        });
        rows.push(vec![
            group.to_owned(),
            machines.len().to_string(),
            guest.cpu_kind.clone(),
            guest.cpus.to_string(),
            format!("{} MB", guest.memory_mb),
            names.collect::<Vec<_>>().join(","),
        ]);
        records.push(json!({
            "Process": group, "Count": machines.len(), "CPUKind": guest.cpu_kind, "CPUs": guest.cpus,
            "Memory": guest.memory_mb, "Regions": regions,
        }));
    }
    if args.json {
        output::json(&records)?;
    } else {
        output::data(&format!("VM Resources for app: {app}\n"))?;
        output::table(
            Some("Groups"),
            &["Name", "Count", "Kind", "CPUs", "Memory", "Regions"],
            &rows,
        )?;
    }
    Ok(Exit::Done)
}
