//! When each check of a Machine is due, and what its result means. Pure: time comes in.
//!
//! Until its first pass a check is probed often, so that nobody waits for an interval to learn that
//! an app is up: an app is known to be up within a sixteenth of the time that it has taken
//! ([`SHARE`]), or within [`EAGER`]. As long as nothing listens, asking costs the app nothing and
//! little here, and that it does is known within a sixty-fourth ([`SHARE_REFUSED`]). Afterwards it is probed every interval. Failures within the
//! grace period do not count.

use std::time::Duration;

use hangar_api::Timestamp;
use hangar_api::check::{CheckConfig, CheckStatus, Health};
use hangar_api::machine::MachineConfig;

use super::{Missed, ProbeKind, ProbeTls};

/// Longest time between two probes of a check that has not passed yet.
pub const EAGER: Duration = Duration::from_millis(100);
/// Shortest time between them.
pub const MOST_EAGER: Duration = Duration::from_millis(10);
/// The part of the time since the start that is between them.
pub const SHARE: u32 = 16;
/// As [`MOST_EAGER`], while nothing listens.
pub const MOST_EAGER_REFUSED: Duration = Duration::from_millis(4);
/// As [`SHARE`], while nothing listens.
pub const SHARE_REFUSED: u32 = 64;
/// After so long without a pass, a check is probed at its interval only.
pub const EAGER_FOR: Duration = Duration::from_secs(10 * 60);
const DEFAULT_INTERVAL: Duration = Duration::from_secs(15);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// Most characters of an output that are kept.
const MAX_OUTPUT: usize = 300;

/// A check, ready to be probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its name in answers.
    pub name: String,
    /// The service it belongs to; none for a check of the Machine.
    pub service: Option<usize>,
    /// Whether its failure keeps the Machine out of the proxy's choice.
    pub routing: bool,
    /// The port.
    pub port: u16,
    /// How to probe.
    pub kind: ProbeKind,
    /// Time between probes.
    pub interval: Duration,
    /// Time for one probe.
    pub timeout: Duration,
    /// Time after the start in which failures do not count.
    pub grace: Duration,
    /// The external ports that suffer when it fails.
    pub exposed: Vec<u16>,
}

/// A check and what is known of it.
#[derive(Clone, Debug)]
struct Entry {
    check: Check,
    status: CheckStatus,
    passed_once: bool,
    due: Timestamp,
    probing: bool,
}

/// The checks of one run.
#[derive(Clone, Debug)]
pub struct Schedule {
    began: Timestamp,
    entries: Vec<Entry>,
}

// === impl Check ===

/// Returns all checks of a configuration: those of services first, in order, then by name.
#[must_use]
pub fn checks_of(config: &MachineConfig) -> Vec<Check> {
    let owners = config
        .services
        .iter()
        .enumerate()
        .flat_map(|(index, service)| service.checks.iter().map(move |_| index));
    let of_services = config.service_checks().into_iter().zip(owners);
    let mut all: Vec<Check> = of_services
        .map(|((name, port, check), service)| {
            let ports = config.services.get(service).map(|s| s.ports.as_slice());
            let exposed = ports.unwrap_or_default().iter();
            Check {
                service: Some(service),
                exposed: exposed
                    .filter_map(|port| port.port.or(port.start_port))
                    .collect(),
                ..check_of(name, port, true, check)
            }
        })
        .collect();
    all.extend(config.checks.iter().map(|(name, check)| {
        let routing = check.purpose.as_deref() == Some("readiness");
        check_of(name.clone(), check.port.unwrap_or(0), routing, check)
    }));
    all
}

fn check_of(name: String, port: u16, routing: bool, check: &CheckConfig) -> Check {
    let time = |given: Option<hangar_api::duration::GoDuration>, default: Duration| {
        let given = given.map_or(default, |value| value.to_std());
        given.clamp(SHORTEST, LONGEST)
    };
    Check {
        name,
        service: None,
        routing,
        port,
        kind: kind_of(port, check),
        interval: time(check.interval, DEFAULT_INTERVAL),
        timeout: time(check.timeout, DEFAULT_TIMEOUT),
        grace: check
            .grace_period
            .map_or(Duration::ZERO, |g| g.to_std().min(LONGEST)),
        exposed: Vec::new(),
    }
}

fn kind_of(port: u16, check: &CheckConfig) -> ProbeKind {
    if port == 0 {
        return ProbeKind::Unsupported("the check names no port".to_owned());
    }
    match (check.kind.as_deref(), check.protocol.as_deref()) {
        (None | Some("tcp"), _) => ProbeKind::Tcp,
        (Some("http"), protocol) => {
            let headers = check.headers.iter().flat_map(|header| {
                let values = header.values.iter();
                values.map(|value| (header.name.clone(), value.clone()))
            });
            ProbeKind::Http {
                method: check
                    .method
                    .clone()
                    .filter(|method| !method.is_empty())
                    .unwrap_or_else(|| "GET".to_owned()),
                path: check
                    .path
                    .clone()
                    .filter(|path| path.starts_with('/'))
                    .unwrap_or_else(|| format!("/{}", check.path.as_deref().unwrap_or_default())),
                headers: headers.collect(),
                tls: (protocol == Some("https")).then(|| ProbeTls {
                    skip_verify: check.tls_skip_verify.unwrap_or(false),
                    server_name: check
                        .tls_server_name
                        .clone()
                        .filter(|name| !name.is_empty()),
                }),
            }
        }
        (Some(other), _) => {
            ProbeKind::Unsupported(format!("checks of type {other:?} are not supported"))
        }
    }
}

// === impl Schedule ===

impl Schedule {
    /// Returns the schedule of a run that came up now: every check is due.
    #[must_use]
    pub fn new(checks: Vec<Check>, began: Timestamp) -> Self {
        let entry = |check: Check| Entry {
            status: CheckStatus {
                name: check.name.clone(),
                status: Health::Warning,
                output: "the check has not passed yet".to_owned(),
                updated_at: began,
            },
            check,
            passed_once: false,
            due: began,
            probing: false,
        };
        Self {
            began,
            entries: checks.into_iter().map(entry).collect(),
        }
    }

    /// Returns the earliest time at which a check is due; `None` while all are being probed.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        let waiting = self.entries.iter().filter(|entry| !entry.probing);
        waiting.map(|entry| entry.due).min()
    }

    /// Takes the checks that are due: the caller probes each and tells [`Schedule::finish`].
    pub fn take_due(&mut self, now: Timestamp) -> Vec<(usize, Check)> {
        let mut due = Vec::new();
        for (index, entry) in self.entries.iter_mut().enumerate() {
            if !entry.probing && entry.due <= now {
                entry.probing = true;
                // An eager probe that is slow is followed at once by the next.
                let elapsed = now.duration_since(self.began).unsigned_abs();
                let pause = if !entry.passed_once && elapsed < EAGER_FOR {
                    (elapsed / SHARE).clamp(MOST_EAGER, EAGER)
                } else {
                    entry.check.interval
                };
                entry.due = now.saturating_add(pause).unwrap_or(Timestamp::MAX);
                due.push((index, entry.check.clone()));
            }
        }
        due
    }

    /// Takes a result, and returns the check when its status changed.
    pub fn finish(
        &mut self,
        index: usize,
        result: Result<String, Missed>,
        now: Timestamp,
    ) -> Option<(Check, CheckStatus)> {
        let entry = self.entries.get_mut(index)?;
        entry.probing = false;
        let elapsed = now.duration_since(self.began).unsigned_abs();
        let (status, output) = match result {
            Ok(output) => (Health::Passing, output),
            Err(missed) => {
                if missed.is_refused && !entry.passed_once && elapsed < EAGER_FOR {
                    let pause = (elapsed / SHARE_REFUSED).clamp(MOST_EAGER_REFUSED, EAGER);
                    let soon = now.saturating_add(pause).unwrap_or(Timestamp::MAX);
                    entry.due = entry.due.min(soon);
                }
                (Health::Critical, missed.text)
            }
        };
        if status == Health::Passing && !entry.passed_once {
            entry.passed_once = true;
            entry.due = now
                .saturating_add(entry.check.interval)
                .unwrap_or(Timestamp::MAX);
        }
        let excused = elapsed < entry.check.grace;
        if status == entry.status.status || (status == Health::Critical && excused) {
            return None;
        }
        entry.status = CheckStatus {
            name: entry.check.name.clone(),
            status,
            output: output.chars().take(MAX_OUTPUT).collect(),
            updated_at: now,
        };
        Some((entry.check.clone(), entry.status.clone()))
    }

    /// Returns what every check says.
    #[must_use]
    pub fn statuses(&self) -> Vec<CheckStatus> {
        self.entries
            .iter()
            .map(|entry| entry.status.clone())
            .collect()
    }

    /// Returns whether requests may go to a service of the Machine: its own checks and the
    /// Machine's readiness checks pass.
    #[must_use]
    pub fn is_healthy(&self, service: usize) -> bool {
        let relevant = |check: &Check| check.routing && check.service.is_none_or(|s| s == service);
        let mut relevant = self.entries.iter().filter(|entry| relevant(&entry.check));
        relevant.all(|entry| entry.status.status == Health::Passing)
    }
}

/// Returns the line for the Machine's log when a status has changed.
#[must_use]
pub fn log_line(check: &Check, status: &CheckStatus) -> (bool, String) {
    let (name, port) = (&check.name, check.port);
    if status.status == Health::Passing {
        return (
            false,
            format!("Health check '{name}' on port {port} is now passing."),
        );
    }
    let suffers = if check.exposed.is_empty() {
        String::new()
    } else {
        format!(
            " Services exposed on ports {:?} will have intermittent failures until the health check passes.",
            check.exposed
        )
    };
    let text = format!(
        "Health check '{name}' on port {port} has failed. Your app is not responding properly.{suffers}"
    );
    (true, text)
}

#[cfg(test)]
mod tests;
