//! Whether a Machine has passed its gates: started, and healthy, or up for ten seconds (4.9).
//!
//! Pure. Asked by the planner for each Machine that it has created, updated or put back.

use hangar_api::Timestamp;
use hangar_api::deployment::{DeployOptions, Strategy};
use hangar_api::event::ExitEvent;
use hangar_api::machine::config::RestartPolicy;
use hangar_api::machine::{MachineState, Observed};

use crate::fleet::FleetMachine;
use crate::plan::{Condition, after, deadline};

/// An unasked exit sooner than this after the start fails the deployment; a Machine without
/// checks is watched for as long.
pub(crate) const SMOKE_SECS: u64 = 10;

/// What is expected of a Machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch {
    /// When it was asked for.
    pub(crate) since: Timestamp,
    /// It is to run.
    pub(crate) run: bool,
    /// Its checks are to pass.
    pub(crate) health: bool,
    /// It is to stay up for a while when it has no checks.
    pub(crate) smoke: bool,
}

/// What to make of a Machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// Not yet: what is waited for, and how long.
    Wait(Condition, Timestamp),
    /// It has passed.
    Pass,
    /// It was left stopped and is to run.
    NeedsStart,
    /// It never will.
    Fail(String),
}

/// Returns what to make of a Machine.
pub(crate) fn judge(
    machine: &FleetMachine<'_>,
    watch: &Watch,
    now: Timestamp,
    options: &DeployOptions,
) -> Judgement {
    let wait = |condition| {
        let deadline = deadline(watch.since, options.wait_timeout_secs);
        if now < deadline {
            return Judgement::Wait(condition, deadline);
        }
        Judgement::Fail(timed_out(machine, condition, options.wait_timeout_secs))
    };
    if options.detach {
        return Judgement::Pass;
    }
    if let Some(error) = op_error(machine) {
        return Judgement::Fail(error);
    }
    if !machine.is_settled() {
        return wait(if watch.run {
            Condition::Started
        } else {
            Condition::Settled
        });
    }
    if !watch.run || options.strategy == Strategy::Immediate {
        return Judgement::Pass;
    }
    if let Some(reason) = crash(machine, watch) {
        return Judgement::Fail(reason);
    }
    match machine.state {
        MachineState::Started if machine.spec.config.has_checks() => {
            if !watch.health || machine.first_unhealthy().is_none() {
                return Judgement::Pass;
            }
            wait(Condition::Healthy)
        }
        MachineState::Started if watch.smoke && options.smoke_checks => {
            let until = after(started_at(machine).unwrap_or(watch.since), SMOKE_SECS);
            if now >= until {
                return Judgement::Pass;
            }
            Judgement::Wait(Condition::StayedUp, until)
        }
        MachineState::Started => Judgement::Pass,
        MachineState::Stopped | MachineState::Created => {
            if machine.observed.is_some_and(has_started) {
                // Stopped by request, or a job that ended well: crashes were told before.
                return Judgement::Pass;
            }
            // Whoever asked for its start may have died before that was written: ask again as
            // long as it rests.
            match wait(Condition::Started) {
                Judgement::Wait(..) => Judgement::NeedsStart,
                late => late,
            }
        }
        _ => wait(Condition::Started),
    }
}

/// Returns why the last thing asked of the Machine was not done.
pub(crate) fn op_error(machine: &FleetMachine<'_>) -> Option<String> {
    if machine.undone().next().is_some() {
        return None;
    }
    machine.observed?.last_op.as_ref()?.error.clone()
}

/// Returns whether what failed may go better another time: its host could not do what was asked, or
/// it did not come up. A program that exits, or whose checks fail, does so again.
pub(crate) fn may_go_better(machine: &FleetMachine<'_>) -> bool {
    let exited = || machine.observed.is_some_and(|o| unasked_exit(o).is_some());
    op_error(machine).is_some()
        || machine.state == MachineState::Failed
        || (machine.state != MachineState::Started && !exited())
}

/// Returns whether the Machine failed or exited unasked since its last update.
pub(crate) fn has_crashed(machine: &FleetMachine<'_>) -> bool {
    machine.state == MachineState::Failed
        || machine.observed.is_some_and(|o| unasked_exit(o).is_some())
}

/// Returns why the Machine counts as crashed, at any time after it was updated.
pub(crate) fn relapse(machine: &FleetMachine<'_>) -> Option<String> {
    let watch = Watch {
        since: Timestamp::UNIX_EPOCH,
        run: true,
        health: true,
        smoke: true,
    };
    crash(machine, &watch)
}

/// Returns why the Machine counts as crashed.
fn crash(machine: &FleetMachine<'_>, watch: &Watch) -> Option<String> {
    let observed = machine.observed?;
    let reason = observed.reason.as_deref();
    if machine.state == MachineState::Failed {
        let why = reason.unwrap_or("the host did not say why");
        return Some(format!("it could not be started: {why}"));
    }
    let (exit, ran_for) = unasked_exit(observed)?;
    let down = !matches!(
        machine.state,
        MachineState::Started | MachineState::Starting | MachineState::Restarting
    );
    let soon = ran_for.is_none_or(|millis| millis < i64::try_from(SMOKE_SECS * 1000).unwrap_or(0));
    let fatal = down || (soon && watch.smoke);
    if !fatal || ended_well(machine, &exit, soon) {
        return None;
    }
    let why = reason.map_or_else(String::new, |r| format!(" ({r})"));
    Some(format!("{}{why}", describe_exit(&exit, ran_for)))
}

fn describe_exit(exit: &ExitEvent, ran_for: Option<i64>) -> String {
    let how = match (exit.oom_killed, exit.guest_signal) {
        (true, _) => "it was killed for using more memory than it has".to_owned(),
        (false, signal) if signal > 0 => format!("it was ended by signal {signal}"),
        _ => format!("it exited with code {}", exit.exit_code),
    };
    match ran_for {
        Some(millis) if millis < 10_000 => {
            format!("the app appears to be crashing: {how} {millis} ms after its start")
        }
        Some(millis) => format!("{how} after {} s", millis / 1000),
        None => format!("the app appears to be crashing: {how}"),
    }
}

/// A program without services that is not to be kept up ends well with code 0; soon after its
/// start only if its restart policy is written down: by default it is taken for a crash.
fn ended_well(machine: &FleetMachine<'_>, exit: &ExitEvent, soon: bool) -> bool {
    let config = &machine.spec.config;
    let says_so = config.restart.as_ref().is_some_and(|r| r.policy.is_some());
    (says_so || !soon)
        && exit.exit_code == 0
        && config.services.is_empty()
        && config.restart_policy() != RestartPolicy::Always
}

/// Returns the newest exit since the last update that nobody asked for, and how many
/// milliseconds that run lasted. An exit between the update and the first start after it is the
/// former version's own.
fn unasked_exit(observed: &Observed) -> Option<(ExitEvent, Option<i64>)> {
    let mut found: Option<(ExitEvent, i64)> = None;
    for event in &observed.events {
        match (event.kind.as_str(), event.status.as_str()) {
            ("update", _) | ("launch", "created") => return None,
            ("start", "started") => {
                if let Some((exit, at)) = found {
                    return Some((exit, Some(at.saturating_sub(event.timestamp))));
                }
            }
            ("exit", _) => {
                let exit = event.request.as_ref().and_then(|r| r.exit_event);
                if let (None, Some(exit)) = (found, exit)
                    && !exit.requested_stop
                {
                    found = Some((exit, event.timestamp));
                }
            }
            _ => {}
        }
    }
    // The list is cut: what is left of it is all of the new version.
    found.map(|(exit, _)| (exit, None))
}

/// Returns whether it has started since its last update.
fn has_started(observed: &Observed) -> bool {
    let events = observed.events.iter();
    let mut since = events.take_while(|e| {
        !matches!(
            (e.kind.as_str(), e.status.as_str()),
            ("update", _) | ("launch", "created")
        )
    });
    since.any(|e| e.kind == "start" && e.status == "started")
}

/// Returns when the current run began.
pub(crate) fn started_at(machine: &FleetMachine<'_>) -> Option<Timestamp> {
    let started = |e: &&hangar_api::event::MachineEvent| e.status == "started";
    let event = machine.observed?.events.iter().find(started)?;
    Timestamp::from_millisecond(event.timestamp).ok()
}

fn timed_out(machine: &FleetMachine<'_>, condition: Condition, secs: u64) -> String {
    let advice = "raise --wait-timeout if it needs longer";
    let why = machine.observed.and_then(|o| o.reason.as_deref());
    let why = why.map_or_else(String::new, |r| format!(" ({r})"));
    match condition {
        Condition::Healthy => {
            let (name, says) = machine.first_unhealthy().unwrap_or_default();
            format!("its health check {name} did not pass within {secs} s: {says}; {advice}")
        }
        _ => format!(
            "it was {} and not started after {secs} s{why}; {advice}",
            machine.state
        ),
    }
}
