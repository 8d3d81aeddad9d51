//! The volumes of Machines that `scale count` creates.

use std::collections::BTreeMap;

use anyhow::Result;
use hangar_api::id::{AppName, GroupName, VolumeId};
use hangar_api::machine::{LaunchInput, Machine};
use hangar_api::volume::CreateVolume;
use hangar_deploy::scale::volumes::{self, Disk, Reuse};
use hangar_deploy::scale::{ScaleAction, ScaleMachine};

use crate::args::ScaleVolumeArgs;
use crate::context::Context;
use crate::error::Exit;
use crate::output;

/// The word for the newest snapshot of a group.
const LAST: &str = "last";

/// A volume for each action that creates a Machine with one.
#[derive(Debug, Default)]
pub(super) struct Disks {
    disks: Vec<Option<Disk>>,
    /// The snapshot that new volumes of each action's group are filled from.
    snapshots: Vec<Option<String>>,
}

/// The volume of a Machine that is created.
#[derive(Clone, Copy, Debug)]
pub(in crate::commands) struct Wanted<'a> {
    pub(in crate::commands) disk: &'a Disk,
    /// What a new one is filled from.
    pub(in crate::commands) snapshot: Option<&'a str>,
    /// A new one is refused where its zone has one of its name; else they are kept apart as far as
    /// the region has zones.
    pub(in crate::commands) unique_zone: bool,
}

/// Decides which volumes are taken and which made.
pub(super) async fn choose(
    context: &Context,
    app: &AppName,
    actions: &[ScaleAction],
    machines: &[ScaleMachine],
    args: &ScaleVolumeArgs,
) -> Result<Disks> {
    let mounts = |action: &ScaleAction| match action {
        ScaleAction::Create { config, .. } => !config.mounts.is_empty(),
        ScaleAction::Destroy { .. } => false,
    };
    if !actions.iter().any(mounts) {
        return Ok(Disks {
            disks: vec![None; actions.len()],
            snapshots: vec![None; actions.len()],
        });
    }
    let all = context.client.volumes(app).await?;
    let reuse = match args.with_new_volumes || args.from_snapshot.is_some() {
        true => Reuse::Nothing,
        false => Reuse::Unattached,
    };
    let disks = volumes::disks(actions, &all, reuse);
    let mut of_group: BTreeMap<&GroupName, String> = BTreeMap::new();
    let mut snapshots = Vec::with_capacity(actions.len());
    for (action, disk) in actions.iter().zip(&disks) {
        let from = match (action, disk, args.from_snapshot.as_deref()) {
            (ScaleAction::Create { group, .. }, Some(_), Some(LAST)) => {
                if !of_group.contains_key(group) {
                    let newest = last(context, app, machines, group).await?;
                    of_group.insert(group, newest);
                }
                of_group.get(group).cloned()
            }
            (_, Some(_), Some(id)) => Some(id.to_owned()),
            _ => None,
        };
        snapshots.push(from);
    }
    Ok(Disks { disks, snapshots })
}

/// Returns the newest snapshot of a group's first volume that has one.
async fn last(
    context: &Context,
    app: &AppName,
    machines: &[ScaleMachine],
    group: &GroupName,
) -> Result<String> {
    for volume in volumes::sources(machines, group) {
        let snapshots = context.client.volume_snapshots(app, &volume).await?;
        if let Some(newest) = volumes::newest(&snapshots) {
            return Ok(newest.id.to_string());
        }
    }
    Err(Exit::NotFound.with(format!(
        "no volume of group {group} has a snapshot yet; make one with hangar volumes snapshots create"
    )))
}

/// Creates a Machine with the volume that it was given in the plan, made before where it is new.
pub(in crate::commands) async fn create(
    context: &Context,
    app: &AppName,
    mut input: LaunchInput,
    planned: Option<Wanted<'_>>,
) -> Result<(Machine, Option<VolumeId>)> {
    let Some(planned) = planned else {
        return Ok((context.client.create_machine(app, &input).await?, None));
    };
    let (volume, is_new) = match planned.disk {
        Disk::Unattached(id) => (id.clone(), false),
        Disk::New { name, size_gb } => {
            let asked = CreateVolume {
                name: name.clone(),
                region: input.region.clone(),
                // One that is filled is as large as its snapshot was.
                size_gb: planned.snapshot.is_none().then_some(*size_gb),
                require_unique_zone: Some(planned.unique_zone),
                snapshot_id: planned.snapshot.map(str::to_owned),
                ..CreateVolume::default()
            };
            let made = context.client.create_volume(app, &asked).await?;
            (made.id, true)
        }
    };
    let mounts = input.config.as_mut().map(|config| &mut config.mounts);
    for mount in mounts.into_iter().flatten() {
        volume.as_str().clone_into(&mut mount.volume);
    }
    match context.client.create_machine(app, &input).await {
        Ok(machine) => Ok((machine, Some(volume))),
        Err(error) => {
            if is_new {
                // One that the Machine got after all is not destroyed: the server sees to that.
                let gone = context.client.destroy_volume(app, &volume).await;
                if gone.is_err() {
                    output::say(&format!("the new volume {volume} stays unattached"));
                }
            }
            Err(error.into())
        }
    }
}

// === impl Disks ===

impl Disks {
    pub(super) fn describe(&self, actions: &[ScaleAction]) -> Vec<String> {
        volumes::describe(actions, &self.disks)
    }

    /// Returns the volume of each action, in their order.
    pub(super) fn each(&self) -> impl Iterator<Item = Option<Wanted<'_>>> {
        self.disks.iter().zip(&self.snapshots).map(|(disk, from)| {
            disk.as_ref().map(|disk| Wanted {
                disk,
                snapshot: from.as_deref(),
                unique_zone: false,
            })
        })
    }
}
