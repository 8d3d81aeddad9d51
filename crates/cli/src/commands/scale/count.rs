//! `scale count` (process-groups-and-deploy.md 5.1). What is created and destroyed is decided by
//! `hangar_deploy::scale`; here it is shown, asked and handed to the server, or done from here
//! ([`client`]) where formations cannot say it: with an environment or a size for new Machines
//! only, and with volumes.

mod client;

use std::collections::BTreeMap;

use anyhow::Result;
use hangar_api::formation::GroupFormation;
use hangar_api::id::{AppName, GroupName, Region};
use hangar_api::machine::guest::Guest;
use hangar_api::release::{Release, ReleaseStatus};
use hangar_deploy::scale::formation::{Scaling, counted, pools};
use hangar_deploy::scale::{self, ScaleAction, ScaleMachine, ScaleOptions};

use super::super::formation::{Manner, change};
use super::super::machine::{guest, pairs};
use super::{RELEASES, managed};
use crate::args::{CountArgs, VmArgs};
use crate::context::Context;
use crate::error::Exit;
use crate::output;

const NOTHING_TO_DO: &str = "App already scaled to desired state. No need for changes";

pub(super) async fn run(context: &Context, args: CountArgs) -> Result<Exit> {
    let app = context.app(&args.app).await?.name;
    let usage = |error: scale::ScaleError| Exit::Usage.with(error.to_string());
    let counts = scale::parse_counts(&args.counts, args.process_group.as_ref()).map_err(usage)?;
    let env = pairs(&args.env)?;
    let size = guest(Guest::default(), &args.vm)?;
    let release = complete_release(context, &app).await?;
    // Formations first: whom they let go is among the Machines then.
    let formations = context.client.formations(&app).await?.groups;
    let machines = managed(context, &app).await?;
    let views = counted(
        machines.iter().map(ScaleMachine::from).collect(),
        &formations,
    );
    let options = ScaleOptions {
        regions: args.region.clone(),
        pools: pools(&views, &formations),
        primary_region: primary_region(context, &release).await?,
        max_per_region: args.max_per_region.and_then(|max| u32::try_from(max).ok()),
        kept_limits: kept_limits(&args, &formations),
        kept_sizes: kept_sizes(&args, &formations),
        guest: Some(size),
    };
    let mut actions = scale::plan_count(&counts, &release, &views, &options).map_err(usage)?;
    for action in &mut actions {
        if let ScaleAction::Create { config, .. } = action {
            config.env.extend(env.iter().cloned());
        }
    }
    let scaling = Scaling {
        counts: &counts,
        actions: &actions,
        machines: &views,
        formations: &formations,
        options: &options,
        max_per_region: limit_to_keep(args.max_per_region),
    };
    if !only_from_here(&args) && scaling.is_for_the_server() {
        return by_the_server(context, &app, &scaling, args.yes).await;
    }
    let plan = client::Plan {
        app: &app,
        actions: &actions,
        views: &views,
        machines: &machines,
        release: &release,
    };
    client::run(context, &plan, &args).await
}

/// Returns whether something is asked for that formations have no word for.
fn only_from_here(args: &CountArgs) -> bool {
    let volumes = args.volumes.with_new_volumes || args.volumes.from_snapshot.is_some();
    !args.env.is_empty() || sizes(&args.vm) || volumes
}

fn sizes(vm: &VmArgs) -> bool {
    let VmArgs {
        vm_size,
        vm_cpus,
        vm_cpu_kind,
        vm_memory,
    } = vm;
    vm_size.is_some() || vm_cpus.is_some() || vm_cpu_kind.is_some() || vm_memory.is_some()
}

/// Returns the limits that formations keep, where no other is asked for.
fn kept_limits(
    args: &CountArgs,
    formations: &BTreeMap<GroupName, GroupFormation>,
) -> BTreeMap<GroupName, u32> {
    let kept = formations.iter().filter(|_| args.max_per_region.is_none());
    kept.filter_map(|(group, f)| Some((group.clone(), f.max_per_region?)))
        .collect()
}

/// Returns the sizes that formations keep, where no other is asked for.
fn kept_sizes(
    args: &CountArgs,
    formations: &BTreeMap<GroupName, GroupFormation>,
) -> BTreeMap<GroupName, Guest> {
    let kept = formations.iter().filter(|_| !sizes(&args.vm));
    kept.filter_map(|(group, f)| Some((group.clone(), f.guest.clone()?)))
        .collect()
}

/// Returns the limit that formations keep from now on: 0 takes it away.
fn limit_to_keep(max_per_region: Option<i64>) -> Option<u32> {
    match max_per_region? {
        ..0 => Some(0),
        0 => None,
        max => u32::try_from(max).ok(),
    }
}

/// Has the server see to it, and tells how it goes.
async fn by_the_server(
    context: &Context,
    app: &AppName,
    scaling: &Scaling<'_>,
    yes: bool,
) -> Result<Exit> {
    let updates = scaling.updates();
    if scaling.actions.is_empty() {
        output::say(NOTHING_TO_DO);
    }
    if !updates.is_empty() {
        let manner = Manner { yes, detach: false };
        change(context, app, updates, manner).await?;
    }
    Ok(Exit::Done)
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
