//! From a service to a claim on one of its Machines: pick and claim, or wait and pick again.
//!
//! The fast path takes no lock. The slow one holds the request while a Machine is on its way, all
//! are full, or a service has just vanished from its app, up to the limit, and asks for starts.

use std::sync::Arc;
use std::time::Duration;

use hangar_api::id::MachineId;
use hangar_api::machine::Static;
use hyper::StatusCode;
use tokio::time::Instant;

use crate::core::Core;
use crate::index::{Candidate, Group};
use crate::load::{Claim, Load};
use crate::pick::{Pick, Reason, Status, View, pick};
use crate::wake::Asking;

/// Times a pick is repeated because the Machine filled up or closed between pick and claim.
const MAX_RACES: usize = 16;
/// A waiter looks again after this time, for what changes by time alone.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Attempts to connect to Machines that have just come up.
const ATTEMPTS_JUST_UP: u32 = 80;
/// So many of them come at an even, short pace: most programs listen within this time, and their
/// first answer shall not wait for a long pause to end.
const QUICK_JUST_UP: u32 = 20;
/// Attempts to connect to Machines that have been up for a while.
const ATTEMPTS_UP: u32 = 6;
/// Pause after the first failed attempts with a Machine that has just come up; then it doubles.
const FIRST_PAUSE_JUST_UP: Duration = Duration::from_millis(2);
/// The same with one that has been up for a while: the Catalog may be about to say why.
const FIRST_PAUSE_UP: Duration = Duration::from_millis(50);
/// Longest pause between two attempts.
const LAST_PAUSE: Duration = Duration::from_millis(250);

/// A Machine to use, and the right to use it.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub(crate) claim: Claim,
    pub(crate) pooled: bool,
    pub(crate) http2: bool,
    /// Folders whose files answer requests.
    pub(crate) statics: Arc<[Static]>,
}

/// Why a request goes nowhere: what the client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    /// As Fly names it, such as `PC01`.
    pub(crate) code: &'static str,
    pub(crate) text: String,
    /// Worth trying again soon.
    pub(crate) retry: bool,
}

/// What one request has been through so far.
#[derive(Debug, Default)]
pub(crate) struct Attempt {
    /// Loads that failed in this round: others first.
    tried: Vec<Arc<Load>>,
    /// Machines that were started for this request and went down again, or refused.
    woken: Vec<MachineId>,
    failures: u32,
    /// Before the next attempt, where no other Machine is left.
    pause: Duration,
    first_failure: Option<Instant>,
    last_failure: Option<Refusal>,
    /// Since when it waits for a Machine.
    held_since: Option<Instant>,
}

// === impl Attempt ===

impl Attempt {
    /// Notes that a Machine did not take the request. Returns the refusal once that was often
    /// enough.
    pub(crate) fn failed(
        &mut self,
        core: &Core,
        load: &Arc<Load>,
        why: Refusal,
    ) -> Result<(), Refusal> {
        let now = Instant::now();
        self.failures += 1;
        let first = *self.first_failure.get_or_insert(now);
        let limit = core.shared.config.limits.connect_just_up;
        let just_up = now.saturating_duration_since(load.up_since) < limit;
        let most = if just_up {
            ATTEMPTS_JUST_UP
        } else {
            ATTEMPTS_UP
        };
        if self.failures >= most || now.saturating_duration_since(first) >= limit {
            return Err(why);
        }
        let (first_pause, even) = if just_up {
            (FIRST_PAUSE_JUST_UP, QUICK_JUST_UP)
        } else {
            (FIRST_PAUSE_UP, 1)
        };
        let doublings = self.failures.saturating_sub(even).min(8);
        self.pause = (first_pause * (1 << doublings)).min(LAST_PAUSE);
        load.avoid_for(now, LAST_PAUSE);
        self.tried.push(load.clone());
        self.last_failure = Some(why);
        Ok(())
    }

    fn waited(&self) -> Duration {
        self.held_since
            .map_or(Duration::ZERO, |since| since.elapsed())
    }

    fn has_tried(&self, load: Option<&Arc<Load>>) -> bool {
        load.is_some_and(|load| self.tried.iter().any(|tried| Arc::ptr_eq(tried, load)))
    }
}

/// What a look at the Machines of a service led to.
enum Look {
    Chosen(Chosen),
    /// Wait for a change, together with the others.
    Wait {
        full: bool,
    },
    /// Every Machine that could be used failed a moment ago.
    Pause,
    Refuse(Refusal),
}

/// Returns a claim on a Machine of the service, after a wait where that helps.
pub(crate) async fn acquire(
    core: &Core,
    group: &Arc<Group>,
    attempt: &mut Attempt,
) -> Result<Chosen, Refusal> {
    if attempt.failures == 0 && !group.queue.is_waiting() {
        match look(core, group, attempt) {
            Look::Chosen(chosen) => return Ok(chosen),
            Look::Refuse(refusal) => return Err(refusal),
            Look::Wait { .. } | Look::Pause => {}
        }
    }
    Box::pin(hold(core, group, attempt)).await
}

/// Holds a request until a Machine can take it.
async fn hold(core: &Core, group: &Arc<Group>, attempt: &mut Attempt) -> Result<Chosen, Refusal> {
    let limits = &core.shared.config.limits;
    let queue = group.queue.clone();
    let deadline = *attempt.held_since.get_or_insert_with(Instant::now) + limits.hold;
    let mut place = None;
    let mut must_wait = false;
    loop {
        let woken = queue.woken();
        tokio::pin!(woken);
        woken.as_mut().enable();
        if place.is_none() {
            let Some(new) = queue.enter(limits.held_per_service) else {
                return Err(crowded(group));
            };
            must_wait = new.behind_others && attempt.failures == 0;
            place = Some(new);
        }
        let mut full = false;
        if !std::mem::take(&mut must_wait) {
            let now_group = core.shared.index.load().renewed(group).cloned();
            let Some(now_group) = now_group else {
                return Err(nobody(group));
            };
            match look(core, &now_group, attempt) {
                Look::Chosen(chosen) => return Ok(chosen),
                Look::Refuse(refusal) => return Err(refusal),
                Look::Wait { full: is_full } => full = is_full,
                Look::Pause => {
                    // Not in line while it pauses: others may be luckier meanwhile.
                    place = None;
                    let Some(_pause) = queue.pause(limits.held_per_service) else {
                        return Err(crowded(group));
                    };
                    tokio::time::sleep(attempt.pause).await;
                    attempt.tried.clear();
                    if Instant::now() >= deadline {
                        return Err(too_late(group, attempt, false));
                    }
                    continue;
                }
            }
        }
        let until = deadline.min(Instant::now() + LOOK_AGAIN);
        let timed_out = tokio::time::timeout_at(until, woken).await.is_err();
        if timed_out && Instant::now() >= deadline {
            return Err(too_late(group, attempt, full));
        }
    }
}

/// Looks at the Machines of a service once.
fn look(core: &Core, group: &Group, attempt: &mut Attempt) -> Look {
    // A Machine that could not be started just then was not started for this request.
    let busy = |machine: &MachineId| core.shared.wakes.state(machine) == Some(Asking::Busy);
    attempt.woken.retain(|machine| !busy(machine));
    for _ in 0..MAX_RACES {
        // Most requests need no start, and need not know what was started.
        let views = group.candidates.iter().map(|c| view(core, c, attempt));
        let mut picked = pick(views, Duration::ZERO, core.random());
        if !matches!(picked, Pick::Use { start: None, .. }) {
            let views = group.candidates.iter().map(|c| view(core, c, attempt));
            let views = views.zip(&group.candidates);
            let views = views.map(|(view, c)| after_wakes(core, view, c, attempt));
            picked = pick(views, attempt.waited(), core.random());
        }
        match picked {
            Pick::Use { index, start } => {
                if let Some(start) = start {
                    let machine = &group.candidates[start].machine;
                    core.shared
                        .wakes
                        .ask(machine, &group.queue, &core.shared.env);
                }
                let candidate = &group.candidates[index];
                let load = candidate.load.as_ref();
                if let Some(Ok(claim)) = load.map(|load| load.claim(candidate.hard)) {
                    return Look::Chosen(Chosen {
                        claim,
                        pooled: candidate.pooled,
                        http2: candidate.http2,
                        statics: candidate.statics.clone(),
                    });
                }
            }
            Pick::Start(index) => {
                let machine = &group.candidates[index].machine;
                attempt.woken.push(machine.clone());
                core.shared
                    .wakes
                    .ask(machine, &group.queue, &core.shared.env);
                return Look::Wait { full: false };
            }
            Pick::Wait { full } if attempt.tried.is_empty() => return Look::Wait { full },
            Pick::Wait { .. } => return Look::Pause,
            Pick::Refuse(_) if !attempt.tried.is_empty() => return Look::Pause,
            Pick::Refuse(reason) => return refused(core, group, attempt, reason),
        }
    }
    Look::Wait { full: true }
}

/// Returns how a candidate looks to this request, leaving starts aside.
fn view(core: &Core, candidate: &Candidate, attempt: &Attempt) -> View {
    let mut view = candidate.view(Instant::now);
    if view.status == Status::Ready && attempt.has_tried(candidate.load.as_ref()) {
        let limit = core.shared.config.limits.connect_just_up;
        let since = candidate.load.as_ref().map(|load| load.up_since);
        // A Machine that has just come up is worth waiting for: do not start another.
        let just_up = since.is_some_and(|since| since.elapsed() < limit);
        view.status = if just_up {
            Status::Coming
        } else {
            Status::Unhealthy
        };
    }
    view
}

/// Returns the view with what is known of starts.
fn after_wakes(core: &Core, mut view: View, candidate: &Candidate, attempt: &Attempt) -> View {
    if view.status == Status::Startable {
        view.status = match core.shared.wakes.state(&candidate.machine) {
            Some(Asking::Coming) => Status::Coming,
            Some(Asking::Refused(_)) => Status::Down,
            Some(Asking::Busy) => Status::Busy,
            // It came up for this request and went down again.
            None if attempt.woken.contains(&candidate.machine) => Status::Down,
            None => Status::Startable,
        };
    }
    view
}

fn refused(core: &Core, group: &Group, attempt: &Attempt, reason: Reason) -> Look {
    let now = Instant::now();
    if group.vanished_until.is_some_and(|until| now < until) {
        return Look::Wait { full: false };
    }
    let app = &group.app;
    let refusal = match reason {
        Reason::Nobody => nobody(group),
        Reason::Unhealthy => Refusal::unavailable(
            "PR01",
            format!("no healthy machine of {app}: the checks of all that run fail"),
        ),
        Reason::Down => {
            let asked = group.candidates.iter().find_map(|candidate| {
                match core.shared.wakes.state(&candidate.machine) {
                    Some(Asking::Refused(why)) => Some((candidate.machine.clone(), why)),
                    _ => None,
                }
            });
            match asked {
                Some((machine, why)) => Refusal::unavailable(
                    "PM01",
                    format!("machine {machine} could not be started: {why}"),
                ),
                None if !attempt.woken.is_empty() => Refusal::unavailable(
                    "PM07",
                    format!("a machine of {app} was started and went down again: see its logs"),
                ),
                None => Refusal::unavailable(
                    "PR01",
                    format!("all machines of {app} are stopped, and requests may not start them"),
                ),
            }
        }
    };
    Look::Refuse(refusal)
}

fn nobody(group: &Group) -> Refusal {
    let (app, port) = (&group.app, group.external);
    Refusal::unavailable("PR01", format!("no machine of {app} serves port {port}"))
}

fn crowded(group: &Group) -> Refusal {
    let app = &group.app;
    Refusal::unavailable("PR04", format!("too many requests are waiting for {app}"))
}

fn too_late(group: &Group, attempt: &Attempt, full: bool) -> Refusal {
    let app = &group.app;
    if let Some(refusal) = &attempt.last_failure {
        return refusal.clone();
    }
    if full {
        let text = format!("all machines of {app} stayed at their hard limit");
        return Refusal::unavailable("PL02", text);
    }
    Refusal::unavailable("PR04", format!("no machine of {app} became ready in time"))
}

// === impl Refusal ===

impl Refusal {
    /// Nobody can take it now.
    pub(crate) fn unavailable(code: &'static str, text: String) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            code,
            text,
            retry: true,
        }
    }

    /// A Machine was reached, or should have been, and gave no good answer.
    pub(crate) fn bad_gateway(code: &'static str, text: String) -> Self {
        Self {
            status: StatusCode::BAD_GATEWAY,
            code,
            text,
            retry: false,
        }
    }
}
