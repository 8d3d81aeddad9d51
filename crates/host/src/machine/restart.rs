//! When an exit is followed by another start, and how soon (machines-api.md 7.1). Pure.
//!
//! The window of recent restarts is the Machine's, not a run's: a start by hand does not empty it.

use std::time::Duration;

use hangar_api::Timestamp;
use hangar_api::machine::config::RestartPolicy;

/// Restarts are counted within this time.
pub const WINDOW: Duration = Duration::from_secs(5 * 60);
/// The pace of restarts after the first in a window, which comes at once.
pub const PACE: Duration = Duration::from_secs(1);
/// The pace once there were [`MANY`] of them.
pub const SLOW_PACE: Duration = Duration::from_secs(5);
/// See [`SLOW_PACE`].
pub const MANY: usize = 10;

/// What follows an exit that nobody asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Another start, after this delay.
    Restart(Duration),
    /// None.
    Rest {
        /// Why, for the Machine's log.
        log: String,
        /// Why, where a person has to do something about it.
        reason: Option<String>,
    },
}

/// Forgets restarts that are out of the window.
pub fn prune(window: &mut Vec<Timestamp>, now: Timestamp) {
    let from = now.saturating_sub(WINDOW).unwrap_or(Timestamp::MIN);
    window.retain(|at| *at > from && *at <= now);
}

/// Returns what follows an exit. `window` holds the restarts within [`WINDOW`], pruned.
#[must_use]
pub fn decide(policy: RestartPolicy, failed: bool, window: &[Timestamp]) -> Verdict {
    let delay = match window.len() {
        0 => Duration::ZERO,
        1..MANY => PACE,
        _ => SLOW_PACE,
    };
    let rest = |log: &str| Verdict::Rest {
        log: log.to_owned(),
        reason: None,
    };
    match policy {
        RestartPolicy::No => rest("machine restart policy set to 'no', not restarting"),
        RestartPolicy::Always => Verdict::Restart(delay),
        RestartPolicy::OnFailure { .. } if !failed => {
            rest("machine exited with exit code 0, not restarting")
        }
        RestartPolicy::OnFailure { max_retries } => {
            if window.len() < usize::try_from(max_retries).unwrap_or(usize::MAX) {
                return Verdict::Restart(delay);
            }
            let log = format!("machine has reached its max restart count of {max_retries}");
            Verdict::Rest {
                reason: Some(log.clone()),
                log,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    #[test]
    fn a_job_that_ended_well_is_not_run_again() {
        let policy = RestartPolicy::OnFailure { max_retries: 10 };
        assert!(matches!(
            decide(policy, false, &[]),
            Verdict::Rest { reason: None, .. }
        ));
        assert_eq!(decide(policy, true, &[]), Verdict::Restart(Duration::ZERO));
        assert!(matches!(
            decide(RestartPolicy::No, true, &[]),
            Verdict::Rest { .. }
        ));
        assert_eq!(
            decide(RestartPolicy::Always, false, &[at(0)]),
            Verdict::Restart(PACE)
        );
    }

    #[test]
    fn failures_are_restarted_so_often_within_five_minutes() {
        let policy = RestartPolicy::OnFailure { max_retries: 3 };
        let mut window = vec![at(0), at(10), at(20)];
        let Verdict::Rest { log, .. } = decide(policy, true, &window) else {
            panic!("the limit is reached");
        };
        assert_eq!(log, "machine has reached its max restart count of 3");
        prune(&mut window, at(305));
        assert_eq!(window, [at(10), at(20)]);
        assert_eq!(decide(policy, true, &window), Verdict::Restart(PACE));
    }
}
