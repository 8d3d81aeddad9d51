//! When a scheduled Machine is due, and what is to be done about it. Pure.
//!
//! ```text
//! first start ─► cycle begins ─► run 1 is due ─► asked for, or still running ─► run 2 is due ─► …
//! ```
//!
//! Runs are counted from the start of the cycle, so that they do not drift, and however many were
//! missed while nobody looked, one makes up for all.

use hangar_api::Timestamp;
use hangar_api::id::MachineId;
use hangar_api::machine::{MachineState, Schedule};
use hangar_store::tables::Cycle;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span};

/// What is known of a Machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    /// Its schedule, where it has one and is none of somebody's standbys.
    pub(super) every: Option<Schedule>,
    pub(super) state: MachineState,
    /// It was started at least once.
    pub(super) has_run: bool,
    /// Its slot is there, and neither a deploy nor somebody's lease is in the way.
    pub(super) is_free: bool,
    /// How much later than others of the same cycle it is started.
    pub(super) spread: SignedDuration,
}

/// What is to be done about a Machine's schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing.
    Rest,
    /// Its first start has come: a cycle begins.
    Begin(Cycle),
    /// It is due: this is written down with the request for its start.
    Run(Cycle),
    /// It is due and still runs: this is written down, and nothing is asked for.
    Pass(Cycle),
    /// It has no schedule any more.
    Forget,
}

/// Returns how much later than others of the same cycle a Machine is started, so that those which
/// were made together do not all start in one moment: at most a sixtieth of the interval, and ten
/// minutes.
pub(super) fn spread(id: &MachineId, every: Schedule) -> SignedDuration {
    let most = match every {
        Schedule::Hourly => 60_000,
        Schedule::Daily | Schedule::Weekly | Schedule::Monthly => 600_000,
    };
    SignedDuration::from_millis(i64::from(id.low32()) % most)
}

/// Returns when a run of a cycle is due; `None` beyond the end of time.
pub(super) fn due(cycle: &Cycle, number: u64, spread: SignedDuration) -> Option<Timestamp> {
    let number = i64::try_from(number).ok()?;
    let hours = match cycle.every {
        Schedule::Hourly => 1,
        Schedule::Daily => 24,
        Schedule::Weekly => 7 * 24,
        Schedule::Monthly => {
            let began = cycle.began.to_zoned_datetime(TimeZone::UTC);
            let months = Span::new().try_months(number).ok()?;
            let on = began.checked_add(months).ok()?.timestamp();
            return on.checked_add(spread).ok();
        }
    };
    let passed = SignedDuration::from_secs(number.checked_mul(hours * 3600)?);
    cycle
        .began
        .checked_add(passed)
        .ok()?
        .checked_add(spread)
        .ok()
}

/// Returns when the schedule starts it next.
pub(super) fn next(cycle: &Cycle, spread: SignedDuration) -> Option<Timestamp> {
    due(cycle, cycle.done.checked_add(1)?, spread)
}

/// Returns the number of the last run that is due by now.
fn latest(cycle: &Cycle, now: Timestamp, spread: SignedDuration) -> u64 {
    let is_due = |number: u64| due(cycle, number, spread).is_some_and(|at| at <= now);
    // Intervals are never longer than 31 days, so that this many have passed for certain, and few
    // more: the rest is counted.
    let longest: i64 = match cycle.every {
        Schedule::Hourly => 3600,
        Schedule::Daily => 24 * 3600,
        Schedule::Weekly => 7 * 24 * 3600,
        Schedule::Monthly => 31 * 24 * 3600,
    };
    let passed = now.duration_since(cycle.began).saturating_sub(spread);
    let certain = u64::try_from(passed.as_secs() / longest).unwrap_or(0);
    let mut number = certain.max(cycle.done);
    while is_due(number + 1) {
        number += 1;
    }
    number
}

/// Decides on one Machine.
pub(super) fn decide(facts: &Facts, cycle: Option<&Cycle>, now: Timestamp) -> Turn {
    let gone = !facts.state.is_active();
    let every = facts.every.filter(|_| !gone);
    let cycle = match (every, cycle) {
        (None, None) => return Turn::Rest,
        (None, Some(_)) => return Turn::Forget,
        (Some(every), Some(cycle)) if cycle.every == every => cycle,
        (Some(_), Some(_)) if !facts.has_run => return Turn::Forget,
        (Some(_), None) if !facts.has_run => return Turn::Rest,
        (Some(every), _) => {
            return Turn::Begin(Cycle {
                every,
                began: now,
                done: 0,
            });
        }
    };
    if !facts.is_free || next(cycle, facts.spread).is_none_or(|at| now < at) {
        return Turn::Rest;
    }
    let done = Cycle {
        done: latest(cycle, now, facts.spread),
        ..*cycle
    };
    match facts.state {
        MachineState::Created
        | MachineState::Stopped
        | MachineState::Failed
        | MachineState::Suspended => Turn::Run(done),
        MachineState::Started | MachineState::Starting | MachineState::Restarting => {
            Turn::Pass(done)
        }
        // On its way: it is due as soon as it has come to rest.
        _ => Turn::Rest,
    }
}

#[cfg(test)]
mod tests;
