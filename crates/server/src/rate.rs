//! How often a client may ask for the same thing (machines-api.md 1.9). Pure: the clock is passed in.
//!
//! Each pair of action and Machine, or app where no Machine is named, has a bucket of its own. A
//! bucket is one moment: the time at which it would be full again. A request moves it on by the
//! interval, and is refused when that leads further ahead than the burst allows.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::Duration;

use axum::http::Method;

/// Buckets that are not full at the same time; more are refused.
const MAX_BUCKETS: usize = 100_000;
/// From so many on, full buckets are thrown out.
const SWEEP_AT: usize = 10_000;

/// How often a client may ask for the same thing: so many times as often as on Fly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimit(Option<NonZeroU32>);

/// A sustained rate and what may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    /// Between two requests, in the long run.
    interval: Duration,
    /// How many may come at once.
    burst: u32,
}

/// What is counted together: method, path with the names of its parts, and the Machine or app.
type Key = (Method, String, String);

/// The buckets.
#[derive(Debug, Default)]
pub(crate) struct Buckets(HashMap<Key, Duration>);

/// Any action, on one Machine or app.
const ACTION: Rule = Rule {
    interval: Duration::from_secs(1),
    burst: 3,
};
/// A look at one Machine.
const GET_MACHINE: Rule = Rule {
    interval: Duration::from_millis(200),
    burst: 10,
};
/// Deleting apps, all taken together.
const DELETE_APP: Rule = Rule {
    interval: Duration::from_millis(600),
    burst: 100,
};

// === impl RateLimit ===

impl RateLimit {
    /// No limit.
    pub const OFF: Self = Self(None);

    /// So many times what Fly allows.
    #[must_use]
    pub const fn times(factor: NonZeroU32) -> Self {
        Self(Some(factor))
    }

    /// What Fly allows.
    #[must_use]
    pub const fn as_on_fly() -> Self {
        Self(Some(NonZeroU32::MIN))
    }
}

impl std::str::FromStr for RateLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::OFF),
            "on" => Ok(Self::as_on_fly()),
            number => number.parse().map(Self::times).map_err(|_| {
                "write off, on, or how many times Fly's limits, such as 10".to_owned()
            }),
        }
    }
}

// === impl Buckets ===

impl Buckets {
    /// Counts a request and returns whether it may be answered. `route` is the path with the names
    /// of its parts, `path` as it was asked for; `now` is the time since any moment in the past.
    pub(crate) fn admit(
        &mut self,
        limit: RateLimit,
        (method, route, path): (&Method, &str, &str),
        now: Duration,
    ) -> bool {
        let (Some(factor), Some((rule, subject))) = (limit.0, rule(method, route, path)) else {
            return true;
        };
        if self.0.len() >= SWEEP_AT {
            self.0.retain(|_, full| *full > now);
        }
        let key = (method.clone(), route.to_owned(), subject.to_owned());
        let interval = rule.interval / factor.get();
        let burst = rule.burst.saturating_mul(factor.get());
        let full = self.0.get(&key).copied().unwrap_or(now).max(now);
        if full - now > interval.saturating_mul(burst - 1) {
            return false;
        }
        if self.0.len() >= MAX_BUCKETS && !self.0.contains_key(&key) {
            return false;
        }
        self.0.insert(key, full + interval);
        true
    }
}

/// Returns the rule for a request and what it is counted for; nothing where none is limited: on
/// what is Hangar's own, and on what no app is named for.
fn rule<'a>(method: &Method, route: &str, path: &'a str) -> Option<(Rule, &'a str)> {
    let below = route.strip_prefix("/v1/apps/{app}")?;
    let mut parts = path.split('/').skip(3);
    let (app, machine) = (parts.next()?, parts.nth(1));
    match (method, below) {
        (&Method::DELETE, "") => Some((DELETE_APP, "")),
        (&Method::GET, "/machines/{machine}") => Some((GET_MACHINE, machine?)),
        (_, "/machines/{machine}/session" | "/machines/{machine}/tunnel") => None,
        (_, below) if below.starts_with("/machines/{machine}") => Some((ACTION, machine?)),
        (_, "" | "/machines" | "/secrets" | "/ip_assignments") => Some((ACTION, app)),
        (_, below) if below.starts_with("/volumes") || below.starts_with("/certificates") => {
            Some((ACTION, app))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STOP: &str = "/v1/apps/{app}/machines/{machine}/stop";
    const SHOW: &str = "/v1/apps/{app}/machines/{machine}";

    fn ask(buckets: &mut Buckets, request: (&Method, &str, &str), millis: u64) -> bool {
        buckets.admit(
            RateLimit::as_on_fly(),
            request,
            Duration::from_millis(millis),
        )
    }

    #[test]
    fn three_come_at_once_and_then_one_a_second() {
        let mut buckets = Buckets::default();
        let stop = (&Method::POST, STOP, "/v1/apps/a/machines/m1/stop");
        let other = (&Method::POST, STOP, "/v1/apps/a/machines/m2/stop");
        let at_once = [0, 0, 0, 0].map(|at| ask(&mut buckets, stop, at));
        assert_eq!(at_once, [true, true, true, false]);
        // Another Machine and another action are counted by themselves.
        assert!(ask(&mut buckets, other, 0));
        let restart = "/v1/apps/{app}/machines/{machine}/restart";
        let restart = (&Method::POST, restart, "/v1/apps/a/machines/m1/restart");
        assert!(ask(&mut buckets, restart, 0));
        assert!(!ask(&mut buckets, stop, 999));
        assert!(ask(&mut buckets, stop, 1000));
        assert!(!ask(&mut buckets, stop, 1000));
        // What was refused costs nothing.
        let later = [5000, 5000, 5000, 5000].map(|at| ask(&mut buckets, stop, at));
        assert_eq!(later, [true, true, true, false]);
    }

    #[test]
    fn a_look_at_a_machine_may_come_more_often_and_apps_are_deleted_a_hundred_a_minute() {
        let mut buckets = Buckets::default();
        let show = (&Method::GET, SHOW, "/v1/apps/a/machines/m1");
        let looks = (0..12).filter(|_| ask(&mut buckets, show, 0)).count();
        assert_eq!(looks, 10);
        assert!(ask(&mut buckets, show, 200));
        let gone = (0..120).filter(|number| {
            let path = format!("/v1/apps/app-{number}");
            ask(&mut buckets, (&Method::DELETE, "/v1/apps/{app}", &path), 0)
        });
        assert_eq!(gone.count(), 100);
    }

    #[test]
    fn what_is_not_limited_is_not_counted() {
        let mut buckets = Buckets::default();
        for (method, route, path) in [
            (Method::GET, "/v1/apps", "/v1/apps"),
            (Method::GET, "/v1/apps/{app}/logs", "/v1/apps/a/logs"),
            (
                Method::POST,
                "/v1/apps/{app}/deployments",
                "/v1/apps/a/deployments",
            ),
            (
                Method::POST,
                "/v1/apps/{app}/machines/{machine}/session",
                "/v1/apps/a/machines/m/session",
            ),
        ] {
            assert!((0..50).all(|_| ask(&mut buckets, (&method, route, path), 0)));
        }
        assert!(buckets.0.is_empty());
        let stop = (&Method::POST, STOP, "/v1/apps/a/machines/m1/stop");
        let now = Duration::ZERO;
        assert!((0..50).all(|_| buckets.admit(RateLimit::OFF, stop, now)));
        let ten = RateLimit::times(NonZeroU32::new(10).unwrap());
        let passed = (0..50).filter(|_| buckets.admit(ten, stop, now)).count();
        assert_eq!(passed, 30);
    }

    #[test]
    fn full_buckets_are_thrown_out() {
        let mut buckets = Buckets::default();
        for number in 0..SWEEP_AT {
            let path = format!("/v1/apps/a/machines/{number}/stop");
            assert!(ask(&mut buckets, (&Method::POST, STOP, &path), 0));
        }
        let path = "/v1/apps/a/machines/new/stop";
        assert!(ask(&mut buckets, (&Method::POST, STOP, path), 60_000));
        assert_eq!(buckets.0.len(), 1);
    }

    #[test]
    fn a_limit_is_off_on_or_a_number() {
        assert_eq!("off".parse(), Ok(RateLimit::OFF));
        assert_eq!("on".parse(), Ok(RateLimit::as_on_fly()));
        assert_eq!("1".parse(), Ok(RateLimit::as_on_fly()));
        for bad in ["0", "-1", "fast", ""] {
            assert!(bad.parse::<RateLimit>().is_err(), "{bad}");
        }
    }
}
