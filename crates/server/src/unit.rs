//! A Machine's records as of one view, and what clients see of them.

use std::sync::Arc;

use hangar_api::Timestamp;
use hangar_api::event::MachineEvent;
use hangar_api::id::{AppName, EventId, MachineId};
use hangar_api::lease::Lease;
use hangar_api::machine::state::{api_state, is_done};
use hangar_api::machine::{Machine, MachineSpec, MachineState, Observed, Op};
use hangar_store::tables::{Cycles, Leases, Observations, Ops, Slots, Specs};
use hangar_store::{Record, Snapshot, Table};

use crate::core::Core;
use crate::error::Problem;
use crate::schedules;

/// A Machine: spec, ops, what its host says, lease.
#[derive(Clone, Debug)]
pub(crate) struct Unit {
    pub(crate) spec: Arc<Record<Specs>>,
    pub(crate) ops: Option<Arc<Record<Ops>>>,
    pub(crate) seen: Option<Arc<Record<Observations>>>,
    pub(crate) lease: Option<Arc<Record<Leases>>>,
    /// How far its schedule has come.
    pub(crate) cycle: Option<Arc<Record<Cycles>>>,
    /// Its slot is marked lost.
    pub(crate) is_lost: bool,
}

// === impl Unit ===

impl Unit {
    /// Returns a Machine of an app, a destroyed one included.
    pub(crate) fn find(core: &Core, app: &AppName, id: &MachineId) -> Result<Self, Problem> {
        core.app(app)?;
        let key = (app.clone(), id.clone());
        Self::of(&core.cache.snapshot(), &key).ok_or(Problem::MachineNotFound)
    }

    /// Returns a Machine as of a view.
    pub(crate) fn of(snapshot: &Snapshot, key: &(AppName, MachineId)) -> Option<Self> {
        let spec = snapshot.get::<Specs>(key)?;
        Some(Self::around(snapshot, spec))
    }

    /// Returns all Machines of an app by id, destroyed ones included.
    pub(crate) fn all(snapshot: &Snapshot, app: &AppName) -> Vec<Self> {
        snapshot
            .under::<Specs, _>(app)
            .map(|spec| Self::around(snapshot, spec))
            .collect()
    }

    /// Returns the specs of all Machines with their states, in one walk through the tables: looking
    /// each one up would cost many times as much.
    pub(crate) fn states(
        snapshot: &Snapshot,
    ) -> impl Iterator<Item = (&Arc<Record<Specs>>, MachineState)> {
        let mut ops = Beside::new(snapshot, snapshot.all::<Ops>());
        let mut seen = Beside::new(snapshot, snapshot.all::<Observations>());
        snapshot.all::<Specs>().map(move |spec| {
            let queue = ops.of(&spec.key).map_or(&[][..], |ops| &ops.value);
            let observed = seen.of(&spec.key).map(|seen| &seen.value);
            (spec, api_state(&spec.value, queue, observed))
        })
    }

    /// Returns the Machine that a spec is of.
    pub(crate) fn around(snapshot: &Snapshot, spec: &Arc<Record<Specs>>) -> Self {
        Self {
            spec: Arc::clone(spec),
            ops: snapshot.get::<Ops>(&spec.key).cloned(),
            seen: snapshot.get::<Observations>(&spec.key).cloned(),
            lease: snapshot.get::<Leases>(&spec.key).cloned(),
            cycle: snapshot.get::<Cycles>(&spec.key).cloned(),
            is_lost: snapshot.get::<Slots>(&spec.value.slot).is_some(),
        }
    }

    pub(crate) fn spec(&self) -> &MachineSpec {
        &self.spec.value
    }

    pub(crate) fn id(&self) -> &MachineId {
        &self.spec.value.id
    }

    pub(crate) fn observed(&self) -> Option<&Observed> {
        self.seen.as_deref().map(|record| &record.value)
    }

    /// Returns the queue as it is stored: done ones are dropped by the next write.
    pub(crate) fn queue(&self) -> &[Op] {
        self.ops.as_deref().map_or(&[], |record| &record.value)
    }

    /// Returns what its host has not done.
    pub(crate) fn undone(&self) -> impl Iterator<Item = &Op> {
        self.queue()
            .iter()
            .filter(|op| !is_done(op, self.observed()))
    }

    pub(crate) fn state(&self) -> MachineState {
        api_state(self.spec(), self.queue(), self.observed())
    }

    /// Returns the lease, unless it has expired.
    pub(crate) fn lease(&self, now: Timestamp) -> Option<&Lease> {
        self.lease
            .as_deref()
            .map(|record| &record.value)
            .filter(|lease| lease.holds(now))
    }

    pub(crate) fn newest_event(&self) -> Option<EventId> {
        self.events().first().map(|event| event.id.clone())
    }

    pub(crate) fn events(&self) -> Vec<MachineEvent> {
        match self.observed() {
            Some(observed) if !observed.events.is_empty() => observed.events.clone(),
            _ => vec![self.created_event()],
        }
    }

    /// Returns the event that stands for its creation until its host has told of any.
    fn created_event(&self) -> MachineEvent {
        let spec = self.spec();
        MachineEvent {
            // The version is a ULID of the same moment, and no host makes that one again.
            id: EventId::new(spec.instance_id.as_str()).unwrap_or_else(|_| zero_event()),
            kind: "launch".to_owned(),
            status: "created".to_owned(),
            source: "user".to_owned(),
            timestamp: spec.created_at.as_millisecond(),
            request: None,
        }
    }

    /// Returns what clients see.
    pub(crate) fn view(&self) -> Machine {
        let spec = self.spec();
        let observed = self.observed();
        Machine {
            id: spec.id.clone(),
            name: spec.name.clone(),
            state: self.state(),
            region: spec.region.clone(),
            instance_id: spec.instance_id.clone(),
            version: Some(spec.instance_id.clone()),
            private_ip: long_form(spec.private_ip()),
            created_at: spec.created_at,
            updated_at: observed.map_or(spec.updated_at, |o| o.updated_at.max(spec.updated_at)),
            config: spec.config.clone(),
            image_ref: spec.image_ref.clone(),
            events: self.events(),
            checks: observed.map(|o| o.checks.clone()).unwrap_or_default(),
            host_status: if self.is_lost { "unreachable" } else { "ok" }.to_owned(),
            cordoned: spec.cordoned,
            nonce: None,
            lease: None,
            slot: Some(spec.slot.clone()),
            reason: observed.and_then(|o| o.reason.clone()),
            next_run: self
                .cycle
                .as_ref()
                .and_then(|cycle| schedules::next_run(self.id(), &cycle.value)),
        }
    }
}

/// The records of a table that lie beside specs, in the same order.
struct Beside<'a, T: Table, I: Iterator<Item = &'a Arc<Record<T>>>> {
    snapshot: &'a Snapshot,
    rest: std::iter::Peekable<I>,
}

impl<'a, T, I> Beside<'a, T, I>
where
    T: Table<Key = (AppName, MachineId)>,
    I: Iterator<Item = &'a Arc<Record<T>>>,
{
    fn new(snapshot: &'a Snapshot, records: I) -> Self {
        Self {
            snapshot,
            rest: records.peekable(),
        }
    }

    /// Returns the record of the next spec, if it has one.
    fn of(&mut self, key: &T::Key) -> Option<&'a Arc<Record<T>>> {
        loop {
            let next = *self.rest.peek()?;
            if next.key == *key {
                return self.rest.next();
            }
            // One of a later spec, which is waited for, or of none, which is left out.
            if self.snapshot.get::<Specs>(&next.key).is_some() {
                return None;
            }
            self.rest.next();
        }
    }
}

/// Returns an address with all of its eight groups: clients split it at its colons.
fn long_form(address: std::net::Ipv6Addr) -> String {
    address
        .segments()
        .map(|group| format!("{group:x}"))
        .join(":")
}

fn zero_event() -> EventId {
    EventId::new("0".repeat(26)).expect("26 digits are an event ID")
}
