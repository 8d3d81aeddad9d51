//! A plan of `scale count` that is carried out from here, Machine by Machine: each create and
//! destroy moves the group's formation along.

use anyhow::Result;
use futures_util::{StreamExt, stream};
use hangar_api::id::AppName;
use hangar_api::machine::{LaunchInput, Machine};
use hangar_api::release::Release;
use hangar_deploy::scale::{self, ScaleAction, ScaleMachine};

use super::super::super::machine::{Leases, holding_all, wait};
use super::super::volumes::{self, Disks, Wanted};
use super::NOTHING_TO_DO;
use crate::args::CountArgs;
use crate::context::Context;
use crate::error::Exit;
use crate::output;

/// Machines created or destroyed at the same time.
const AT_ONCE: usize = 5;

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan<'a> {
    pub(super) app: &'a AppName,
    pub(super) actions: &'a [ScaleAction],
    /// The Machines that it was made from.
    pub(super) views: &'a [ScaleMachine],
    pub(super) machines: &'a [Machine],
    pub(super) release: &'a Release,
}

/// What is done, and what every step needs.
struct Work<'a> {
    context: &'a Context,
    app: &'a AppName,
    /// For a group that has no Machine to copy.
    image: String,
    machines: &'a [Machine],
}

/// Shows the plan, asks, and does it.
pub(super) async fn run(context: &Context, plan: &Plan<'_>, args: &CountArgs) -> Result<Exit> {
    let Plan {
        app,
        actions,
        views,
        machines,
        release,
    } = *plan;
    if actions.is_empty() {
        output::say(NOTHING_TO_DO);
        return Ok(Exit::Done);
    }
    output::say(&format!(
        "App '{app}' is going to be scaled according to this plan:"
    ));
    let disks = volumes::choose(context, app, actions, views, &args.volumes).await?;
    let lines = scale::describe(actions, views).into_iter();
    for line in lines.chain(disks.describe(actions)) {
        output::say(&line);
    }
    if !args.yes && !output::confirm(&format!("Scale app {app}?"))? {
        return Ok(Exit::Done);
    }
    let work = Work {
        context,
        app,
        image: pin(release, machines),
        machines,
    };
    // Not before somebody has said yes: whoever thinks about it holds nobody up.
    let ids: Vec<_> = machines.iter().map(|m| m.id.clone()).collect();
    holding_all(context, app, &ids, async |leases| {
        work.all(actions, &disks, leases).await
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
