//! Scheduled Machines (machines-api.md 7.4): one that rests is started once in each interval, from
//! its first start on.
//!
//! A reconciler: it takes no input, changes wake it, a timer makes it true. How far a schedule has
//! come is written in the transaction that asks for the start, so that a server which is killed
//! neither doubles a run nor forgets one.

mod calendar;

use std::sync::Arc;
use std::time::Duration;

use hangar_api::Timestamp;
use hangar_api::id::{AppName, MachineId};
use hangar_store::tables::{Apps, Cycle, Cycles, DeployClaims, Leases, Observations, Slots, Specs};
use hangar_store::{Delta, Record, Snapshot, Txn};

use self::calendar::{Facts, Turn};
use crate::core::Core;
use crate::error::Problem;
use crate::lease::Holder;
use crate::machines::ops;
use crate::unit::Unit;

/// A look comes at least this often: leases end without a word, and a clock may be set.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Most Machines that are started in one look; the next look comes soon.
const MAX_STARTS: usize = 32;
/// The next look, when there were more.
const SOON: Duration = Duration::from_millis(500);

/// What one look has found.
#[derive(Debug, Default)]
struct Found {
    txns: Vec<Txn>,
    /// When the next Machine is due.
    next: Option<Timestamp>,
    starts: usize,
}

/// Starts scheduled Machines until the server stops.
pub(crate) async fn run(core: Arc<Core>) {
    let mut deltas = core.cache.deltas();
    loop {
        let rest = match look(&core).await {
            Ok(rest) => rest,
            Err(problem) => {
                tracing::warn!(error = %problem.text(), "schedules not looked after, trying again");
                LOOK_EVERY
            }
        };
        let until = tokio::time::Instant::now() + rest;
        if !core
            .is_due(&mut deltas, until, |delta| matters(&core, delta))
            .await
        {
            return;
        }
    }
}

/// Returns when a Machine's schedule starts it next.
pub(crate) fn next_run(id: &MachineId, cycle: &Cycle) -> Option<Timestamp> {
    calendar::next(cycle, calendar::spread(id, cycle.every))
}

/// Returns whether a change may have made a Machine due, or free to be started.
fn matters(core: &Core, delta: &Delta) -> bool {
    if delta.touches::<DeployClaims>() || delta.touches::<Slots>() {
        return true;
    }
    let keys = [
        delta.keys::<Specs>(),
        delta.keys::<Observations>(),
        delta.keys::<Leases>(),
    ];
    let snapshot = core.cache.snapshot();
    let scheduled = |key: &(AppName, MachineId)| {
        let spec = snapshot.get::<Specs>(key);
        spec.is_none_or(|spec| spec.value.config.other.contains_key("schedule"))
            || snapshot.get::<Cycles>(key).is_some()
    };
    keys.into_iter()
        .any(|keys| keys.is_none_or(|keys| keys.iter().any(scheduled)))
}

/// Does what is to be done now, and returns how long nothing is.
async fn look(core: &Core) -> Result<Duration, Problem> {
    let now = core.env.now();
    let found = find(core, &core.cache.snapshot(), now);
    for txn in found.txns {
        // Somebody was first with something of it: what they wrote wakes us.
        core.try_commit(txn).await?;
    }
    if found.starts >= MAX_STARTS {
        return Ok(SOON);
    }
    let left = found.next.map(|at| at.duration_since(now));
    let left = left.and_then(|left| Duration::try_from(left).ok());
    Ok(left.map_or(LOOK_EVERY, |left| left.min(LOOK_EVERY)))
}

fn find(core: &Core, snapshot: &Snapshot, now: Timestamp) -> Found {
    let mut found = Found::default();
    for spec in snapshot.all::<Specs>() {
        let cycle = snapshot.get::<Cycles>(&spec.key);
        if cycle.is_none() && !spec.value.config.other.contains_key("schedule") {
            continue;
        }
        let unit = Unit::around(snapshot, spec);
        let facts = facts(snapshot, &unit, now);
        let turn = calendar::decide(&facts, cycle.map(|record| &record.value), now);
        if matches!(turn, Turn::Run(_)) {
            found.starts += 1;
            if found.starts > MAX_STARTS {
                continue;
            }
        }
        let next = cycle.and_then(|record| calendar::next(&record.value, facts.spread));
        let next = next.filter(|at| *at > now);
        found.next = [found.next, next].into_iter().flatten().min();
        found.txns.extend(carry_out(core, &unit, turn, cycle));
    }
    let gone = snapshot
        .all::<Cycles>()
        .filter(|record| snapshot.get::<Specs>(&record.key).is_none());
    found
        .txns
        .extend(gone.map(|record| Txn::new().remove::<Cycles>(record)));
    found
}

fn facts(snapshot: &Snapshot, unit: &Unit, now: Timestamp) -> Facts {
    let spec = unit.spec();
    // A standby is started when somebody is lost, and only then.
    let stands_by = !spec.config.standbys.is_empty();
    let every = spec.config.schedule().ok().flatten();
    let every = every.filter(|_| !stands_by);
    let app = snapshot.get::<Apps>(&spec.app);
    let deploying = snapshot.get::<DeployClaims>(&spec.app).is_some();
    let leased = Holder::platform().may_write(unit, now).is_err();
    Facts {
        every,
        state: unit.state(),
        has_run: unit.observed().is_some_and(|seen| seen.starts > 0),
        is_free: !unit.is_lost && !deploying && !leased && app.is_some_and(|a| !a.value.deleting),
        spread: every.map_or_else(Default::default, |every| calendar::spread(&spec.id, every)),
    }
}

/// Returns the writes of a turn; none where the Machine cannot be asked now.
fn carry_out(
    core: &Core,
    unit: &Unit,
    turn: Turn,
    cycle: Option<&Arc<Record<Cycles>>>,
) -> Option<Txn> {
    let key = &unit.spec.key;
    // What was read still stands: the schedule, and how far it had come.
    let write = |next: &Cycle| {
        let txn = Txn::new().check_same(&unit.spec);
        match cycle {
            Some(record) => txn.update(record, next),
            None => txn.create::<Cycles>(key, next),
        }
    };
    match turn {
        Turn::Rest => None,
        Turn::Forget => Some(Txn::new().remove::<Cycles>(cycle?)),
        Turn::Begin(next) | Turn::Pass(next) => Some(write(&next)),
        Turn::Run(next) => {
            let kind = ops::start(unit).ok()??;
            let free = Holder::platform().may_write(unit, core.env.now()).ok()?;
            let asked = ops::appended(core, unit, kind, "flyd").ok()?;
            tracing::info!(machine = %unit.id(), app = %key.0, "scheduled machine is due");
            Some(write(&next).and(free).and(asked))
        }
    }
}
