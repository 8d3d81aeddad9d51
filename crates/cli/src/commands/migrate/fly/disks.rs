//! The volumes of a migration: made before the first deploy, mounted by the Machines, and how their
//! data comes here.

use std::time::Duration;

use anyhow::Result;
use hangar_api::machine::MachineConfig;
use hangar_api::volume::Volume;
use hangar_client::MachineFilter;

use super::{Migration, place_of};
use crate::context::Context;
use crate::error::Exit;
use crate::migrate::fly::{Place, Plan, disks};
use crate::output;

/// How often it is looked whether a volume is free, and what lies between two looks.
const FREE_LOOKS: u32 = 50;
const FREE_PAUSE: Duration = Duration::from_millis(200);

/// Makes a Machine's configuration mount the volume that its place says, or none. Which of those
/// with that name is free is decided by the server.
pub(super) fn mount(config: &mut MachineConfig, place: &Place) -> Result<()> {
    let Some(name) = &place.volume else {
        config.mounts.clear();
        return Ok(());
    };
    let mount = config.mounts.first_mut().ok_or_else(|| {
        Exit::Failed.with("the release has no [[mounts]] for a group whose Machines have a volume: is it of the same configuration?")
    })?;
    mount.volume = String::new();
    mount.name.clone_from(name);
    Ok(())
}

// === impl Migration ===

impl Migration {
    /// Makes the volumes that are not here yet.
    pub(super) async fn ensure_volumes(&self, context: &Context, plan: &Plan) -> Result<()> {
        if plan.volumes.is_empty() {
            return Ok(());
        }
        let there = context.client.volumes(&self.app).await?;
        for disk in disks::compare(&plan.volumes, &there).missing {
            let made = context
                .client
                .create_volume(&self.app, &disk.request())
                .await?;
            output::say(&format!(
                "Created volume {} ({}, {} GB) in {}, empty",
                made.id, made.name, made.size_gb, made.region
            ));
        }
        Ok(())
    }

    /// Waits until a Machine's volume is free: that of one which has just gone is so a moment later.
    /// When it takes longer, the server says what is missing.
    pub(super) async fn until_free(&self, context: &Context, place: &Place) -> Result<()> {
        let Some(name) = &place.volume else {
            return Ok(());
        };
        for _ in 0..FREE_LOOKS {
            let volumes = context.client.volumes(&self.app).await?;
            let is_free = |volume: &Volume| {
                volume.name == *name
                    && volume.region.as_str() == place.region
                    && volume.attached_machine_id.is_none()
                    && volume.state.is_usable()
            };
            if volumes.iter().any(is_free) {
                break;
            }
            tokio::time::sleep(FREE_PAUSE).await;
        }
        Ok(())
    }

    /// Says how the data of volumes comes here, and which volumes are more than there were.
    pub(super) async fn tell_of_data(&self, context: &Context, plan: &Plan) -> Result<()> {
        if plan.copies.is_empty() && plan.volumes.is_empty() {
            return Ok(());
        }
        let machines = context
            .client
            .machines(&self.app, &MachineFilter::default())
            .await?;
        let there = &self.app_there;
        let commands: Vec<String> = disks::pairs(&plan.copies, &machines, place_of)
            .iter()
            .map(|pair| format!("  {}", pair.command(there, self.app.as_str())))
            .collect();
        if !commands.is_empty() {
            output::say(&format!(
                "\nThe volumes are empty: what is in them on Fly is not copied. With nobody writing to it, and tar in both images, this does it:\n{}",
                commands.join("\n")
            ));
        }
        let volumes = context.client.volumes(&self.app).await?;
        for volume in disks::compare(&plan.volumes, &volumes).more {
            if volume.attached_machine_id.is_none() {
                output::say(&format!(
                    "Volume {} ({}, {} GB) in {} has no like on Fly and no Machine: hangar volumes destroy {} -a {}",
                    volume.id, volume.name, volume.size_gb, volume.region, volume.id, self.app
                ));
            }
        }
        Ok(())
    }
}
