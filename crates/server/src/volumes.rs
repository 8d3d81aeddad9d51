//! Volumes and snapshots: what clients ask of them (machines-api.md 2.3). The only writer of
//! their records, together with the parts of this module.
//!
//! A request writes what should be and waits a while for [`work`] to make it so on the host; what
//! takes longer goes on, and shows in the record. Which Machine has a volume is decided in the
//! transaction that makes the Machine ([`attach`]).

pub(crate) mod attach;
pub(crate) mod calendar;
pub(crate) mod snapshots;
pub(crate) mod work;

use std::sync::Arc;
use std::time::Duration;

use hangar_api::error::{ErrorKind, Failure};
use hangar_api::id::{AppName, VolumeId};
use hangar_api::machine::MachineState;
use hangar_api::volume::{
    BLOCK_SIZE, CreateVolume, DEFAULT_RETENTION, DEFAULT_SIZE_GB, MAX_SIZE_GB, RETENTION_DAYS,
    UpdateVolume, Volume, VolumeSource, VolumeState, VolumeUsage,
};
use hangar_store::tables::{VolumeRecord, VolumeSnapshots, Volumes};
use hangar_store::{Record, Snapshot, Txn};

use crate::core::{Core, MAX_TRIES, too_contended};
use crate::error::Problem;
use crate::placement::{self, Apart};
use crate::unit::Unit;

/// How long the Machine that has a volume may take to let it go, when it is being destroyed.
const LET_GO: Duration = Duration::from_secs(5);
/// Most volumes of one app.
const MAX_VOLUMES: usize = 1000;
/// Most bytes of a volume's name.
const MAX_NAME: usize = 63;
/// How long an answer waits for the host.
const SHOWN: Duration = Duration::from_secs(25);
/// The file system of every volume.
const FSTYPE: &str = "ext4";

/// Returns a volume of an app that is not forgotten yet.
pub(crate) fn find(
    core: &Core,
    app: &AppName,
    id: &VolumeId,
) -> Result<Arc<Record<Volumes>>, Problem> {
    core.app(app)?;
    let key = (app.clone(), id.clone());
    core.cache.get::<Volumes>(&key).ok_or_else(not_found)
}

pub(crate) fn not_found() -> Problem {
    Problem::NotFound("volume not found".to_owned())
}

/// Returns what clients see.
pub(crate) fn view(record: &VolumeRecord, usage: Option<VolumeUsage>) -> Volume {
    let usage = usage.unwrap_or_default();
    Volume {
        id: record.id.clone(),
        name: record.name.clone(),
        state: record.state,
        size_gb: record.size_gb,
        region: record.region.clone(),
        zone: record.zone.clone(),
        encrypted: false,
        attached_machine_id: record.attached.clone(),
        created_at: record.created_at,
        blocks: usage.blocks,
        block_size: BLOCK_SIZE,
        blocks_free: usage.blocks_free,
        blocks_avail: usage.blocks_avail,
        bytes_total: usage.bytes_total(),
        bytes_used: usage.bytes_used(),
        fstype: FSTYPE.to_owned(),
        snapshot_retention: record.retention_days,
        auto_backup_enabled: record.scheduled_snapshots,
        host_status: "ok".to_owned(),
        slot: Some(record.slot.clone()),
        reason: record.failure.as_ref().map(|f| f.message.clone()),
    }
}

/// Returns all volumes of an app, the oldest first.
pub(crate) fn list(snapshot: &Snapshot, app: &AppName) -> Vec<Arc<Record<Volumes>>> {
    let mut all: Vec<_> = snapshot.under::<Volumes, _>(app).cloned().collect();
    all.sort_by(|a, b| (a.value.created_at, &a.key).cmp(&(b.value.created_at, &b.key)));
    all
}

fn refused(text: impl std::fmt::Display) -> Problem {
    Problem::Invalid(format!("invalid_argument: {text}"))
}

/// Makes a volume as a client asks for it, and waits a while until it is made.
pub(crate) async fn create(
    core: &Core,
    app: &AppName,
    input: CreateVolume,
) -> Result<VolumeRecord, Problem> {
    core.app(app)?;
    check(&input)?;
    for _ in 0..MAX_TRIES {
        let app_record = core.app(app)?;
        let snapshot = core.cache.snapshot();
        let (record, unchanged) = fresh(core, &snapshot, app, &input)?;
        drop(snapshot);
        let key = (app.clone(), record.id.clone());
        let txn = Txn::new()
            .check_same(&app_record)
            .and(unchanged)
            .create::<Volumes>(&key, &record);
        if core.try_commit(txn).await?.is_none() {
            continue;
        }
        tracing::info!(app = %app, volume = %record.id, size_gb = record.size_gb, "volume asked for");
        let made = settled(core, &record, |now| now.state != record.state).await;
        return match made.failure {
            Some(failure) if made.state.is_gone() => Err(failure.into()),
            _ => Ok(made),
        };
    }
    Err(too_contended())
}

/// Refuses what can be seen to be wrong without looking at anything.
fn check(input: &CreateVolume) -> Result<(), Problem> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    let name = &input.name;
    if name.is_empty() || name.len() > MAX_NAME || !name.bytes().all(plain) {
        let name: String = name.chars().take(80).collect();
        return Err(refused(format_args!(
            "volume name {name:?} is not valid: use 1 to {MAX_NAME} letters, digits, underscores \
             and dashes"
        )));
    }
    if let Some(fstype) = input
        .fstype
        .as_deref()
        .filter(|t| !["", FSTYPE].contains(t))
    {
        let fstype: String = fstype.chars().take(20).collect();
        return Err(refused(format_args!(
            "fstype {fstype:?} is not offered by this Hangar; use {FSTYPE}"
        )));
    }
    if let Some(size) = input.size_gb {
        check_size(size)?;
    }
    check_retention(input.snapshot_retention)
}

fn check_size(size: u64) -> Result<(), Problem> {
    if (1..=MAX_SIZE_GB).contains(&size) {
        return Ok(());
    }
    Err(refused(format_args!(
        "size_gb {size} is not valid: a volume has 1 to {MAX_SIZE_GB} GB"
    )))
}

fn check_retention(days: Option<u32>) -> Result<(), Problem> {
    match days {
        Some(days) if !RETENTION_DAYS.contains(&days) => Err(refused(format_args!(
            "snapshot_retention {days} is not valid: snapshots are kept 1 to 60 days"
        ))),
        _ => Ok(()),
    }
}

/// Where a new volume's files come from: its state until they are there, the least size in GB, the
/// source's record, and what must still be so when it is written.
struct Origin {
    source: VolumeSource,
    state: VolumeState,
    least: Option<u64>,
    of: Option<Arc<Record<Volumes>>>,
    unchanged: Txn,
}

fn origin(snapshot: &Snapshot, app: &AppName, input: &CreateVolume) -> Result<Origin, Problem> {
    let given = |id: &Option<String>| id.clone().filter(|id| !id.is_empty());
    match (given(&input.snapshot_id), given(&input.source_volume_id)) {
        (None, None) => Ok(Origin {
            source: VolumeSource::Empty,
            state: VolumeState::Creating,
            least: None,
            of: None,
            unchanged: Txn::new(),
        }),
        (Some(_), Some(_)) => Err(refused("give snapshot_id or source_volume_id, not both")),
        (Some(id), None) => {
            let record = snapshots::usable(snapshot, app, &id)?;
            Ok(Origin {
                source: VolumeSource::Snapshot {
                    id: record.value.id.clone(),
                },
                state: VolumeState::Restoring,
                least: Some(record.value.volume_gb),
                of: None,
                // Nobody may remove it in between; its removal is refused afterwards.
                unchanged: Txn::new().check_same::<VolumeSnapshots>(&record),
            })
        }
        (None, Some(id)) => {
            let key = VolumeId::new(id).map_err(|_| not_found())?;
            let record = snapshot.get::<Volumes>(&(app.clone(), key));
            let record = record.ok_or_else(not_found)?;
            if record.value.state != VolumeState::Created {
                return Err(busy(&record.value));
            }
            Ok(Origin {
                source: VolumeSource::Volume {
                    id: record.value.id.clone(),
                },
                state: VolumeState::Hydrating,
                least: Some(record.value.size_gb),
                of: Some(Arc::clone(record)),
                unchanged: Txn::new().check_same(record),
            })
        }
    }
}

fn busy(record: &VolumeRecord) -> Problem {
    Problem::Precondition(format!(
        "volume {} is in state '{}'; wait until it is created",
        record.id, record.state
    ))
}

fn fresh(
    core: &Core,
    snapshot: &Snapshot,
    app: &AppName,
    input: &CreateVolume,
) -> Result<(VolumeRecord, Txn), Problem> {
    let origin = origin(snapshot, app, input)?;
    let size_gb = input.size_gb.or(origin.least).unwrap_or(DEFAULT_SIZE_GB);
    if let Some(least) = origin.least.filter(|least| size_gb < *least) {
        return Err(refused(format_args!(
            "size_gb {size_gb} is not valid: what it is made from needs {least} GB"
        )));
    }
    let living: Vec<_> = snapshot
        .under::<Volumes, _>(app)
        .filter(|record| !record.value.state.is_gone())
        .collect();
    if living.len() >= MAX_VOLUMES {
        return Err(Problem::Exhausted(format!(
            "app {app} has {} volumes, the most there may be",
            living.len()
        )));
    }
    let all_apart = input.unique_zone_app_wide.unwrap_or(false);
    let mut loads = std::collections::BTreeMap::new();
    for volume in living {
        let load: &mut placement::Load = loads.entry(volume.value.slot.clone()).or_default();
        load.all += 1;
        let source = origin.of.as_ref().is_some_and(|of| of.key == volume.key);
        let same = all_apart || source || volume.value.name == input.name;
        load.group += usize::from(same);
    }
    let apart = match all_apart || input.require_unique_zone.unwrap_or(true) {
        true => Apart::Required,
        false => Apart::Preferred,
    };
    let home = origin.of.as_ref().map(|of| of.value.region.to_string());
    let region = input.region.clone().filter(|region| !region.is_empty());
    let region = region.or(home);
    let slot = placement::place_volume(region.as_deref(), &core.slots, &loads, apart)?;
    let record = VolumeRecord {
        id: VolumeId::generate(&core.env),
        app: app.clone(),
        name: input.name.clone(),
        state: origin.state,
        size_gb,
        growing_to: None,
        needs_restart: false,
        source: origin.source,
        slot: slot.id.clone(),
        host: slot.host.clone(),
        region: slot.region.clone(),
        zone: slot.zone.clone(),
        attached: None,
        retention_days: input.snapshot_retention.unwrap_or(DEFAULT_RETENTION),
        scheduled_snapshots: input.auto_backup_enabled.unwrap_or(true),
        created_at: core.env.now(),
        destroyed_at: None,
        removed: false,
        failure: None,
    };
    Ok((record, origin.unchanged))
}

/// Waits a while until a volume's record is as wanted, and returns it as it is then; one that was
/// forgotten meanwhile as it was.
async fn settled(
    core: &Core,
    known: &VolumeRecord,
    wanted: impl Fn(&VolumeRecord) -> bool,
) -> VolumeRecord {
    let key = (known.app.clone(), known.id.clone());
    let now = || core.cache.get::<Volumes>(&key);
    let mut changes = core.cache.changes();
    let done = changes.wait_for(|_| now().is_none_or(|record| wanted(&record.value)));
    // What takes longer goes on, and the record says that it does.
    let _ = tokio::time::timeout(SHOWN, done).await;
    now().map_or_else(|| known.clone(), |record| record.value.clone())
}

/// Changes a volume's record. `change` decides from the record as it is now; `None` leaves it.
pub(crate) async fn amend(
    core: &Core,
    app: &AppName,
    id: &VolumeId,
    change: impl Fn(&Snapshot, &VolumeRecord) -> Result<Option<(VolumeRecord, Txn)>, Problem>,
) -> Result<VolumeRecord, Problem> {
    let key = (app.clone(), id.clone());
    for _ in 0..MAX_TRIES {
        let snapshot = core.cache.snapshot();
        let record = snapshot.get::<Volumes>(&key).cloned();
        let record = record.ok_or_else(not_found)?;
        let Some((changed, more)) = change(&snapshot, &record.value)? else {
            return Ok(record.value.clone());
        };
        drop(snapshot);
        let txn = Txn::new().update(&record, &changed).and(more);
        if core.try_commit(txn).await?.is_some() {
            return Ok(changed);
        }
    }
    Err(too_contended())
}

/// Changes how snapshots of a volume are made and kept.
pub(crate) async fn update(
    core: &Core,
    app: &AppName,
    id: &VolumeId,
    input: UpdateVolume,
) -> Result<VolumeRecord, Problem> {
    core.app(app)?;
    check_retention(input.snapshot_retention)?;
    amend(core, app, id, |_, record| {
        living(record)?;
        let changed = VolumeRecord {
            retention_days: input.snapshot_retention.unwrap_or(record.retention_days),
            scheduled_snapshots: input
                .auto_backup_enabled
                .unwrap_or(record.scheduled_snapshots),
            ..record.clone()
        };
        Ok((changed != *record).then(|| (changed, Txn::new())))
    })
    .await
}

fn living(record: &VolumeRecord) -> Result<(), Problem> {
    if record.state.is_gone() {
        return Err(Problem::Precondition(format!(
            "volume {} is destroyed",
            record.id
        )));
    }
    Ok(())
}

/// Makes a volume larger, and waits a while until it is. Returns it as it is then.
pub(crate) async fn extend(
    core: &Core,
    app: &AppName,
    id: &VolumeId,
    size: u64,
) -> Result<VolumeRecord, Problem> {
    core.app(app)?;
    check_size(size)?;
    let asked = amend(core, app, id, |_, record| {
        living(record)?;
        if size < record.size_gb {
            return Err(refused(format_args!(
                "size_gb {size} is not valid: volume {} has {} GB, and a volume cannot shrink",
                record.id, record.size_gb
            )));
        }
        if size == record.size_gb {
            return Ok(None);
        }
        if record.state != VolumeState::Created {
            return Err(busy(record));
        }
        let changed = VolumeRecord {
            state: VolumeState::Extending,
            growing_to: Some(size),
            failure: None,
            ..record.clone()
        };
        Ok(Some((changed, Txn::new())))
    })
    .await?;
    if asked.state != VolumeState::Extending {
        // It has that size already, whatever its Machine was told then.
        return Ok(VolumeRecord {
            needs_restart: false,
            ..asked
        });
    }
    let grown = settled(core, &asked, |now| now.state != VolumeState::Extending).await;
    match &grown.failure {
        Some(failure) if grown.size_gb < size => Err(failure.clone().into()),
        _ => Ok(grown),
    }
}

/// Waits a while for the Machine that has a volume, if that is on its way out: whoever has seen it
/// destroyed may go on with its volume.
async fn until_let_go(core: &Core, app: &AppName, id: &VolumeId) {
    let mut changes = core.cache.changes();
    let is_held = || {
        let key = (app.clone(), id.clone());
        let volume = core.cache.get::<Volumes>(&key);
        let machine = volume.and_then(|volume| volume.value.attached.clone());
        let unit = machine.and_then(|machine| Unit::find(core, app, &machine).ok());
        unit.is_some_and(|unit| {
            let state = unit.state();
            matches!(state, MachineState::Destroying | MachineState::Destroyed)
        })
    };
    // One that takes longer is told by the refusal that follows.
    let _ = tokio::time::timeout(LET_GO, changes.wait_for(|_| !is_held())).await;
}

/// Destroys a volume that no Machine has, and waits a while until its data is gone. Snapshots stay.
pub(crate) async fn destroy(
    core: &Core,
    app: &AppName,
    id: &VolumeId,
) -> Result<VolumeRecord, Problem> {
    core.app(app)?;
    until_let_go(core, app, id).await;
    let gone = amend(core, app, id, |snapshot, record| {
        if record.state.is_gone() {
            return Ok(None);
        }
        if let Some(machine) = &record.attached {
            return Err(Problem::Precondition(format!(
                "volume {} is currently bound to machine: {machine}",
                record.id
            )));
        }
        let mut forks = snapshot.under::<Volumes, _>(app);
        let needed = forks.find(|fork| {
            fork.value.state == VolumeState::Hydrating
                && fork.value.source == VolumeSource::Volume { id: id.clone() }
        });
        if let Some(fork) = needed {
            return Err(Problem::Precondition(format!(
                "volume {id} is being copied to {}; wait until that is created",
                fork.value.id
            )));
        }
        Ok(Some((ended(core, record, None), Txn::new())))
    })
    .await?;
    tracing::info!(app = %app, volume = %id, "volume destroyed");
    let removed = settled(core, &gone, |now| now.removed || now.failure.is_some()).await;
    match removed.failure.filter(|_| !removed.removed) {
        Some(failure) => Err(failure.into()),
        None => Ok(VolumeRecord {
            failure: None,
            ..removed
        }),
    }
}

/// Returns a volume whose end begins.
pub(crate) fn ended(core: &Core, record: &VolumeRecord, why: Option<Failure>) -> VolumeRecord {
    VolumeRecord {
        state: VolumeState::PendingDestroy,
        destroyed_at: Some(core.env.now()),
        growing_to: None,
        failure: why,
        ..record.clone()
    }
}

/// Asks the host how full a volume is. A volume that is not there (yet) has no figures.
pub(crate) async fn usage(core: &Core, record: &VolumeRecord) -> Option<VolumeUsage> {
    if !record.state.is_usable() {
        return None;
    }
    match core.volumes.usage(record.id.clone()).await {
        Ok(usage) => Some(usage),
        Err(failure) => {
            if failure.kind != ErrorKind::NotFound {
                tracing::warn!(volume = %record.id, error = %failure, "volume not measured");
            }
            None
        }
    }
}
