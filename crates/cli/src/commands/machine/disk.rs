//! The volumes of Machines that `machine run` and `machine clone` make.

use anyhow::Result;
use hangar_api::id::{AppName, Region, VolumeId};
use hangar_api::machine::{Machine, Mount};
use hangar_api::volume::Volume;
use hangar_deploy::scale::volumes::{Disk, newest};

use super::edit::mounts::{self, Attach};
use crate::args::CloneArgs;
use crate::context::Context;
use crate::error::Exit;
use crate::output;

/// The word for the newest snapshot.
const LAST: &str = "last";

/// The volume of a clone.
#[derive(Debug)]
pub(super) struct Planned {
    /// Where it is seen.
    pub(super) mounts: Vec<Mount>,
    /// Which, or how it is made; none for a Machine without one.
    pub(super) disk: Option<Disk>,
    /// What a new one is filled from.
    pub(super) snapshot: Option<String>,
    /// Where the clone goes.
    pub(super) region: Region,
}

/// Refuses mounts by a name that no free volume has. The server picks one when it creates the
/// Machine, and refuses again what was taken meanwhile.
pub(super) async fn ensure_free(
    context: &Context,
    app: &AppName,
    wanted: &[Mount],
    region: Option<&Region>,
) -> Result<()> {
    let Some(name) = mounts::by_name(wanted).next() else {
        return Ok(());
    };
    let all = context.client.volumes(app).await?;
    let is_free = |volume: &Volume| {
        volume.name == name
            && volume.attached_machine_id.is_none()
            && volume.state.is_usable()
            && region.is_none_or(|region| volume.region == *region)
    };
    if all.iter().any(is_free) {
        return Ok(());
    }
    let at = region.map_or_else(String::new, |region| format!(" in region '{region}'"));
    Err(Exit::Failed.with(format!(
        "not enough unattached volumes for '{name}'{at}: create one with `hangar volumes create {name} -a {app}`"
    )))
}

/// Decides on the region and the volume of a clone, and says what comes of it.
pub(super) async fn plan(
    context: &Context,
    app: &AppName,
    source: &Machine,
    args: &CloneArgs,
) -> Result<Planned> {
    let usage = |error: String| Exit::Usage.with(error);
    let attach = args.attach_volume.as_deref().map(Attach::parse);
    let Some(attach) = attach.transpose().map_err(usage)? else {
        return fresh(context, app, source, args).await;
    };
    let (mounts, note) = attach.mounts(&source.config.mounts).map_err(usage)?;
    let volume = existing(context, app, &attach.volume).await?;
    if let Some(region) = args.region.as_ref().filter(|r| **r != volume.region) {
        return Err(usage(format!(
            "specified region {region} but volume is in region {}, use the same region as the volume",
            volume.region
        )));
    }
    output::say(&format!(
        "Cloning Machine {} into region {}",
        source.id, volume.region
    ));
    if let Some(note) = note {
        output::say(&note);
    }
    output::say(&format!("Attaching existing volume {}", volume.id));
    Ok(Planned {
        mounts,
        disk: Some(Disk::Unattached(volume.id)),
        snapshot: None,
        region: volume.region,
    })
}

async fn existing(context: &Context, app: &AppName, id: &VolumeId) -> Result<Volume> {
    let volume = context.client.volume(app, id).await.map_err(|error| {
        let code = match error.status() {
            Some(404) => Exit::NotFound,
            _ => Exit::Failed,
        };
        code.with(format!("could not get existing volume: {error}"))
    })?;
    match &volume.attached_machine_id {
        None => Ok(volume),
        Some(machine) => Err(Exit::Failed.with(format!(
            "volume {id} is already attached to a machine: {machine}"
        ))),
    }
}

/// A source's volume is copied by name and size, empty or out of a snapshot.
async fn fresh(
    context: &Context,
    app: &AppName,
    source: &Machine,
    args: &CloneArgs,
) -> Result<Planned> {
    let region = args.region.as_ref().unwrap_or(&source.region).clone();
    output::say(&format!(
        "Cloning Machine {} into region {region}",
        source.id
    ));
    let Some(mount) = source.config.mounts.first() else {
        if args.from_snapshot.is_some() {
            let text = format!("--from-snapshot: Machine {} has no volume", source.id);
            return Err(Exit::Usage.with(text));
        }
        return Ok(Planned {
            mounts: Vec::new(),
            disk: None,
            snapshot: None,
            region,
        });
    };
    let snapshot = match args.from_snapshot.as_deref() {
        None => {
            output::say(&format!("Volume '{}' will start empty", mount.name));
            None
        }
        Some(LAST) => last(context, app, mount).await?,
        Some(id) => {
            output::say(&format!("Creating new volume from snapshot: {id}"));
            Some(id.to_owned())
        }
    };
    let disk = Disk::New {
        name: mount.name.clone(),
        size_gb: mount.size_gb.unwrap_or(hangar_api::volume::DEFAULT_SIZE_GB),
    };
    Ok(Planned {
        mounts: source.config.mounts.clone(),
        disk: Some(disk),
        snapshot,
        region,
    })
}

/// Returns the newest snapshot of a mount's volume.
async fn last(context: &Context, app: &AppName, mount: &Mount) -> Result<Option<String>> {
    let id = VolumeId::new(mount.volume.as_str()).map_err(|e| Exit::Failed.with(e.to_string()))?;
    let snapshots = context.client.volume_snapshots(app, &id).await?;
    let found = newest(&snapshots);
    output::say(&match found {
        Some(snapshot) => format!("Creating new volume from snapshot {} of {id}", snapshot.id),
        None => format!("No snapshot for source volume {id}, the new volume will start empty"),
    });
    Ok(found.map(|snapshot| snapshot.id.to_string()))
}
