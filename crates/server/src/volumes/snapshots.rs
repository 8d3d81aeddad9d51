//! Snapshots: asked for, kept as long as was said, removed.

use std::sync::Arc;

use hangar_api::id::{AppName, SnapshotId, VolumeId};
use hangar_api::volume::{GB, Snapshot as Shown, SnapshotStatus, VolumeSource, VolumeState};
use hangar_store::tables::{SnapshotRecord, VolumeRecord, VolumeSnapshots, Volumes};
use hangar_store::{Record, Snapshot, Txn};

use super::{busy, find, living};
use crate::core::{Core, MAX_TRIES, too_contended};
use crate::error::Problem;

/// Most snapshots of one app that are not being removed.
const MAX_SNAPSHOTS: usize = 10_000;

/// Returns what clients see.
pub(crate) fn view(record: &SnapshotRecord) -> Shown {
    Shown {
        id: record.id.clone(),
        size: record.size,
        volume_size: record.volume_gb.saturating_mul(GB),
        digest: String::new(),
        created_at: record.created_at,
        status: record.status,
        retention_days: record.retention_days,
        volume: Some(record.volume.clone()),
        reason: record.failure.as_ref().map(|f| f.message.clone()),
    }
}

fn not_found() -> Problem {
    Problem::NotFound("snapshot not found".to_owned())
}

/// Returns a volume's snapshots, the newest first, also when the volume is gone.
pub(crate) fn list(core: &Core, app: &AppName, volume: &VolumeId) -> Result<Vec<Shown>, Problem> {
    core.app(app)?;
    let snapshot = core.cache.snapshot();
    let all = snapshot.under::<VolumeSnapshots, _>(app);
    let mut of: Vec<&SnapshotRecord> = all
        .map(|record| &record.value)
        .filter(|record| record.volume == *volume && record.status != SnapshotStatus::Deleting)
        .collect();
    of.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
    if of.is_empty()
        && snapshot
            .get::<Volumes>(&(app.clone(), volume.clone()))
            .is_none()
    {
        return Err(super::not_found());
    }
    Ok(of.into_iter().map(view).collect())
}

/// Returns a snapshot that a volume can be made from.
pub(crate) fn usable(
    snapshot: &Snapshot,
    app: &AppName,
    id: &str,
) -> Result<Arc<Record<VolumeSnapshots>>, Problem> {
    let id = SnapshotId::new(id).map_err(|_| not_found())?;
    let record = snapshot.get::<VolumeSnapshots>(&(app.clone(), id));
    let record = record.cloned().ok_or_else(not_found)?;
    if record.value.status != SnapshotStatus::Created {
        return Err(Problem::Precondition(format!(
            "snapshot {} is in state '{}'; only one that is created can be restored",
            record.value.id,
            record.value.status.as_str()
        )));
    }
    Ok(record)
}

/// Returns the record of a snapshot that is to be made.
pub(crate) fn asked(core: &Core, volume: &VolumeRecord, scheduled: bool) -> SnapshotRecord {
    SnapshotRecord {
        id: SnapshotId::generate(&core.env),
        app: volume.app.clone(),
        volume: volume.id.clone(),
        host: volume.host.clone(),
        status: SnapshotStatus::Waiting,
        size: 0,
        volume_gb: volume.size_gb,
        retention_days: volume.retention_days,
        scheduled,
        created_at: core.env.now(),
        failure: None,
    }
}

/// Asks for a snapshot. It is made as soon as nothing else is done to the volume.
pub(crate) async fn create(
    core: &Core,
    app: &AppName,
    volume: &VolumeId,
) -> Result<SnapshotRecord, Problem> {
    for _ in 0..MAX_TRIES {
        let record = find(core, app, volume)?;
        living(&record.value)?;
        if !record.value.state.is_usable() {
            return Err(busy(&record.value));
        }
        let snapshot = core.cache.snapshot();
        if snapshot.under::<VolumeSnapshots, _>(app).count() >= MAX_SNAPSHOTS {
            return Err(Problem::Exhausted(format!(
                "app {app} has {MAX_SNAPSHOTS} snapshots, the most there may be; delete some"
            )));
        }
        drop(snapshot);
        let asked = asked(core, &record.value, false);
        let key = (app.clone(), asked.id.clone());
        let txn = Txn::new()
            .check_same(&record)
            .create::<VolumeSnapshots>(&key, &asked);
        if core.try_commit(txn).await?.is_some() {
            return Ok(asked);
        }
    }
    Err(too_contended())
}

/// Removes a snapshot, unless a volume is being made from it.
pub(crate) async fn destroy(
    core: &Core,
    app: &AppName,
    volume: &VolumeId,
    id: &SnapshotId,
) -> Result<(), Problem> {
    core.app(app)?;
    for _ in 0..MAX_TRIES {
        let snapshot = core.cache.snapshot();
        let record = snapshot.get::<VolumeSnapshots>(&(app.clone(), id.clone()));
        let record = record.filter(|record| record.value.volume == *volume);
        let record = record.cloned().ok_or_else(not_found)?;
        if let Some(restoring) = restored_to(&snapshot, &record.value) {
            return Err(Problem::Precondition(format!(
                "snapshot {id} is being restored to {restoring}; wait until that is created"
            )));
        }
        drop(snapshot);
        if record.value.status == SnapshotStatus::Deleting {
            return Ok(());
        }
        let going = SnapshotRecord {
            status: SnapshotStatus::Deleting,
            ..record.value.clone()
        };
        if core
            .try_commit(Txn::new().update(&record, &going))
            .await?
            .is_some()
        {
            return Ok(());
        }
    }
    Err(too_contended())
}

/// Returns the volume that is being made from a snapshot.
pub(crate) fn restored_to(snapshot: &Snapshot, record: &SnapshotRecord) -> Option<VolumeId> {
    let source = VolumeSource::Snapshot {
        id: record.id.clone(),
    };
    let mut volumes = snapshot.under::<Volumes, _>(&record.app);
    let found =
        volumes.find(|v| v.value.state == VolumeState::Restoring && v.value.source == source);
    found.map(|volume| volume.value.id.clone())
}
