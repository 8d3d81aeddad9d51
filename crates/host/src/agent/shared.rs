//! What all actors of a host share, and what they tell the others.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hangar_api::catalog::Liveness;
use hangar_api::env::Env;
use hangar_api::id::MachineId;
use hangar_api::link::FromHost;
use hangar_api::machine::Observed;
use hangar_api::seam::Drain;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::{LivenessMap, NetHooks};
use crate::checks::Prober;
use crate::ledger::Ledger;
use crate::logs::LogStore;
use crate::machine::actor::Command;
use crate::machine::images::Images;
use crate::runtime::Runtime;

/// See the module.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) ledger: Ledger,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) images: Arc<dyn Images>,
    pub(crate) net: Arc<dyn NetHooks>,
    pub(crate) drain: Arc<dyn Drain>,
    pub(crate) prober: Arc<dyn Prober>,
    pub(crate) env: Env,
    pub(crate) logs: LogStore,
    pub(crate) outbox: Outbox,
    pub(crate) liveness: watch::Sender<Arc<LivenessMap>>,
    pub(crate) boot: u64,
    /// Set when the host shuts down.
    pub(crate) closing: CancellationToken,
    /// The actors' mailboxes.
    pub(crate) actors: Mutex<BTreeMap<MachineId, mpsc::Sender<Command>>>,
}

/// What is to be sent to the server: the newest record of each Machine. It never grows beyond one
/// record a Machine, however slow the server is; what happened between is in the list of events.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: Mutex<BTreeMap<MachineId, Observed>>,
    changed: Notify,
}

// === impl Shared ===

impl Shared {
    /// Begins a job that ends when its handle is dropped.
    pub(crate) fn job<F>(&self, future: F) -> AbortOnDropHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        AbortOnDropHandle::new(self.env.spawn(future))
    }

    pub(crate) fn set_liveness(&self, id: &MachineId, live: Liveness) {
        self.liveness.send_if_modified(|map| {
            if map.get(id).is_some_and(|known| **known == live) {
                return false;
            }
            Arc::make_mut(map).insert(id.clone(), Arc::new(live));
            true
        });
    }

    pub(crate) fn forget_liveness(&self, id: &MachineId) {
        self.liveness.send_if_modified(|map| {
            map.contains_key(id) && Arc::make_mut(map).remove(id).is_some()
        });
    }

    /// Forgets a Machine that is gone.
    pub(crate) fn forget(&self, id: &MachineId) {
        self.forget_liveness(id);
        self.mailboxes().remove(id);
    }

    pub(crate) fn mailboxes(&self) -> MutexGuard<'_, BTreeMap<MachineId, mpsc::Sender<Command>>> {
        self.actors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn mailbox(&self, id: &MachineId) -> Option<mpsc::Sender<Command>> {
        self.mailboxes().get(id).cloned()
    }
}

// === impl Outbox ===

impl Outbox {
    pub(crate) fn put(&self, id: MachineId, observed: Observed) {
        self.lock().insert(id, observed);
        self.changed.notify_one();
    }

    /// Sends what comes until the server is gone for good.
    pub(crate) async fn send_all(&self, outgoing: mpsc::Sender<FromHost>) {
        loop {
            let next = self.lock().pop_first();
            let Some((id, observed)) = next else {
                self.changed.notified().await;
                continue;
            };
            let observed = Box::new(observed);
            if outgoing
                .send(FromHost::Observed { id, observed })
                .await
                .is_err()
            {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<MachineId, Observed>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
