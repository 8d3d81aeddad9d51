//! The two message streams with the host: what Machines should be goes out, what they do comes
//! in (D6, D16).
//!
//! The host hears of everything at first (`Sync`), then of each Machine whose spec or lease changed
//! or of which something new is asked. What the host observes is written in groups: while one group is
//! being committed, the next one gathers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use hangar_api::Timestamp;
use hangar_api::id::{AppName, DeploymentId, MachineId, OpId};
use hangar_api::link::{FromHost, HostMachine, ToHost};
use hangar_api::machine::Observed;
use hangar_store::tables::{
    ClaimOwner, DeployClaims, Leases, MachineHomes, Observations, Ops, Specs,
};
use hangar_store::{Delta, Revision, Snapshot, StoreError, Txn};
use tokio::sync::mpsc;

use crate::core::Core;
use crate::files;
use crate::secrets;
use crate::unit::Unit;

/// Observations that one transaction writes.
const BATCH: usize = 64;
/// How long a store that refuses an observation is left alone; the host waits meanwhile.
const RETRY: Duration = Duration::from_millis(500);

/// What a host was last told of a Machine.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    spec: Revision,
    last_op: Option<OpId>,
    leased_until: Option<Timestamp>,
}

/// Tells the host what Machines should be, until the server stops or the host is gone.
pub(crate) async fn tell_host(core: Arc<Core>, to_host: mpsc::Sender<ToHost>) {
    let mut deltas = core.cache.deltas();
    let mut told = BTreeMap::new();
    let mut sync = true;
    loop {
        let messages = if sync {
            vec![everything(&core, &mut told)]
        } else {
            Vec::new()
        };
        sync = false;
        if !send(&core, &to_host, messages).await {
            return;
        }
        let delta = tokio::select! {
            biased;
            () = core.stop.cancelled() => return,
            delta = deltas.next() => delta,
        };
        match delta {
            None => return,
            Some(Delta::All { .. }) => sync = true,
            Some(delta) => {
                let news = news(&core, &delta, &mut told);
                if !send(&core, &to_host, news).await {
                    return;
                }
            }
        }
    }
}

async fn send(core: &Core, to_host: &mpsc::Sender<ToHost>, messages: Vec<ToHost>) -> bool {
    for message in messages {
        tokio::select! {
            biased;
            () = core.stop.cancelled() => return false,
            sent = to_host.send(message) => if sent.is_err() {
                tracing::info!("host has gone");
                return false;
            },
        }
    }
    true
}

fn everything(core: &Core, told: &mut BTreeMap<MachineId, Told>) -> ToHost {
    let snapshot = core.cache.snapshot();
    told.clear();
    let mut machines = Vec::new();
    for record in snapshot.all::<Specs>() {
        let unit = Unit::around(&snapshot, record);
        if let Some(machine) = host_machine(core, &snapshot, &unit) {
            told.insert(unit.id().clone(), told_of(&snapshot, &unit));
            machines.push(machine);
        }
    }
    ToHost::Sync {
        machines,
        revision: snapshot.revision(),
    }
}

fn told_of(snapshot: &Snapshot, unit: &Unit) -> Told {
    Told {
        spec: unit.spec.mod_revision,
        last_op: unit.queue().last().map(|op| op.id.clone()),
        leased_until: leased_until(snapshot, unit),
    }
}

/// Returns until when a client's lease keeps the proxy away from a Machine. A deployment of our own
/// leases every Machine of its app for as long as it takes: an app whose Machines are all stopped
/// must not be out of reach for that time.
fn leased_until(snapshot: &Snapshot, unit: &Unit) -> Option<Timestamp> {
    let lease = &unit.lease.as_ref()?.value;
    let claim = snapshot.get::<DeployClaims>(&unit.spec().app);
    let is_ours = |id: &DeploymentId| lease.owner == id.as_str();
    let ours = claim.is_some_and(|claim| match &claim.value.owner {
        ClaimOwner::Deployment { id } => is_ours(id),
        ClaimOwner::Client { .. } => false,
    });
    (!ours).then(|| Timestamp::from_second(lease.expires_at).unwrap_or(Timestamp::MAX))
}

fn news(core: &Core, delta: &Delta, told: &mut BTreeMap<MachineId, Told>) -> Vec<ToHost> {
    let mut keys: BTreeSet<(AppName, MachineId)> = BTreeSet::new();
    keys.extend(delta.keys::<Specs>().unwrap_or_default());
    keys.extend(delta.keys::<Ops>().unwrap_or_default());
    keys.extend(delta.keys::<Leases>().unwrap_or_default());
    if keys.is_empty() {
        return Vec::new();
    }
    let snapshot = core.cache.snapshot();
    let mut messages = Vec::new();
    for key in keys {
        let Some(unit) = Unit::of(&snapshot, &key) else {
            if told.remove(&key.1).is_some() {
                messages.push(ToHost::Forget { id: key.1 });
            }
            continue;
        };
        let now = told_of(&snapshot, &unit);
        // A queue that only became shorter is no news: the host did what left it.
        let known = told.get(&key.1);
        let same = known.is_some_and(|old| {
            old.spec == now.spec
                && old.last_op >= now.last_op
                && old.leased_until == now.leased_until
        });
        if same {
            continue;
        }
        if let Some(machine) = host_machine(core, &snapshot, &unit) {
            told.insert(key.1, now);
            messages.push(ToHost::Put(Box::new(machine)));
        }
    }
    messages
}

fn host_machine(core: &Core, snapshot: &Snapshot, unit: &Unit) -> Option<HostMachine> {
    let spec = unit.spec();
    let values = secrets::values(&core.keyring, snapshot, &spec.app, spec.secrets_version);
    match values {
        Ok(secrets) => Some(HostMachine {
            spec: files::whole(snapshot, spec),
            ops: unit.undone().cloned().collect(),
            secrets,
            revision: snapshot.revision(),
            leased_until: leased_until(snapshot, unit),
        }),
        Err(error) => {
            // Without its secrets it would run as something else.
            tracing::error!(
                app = %spec.app, machine = %spec.id, error = %error,
                "machine held back from its host: its secrets do not open"
            );
            None
        }
    }
}

/// Writes what the host observes, until the server stops or the host is gone.
pub(crate) async fn hear_host(
    core: Arc<Core>,
    mut from_host: mpsc::Receiver<FromHost>,
    to_host: mpsc::Sender<ToHost>,
) {
    let mut messages = Vec::new();
    loop {
        messages.clear();
        let received = tokio::select! {
            biased;
            () = core.stop.cancelled() => return,
            received = from_host.recv_many(&mut messages, BATCH) => received,
        };
        if received == 0 {
            return;
        }
        let mut newest: BTreeMap<MachineId, Observed> = BTreeMap::new();
        for message in messages.drain(..) {
            match message {
                FromHost::Hello { host, slots } => {
                    tracing::info!(host = %host, slots = slots.len(), "host is here");
                }
                FromHost::Observed { id, observed } => {
                    let older = newest
                        .get(&id)
                        .is_some_and(|kept| !is_newer(&observed, kept));
                    if !older {
                        newest.insert(id, *observed);
                    }
                }
            }
        }
        if !write_all(&core, newest, &to_host).await {
            return;
        }
    }
}

fn is_newer(news: &Observed, kept: &Observed) -> bool {
    (news.boot, news.sequence) > (kept.boot, kept.sequence)
}

/// Writes a group of observations; returns false when the server stops before it could.
async fn write_all(
    core: &Core,
    mut newest: BTreeMap<MachineId, Observed>,
    to_host: &mpsc::Sender<ToHost>,
) -> bool {
    loop {
        let txn = put(core, &newest, to_host);
        if txn.is_empty() {
            return true;
        }
        match core.try_commit(txn).await {
            Ok(Some(_)) => return true,
            // One of the Machines has been forgotten meanwhile.
            Ok(None) => {}
            // Others must not wait for what will never be taken.
            Err(error @ StoreError::Limit { .. }) => {
                let Some(rest) = halve(&mut newest) else {
                    let machine = newest.keys().next().map(ToString::to_string);
                    tracing::error!(machine, error = %error, "observation left out");
                    return true;
                };
                return Box::pin(write_all(core, newest, to_host)).await
                    && Box::pin(write_all(core, rest, to_host)).await;
            }
            Err(error) => {
                tracing::error!(error = %error, "observations cannot be written, trying again");
                tokio::select! {
                    biased;
                    () = core.stop.cancelled() => return false,
                    () = tokio::time::sleep(RETRY) => {}
                }
            }
        }
    }
}

/// Takes the second half of some observations away, or `None` when there is only one.
fn halve(newest: &mut BTreeMap<MachineId, Observed>) -> Option<BTreeMap<MachineId, Observed>> {
    let middle = newest.keys().nth(newest.len() / 2)?.clone();
    (newest.len() > 1).then(|| newest.split_off(&middle))
}

fn put(core: &Core, newest: &BTreeMap<MachineId, Observed>, to_host: &mpsc::Sender<ToHost>) -> Txn {
    let snapshot = core.cache.snapshot();
    let mut txn = Txn::new();
    for (id, observed) in newest {
        let Some(home) = snapshot.get::<MachineHomes>(id) else {
            // Nobody knows it any more. When the queue is full, the next `Sync` says it too.
            let _ = to_host.try_send(ToHost::Forget { id: id.clone() });
            continue;
        };
        let key = (home.value.app.clone(), id.clone());
        let kept = snapshot.get::<Observations>(&key);
        if kept.is_none_or(|kept| is_newer(observed, &kept.value)) {
            txn = txn
                .check_present::<Specs>(&key)
                .put::<Observations>(&key, observed);
        }
    }
    txn
}
