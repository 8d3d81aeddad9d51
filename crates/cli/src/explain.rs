//! Why a Machine is where and what it is: from what the API says of it to sentences.
//!
//! Pure; [`crate::commands::explain`] asks the API and prints.

mod formation;
#[cfg(test)]
mod tests;

use hangar_api::Timestamp;
use hangar_api::check::{CheckStatus, Health};
use hangar_api::deployment::{Deployment, DeploymentStatus};
use hangar_api::event::{ExitEvent, MachineEvent};
use hangar_api::formation::GroupFormation;
use hangar_api::lease::Lease;
use hangar_api::machine::config::RestartPolicy;
use hangar_api::machine::{Machine, MachineState};
use serde::Serialize;

/// Failures by which a program that is started again and again is known.
const LOOP: usize = 3;
/// The time in which they come.
const LOOP_SECONDS: i64 = 300;

/// What is known of a Machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) machine: &'a Machine,
    /// All Machines of its app.
    pub(crate) siblings: &'a [Machine],
    pub(crate) lease: Option<&'a Lease>,
    /// What its group should have.
    pub(crate) formation: Option<&'a GroupFormation>,
    /// The app's newest deployment.
    pub(crate) deployment: Option<&'a Deployment>,
    /// The last lines of its log, oldest first.
    pub(crate) log: &'a [String],
    pub(crate) now: Timestamp,
}

/// One thing to know, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// Which: `state`, `place`, `checks`, `crash_loop`, `standby`, `cordoned`, `lease`, ...
    pub(crate) about: &'static str,
    pub(crate) text: String,
    /// Lines that show it, such as those of a log.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) shows: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
}

/// Returns what there is to say, the state first.
pub(crate) fn explain(facts: &Facts<'_>) -> Vec<Finding> {
    let mut found = vec![state(facts), place(facts)];
    found.extend(formation::formation(facts));
    found.extend(crash_loop(facts));
    found.extend(checks(facts));
    found.extend(schedule(facts));
    found.extend(standby(facts));
    found.extend(cordoned(facts));
    found.extend(host(facts));
    found.extend(deployment(facts));
    found.extend(lease(facts));
    found.extend(managed(facts));
    found
}

// === impl Finding ===

impl Finding {
    fn new(about: &'static str, text: impl Into<String>) -> Self {
        Self {
            about,
            text: text.into(),
            shows: Vec::new(),
            hint: None,
        }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

fn state(facts: &Facts<'_>) -> Finding {
    let machine = facts.machine;
    let id = &machine.id;
    let newest = machine.events.first();
    let since = newest.map_or_else(String::new, |event| {
        format!(" since {}", ago(facts, event.timestamp))
    });
    let reason = machine
        .reason
        .as_deref()
        .map(|reason| format!(": {reason}"));
    let reason = reason.unwrap_or_default();
    match machine.state {
        MachineState::Created if !machine.config.standbys.is_empty() => Finding::new(
            "state",
            "it was created to stand by, and has never been started",
        ),
        MachineState::Created if machine.reason.is_some() => {
            Finding::new("state", format!("it is waiting to be prepared{reason}"))
        }
        MachineState::Created => Finding::new("state", "it was created and has never been started")
            .hint(format!("hangar machine start {id}")),
        MachineState::Started => Finding::new("state", format!("it is started{since}{reason}")),
        MachineState::Stopped => stopped(facts),
        MachineState::Failed => Finding::new(
            "state",
            format!("it could not be prepared or started{since}{reason}"),
        )
        .hint(format!("mend the cause, then: hangar machine start {id}")),
        MachineState::Destroyed => Finding::new("state", format!("it is gone{since}")),
        other => Finding::new("state", format!("it is {other}{since}{reason}")),
    }
}

/// A Machine is stopped because somebody asked, or because its program ended.
fn stopped(facts: &Facts<'_>) -> Finding {
    let machine = facts.machine;
    let start = format!("hangar machine start {}", machine.id);
    let Some((event, exit)) = last_exit(&machine.events) else {
        let text = if machine.config.standbys.is_empty() {
            "it is stopped, and none of its last events says why"
        } else {
            "it is stopped: it stands by and has never run"
        };
        return Finding::new("state", text);
    };
    let when = ago(facts, event.timestamp);
    if exit.requested_stop {
        let asked = machine
            .events
            .iter()
            .find(|e| ["stop", "restart", "update"].contains(&e.kind.as_str()));
        let who = match asked.map(|event| event.source.as_str()) {
            Some("proxy") => "the proxy stopped it, because it was idle",
            Some("flyd") => "its host stopped it",
            _ => "it was stopped by request",
        };
        let text = format!("{who}, {when}");
        let starts = machine
            .config
            .services
            .iter()
            .any(|s| s.autostart != Some(false));
        return match starts {
            true => {
                Finding::new("state", format!("{text}; the next request starts it")).hint(start)
            }
            false => Finding::new("state", text).hint(start),
        };
    }
    let how = ended(exit);
    let policy = match machine.config.restart_policy() {
        RestartPolicy::No => "its restart policy is no",
        RestartPolicy::OnFailure { .. } if exit.exit_code == 0 => {
            "its restart policy on-failure leaves what ended well"
        }
        RestartPolicy::OnFailure { .. } => "its restarts within five minutes are used up",
        RestartPolicy::Always => "it is being started again",
    };
    let mut finding = Finding::new("state", format!("{how}, {when}; {policy}"));
    if exit.exit_code != 0 {
        finding.shows = facts.log.to_vec();
    }
    finding.hint(start)
}

fn place(facts: &Facts<'_>) -> Finding {
    let machine = facts.machine;
    let slot = machine.slot.as_ref().map(|slot| format!(" on slot {slot}"));
    let group = machine.config.group_or_app();
    let others = facts.siblings.iter().filter(|other| {
        other.id != machine.id
            && other.state.is_active()
            && other.region == machine.region
            && other.config.group_or_app() == group
    });
    let beside = match others.count() {
        0 => format!("it is the only one of group {group} there"),
        1 => format!("1 other of group {group} is there too"),
        many => format!("{many} others of group {group} are there too"),
    };
    Finding::new(
        "place",
        format!(
            "it is in {}{}, where it was created: a Machine never moves; {beside}",
            machine.region,
            slot.unwrap_or_default()
        ),
    )
}

fn crash_loop(facts: &Facts<'_>) -> Option<Finding> {
    let machine = facts.machine;
    let recent =
        |event: &&MachineEvent| facts.now.as_millisecond() - event.timestamp <= LOOP_SECONDS * 1000;
    let failures: Vec<&ExitEvent> = machine
        .events
        .iter()
        .filter(recent)
        .filter_map(exit_of)
        .filter(|exit| !exit.requested_stop && exit.exit_code != 0)
        .collect();
    let last = failures.first().filter(|_| failures.len() >= LOOP)?;
    let mut finding = Finding::new(
        "crash_loop",
        format!(
            "its program fails again and again: {} times in the last five minutes, the last time {}",
            failures.len(),
            ended(last).replacen("its program ", "it ", 1)
        ),
    );
    if machine.state != MachineState::Stopped {
        finding.shows = facts.log.to_vec();
    }
    let hint = if last.oom_killed {
        "give it more memory: hangar machine update ID --vm-memory 512"
    } else {
        "see what it says: hangar logs --machine ID"
    };
    Some(finding.hint(hint.replace("ID", machine.id.as_str())))
}

fn checks(facts: &Facts<'_>) -> Option<Finding> {
    let machine = facts.machine;
    if machine.state != MachineState::Started {
        return None;
    }
    let failing: Vec<&CheckStatus> = machine
        .checks
        .iter()
        .filter(|check| check.status != Health::Passing)
        .collect();
    if failing.is_empty() {
        let text = match (machine.checks.len(), machine.config.services.is_empty()) {
            (0, true) => return None,
            (0, false) => {
                "it has no health checks: the proxy takes it for healthy as soon as it is started"
                    .to_owned()
            }
            (1, _) => "its health check passes".to_owned(),
            (count, _) => format!("all {count} health checks pass"),
        };
        return Some(Finding::new("checks", text));
    }
    // Checks of services steer the proxy; those of [checks] only gate deploys.
    let steers = failing
        .iter()
        .any(|check| check.name.starts_with("servicecheck-"));
    let effect = if steers {
        "the proxy sends it no requests until they pass"
    } else {
        "they gate deploys; the proxy does not look at them"
    };
    let mut finding = Finding::new(
        "checks",
        format!(
            "{} of {} health checks do not pass: {effect}",
            failing.len(),
            machine.checks.len()
        ),
    );
    finding.shows = failing
        .iter()
        .map(|check| {
            let word = if check.status == Health::Critical {
                "failing"
            } else {
                "no result yet"
            };
            format!(
                "{}: {word} since {}: {}",
                check.name,
                ago(facts, check.updated_at.as_millisecond()),
                check.output.trim()
            )
        })
        .collect();
    Some(finding)
}

/// A scheduled Machine is started once in each interval, from its first start on.
fn schedule(facts: &Facts<'_>) -> Option<Finding> {
    let machine = facts.machine;
    let every = machine.config.schedule().ok()??;
    let start = format!("hangar machine start {}", machine.id);
    if !machine.config.standbys.is_empty() {
        let text = format!("it has a schedule, {every}, and stands by: nothing comes of it");
        return Some(Finding::new("schedule", text));
    }
    let Some(next) = machine.next_run else {
        let text = format!("its schedule is {every}, and begins with its first start");
        return Some(Finding::new("schedule", text).hint(start));
    };
    let at = Timestamp::from_second(next.as_second()).unwrap_or(next);
    let when = match (next.as_millisecond() - facts.now.as_millisecond()) / 1000 {
        left if left > 0 => format!("at {at}, in {}", span(left)),
        _ => format!("since {at}, as soon as nothing is in the way"),
    };
    let text = format!("its schedule is {every}: it is started next {when}");
    let never_ends = machine.config.restart_policy() == RestartPolicy::Always;
    Some(if never_ends {
        Finding::new(
            "schedule",
            format!("{text}; its restart policy is always, so it never rests to be started"),
        )
        .hint(format!(
            "hangar machine update {} --restart on-failure",
            machine.id
        ))
    } else {
        Finding::new("schedule", text)
    })
}

fn standby(facts: &Facts<'_>) -> Option<Finding> {
    let watched = &facts.machine.config.standbys;
    if watched.is_empty() {
        return None;
    }
    let states: Vec<String> = watched
        .iter()
        .map(|id| {
            let other = facts.siblings.iter().find(|other| other.id.as_str() == id);
            match other {
                Some(other) => format!("{id} ({} in {})", other.state, other.region),
                None => format!("{id} (gone)"),
            }
        })
        .collect();
    Some(Finding::new(
        "standby",
        format!(
            "it stands by for {}: it is started when the host of that one is lost, and only then",
            states.join(", ")
        ),
    ))
}

fn cordoned(facts: &Facts<'_>) -> Option<Finding> {
    facts.machine.cordoned.then(|| {
        Finding::new(
            "cordoned",
            "it is cordoned: the proxy sends it no requests, whatever its checks say",
        )
        .hint(format!("hangar machine uncordon {}", facts.machine.id))
    })
}

fn host(facts: &Facts<'_>) -> Option<Finding> {
    match facts.machine.host_status.as_str() {
        "ok" | "" => None,
        other => Some(Finding::new(
            "host",
            format!("its host is {other}: what is said here is the last that was heard of it"),
        )),
    }
}

fn deployment(facts: &Facts<'_>) -> Option<Finding> {
    let deployment = facts.deployment?;
    let version = deployment.version;
    match deployment.status {
        DeploymentStatus::Running => Some(Finding::new(
            "deployment",
            format!(
                "v{version} is being deployed by {}: it may be replaced or updated any moment",
                deployment.user
            ),
        )),
        DeploymentStatus::RollingBack => Some(Finding::new(
            "deployment",
            format!("the deploy of v{version} failed, and former versions are being put back"),
        )),
        _ => None,
    }
}

fn lease(facts: &Facts<'_>) -> Option<Finding> {
    let lease = facts.lease.filter(|lease| lease.holds(facts.now))?;
    let what = match lease.description.as_str() {
        "" => String::new(),
        text => format!(" ({text})"),
    };
    let left = lease.expires_at - facts.now.as_second();
    Some(Finding::new(
        "lease",
        format!(
            "{} holds a lease on it{what} for {left}s more: nobody else can change it until then",
            lease.owner
        ),
    ))
}

fn managed(facts: &Facts<'_>) -> Option<Finding> {
    (!facts.machine.config.is_managed()).then(|| {
        Finding::new(
            "unmanaged",
            "deploys, scale and status leave it alone: it was not made by a deploy",
        )
    })
}

/// Returns how a program ended, in words.
fn ended(exit: &ExitEvent) -> String {
    if exit.oom_killed {
        return "its program was killed for using more memory than the Machine has".to_owned();
    }
    match (exit.exit_code, exit.guest_signal) {
        (0, _) => "its program ended well, with code 0".to_owned(),
        (code, signal) if signal > 0 => {
            format!("its program was ended by signal {signal}, code {code}")
        }
        (code, _) => format!("its program ended with code {code}"),
    }
}

fn exit_of(event: &MachineEvent) -> Option<&ExitEvent> {
    event.request.as_ref()?.exit_event.as_ref()
}

fn last_exit(events: &[MachineEvent]) -> Option<(&MachineEvent, &ExitEvent)> {
    events
        .iter()
        .find_map(|event| Some((event, exit_of(event)?)))
}

/// Returns how long ago a time is, in the largest unit that fits.
fn ago(facts: &Facts<'_>, millis: i64) -> String {
    let seconds = (facts.now.as_millisecond() - millis).max(0) / 1000;
    format!("{} ago", span(seconds))
}

/// Returns a time in seconds in the largest unit that fits.
fn span(seconds: i64) -> String {
    match seconds {
        ..=119 => format!("{seconds}s"),
        120..=7_199 => format!("{}m", seconds / 60),
        7_200..=172_799 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}
