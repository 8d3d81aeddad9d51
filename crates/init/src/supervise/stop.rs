//! The stop sequence: the configured signal, after its time SIGTERM, and then SIGKILL for all.

use std::time::{Duration, Instant};

/// How long SIGTERM may take once the time of the first signal is over.
const TERM_TIME: Duration = Duration::from_secs(2);
/// The longest time that a stop may take.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// Where the sequence is.
#[derive(Debug, Default)]
pub(super) struct Stop {
    stage: Option<(Stage, Instant)>,
    /// The signals that were sent so far, each a bit.
    sent: u128,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// The first signal was sent; SIGTERM is next.
    Asked,
    /// SIGTERM was sent; killing is next.
    Terminated,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Signal(i32),
    KillAll,
}

// === impl Stop ===

impl Stop {
    /// Begins the sequence; returns whether the caller is to send the signal. Asked again while it
    /// runs, an earlier end is taken over, a later one is not, and a signal that was sent before
    /// is not sent again: a host that comes back asks anew, and programs take a second one for
    /// impatience.
    pub(super) fn begin(&mut self, now: Instant, signal: i32, timeout: Duration) -> bool {
        let until = now + timeout.min(MAX_TIMEOUT);
        match &mut self.stage {
            None => self.stage = Some((Stage::Asked, until)),
            Some((_, deadline)) => *deadline = until.min(*deadline),
        }
        let bit = u32::try_from(signal).map_or(0, |n| 1_u128.checked_shl(n).unwrap_or(0));
        let fresh = self.sent & bit == 0;
        self.sent |= bit;
        fresh
    }

    pub(super) fn requested(&self) -> bool {
        self.stage.is_some()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.stage.map(|(_, deadline)| deadline)
    }

    /// Returns what is due now, if anything is.
    pub(super) fn due(&mut self, now: Instant) -> Option<Next> {
        match self.stage {
            Some((stage, deadline)) if deadline <= now => Some(match stage {
                Stage::Asked => {
                    self.stage = Some((Stage::Terminated, now + TERM_TIME));
                    self.sent |= 1 << libc::SIGTERM;
                    Next::Signal(libc::SIGTERM)
                }
                Stage::Terminated => Next::KillAll,
            }),
            _ => None,
        }
    }
}

/// Returns a signal's name as Fly prints it.
pub(super) fn signal_name(signal: i32) -> String {
    let name = match signal {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGUSR1 => "SIGUSR1",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGUSR2 => "SIGUSR2",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGALRM => "SIGALRM",
        libc::SIGTERM => "SIGTERM",
        libc::SIGWINCH => "SIGWINCH",
        libc::SIGSYS => "SIGSYS",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_comes_when_its_time_is_over_and_not_before() {
        let mut stop = Stop::default();
        let t0 = Instant::now();
        assert_eq!(stop.due(t0), None);
        assert!(stop.begin(t0, libc::SIGINT, Duration::from_secs(5)));
        assert_eq!(stop.due(t0 + Duration::from_secs(4)), None);
        let t5 = t0 + Duration::from_secs(5);
        assert_eq!(stop.due(t5), Some(Next::Signal(libc::SIGTERM)));
        assert_eq!(stop.due(t5), None);
        assert_eq!(stop.due(t5 + TERM_TIME), Some(Next::KillAll));
    }

    #[test]
    fn a_second_request_can_shorten_the_sequence_but_not_lengthen_it() {
        let mut stop = Stop::default();
        let t0 = Instant::now();
        assert!(stop.begin(t0, libc::SIGINT, Duration::from_secs(5)));
        assert!(!stop.begin(t0, libc::SIGINT, Duration::from_secs(500)));
        assert_eq!(stop.deadline(), Some(t0 + Duration::from_secs(5)));
        assert!(stop.begin(t0, libc::SIGQUIT, Duration::ZERO));
        assert_eq!(stop.due(t0), Some(Next::Signal(libc::SIGTERM)));
    }
}
