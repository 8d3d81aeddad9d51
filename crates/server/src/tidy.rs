//! Letting go of what is over: destroyed Machines, apps that are being destroyed, claims and
//! versions that nobody needs.
//!
//! A sweep looks at everything and may be repeated; changes wake it, a timer makes it true.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use hangar_api::id::{AppName, DeploymentId};
use hangar_api::machine::{MachineState, OpKind};
use hangar_api::volume::SnapshotStatus;
use hangar_store::tables::{
    AppNumbers, Apps, Certificates, Claim, Claims, DeployClaims, Deployments, Formations,
    Hostnames, IpRecords, Leases, MachineHomes, Observations, Ops, Releases, SecretSets,
    SnapshotRecord, Specs, Versions, VolumeRecord, VolumeSnapshots, Volumes, Wishes,
};
use hangar_store::{Delta, Record, Snapshot, StoreError, Table, Txn};
use jiff::SignedDuration;

use crate::auth::tokens;
use crate::core::Core;
use crate::images;
use crate::machines::{ops, versions};
use crate::unit::Unit;
use crate::volumes::{attach, ended};

/// A sweep comes at least this often.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// A sweep that failed is made again after this.
const RETRY: Duration = Duration::from_secs(1);
/// One whose writes were overtaken by somebody else's is made again after this: what they were
/// about may be waited for, such as the volume of a destroyed Machine.
const AGAIN: Duration = Duration::from_millis(100);
/// Changes that come within this are looked at together.
const GATHER: Duration = Duration::from_millis(5);
/// The records of a destroyed Machine are kept this long, for `include_deleted` and waits.
const DESTROYED_KEPT: SignedDuration = SignedDuration::from_hours(24);
/// And at most so many of an app, the newest.
const MAX_DESTROYED: usize = 200;
/// Releases of an app that are kept.
const MAX_RELEASES: usize = 100;
/// Deployments of an app that are kept.
const MAX_DEPLOYMENTS: usize = 50;
/// Deletions that one transaction holds; the store takes 128 writes.
const BATCH: usize = 100;
/// Images that nobody needs are removed this often.
const COLLECT_EVERY: Duration = Duration::from_secs(24 * 3600);
/// And the first time so long after the start, so that a server that is started anew every day
/// collects too.
const COLLECT_FIRST: Duration = Duration::from_secs(15 * 60);

/// What became of a sweep.
enum Swept {
    /// All that was found is done.
    Clean,
    /// Somebody else was first with something of it.
    Overtaken,
}

/// Sweeps until the server stops.
pub(crate) async fn run(core: Arc<Core>) {
    let mut deltas = core.cache.deltas();
    loop {
        let rest = match sweep(&core).await {
            Ok(Swept::Clean) => SWEEP_EVERY,
            Ok(Swept::Overtaken) => AGAIN,
            Err(error) => {
                tracing::warn!(error = %error, "sweep failed, trying again");
                RETRY
            }
        };
        let next_sweep = tokio::time::Instant::now() + rest;
        if !core
            .is_due(&mut deltas, next_sweep, |delta| matters(&core, delta))
            .await
        {
            return;
        }
        let gathered = tokio::time::Instant::now() + GATHER;
        while let Ok(Some(_)) = tokio::time::timeout_at(gathered, deltas.next()).await {}
    }
}

/// Removes unneeded images soon after the start and then daily, until the server stops.
pub(crate) async fn collect_images(core: Arc<Core>) {
    let mut rest = COLLECT_FIRST;
    loop {
        tokio::select! {
            biased;
            () = core.stop.cancelled() => return,
            () = tokio::time::sleep(rest) => {}
        }
        rest = COLLECT_EVERY;
        if let Err(problem) = images::collect(&core).await {
            tracing::warn!(error = %problem.text(), "images not collected");
        }
    }
}

/// Returns whether a change may leave something to let go of.
fn matters(core: &Core, delta: &Delta) -> bool {
    let (Some(apps), Some(seen)) = (delta.keys::<Apps>(), delta.keys::<Observations>()) else {
        return true;
    };
    let over = |key| {
        let record = core.cache.get::<Deployments>(key);
        record.is_none_or(|record| record.value.status.is_over())
    };
    let deployments = delta.keys::<Deployments>().unwrap_or_default();
    let deleting = |app: &AppName| {
        core.cache
            .get::<Apps>(app)
            .is_some_and(|r| r.value.deleting)
    };
    let gone = |key| {
        let record = core.cache.get::<Observations>(key);
        record.is_some_and(|record| record.value.state == MachineState::Destroyed)
    };
    let volumes = delta.keys::<Volumes>().unwrap_or_default();
    let snapshots = delta.keys::<VolumeSnapshots>().unwrap_or_default();
    let mut of = volumes
        .iter()
        .map(|key| &key.0)
        .chain(snapshots.iter().map(|key| &key.0));
    of.any(deleting)
        || apps.iter().any(deleting)
        || seen.iter().any(gone)
        || deployments.iter().any(over)
}

async fn sweep(core: &Core) -> Result<Swept, StoreError> {
    let still_pushed = forget_pushed(core).await;
    let mut txns = Vec::new();
    {
        let snapshot = core.cache.snapshot();
        for app in snapshot.all::<Apps>() {
            if still_pushed.contains(&app.key) {
                continue;
            }
            if app.value.deleting {
                txns.extend(end_of_app(core, &snapshot, app));
            } else {
                txns.extend(ends_of_machines(core, &snapshot, &app.key));
                txns.extend(old_versions(&snapshot, app));
            }
        }
        txns.extend(old_launch_claims(&snapshot));
        txns.extend(old_leases(&snapshot));
        txns.extend(tokens::forgotten(&snapshot, core.env.now()));
    }
    let mut swept = Swept::Clean;
    for txn in txns {
        if core.try_commit(txn).await?.is_none() {
            swept = Swept::Overtaken;
        }
    }
    Ok(swept)
}

/// Removes what was pushed to apps that are being destroyed, before their names are free again.
/// Returns those of which something is left.
async fn forget_pushed(core: &Core) -> BTreeSet<AppName> {
    let mut left = BTreeSet::new();
    let snapshot = core.cache.snapshot();
    for app in snapshot.all::<Apps>().filter(|app| app.value.deleting) {
        if let Err(error) = core.registry.remove_app(&app.key).await {
            tracing::warn!(%error, app = %app.key, "what was pushed to a destroyed app is still here");
            left.insert(app.key.clone());
        }
    }
    left
}

/// Frees names and leases of destroyed Machines at once, and forgets them after a while.
fn ends_of_machines(core: &Core, snapshot: &Snapshot, app: &AppName) -> Vec<Txn> {
    let mut gone: Vec<Unit> = Unit::all(snapshot, app)
        .into_iter()
        .filter(|unit| unit.state() == MachineState::Destroyed)
        .collect();
    gone.sort_by_key(|unit| std::cmp::Reverse(unit.observed().map(|o| o.updated_at)));
    let mut txns = Vec::new();
    let now = core.env.now();
    for (index, unit) in gone.iter().enumerate() {
        let since = unit.observed().map_or(now, |observed| observed.updated_at);
        if index >= MAX_DESTROYED || now.duration_since(since) > DESTROYED_KEPT {
            txns.push(forgotten(snapshot, unit));
            continue;
        }
        let mut txn = name_freed(snapshot, unit).and(attach::freed(snapshot, unit));
        if let Some(lease) = &unit.lease {
            txn = txn.remove::<Leases>(lease);
        }
        if !txn.is_empty() {
            txns.push(txn);
        }
    }
    txns
}

fn name_freed(snapshot: &Snapshot, unit: &Unit) -> Txn {
    let spec = unit.spec();
    let claim = Claim::MachineName(spec.app.clone(), spec.name.clone());
    match snapshot.get::<Claims>(&claim) {
        Some(record) if record.value.machine == spec.id => Txn::new().remove::<Claims>(record),
        _ => Txn::new(),
    }
}

/// Returns the removal of all that a Machine has in the store.
fn forgotten(snapshot: &Snapshot, unit: &Unit) -> Txn {
    let spec = unit.spec();
    let key = &unit.spec.key;
    let versions = versions::all(snapshot, unit);
    let versions = versions.fold(Txn::new(), |txn, old| txn.delete::<Versions>(&old.key));
    name_freed(snapshot, unit)
        .and(versions)
        .and(attach::freed(snapshot, unit))
        .remove::<Specs>(&unit.spec)
        .delete::<Ops>(key)
        .delete::<Observations>(key)
        .delete::<Leases>(key)
        .delete::<MachineHomes>(&spec.id)
        .delete::<Claims>(&Claim::Low32(spec.host.clone(), spec.id.low32()))
}

/// Destroys the Machines of an app, then removes its records, the app's own last.
fn end_of_app(core: &Core, snapshot: &Snapshot, app: &Record<Apps>) -> Vec<Txn> {
    let units = Unit::all(snapshot, &app.key);
    let left: Vec<&Unit> = units
        .iter()
        .filter(|unit| unit.state() != MachineState::Destroyed)
        .collect();
    if !left.is_empty() {
        let going = left.iter().filter(|unit| unit.state().is_active());
        return going
            .filter_map(|unit| ops::appended(core, unit, OpKind::Destroy, "user").ok())
            .collect();
    }
    let name = &app.key;
    let going = ends_of_volumes(core, snapshot, name);
    if !going.is_empty() {
        return going;
    }
    let volumes: Vec<_> = snapshot.under::<Volumes, _>(name).collect();
    let snapshots = snapshot.under::<VolumeSnapshots, _>(name).count();
    if snapshots > 0 || volumes.iter().any(|record| !record.value.removed) {
        // Their data goes first; their records' change wakes us.
        return Vec::new();
    }
    let mut txns: Vec<Txn> = units.iter().map(|unit| forgotten(snapshot, unit)).collect();
    txns.extend(freed_hostnames(snapshot, name));
    txns.extend(removed(volumes.into_iter()));
    txns.extend(removed(snapshot.under::<Releases, _>(name)));
    txns.extend(removed(snapshot.under::<Deployments, _>(name)));
    txns.extend(removed(snapshot.under::<SecretSets, _>(name)));
    txns.extend(removed(snapshot.under::<Formations, _>(name)));
    txns.extend(removed(snapshot.under::<Wishes, _>(name)));
    txns.extend(removed(snapshot.under::<IpRecords, _>(name)));
    let last = Txn::new()
        .remove::<Apps>(app)
        .delete::<AppNumbers>(&app.value.number)
        .delete::<DeployClaims>(name);
    txns.push(last);
    tracing::info!(app = %name, "app destroyed");
    txns
}

/// Frees an app's host names; their certificates go with them.
fn freed_hostnames(snapshot: &Snapshot, app: &AppName) -> Vec<Txn> {
    let records: Vec<_> = snapshot.under::<Certificates, _>(app).collect();
    let free = |txn: Txn, record: &&Arc<Record<Certificates>>| {
        txn.delete::<Certificates>(&record.key)
            .delete::<Hostnames>(&record.key.1)
    };
    // Two writes each.
    let batches = records.chunks(BATCH / 2);
    batches
        .map(|batch| batch.iter().fold(Txn::new(), free))
        .collect()
}

/// Begins the end of an app's volumes and snapshots, once its Machines are destroyed.
fn ends_of_volumes(core: &Core, snapshot: &Snapshot, app: &AppName) -> Vec<Txn> {
    let volumes = snapshot
        .under::<Volumes, _>(app)
        .filter(|record| !record.value.state.is_gone());
    let mut txns: Vec<Txn> = volumes
        .map(|record| {
            let gone = VolumeRecord {
                attached: None,
                ..ended(core, &record.value, None)
            };
            Txn::new().update(record, &gone)
        })
        .collect();
    let snapshots = snapshot
        .under::<VolumeSnapshots, _>(app)
        .filter(|record| record.value.status != SnapshotStatus::Deleting);
    txns.extend(snapshots.map(|record| {
        let going = SnapshotRecord {
            status: SnapshotStatus::Deleting,
            ..record.value.clone()
        };
        Txn::new().update(record, &going)
    }));
    txns
}

fn removed<'a, T: Table>(records: impl Iterator<Item = &'a Arc<Record<T>>>) -> Vec<Txn> {
    let records: Vec<_> = records.collect();
    let batch = |batch: &[&Arc<Record<T>>]| {
        batch
            .iter()
            .fold(Txn::new(), |txn, record| txn.delete::<T>(&record.key))
    };
    records.chunks(BATCH).map(batch).collect()
}

/// Removes releases and deployments beyond what is kept, and versions of the secrets that no
/// release and no Machine starts with.
fn old_versions(snapshot: &Snapshot, app: &Record<Apps>) -> Vec<Txn> {
    let name = &app.key;
    let releases: Vec<_> = snapshot.under::<Releases, _>(name).collect();
    let deployments: Vec<_> = snapshot
        .under::<Deployments, _>(name)
        .filter(|record| record.value.status.is_over())
        .collect();
    let old_releases = &releases[..releases.len().saturating_sub(MAX_RELEASES)];
    let old_deployments = &deployments[..deployments.len().saturating_sub(MAX_DEPLOYMENTS)];
    let kept = &releases[old_releases.len()..];
    let mut needed: BTreeSet<u64> = kept.iter().map(|r| r.value.secrets_version).collect();
    needed.insert(app.value.secrets_version);
    for unit in Unit::all(snapshot, name) {
        needed.insert(unit.spec().secrets_version);
    }
    let newest = needed.last().copied().unwrap_or_default();
    // A deployment that runs may put former versions back, with the secrets that they had.
    let deploying = snapshot.get::<DeployClaims>(name).is_some();
    let old_sets = snapshot
        .under::<SecretSets, _>(name)
        // One that is newer than this view of the app is needed by what is being written.
        .filter(|record| {
            let version = record.key.1;
            !deploying && version < newest && !needed.contains(&version)
        });
    let mut txns = removed(old_releases.iter().copied());
    txns.extend(removed(old_deployments.iter().copied()));
    txns.extend(removed(old_sets));
    txns
}

/// Removes the leases of deployments that are over.
fn old_leases(snapshot: &Snapshot) -> Vec<Txn> {
    let old = snapshot.all::<Leases>().filter(|record| {
        // A user is never called like a deployment.
        let Ok(id) = DeploymentId::new(record.value.owner.as_str()) else {
            return false;
        };
        let deployment = snapshot.get::<Deployments>(&(record.key.0.clone(), id));
        deployment.is_none_or(|deployment| deployment.value.status.is_over())
    });
    old.map(|record| Txn::new().remove::<Leases>(record))
        .collect()
}

/// Removes the launch claims of deployments that are over: they only tell whether a step of the
/// deployment was done.
fn old_launch_claims(snapshot: &Snapshot) -> Vec<Txn> {
    let mut over: BTreeMap<String, bool> = BTreeMap::new();
    for record in snapshot.all::<Deployments>() {
        over.insert(record.key.1.to_string(), record.value.status.is_over());
    }
    let old = snapshot.all::<Claims>().filter(|record| match &record.key {
        Claim::Launch(id, _, _) => over.get(id.as_str()).copied().unwrap_or(true),
        _ => false,
    });
    removed(old)
}
