//! Makes on the host what the records of volumes and snapshots say, and writes down what came of
//! it.
//!
//! What is to be done is read from the records, never remembered: a server that was killed goes on
//! where it was, for the host does everything once. One thing at a time is done to a volume. A
//! change wakes it, a timer makes it true and looks at the calendar.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hangar_api::error::{ErrorKind, Failure};
use hangar_api::id::{AppName, SnapshotId, VolumeId};
use hangar_api::machine::MachineSpec;
use hangar_api::volume::{GB, SnapshotStatus, VolumeState};
use hangar_store::tables::{SnapshotRecord, Specs, VolumeRecord, VolumeSnapshots, Volumes};
use hangar_store::{Snapshot, Txn};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use super::{amend, calendar, ended, snapshots};
use crate::core::Core;
use crate::error::Problem;

/// The calendar is looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// What the host could not do now is tried again after this.
const RETRY: Duration = Duration::from_secs(2);
/// Volumes that are worked on at once; others wait.
const MAX_JOBS: usize = 8;

/// What is to be done to a volume or one of its snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Work {
    Make(VolumeRecord),
    Extend(VolumeRecord),
    Remove(VolumeRecord),
    Copy(SnapshotRecord),
    RemoveCopy(SnapshotRecord),
}

/// The volumes that are being worked on.
#[derive(Debug, Default)]
struct Busy {
    volumes: Mutex<BTreeSet<VolumeId>>,
    freed: Notify,
}

/// Works until the server stops.
pub(crate) async fn run(core: Arc<Core>) {
    let mut deltas = core.cache.deltas();
    let busy = Arc::new(Busy::default());
    let mut jobs: Vec<AbortOnDropHandle<()>> = Vec::new();
    // Soon after the start, then by the clock.
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        jobs.retain(|job| !job.is_finished());
        for (volume, work) in to_do(&core.cache.snapshot()) {
            if busy.begin(&volume) {
                let (core, busy) = (core.clone(), busy.clone());
                let env = core.env.clone();
                jobs.push(AbortOnDropHandle::new(env.spawn(async move {
                    perform(&core, work).await;
                    busy.end(&volume);
                })));
            }
        }
        let mut due = false;
        while !due {
            tokio::select! {
                biased;
                () = core.stop.cancelled() => return,
                () = busy.freed.notified() => due = true,
                delta = deltas.next() => match delta {
                    Some(delta) => {
                        due = delta.touches::<Volumes>() || delta.touches::<VolumeSnapshots>();
                    }
                    None => return,
                },
                _ = look.tick() => {
                    follow_calendar(&core).await;
                    due = true;
                }
            }
        }
    }
}

/// Returns what is to be done, at most one thing for each volume. What was asked for before a
/// volume was destroyed comes before its end.
fn to_do(snapshot: &Snapshot) -> BTreeMap<VolumeId, Work> {
    let mut works = BTreeMap::new();
    let there: BTreeSet<&VolumeId> = snapshot
        .all::<Volumes>()
        .filter(|record| !record.value.removed)
        .map(|record| &record.value.id)
        .collect();
    for record in snapshot.all::<VolumeSnapshots>() {
        let asked = &record.value;
        let work = match asked.status {
            SnapshotStatus::Waiting | SnapshotStatus::Running => Work::Copy(asked.clone()),
            SnapshotStatus::Deleting => Work::RemoveCopy(asked.clone()),
            SnapshotStatus::Created | SnapshotStatus::Failed => continue,
        };
        works.entry(asked.volume.clone()).or_insert(work);
    }
    for record in snapshot.all::<Volumes>() {
        let volume = &record.value;
        let work = match volume.state {
            VolumeState::Creating | VolumeState::Restoring | VolumeState::Hydrating => {
                Work::Make(volume.clone())
            }
            VolumeState::Extending => Work::Extend(volume.clone()),
            VolumeState::PendingDestroy if there.contains(&volume.id) => {
                Work::Remove(volume.clone())
            }
            VolumeState::PendingDestroy | VolumeState::Created => continue,
        };
        works.entry(volume.id.clone()).or_insert(work);
    }
    works
}

async fn perform(core: &Core, work: Work) {
    let id = work.volume().clone();
    let what = work.name();
    let done = match work {
        Work::Make(record) => make(core, record).await,
        Work::Extend(record) => extend(core, record).await,
        Work::Remove(record) => remove(core, record).await,
        Work::Copy(record) => copy(core, record).await,
        Work::RemoveCopy(record) => remove_copy(core, record).await,
    };
    if let Err(problem) = done {
        tracing::warn!(volume = %id, what, error = %problem.text(), "volume not worked on, trying again");
        tokio::time::sleep(RETRY).await;
    }
}

/// Returns whether a failure will be another time.
fn is_lasting(failure: &Failure) -> bool {
    failure.kind != ErrorKind::Unavailable
}

async fn make(core: &Core, record: VolumeRecord) -> Result<(), Problem> {
    let (id, size) = (record.id.clone(), record.size_gb.saturating_mul(GB));
    let made = core.volumes.make(id, size, record.source.clone()).await;
    let failure = match made {
        Ok(()) => None,
        Err(failure) if is_lasting(&failure) => Some(failure),
        Err(failure) => return Err(failure.into()),
    };
    if let Some(failure) = &failure {
        tracing::warn!(volume = %record.id, error = %failure, "volume cannot be made");
    }
    changed(core, &record, |now| match &failure {
        None => VolumeRecord {
            state: VolumeState::Created,
            ..now.clone()
        },
        Some(failure) => ended(core, now, Some(failure.clone())),
    })
    .await
}

/// Changes a record, unless it is in another state than it was: then there is other work.
async fn changed(
    core: &Core,
    known: &VolumeRecord,
    change: impl Fn(&VolumeRecord) -> VolumeRecord,
) -> Result<(), Problem> {
    let amended = amend(core, &known.app, &known.id, |snapshot, now| {
        if now.state != known.state {
            return Ok(None);
        }
        let changed = change(now);
        let echo = echoed(core, snapshot, &changed);
        Ok(Some((changed, echo)))
    });
    amended.await.map(drop)
}

/// Returns the write that tells a volume's size in its Machine's configuration.
fn echoed(core: &Core, snapshot: &Snapshot, volume: &VolumeRecord) -> Txn {
    let Some(machine) = &volume.attached else {
        return Txn::new();
    };
    let Some(record) = snapshot.get::<Specs>(&(volume.app.clone(), machine.clone())) else {
        return Txn::new();
    };
    let mut spec: MachineSpec = record.value.clone();
    let its = |mount: &&mut hangar_api::machine::Mount| mount.volume == volume.id.as_str();
    if let Some(mount) = spec.config.mounts.iter_mut().find(its) {
        mount.size_gb = Some(volume.size_gb);
    }
    if spec == record.value {
        return Txn::new();
    }
    spec.updated_at = core.env.now();
    Txn::new().update::<Specs>(record, &spec)
}

async fn extend(core: &Core, record: VolumeRecord) -> Result<(), Problem> {
    let size = record.growing_to.unwrap_or(record.size_gb);
    let bytes = size.saturating_mul(GB);
    let extended = core.volumes.extend(record.id.clone(), bytes).await;
    let outcome = match extended {
        Err(failure) if !is_lasting(&failure) => return Err(failure.into()),
        outcome => outcome,
    };
    changed(core, &record, |now| {
        let now = VolumeRecord {
            state: VolumeState::Created,
            growing_to: None,
            ..now.clone()
        };
        match &outcome {
            Ok(extended) => VolumeRecord {
                size_gb: size,
                needs_restart: extended.needs_restart,
                failure: None,
                ..now
            },
            Err(failure) => VolumeRecord {
                failure: Some(failure.clone()),
                ..now
            },
        }
    })
    .await
}

async fn remove(core: &Core, record: VolumeRecord) -> Result<(), Problem> {
    let gone = core.volumes.remove_volume(record.id.clone()).await;
    let failure = gone.err();
    changed(core, &record, |now| VolumeRecord {
        removed: failure.is_none(),
        // Why it was given up is kept.
        failure: failure.clone().or_else(|| now.failure.clone()),
        ..now.clone()
    })
    .await?;
    failure.map_or(Ok(()), |failure| Err(failure.into()))
}

/// Changes a snapshot's record, unless it is in another state than it was.
async fn noted(
    core: &Core,
    known: &SnapshotRecord,
    changed: &SnapshotRecord,
) -> Result<(), Problem> {
    let key = (known.app.clone(), known.id.clone());
    let now = core.cache.get::<VolumeSnapshots>(&key);
    let Some(now) = now.filter(|now| now.value.status == known.status) else {
        return Ok(());
    };
    // Somebody was first: the next look sees what it is now.
    core.try_commit(Txn::new().update(&now, changed)).await?;
    Ok(())
}

async fn copy(core: &Core, asked: SnapshotRecord) -> Result<(), Problem> {
    let running = SnapshotRecord {
        status: SnapshotStatus::Running,
        ..asked.clone()
    };
    noted(core, &asked, &running).await?;
    let (volume, id) = (asked.volume.clone(), asked.id.clone());
    let result = match core.volumes.snapshot(volume, id).await {
        Ok(size) => SnapshotRecord {
            status: SnapshotStatus::Created,
            size,
            ..running.clone()
        },
        Err(failure) if !is_lasting(&failure) => return Err(failure.into()),
        Err(failure) => {
            tracing::warn!(volume = %asked.volume, error = %failure, "snapshot cannot be made");
            SnapshotRecord {
                status: SnapshotStatus::Failed,
                failure: Some(failure),
                ..running.clone()
            }
        }
    };
    noted(core, &running, &result).await
}

async fn remove_copy(core: &Core, record: SnapshotRecord) -> Result<(), Problem> {
    core.volumes.remove_snapshot(record.id.clone()).await?;
    let key: (AppName, SnapshotId) = (record.app, record.id);
    if let Some(now) = core.cache.get::<VolumeSnapshots>(&key) {
        core.try_commit(Txn::new().remove(&now)).await?;
    }
    Ok(())
}

/// Asks for what is due, and lets go of what is over.
async fn follow_calendar(core: &Core) {
    let now = core.env.now();
    let mut txns = Vec::new();
    {
        let snapshot = core.cache.snapshot();
        for record in snapshot.all::<Volumes>() {
            let volume = &record.value;
            let of = snapshot.under::<VolumeSnapshots, _>(&volume.app);
            if calendar::wants_snapshot(now, volume, of.map(|record| &record.value)) {
                let asked = snapshots::asked(core, volume, true);
                let key = (asked.app.clone(), asked.id.clone());
                let txn = Txn::new().check_same(record);
                txns.push(txn.create::<VolumeSnapshots>(&key, &asked));
            }
            if calendar::is_forgotten(now, volume) {
                txns.push(Txn::new().remove(record));
            }
        }
        for record in snapshot.all::<VolumeSnapshots>() {
            let kept = &record.value;
            let needed = snapshots::restored_to(&snapshot, kept).is_some();
            if calendar::is_over(now, kept) && !needed {
                let going = SnapshotRecord {
                    status: SnapshotStatus::Deleting,
                    ..kept.clone()
                };
                txns.push(Txn::new().update(record, &going));
            }
        }
    }
    for txn in txns {
        // Somebody was first with something of it: the next look is in a minute.
        if let Err(error) = core.try_commit(txn).await {
            tracing::warn!(%error, "the calendar of volumes is not followed");
            return;
        }
    }
    extend_full_ones(core).await;
}

/// Extends the volumes whose Machines ask for it when they are full.
async fn extend_full_ones(core: &Core) {
    let snapshot = core.cache.snapshot();
    let mut asking = Vec::new();
    for record in snapshot.all::<Volumes>() {
        let volume = &record.value;
        let Some(machine) = volume
            .attached
            .as_ref()
            .filter(|_| volume.growing_to.is_none())
        else {
            continue;
        };
        let spec = snapshot.get::<Specs>(&(volume.app.clone(), machine.clone()));
        let mount = spec.and_then(|spec| spec.value.config.mounts.first().cloned());
        if let Some(mount) = mount
            && let Some(threshold) = mount
                .extend_threshold_percent
                .filter(|percent| *percent > 0)
        {
            let rule = (
                threshold,
                mount.add_size_gb.unwrap_or(0),
                mount.size_gb_limit,
            );
            asking.push((volume.clone(), rule));
        }
    }
    drop(snapshot);
    for (volume, rule) in asking {
        let Some(usage) = super::usage(core, &volume).await else {
            continue;
        };
        let Some(size) = calendar::grows_to(volume.size_gb, usage.percent(), rule) else {
            continue;
        };
        tracing::info!(volume = %volume.id, percent = usage.percent(), size_gb = size, "volume is full, extending it");
        let asked = amend(core, &volume.app, &volume.id, |_, now| {
            let changed = VolumeRecord {
                state: VolumeState::Extending,
                growing_to: Some(size),
                ..now.clone()
            };
            let still = now.state == VolumeState::Created && now.size_gb < size;
            Ok(still.then(|| (changed, Txn::new())))
        });
        if let Err(problem) = asked.await {
            tracing::warn!(volume = %volume.id, error = %problem.text(), "full volume not extended");
        }
    }
}

// === impl Work ===

impl Work {
    fn volume(&self) -> &VolumeId {
        match self {
            Self::Make(record) | Self::Extend(record) | Self::Remove(record) => &record.id,
            Self::Copy(record) | Self::RemoveCopy(record) => &record.volume,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Make(_) => "make",
            Self::Extend(_) => "extend",
            Self::Remove(_) => "remove",
            Self::Copy(_) => "snapshot",
            Self::RemoveCopy(_) => "remove snapshot",
        }
    }
}

// === impl Busy ===

impl Busy {
    /// Takes a volume to work on, unless somebody does or too many are.
    fn begin(&self, volume: &VolumeId) -> bool {
        let mut volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        volumes.len() < MAX_JOBS && volumes.insert(volume.clone())
    }

    fn end(&self, volume: &VolumeId) {
        let mut volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        volumes.remove(volume);
        drop(volumes);
        self.freed.notify_one();
    }
}
