//! What a new Machine of a group runs.

use hangar_api::id::GroupName;
use hangar_api::image::ImageRef;
use hangar_api::machine::{Guest, MachineConfig, MachineSpec};
use hangar_api::release::Release;

use crate::merge::{self, Mark};

/// What a new Machine runs.
#[derive(Clone, Debug)]
pub struct Seed {
    /// Its configuration; a volume is named, not chosen.
    pub config: MachineConfig,
    /// Its image.
    pub image_ref: ImageRef,
    /// The version of the secrets.
    pub secrets_version: u64,
}

/// Returns what a new Machine of a group runs: what the Machine `like` runs, else what the release
/// says, with the size `guest` where that sets none. `None` where neither knows the group.
#[must_use]
pub fn seed(
    group: &GroupName,
    like: Option<&MachineSpec>,
    release: Option<&Release>,
    guest: Option<&Guest>,
) -> Option<Seed> {
    if let Some(spec) = like {
        return Some(Seed {
            config: copied(&spec.config),
            image_ref: spec.image_ref.clone(),
            secrets_version: spec.secrets_version,
        });
    }
    let release = release?;
    let mark = Mark {
        release: &release.id,
        version: release.version,
    };
    let mut config = merge::for_new(release.groups.get(group)?, group, guest.cloned(), mark);
    config.guest.get_or_insert_default();
    Some(Seed {
        config,
        image_ref: release.image_ref.clone(),
        secrets_version: release.secrets_version,
    })
}

/// Returns the configuration of a copy: its own volume, and nobody to stand by.
fn copied(config: &MachineConfig) -> MachineConfig {
    let mut config = config.clone();
    merge::stand_alone(&mut config);
    for mount in &mut config.mounts {
        if !mount.name.is_empty() {
            mount.volume.clone_from(&mount.name);
        }
        mount.size_gb = None;
        mount.encrypted = None;
    }
    config
}
