//! The loads of all Machines, kept across snapshots of the Catalog.
//!
//! Written by the control task when it reads a snapshot, and by a drain. A drain closes a start
//! at once, without waiting for the snapshot that says so; a snapshot from before the drain does
//! not open it again.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hangar_api::catalog::{CatalogMachine, Phase};
use hangar_api::id::MachineId;
use tokio::time::Instant;

use crate::load::{Load, Transport};

/// How long a Machine that is down is remembered to have been alive.
const TIDY_AFTER: Duration = Duration::from_secs(60);

/// The loads of all Machines.
#[derive(Debug)]
pub(crate) struct Registry {
    machines: Mutex<HashMap<MachineId, Entry>>,
    cores: usize,
    held: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Entry {
    /// The start that is up, and since when the proxy sees it so.
    up: Option<(u64, Instant)>,
    /// The start that was up already when the proxy first looked.
    found: Option<u64>,
    /// Services whose checks have passed in this start.
    was_healthy: BTreeSet<u16>,
    /// Of the start that is up, and older ones while something is in flight to them.
    loads: Vec<Arc<Load>>,
    /// When it was last seen other than down.
    last_alive: Option<Instant>,
    /// A drain that the Catalog does not show yet.
    closing: Option<Closing>,
    /// No longer in the Catalog.
    gone: bool,
}

#[derive(Clone, Copy, Debug)]
struct Closing {
    starts: u64,
    until: Instant,
}

/// A service of a Machine that is up.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Its load, for this start.
    pub(crate) load: Arc<Load>,
    /// Whether its checks have passed in this start.
    pub(crate) was_healthy: bool,
    /// Whether it was up already when the proxy first looked.
    pub(crate) found: bool,
}

// === impl Registry ===

impl Registry {
    pub(crate) fn new(cores: usize, held: Arc<AtomicUsize>) -> Self {
        Self {
            machines: Mutex::default(),
            cores,
            held,
        }
    }

    /// Takes in a Machine of a snapshot: closes or opens its loads.
    ///
    /// Returns when it was last seen other than down.
    pub(crate) fn observe(&self, machine: &CatalogMachine, now: Instant) -> Option<Instant> {
        let live = &machine.live;
        let mut machines = self.lock();
        let entry = machines.entry(machine.route.id.clone()).or_default();
        entry.gone = false;
        if !live.phase.is_down() {
            entry.last_alive = Some(now);
        }
        if live.phase == Phase::Up && live.address.is_some() {
            entry.is_up(live.starts, now);
            for service in live.services.iter().filter(|s| s.healthy) {
                entry.was_healthy.insert(service.service.internal_port);
            }
        } else {
            entry.is_not_up(live.starts);
        }
        entry.prune();
        entry.last_alive
    }

    /// Notes a Machine of the first snapshot: where it is up, it did not just come up.
    pub(crate) fn find(&self, machine: &CatalogMachine) {
        if machine.live.phase == Phase::Up {
            let mut machines = self.lock();
            let entry = machines.entry(machine.route.id.clone()).or_default();
            entry.found = Some(machine.live.starts);
        }
    }

    /// Returns the load of a service of a Machine that is up, a new one where there is none. The
    /// service is known by its internal port, and reached at `target`.
    pub(crate) fn service(
        &self,
        machine: &MachineId,
        port: u16,
        target: (Transport, SocketAddr),
        now: Instant,
    ) -> Option<Seen> {
        let mut machines = self.lock();
        let entry = machines.get_mut(machine)?;
        let (starts, up_since) = entry.up?;
        let known = entry.loads.iter().find(|load| {
            let same = (load.transport, load.address) == target;
            load.starts == starts && same && !load.is_cut()
        });
        let load = if let Some(load) = known {
            load.clone()
        } else {
            let load = Arc::new(Load::new(
                machine.clone(),
                starts,
                target,
                up_since,
                self.cores,
                self.held.clone(),
            ));
            if entry.is_closing(starts, now) {
                load.close();
            }
            entry.loads.push(load.clone());
            load
        };
        Some(Seen {
            load,
            was_healthy: entry.was_healthy.contains(&port),
            found: entry.found == Some(starts),
        })
    }

    /// Closes all loads of the start and of older ones, and returns them. Until `until` no
    /// snapshot opens them again, unless it has shown the drain.
    pub(crate) fn close(&self, machine: &MachineId, starts: u64, until: Instant) -> Vec<Arc<Load>> {
        let mut machines = self.lock();
        let entry = machines.entry(machine.clone()).or_default();
        entry.closing = Some(Closing { starts, until });
        let loads = entry.loads.iter().filter(|load| load.starts <= starts);
        let loads: Vec<_> = loads.cloned().collect();
        for load in &loads {
            load.close();
        }
        loads
    }

    /// Closes all loads of the start if nothing is in flight to any of them, so that nothing can
    /// come between this and the Machine's rest. Returns whether they are closed: until `until`,
    /// as by [`Registry::close`].
    pub(crate) fn close_if_idle(&self, machine: &MachineId, starts: u64, until: Instant) -> bool {
        let mut machines = self.lock();
        let Some(entry) = machines.get_mut(machine) else {
            return false;
        };
        if entry.up.is_none_or(|(up, _)| up != starts) || entry.closing.is_some() {
            return false;
        }
        if !entry.loads.iter().all(|load| load.close_if_empty()) {
            entry.open(starts);
            return false;
        }
        entry.closing = Some(Closing { starts, until });
        // What is idle goes too.
        entry.loads.iter().for_each(|load| load.close());
        true
    }

    /// Lets a start be used again that was closed before it could come to rest.
    pub(crate) fn reopen(&self, machine: &MachineId, starts: u64) {
        if let Some(entry) = self.lock().get_mut(machine)
            && entry.closing.is_none_or(|closing| closing.starts <= starts)
        {
            entry.closing = None;
            entry.open(starts);
        }
    }

    /// Takes a Machine out that the Catalog no longer has.
    pub(crate) fn forget(&self, machine: &MachineId) {
        if let Some(entry) = self.lock().get_mut(machine) {
            entry.is_not_up(u64::MAX);
            entry.gone = true;
        }
    }

    /// Drops what is over. Returns whether a drain ran out without the Catalog showing it, so
    /// that the snapshot must be taken in again.
    pub(crate) fn tidy(&self, now: Instant) -> bool {
        let mut expired = false;
        self.lock().retain(|_, entry| {
            if entry.closing.is_some_and(|closing| closing.until <= now) {
                entry.closing = None;
                expired = true;
            }
            entry.prune();
            !(entry.loads.is_empty()
                && entry.closing.is_none()
                && (entry.gone
                    || (entry.up.is_none()
                        && entry.last_alive.is_none_or(|at| at + TIDY_AFTER < now))))
        });
        expired
    }

    /// Returns every load, to reap idle connections and to end what is left.
    pub(crate) fn all(&self) -> Vec<Arc<Load>> {
        let machines = self.lock();
        let loads = machines.values().flat_map(|entry| entry.loads.iter());
        loads.cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<MachineId, Entry>> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Entry ===

impl Entry {
    fn is_up(&mut self, starts: u64, now: Instant) {
        if self.up.is_none_or(|(seen, _)| seen != starts) {
            self.up = Some((starts, now));
            self.was_healthy.clear();
        }
        let closing = self.is_closing(starts, now);
        for load in &self.loads {
            if load.starts == starts && !closing && !load.is_cut() {
                load.open();
            } else {
                load.close();
            }
        }
    }

    /// Opens what is up of a start.
    fn open(&self, starts: u64) {
        let up = self.up.is_some_and(|(up, _)| up == starts);
        let of_it = |load: &&Arc<Load>| up && load.starts == starts && !load.is_cut();
        self.loads.iter().filter(of_it).for_each(|load| load.open());
    }

    fn is_not_up(&mut self, starts: u64) {
        self.up = None;
        self.was_healthy.clear();
        if self.closing.is_some_and(|closing| closing.starts <= starts) {
            self.closing = None;
        }
        for load in &self.loads {
            load.close();
        }
    }

    fn is_closing(&self, starts: u64, now: Instant) -> bool {
        self.closing
            .is_some_and(|closing| starts <= closing.starts && now < closing.until)
    }

    fn prune(&mut self) {
        let up = self.up.map(|(starts, _)| starts);
        self.loads
            .retain(|load| up == Some(load.starts) || load.in_flight() > 0);
    }
}

#[cfg(test)]
mod tests;
