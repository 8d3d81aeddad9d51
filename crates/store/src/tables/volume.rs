//! The records of volumes and snapshots. Their data is their host's.

use hangar_api::Timestamp;
use hangar_api::error::Failure;
use hangar_api::id::{AppName, HostId, MachineId, Region, SlotId, SnapshotId, VolumeId};
use hangar_api::volume::{SnapshotStatus, VolumeSource, VolumeState};
use serde::{Deserialize, Serialize};

/// A volume: what it should be, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// Its id.
    pub id: VolumeId,
    /// Its app.
    pub app: AppName,
    /// Its name, which others may have too.
    pub name: String,
    /// Where it is in its life.
    pub state: VolumeState,
    /// Its size in GB.
    pub size_gb: u64,
    /// The size that it is being given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub growing_to: Option<u64>,
    /// Its Machine sees the room of the last extension after a restart only.
    #[serde(default)]
    pub needs_restart: bool,
    /// What it is filled with when it is made.
    pub source: VolumeSource,
    /// Its slot, where its Machine is placed.
    pub slot: SlotId,
    /// The host of the slot.
    pub host: HostId,
    /// The slot's region.
    pub region: Region,
    /// The slot's zone.
    pub zone: String,
    /// The Machine that has it, from the transaction that creates the Machine until that is
    /// destroyed.
    #[serde(default)]
    pub attached: Option<MachineId>,
    /// Days that new snapshots are kept.
    pub retention_days: u32,
    /// Whether a snapshot is made every day.
    pub scheduled_snapshots: bool,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was destroyed.
    #[serde(default)]
    pub destroyed_at: Option<Timestamp>,
    /// Whether its data is removed.
    #[serde(default)]
    pub removed: bool,
    /// Why the last thing asked of it failed.
    #[serde(default)]
    pub failure: Option<Failure>,
}

/// A snapshot. It outlives its volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRecord {
    /// Its id.
    pub id: SnapshotId,
    /// Its app.
    pub app: AppName,
    /// The volume that it is of.
    pub volume: VolumeId,
    /// The host that has it.
    pub host: HostId,
    /// Where it is in its life.
    pub status: SnapshotStatus,
    /// Bytes that it takes on disk.
    pub size: u64,
    /// The volume's size in GB when it was asked for.
    pub volume_gb: u64,
    /// Days that it is kept.
    pub retention_days: u32,
    /// Made by the daily schedule.
    pub scheduled: bool,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// Why it failed.
    #[serde(default)]
    pub failure: Option<Failure>,
}
