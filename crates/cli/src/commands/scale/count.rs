//! `scale count` (process-groups-and-deploy.md 5.1). What is created and destroyed is decided by
//! `hangar_deploy::scale`; here it is shown, asked and done.

use anyhow::Result;
use futures_util::{StreamExt, stream};
use hangar_api::id::{AppName, GroupName, Region};
use hangar_api::machine::guest::Guest;
use hangar_api::machine::{LaunchInput, Machine};
use hangar_api::release::{Release, ReleaseStatus};
use hangar_deploy::scale::{self, ScaleAction, ScaleMachine, ScaleOptions};

use super::super::machine::{Leases, guest, holding_all, pairs, wait};
use super::volumes::{self, Disks, Wanted};
use super::{RELEASES, managed};
use crate::args::CountArgs;
use crate::context::Context;
use crate::error::Exit;
use crate::output;

/// Machines created or destroyed at the same time.
const AT_ONCE: usize = 5;

/// What is done, and what every step needs.
struct Work<'a> {
    context: &'a Context,
    app: &'a AppName,
    /// For a group that has no Machine to copy.
    image: String,
    machines: &'a [Machine],
}

pub(super) async fn run(context: &Context, args: CountArgs) -> Result<Exit> {
    let app = context.app(&args.app).await?.name;
    let usage = |error: scale::ScaleError| Exit::Usage.with(error.to_string());
    let counts = scale::parse_counts(&args.counts, args.process_group.as_ref()).map_err(usage)?;
    let guest = guest(Guest::default(), &args.vm)?;
    let env = pairs(&args.env)?;
    let release = complete_release(context, &app).await?;
    let machines = managed(context, &app).await?;
    let options = ScaleOptions {
        regions: args.region,
        pools: pools(context, &app).await?,
        primary_region: primary_region(context, &release).await?,
        max_per_region: u32::try_from(args.max_per_region).ok(),
        guest: Some(guest),
    };
    let views: Vec<ScaleMachine> = machines.iter().map(ScaleMachine::from).collect();
    let mut actions = scale::plan_count(&counts, &release, &views, &options).map_err(usage)?;
    for action in &mut actions {
        if let ScaleAction::Create { config, .. } = action {
            config.env.extend(env.iter().cloned());
        }
    }
    if actions.is_empty() {
        output::say("App already scaled to desired state. No need for changes");
        return Ok(Exit::Done);
    }
    output::say(&format!(
        "App '{app}' is going to be scaled according to this plan:"
    ));
    let disks = volumes::choose(context, &app, &actions, &views, &args.volumes).await?;
    let lines = scale::describe(&actions, &views).into_iter();
    for line in lines.chain(disks.describe(&actions)) {
        output::say(&line);
    }
    if !args.yes && !output::confirm(&format!("Scale app {app}?"))? {
        return Ok(Exit::Done);
    }
    let work = Work {
        context,
        app: &app,
        image: pin(&release, &machines),
        machines: &machines,
    };
    // Not before somebody has said yes: whoever thinks about it holds nobody up.
    let ids: Vec<_> = machines.iter().map(|m| m.id.clone()).collect();
    holding_all(context, &app, &ids, async |leases| {
        work.all(&actions, &disks, leases).await
    })
    .await?;
    Ok(Exit::Done)
}

// === impl Work ===

impl Work<'_> {
    /// Does every step, several at once. The first that failed is the error.
    async fn all(&self, actions: &[ScaleAction], disks: &Disks, leases: &Leases) -> Result<()> {
        output::say("Executing scale plan");
        let steps = actions.iter().zip(disks.each());
        let steps = steps.map(async |(action, disk)| self.one(action, disk, leases).await);
        let results: Vec<Result<()>> = stream::iter(steps)
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        results.into_iter().collect()
    }

    async fn one(
        &self,
        action: &ScaleAction,
        disk: Option<Wanted<'_>>,
        leases: &Leases,
    ) -> Result<()> {
        let client = &self.context.client;
        match action {
            ScaleAction::Create {
                group,
                region,
                config,
            } => {
                let mut config = config.as_ref().clone();
                if config.image.is_empty() {
                    config.image.clone_from(&self.image);
                }
                let size = config.guest.clone().unwrap_or_default().size_name();
                let input = LaunchInput {
                    config: Some(config),
                    region: Some(region.to_string()),
                    ..LaunchInput::default()
                };
                let (made, volume) = volumes::create(self.context, self.app, input, disk).await?;
                let volume = volume.map_or(String::new(), |id| format!(" volume:{id}"));
                output::say(&format!(
                    "  Created {} group:{group} region:{region} size:{size}{volume}",
                    made.id
                ));
            }
            ScaleAction::Destroy {
                group,
                region,
                machine,
                ..
            } => {
                let nonce = leases.nonce(machine);
                client
                    .destroy_machine(self.app, machine, true, nonce)
                    .await?;
                wait::state(self.context, self.app, machine, "destroyed").await?;
                let known = self.machines.iter().find(|m| m.id == *machine);
                let guest = known.and_then(|m| m.config.guest.clone());
                output::say(&format!(
                    "  Destroyed {machine} group:{group} region:{region} size:{}",
                    guest.unwrap_or_default().size_name()
                ));
            }
        }
        Ok(())
    }
}

/// Returns the region pool of each group.
async fn pools(
    context: &Context,
    app: &AppName,
) -> Result<std::collections::BTreeMap<GroupName, Vec<Region>>> {
    let formations = context.client.formations(app).await?.groups.into_iter();
    let pools = formations.map(|(group, f)| (group, f.regions.into_keys().collect()));
    Ok(pools.collect())
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
