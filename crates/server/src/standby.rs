//! Standbys (process-groups-and-deploy.md 2.6): one is started when the slot of a Machine that it
//! watches is lost, and stopped again when that slot is back.
//!
//! A reconciler: it takes no input, changes wake it, a timer makes it true. That a standby was
//! started is written in the transaction that asks for its start, so one that somebody then stops
//! stays stopped, and nothing is started twice for one loss.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hangar_api::id::SlotId;
use hangar_api::machine::{MachineState, OpKind};
use hangar_store::tables::{Apps, DeployClaims, Slots, Specs, Takeover, Takeovers};
use hangar_store::{Delta, Record, Revision, Snapshot, Txn};

use crate::core::Core;
use crate::error::Problem;
use crate::lease::Holder;
use crate::machines::ops;
use crate::unit::Unit;

/// A look comes at least this often.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// The slots that are marked lost, each with the revision of its mark.
type Lost = BTreeMap<SlotId, Revision>;

/// What is to be done about a standby.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Turn {
    /// Nothing.
    Rest,
    /// It stands in for a Machine.
    TakeOver(Takeover),
    /// Whom it stood in for is back.
    GiveBack,
    /// What it stood in for is over, and something new has begun.
    Forget,
}

/// Looks after standbys until the server stops.
pub(crate) async fn run(core: Arc<Core>) {
    let mut deltas = core.cache.deltas();
    loop {
        if let Err(problem) = look(&core).await {
            tracing::warn!(error = %problem.text(), "standbys not looked after, trying again");
        }
        let until = tokio::time::Instant::now() + LOOK_EVERY;
        if !core.is_due(&mut deltas, until, matters).await {
            return;
        }
    }
}

fn matters(delta: &Delta) -> bool {
    delta.touches::<Slots>() || delta.touches::<DeployClaims>() || delta.touches::<Takeovers>()
}

async fn look(core: &Core) -> Result<(), Problem> {
    let snapshot = core.cache.snapshot();
    let marks = snapshot.all::<Slots>();
    let lost: Lost = marks.map(|r| (r.key.clone(), r.mod_revision)).collect();
    let idle = snapshot.all::<Takeovers>().next().is_none();
    if lost.is_empty() && idle {
        return Ok(());
    }
    for txn in turns(core, &snapshot, &lost) {
        // Somebody was first with something of it: the next look comes soon.
        core.try_commit(txn).await?;
    }
    Ok(())
}

/// Returns a transaction for each standby that has something to do.
fn turns(core: &Core, snapshot: &Snapshot, lost: &Lost) -> Vec<Txn> {
    let mut txns = Vec::new();
    for app in snapshot.all::<Apps>() {
        // During a deploy nobody else starts or stops anything.
        if app.value.deleting || snapshot.get::<DeployClaims>(&app.key).is_some() {
            continue;
        }
        for spec in snapshot.under::<Specs, _>(&app.key) {
            let taken = snapshot.get::<Takeovers>(&spec.key);
            if spec.value.config.standbys.is_empty() && taken.is_none() {
                continue;
            }
            let unit = Unit::around(snapshot, spec);
            let watched = watched(snapshot, &unit);
            let turn = decide(
                &unit,
                &watched,
                lost,
                taken.map(|t| &t.value),
                core.env.now(),
            );
            txns.extend(carry_out(core, &unit, turn, taken));
        }
    }
    let gone = snapshot
        .all::<Takeovers>()
        .filter(|record| snapshot.get::<Specs>(&record.key).is_none());
    txns.extend(gone.map(|record| Txn::new().remove::<Takeovers>(record)));
    txns
}

/// Returns the Machines that a standby watches, those that are gone left out.
fn watched(snapshot: &Snapshot, standby: &Unit) -> Vec<Unit> {
    let app = &standby.spec().app;
    let ids = standby.spec().config.standbys.iter();
    let units = ids.filter_map(|id| {
        let id = hangar_api::id::MachineId::new(id.as_str()).ok()?;
        Unit::of(snapshot, &(app.clone(), id))
    });
    units.filter(|unit| unit.state().is_active()).collect()
}

/// Decides on one standby.
fn decide(
    standby: &Unit,
    watched: &[Unit],
    lost: &Lost,
    taken: Option<&Takeover>,
    now: hangar_api::Timestamp,
) -> Turn {
    let is_lost = |unit: &Unit| lost.contains_key(&unit.spec().slot);
    if let Some(taken) = taken {
        // Back, and lost again before anybody has looked.
        if lost
            .get(&taken.slot)
            .is_some_and(|loss| *loss != taken.loss)
        {
            return Turn::Forget;
        }
        let normal = standby.spec().config.standbys.is_empty();
        let somebody_is_back = watched.iter().any(|unit| !is_lost(unit));
        let all_are_back = !watched.iter().any(is_lost);
        return match (standby.state().is_active(), normal) {
            (false, _) | (_, true) => Turn::GiveBack,
            (true, false) if somebody_is_back && all_are_back => Turn::GiveBack,
            (true, false) => Turn::Rest,
        };
    }
    let rests = matches!(
        standby.state(),
        MachineState::Created | MachineState::Stopped | MachineState::Failed
    );
    if !rests || is_lost(standby) {
        return Turn::Rest;
    }
    // One that was stopped on purpose is not missed.
    let missed = watched.iter().find(|unit| is_lost(unit) && runs(unit));
    match missed {
        None => Turn::Rest,
        Some(unit) => Turn::TakeOver(Takeover {
            watched: unit.id().clone(),
            slot: unit.spec().slot.clone(),
            loss: lost.get(&unit.spec().slot).copied().unwrap_or_default(),
            at: now,
        }),
    }
}

fn runs(unit: &Unit) -> bool {
    matches!(
        unit.state(),
        MachineState::Started | MachineState::Starting | MachineState::Restarting
    )
}

/// Returns the writes of a turn; none while somebody else's lease is in the way.
fn carry_out(
    core: &Core,
    unit: &Unit,
    turn: Turn,
    taken: Option<&Arc<Record<Takeovers>>>,
) -> Option<Txn> {
    let free = Holder::platform().may_write(unit, core.env.now());
    match turn {
        Turn::Rest => None,
        Turn::Forget => Some(Txn::new().remove::<Takeovers>(taken?)),
        Turn::TakeOver(takeover) => {
            let kind = ops::start(unit).ok()??;
            let (id, slot) = (unit.id(), &takeover.slot);
            tracing::warn!(machine = %id, slot = %slot, "standby takes over from a lost slot");
            let txn = free.ok()?.check_same(&unit.spec);
            let asked = ops::appended(core, unit, kind, "flyd").ok()?;
            let key = &unit.spec.key;
            Some(txn.and(asked).create::<Takeovers>(key, &takeover))
        }
        Turn::GiveBack => {
            let record = taken?;
            let over = Txn::new().remove::<Takeovers>(record);
            let stands_by = !unit.spec().config.standbys.is_empty();
            if !stands_by || !runs(unit) {
                return Some(over);
            }
            tracing::info!(machine = %unit.id(), "standby gives back");
            let kind = OpKind::Stop {
                signal: None,
                timeout: None,
            };
            let txn = free.ok()?.check_same(&unit.spec);
            let asked = ops::appended(core, unit, kind, "flyd").ok()?;
            Some(txn.and(asked).and(over))
        }
    }
}
