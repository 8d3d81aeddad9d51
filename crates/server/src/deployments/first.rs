//! What a first deploy makes before it begins: the volumes of its groups (4.3).

use hangar_api::deployment::{DeployEvent, Deployment};
use hangar_api::release::Release;
use hangar_api::volume::CreateVolume;
use hangar_deploy::mounts::new_volumes;
use hangar_store::Record;
use hangar_store::tables::Apps;

use super::fleet::Fleet;
use crate::core::Core;
use crate::error::Problem;
use crate::volumes;

/// Makes the volumes that the deployment needs and that are not there, and returns what to tell of
/// it. One that was made stays when the deployment does not come about: the next one takes it.
pub(super) async fn make_volumes(
    core: &Core,
    app: &Record<Apps>,
    release: &Release,
    deployment: &Deployment,
) -> Result<Vec<DeployEvent>, Problem> {
    let wanted = {
        let desired = super::desired(core, app, release, deployment);
        let fleet = Fleet::observe(core, &app.key, &deployment.id);
        new_volumes(&desired, &fleet.view(), &deployment.options)
    };
    let mut events = Vec::new();
    for volume in wanted {
        let input = CreateVolume {
            name: volume.name.clone(),
            region: Some(volume.region.to_string()),
            size_gb: Some(volume.size_gb),
            require_unique_zone: Some(false),
            snapshot_retention: volume.snapshot_retention,
            auto_backup_enabled: volume.scheduled_snapshots,
            ..CreateVolume::default()
        };
        volumes::create(core, &app.key, input).await?;
        events.push(DeployEvent {
            at: core.env.now(),
            message: format!(
                "Creating a {} GB volume named '{}' for process group '{}'. Use 'hangar volumes extend' to increase its size",
                volume.size_gb, volume.name, volume.group
            ),
            machine: None,
            group: Some(volume.group),
            level: "info".to_owned(),
        });
    }
    Ok(events)
}
