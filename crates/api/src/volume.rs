//! Volumes and their snapshots (machines-api.md 2.3, proxy-network-runtime.md 13).
//!
//! A volume's data is its host's; the record is the server's. At most one Machine has it, from
//! the transaction that creates the Machine until the Machine is destroyed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::id::{MachineId, Region, SlotId, SnapshotId, VolumeId};
use crate::lenient;

/// The size of a volume that names none, in GB of 2^30 bytes.
pub const DEFAULT_SIZE_GB: u64 = 3;
/// The largest volume, in GB.
pub const MAX_SIZE_GB: u64 = 500;
/// Days that a snapshot is kept when nothing else is said.
pub const DEFAULT_RETENTION: u32 = 5;
/// Fewest and most days that a snapshot is kept.
pub const RETENTION_DAYS: std::ops::RangeInclusive<u32> = 1..=60;
/// Bytes of a GB of a volume.
pub const GB: u64 = 1 << 30;
/// Bytes of a block, as `blocks` of a [`Volume`] count them.
pub const BLOCK_SIZE: u64 = 4096;

/// Where a volume is in its life; Fly's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VolumeState {
    /// Its file system is being made.
    Creating,
    /// Ready.
    Created,
    /// It is being made larger.
    Extending,
    /// It is being filled from a snapshot.
    Restoring,
    /// It is being filled from another volume.
    Hydrating,
    /// Its data is gone or going; the record stays for a day.
    PendingDestroy,
}

impl VolumeState {
    /// Returns its name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Extending => "extending",
            Self::Restoring => "restoring",
            Self::Hydrating => "hydrating",
            Self::PendingDestroy => "pending_destroy",
        }
    }

    /// Returns whether clients hide it unless told otherwise.
    #[must_use]
    pub fn is_gone(self) -> bool {
        self == Self::PendingDestroy
    }

    /// Returns whether a Machine can have it.
    #[must_use]
    pub fn is_usable(self) -> bool {
        matches!(self, Self::Created | Self::Extending)
    }
}

impl std::fmt::Display for VolumeState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// A volume as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Volume {
    /// `vol_` and 16 letters and digits.
    pub id: VolumeId,
    /// Several volumes may share one.
    pub name: String,
    /// The state.
    pub state: VolumeState,
    /// Its size, in GB of 2^30 bytes: enforced.
    pub size_gb: u64,
    /// Its region.
    pub region: Region,
    /// Its zone: volumes of one name are spread over them.
    #[serde(default)]
    pub zone: String,
    /// Whether Hangar encrypts it: no.
    #[serde(default)]
    pub encrypted: bool,
    /// The Machine that has it. Absent rather than null: Fly's API document allows no null, and
    /// clients made from it refuse one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attached_machine_id: Option<MachineId>,
    /// When it was created.
    #[schemars(with = "crate::schema::Time")]
    pub created_at: Timestamp,
    /// Blocks of the file system; 0, like the rest, where it was not measured.
    #[serde(default)]
    pub blocks: u64,
    /// Bytes of a block.
    #[serde(default)]
    pub block_size: u64,
    /// Blocks that are free.
    #[serde(default)]
    pub blocks_free: u64,
    /// Blocks that are free for programs that are not root.
    #[serde(default)]
    pub blocks_avail: u64,
    /// Bytes that files can take.
    #[serde(default)]
    pub bytes_total: u64,
    /// Bytes that are taken.
    #[serde(default)]
    pub bytes_used: u64,
    /// The file system: `ext4`.
    #[serde(default)]
    pub fstype: String,
    /// Days that new snapshots are kept.
    #[serde(default)]
    pub snapshot_retention: u32,
    /// Whether a snapshot is made every day.
    #[serde(default)]
    pub auto_backup_enabled: bool,
    /// `ok`, `unknown` or `unreachable`.
    #[serde(default)]
    pub host_status: String,
    /// Where it is (Hangar's own).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<SlotId>,
    /// Why the last thing asked of it failed (Hangar's own).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Body of `POST .../volumes`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CreateVolume {
    /// Its name.
    #[serde(deserialize_with = "lenient::nullable")]
    pub name: String,
    /// As a Machine's: a region, an alias or a list.
    #[serde(
        deserialize_with = "lenient::text",
        skip_serializing_if = "Option::is_none"
    )]
    pub region: Option<String>,
    /// In GB; absent means 3, or the size of what it is made from.
    #[serde(
        deserialize_with = "lenient::number",
        skip_serializing_if = "Option::is_none"
    )]
    pub size_gb: Option<u64>,
    /// Accepted from Fly's clients; volumes are not encrypted here.
    #[serde(
        deserialize_with = "lenient::maybe_flag",
        skip_serializing_if = "Option::is_none"
    )]
    pub encrypted: Option<bool>,
    /// `ext4`, the only one there is.
    #[serde(
        deserialize_with = "lenient::text",
        skip_serializing_if = "Option::is_none"
    )]
    pub fstype: Option<String>,
    /// Not in a zone that has a volume of this name, where the region has several; absent means
    /// true.
    #[serde(
        deserialize_with = "lenient::maybe_flag",
        skip_serializing_if = "Option::is_none"
    )]
    pub require_unique_zone: Option<bool>,
    /// Not in a zone that has any volume of the app.
    #[serde(
        deserialize_with = "lenient::maybe_flag",
        skip_serializing_if = "Option::is_none"
    )]
    pub unique_zone_app_wide: Option<bool>,
    /// Days that snapshots are kept, 1 to 60; absent means 5.
    #[serde(
        deserialize_with = "lenient::number",
        skip_serializing_if = "Option::is_none"
    )]
    pub snapshot_retention: Option<u32>,
    /// Whether a snapshot is made every day; absent means true.
    #[serde(
        deserialize_with = "lenient::maybe_flag",
        skip_serializing_if = "Option::is_none"
    )]
    pub auto_backup_enabled: Option<bool>,
    /// Filled from this snapshot.
    #[serde(
        deserialize_with = "lenient::text",
        skip_serializing_if = "Option::is_none"
    )]
    pub snapshot_id: Option<String>,
    /// Filled from this volume: a fork.
    #[serde(
        deserialize_with = "lenient::text",
        skip_serializing_if = "Option::is_none"
    )]
    pub source_volume_id: Option<String>,
}

/// Body of `PUT .../volumes/{id}`. What is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct UpdateVolume {
    /// Days that new snapshots are kept, 1 to 60.
    #[serde(
        deserialize_with = "lenient::number",
        skip_serializing_if = "Option::is_none"
    )]
    pub snapshot_retention: Option<u32>,
    /// Whether a snapshot is made every day.
    #[serde(
        deserialize_with = "lenient::maybe_flag",
        skip_serializing_if = "Option::is_none"
    )]
    pub auto_backup_enabled: Option<bool>,
}

/// Body of `PUT .../volumes/{id}/extend`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ExtendVolume {
    /// The new size, in GB: no smaller than the old.
    #[serde(deserialize_with = "lenient::number_or_0")]
    pub size_gb: u64,
}

/// Answer of `PUT .../volumes/{id}/extend`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VolumeExtended {
    /// The volume.
    pub volume: Volume,
    /// Whether its Machine sees the room only after a restart.
    pub needs_restart: bool,
}

/// Where a snapshot is in its life; Fly's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotStatus {
    /// Asked for.
    Waiting,
    /// Being copied.
    Running,
    /// Ready.
    Created,
    /// It could not be made.
    Failed,
    /// Being removed.
    Deleting,
}

impl SnapshotStatus {
    /// Returns its name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Created => "created",
            Self::Failed => "failed",
            Self::Deleting => "deleting",
        }
    }
}

/// A snapshot as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Snapshot {
    /// `vs_` and 16 letters and digits.
    pub id: SnapshotId,
    /// Bytes that it takes on disk.
    pub size: u64,
    /// Bytes of the volume when it was made: a volume made from it is no smaller.
    pub volume_size: u64,
    /// Empty: snapshots are kept where they are made, and copied whole.
    #[serde(default)]
    pub digest: String,
    /// When it was asked for.
    #[schemars(with = "crate::schema::Time")]
    pub created_at: Timestamp,
    /// The status.
    pub status: SnapshotStatus,
    /// Days that it is kept.
    pub retention_days: u32,
    /// The volume that it is of (Hangar's own).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<VolumeId>,
    /// Why it failed (Hangar's own).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What a new volume is filled with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum VolumeSource {
    /// Nothing: an empty file system.
    Empty,
    /// A snapshot's files.
    Snapshot {
        /// Which.
        id: SnapshotId,
    },
    /// Another volume's files, as of now.
    Volume {
        /// Which.
        id: VolumeId,
    },
}

/// How full a volume is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VolumeUsage {
    /// Blocks of the file system.
    pub blocks: u64,
    /// Bytes of a block.
    pub block_size: u64,
    /// Blocks that are free.
    pub blocks_free: u64,
    /// Blocks that are free for programs that are not root.
    pub blocks_avail: u64,
}

// === impl VolumeUsage ===

impl VolumeUsage {
    /// Returns the bytes that files can take.
    #[must_use]
    pub fn bytes_total(&self) -> u64 {
        self.blocks.saturating_mul(self.block_size)
    }

    /// Returns the bytes that are taken.
    #[must_use]
    pub fn bytes_used(&self) -> u64 {
        let taken = self.blocks.saturating_sub(self.blocks_free);
        taken.saturating_mul(self.block_size)
    }

    /// Returns how full it is for a program that is not root, in percent, rounded up.
    #[must_use]
    pub fn percent(&self) -> u64 {
        let taken = self.blocks.saturating_sub(self.blocks_free);
        let all = taken.saturating_add(self.blocks_avail);
        if all == 0 {
            return 0;
        }
        taken.saturating_mul(100).div_ceil(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unattached_volume_names_no_machine_not_even_null() {
        let volume = Volume {
            id: VolumeId::new("vol_0123456789abcdef").unwrap(),
            name: "data".to_owned(),
            state: VolumeState::PendingDestroy,
            size_gb: 1,
            region: Region::new("iad").unwrap(),
            zone: "a".to_owned(),
            encrypted: false,
            attached_machine_id: None,
            created_at: Timestamp::UNIX_EPOCH,
            blocks: 0,
            block_size: BLOCK_SIZE,
            blocks_free: 0,
            blocks_avail: 0,
            bytes_total: 0,
            bytes_used: 0,
            fstype: String::new(),
            snapshot_retention: 5,
            auto_backup_enabled: true,
            host_status: "ok".to_owned(),
            slot: None,
            reason: None,
        };
        let json = serde_json::to_value(&volume).unwrap();
        assert!(
            !json
                .as_object()
                .unwrap()
                .contains_key("attached_machine_id")
        );
        assert_eq!(json["state"], "pending_destroy");
        assert_eq!(serde_json::from_value::<Volume>(json).unwrap(), volume);
    }

    #[test]
    fn fullness_counts_what_is_kept_for_root_as_df_does() {
        let usage = VolumeUsage {
            blocks: 100,
            block_size: 4096,
            blocks_free: 20,
            blocks_avail: 15,
        };
        assert_eq!(usage.percent(), 85);
        assert_eq!(usage.bytes_used(), 80 * 4096);
        assert_eq!(VolumeUsage::default().percent(), 0);
    }
}
