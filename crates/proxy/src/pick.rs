//! Which Machine takes a request. Pure: values in, a value out.
//!
//! Near Machines come before far ones, and among those the ones below their soft limit before the
//! ones above it; a Machine at its hard limit is not eligible. So another region is used only when
//! all near Machines are unhealthy or full. Among equals two are drawn at random and the one with
//! less in flight is taken. Draining, unhealthy, cordoned and waiting standby Machines are never
//! used.

use std::time::Duration;

/// How long a request waits for the only Machine on its way before it starts another one. The
/// time doubles with each further one on its way, so that an app that is slow to come up is not
/// started everywhere.
const PATIENCE: Duration = Duration::from_secs(1);

/// What can be done with a Machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Up, and its checks pass.
    Ready,
    /// On its way: coming up, or up and its checks have not passed yet.
    Coming,
    /// Takes nothing new.
    Draining,
    /// Down, and its host is at work on it: it may be started in a while.
    Busy,
    /// Up, but its checks fail.
    Unhealthy,
    /// Down, and a request may start it.
    Startable,
    /// Down, and a request may not start it.
    Down,
}

/// A Machine as the decision sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub(crate) status: Status,
    /// In a region of the edge's own.
    pub(crate) near: bool,
    /// In flight.
    pub(crate) load: u32,
    pub(crate) soft: u32,
    pub(crate) hard: Option<u32>,
    /// Did not take a connection a moment ago: others first.
    pub(crate) avoided: bool,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pick {
    /// Send it there; and where all that run are above their soft limit, start another one too.
    Use { index: usize, start: Option<usize> },
    /// Start this Machine, then wait.
    Start(usize),
    /// Wait: all that run are full (`true`), or one is on its way or in change (`false`).
    Wait { full: bool },
    /// Nobody can take it.
    Refuse(Reason),
}

/// Why nobody can take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// No Machine has the service.
    Nobody,
    /// All that have it are down, and a request may not start them.
    Down,
    /// All that run fail their checks.
    Unhealthy,
}

/// Two drawn evenly from all that were offered at the best rank.
#[derive(Clone, Copy, Debug, Default)]
struct Draw {
    rank: u8,
    seen: u64,
    kept: [(usize, u32); 2],
}

// === impl Draw ===

impl Draw {
    fn offer(&mut self, rank: u8, index: usize, load: u32, random: &mut u64) {
        if self.seen == 0 || rank < self.rank {
            *self = Self {
                rank,
                seen: 1,
                kept: [(index, load); 2],
            };
            return;
        }
        if rank > self.rank {
            return;
        }
        self.seen += 1;
        if self.seen == 2 {
            self.kept[1] = (index, load);
            return;
        }
        match next(random) % self.seen {
            0 => self.kept[0] = (index, load),
            1 => self.kept[1] = (index, load),
            _ => {}
        }
    }

    /// Returns the less loaded of the two, either of them when they are level.
    fn take(&self, random: &mut u64) -> Option<usize> {
        let [first, second] = self.kept;
        match self.seen {
            0 => None,
            _ if first.1 < second.1 => Some(first.0),
            _ if second.1 < first.1 => Some(second.0),
            _ => Some(self.kept[usize::from(next(random) & 1 == 1)].0),
        }
    }
}

/// Chooses among the Machines of a service, for a request that has waited for so long.
pub(crate) fn pick(views: impl Iterator<Item = View>, waited: Duration, mut random: u64) -> Pick {
    let (mut running, mut startable) = (Draw::default(), Draw::default());
    let (mut full, mut coming, mut in_change) = (false, 0, false);
    let (mut unhealthy, mut down) = (false, false);
    for (index, view) in views.enumerate() {
        let far = u8::from(!view.near);
        match view.status {
            Status::Ready if view.hard.is_some_and(|hard| view.load >= hard) => full = true,
            Status::Ready => {
                let over = u8::from(view.load >= view.soft);
                let rank = u8::from(view.avoided) << 2 | far << 1 | over;
                running.offer(rank, index, view.load, &mut random);
            }
            Status::Coming => coming += 1,
            Status::Draining | Status::Busy => in_change = true,
            Status::Unhealthy => unhealthy = true,
            Status::Startable => startable.offer(far, index, 0, &mut random),
            Status::Down => down = true,
        }
    }
    // One on its way is enough: what it cannot take starts another one later. But it may never
    // arrive, such as one whose app ends again and again: whoever has waited starts another one.
    let start = if is_patient(coming, waited) {
        None
    } else {
        startable.take(&mut random)
    };
    if let Some(index) = running.take(&mut random) {
        let over_soft = running.rank & 1 == 1;
        return Pick::Use {
            index,
            start: start.filter(|_| over_soft),
        };
    }
    match start {
        Some(index) => Pick::Start(index),
        None if full => Pick::Wait { full: true },
        None if coming > 0 || in_change => Pick::Wait { full: false },
        None if unhealthy => Pick::Refuse(Reason::Unhealthy),
        None if down => Pick::Refuse(Reason::Down),
        None => Pick::Refuse(Reason::Nobody),
    }
}

/// Returns whether those on their way are still worth waiting for.
fn is_patient(coming: u32, waited: Duration) -> bool {
    let doublings = coming.saturating_sub(1).min(16);
    coming > 0 && waited < PATIENCE * (1 << doublings)
}

fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    // Zero would stay zero.
    *state |= u64::from(*state == 0);
    *state >> 11
}

#[cfg(test)]
mod tests;
