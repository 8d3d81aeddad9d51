//! Starts of Machines that requests ask for: one a Machine, however many wait.
//!
//! Behind one lock that a request meets only when no Machine below its soft limit runs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hangar_api::env::Env;
use hangar_api::error::ErrorKind;
use hangar_api::id::MachineId;
use hangar_api::seam::Waker;
use tokio::time::Instant;

use crate::queue::Queue;

/// Longest time for the host to accept or refuse a start.
const ASK_LIMIT: Duration = Duration::from_secs(10);
/// How long an accepted start counts as "on its way" though the Catalog still says down.
const ACCEPTED_LIMIT: Duration = Duration::from_secs(10);
/// How long a start is not asked for again that was refused, or not possible just then.
const REFUSED_LIMIT: Duration = Duration::from_secs(1);

/// The starts that were asked for.
#[derive(Debug)]
pub(crate) struct Wakes {
    waker: Arc<dyn Waker>,
    asked: Arc<Mutex<HashMap<MachineId, Asked>>>,
}

#[derive(Debug)]
struct Asked {
    state: Asking,
    /// After this it is as if nobody had asked.
    until: Instant,
}

/// Where a start is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asking {
    /// Asked, or accepted and not seen yet.
    Coming,
    /// Refused, with the reason.
    Refused(Arc<str>),
    /// Not possible just now: worth asking again.
    Busy,
}

// === impl Wakes ===

impl Wakes {
    /// Returns who starts Machines, and brings them to rest.
    pub(crate) fn waker(&self) -> &Arc<dyn Waker> {
        &self.waker
    }

    pub(crate) fn new(waker: Arc<dyn Waker>) -> Self {
        Self {
            waker,
            asked: Arc::default(),
        }
    }

    /// Returns where the start of a Machine that is down is, or `None` when nobody asked lately.
    pub(crate) fn state(&self, machine: &MachineId) -> Option<Asking> {
        let asked = lock(&self.asked);
        let asked = asked.get(machine)?;
        (Instant::now() < asked.until).then(|| asked.state.clone())
    }

    /// Asks for a start, unless somebody did. The queue is woken when the answer is there.
    pub(crate) fn ask(&self, machine: &MachineId, queue: &Arc<Queue>, env: &Env) {
        {
            let mut asked = lock(&self.asked);
            let now = Instant::now();
            if asked.get(machine).is_some_and(|asked| now < asked.until) {
                return;
            }
            let coming = Asked {
                state: Asking::Coming,
                until: now + ASK_LIMIT,
            };
            asked.insert(machine.clone(), coming);
        }
        let (waker, table) = (self.waker.clone(), self.asked.clone());
        let (machine, queue) = (machine.clone(), queue.clone());
        // It ends by itself within the limit.
        drop(env.spawn(async move {
            let answer = tokio::time::timeout(ASK_LIMIT, waker.wake(machine.clone())).await;
            let (state, limit) = match answer {
                Ok(Ok(())) => (Asking::Coming, ACCEPTED_LIMIT),
                Ok(Err(failure)) if failure.kind == ErrorKind::Unavailable => {
                    tracing::debug!(machine = %machine, reason = %failure, "no start just now");
                    (Asking::Busy, REFUSED_LIMIT)
                }
                Ok(Err(failure)) => (Asking::Refused(failure.message.into()), REFUSED_LIMIT),
                Err(_) => {
                    let reason = "the host did not answer in time";
                    (Asking::Refused(reason.into()), REFUSED_LIMIT)
                }
            };
            if let Asking::Refused(reason) = &state {
                tracing::info!(machine = %machine, reason = %reason, "start refused");
            }
            if let Some(asked) = lock(&table).get_mut(&machine) {
                asked.until = Instant::now() + limit;
                asked.state = state;
            }
            queue.wake_all();
        }));
    }

    /// Forgets a start that the Catalog shows by now.
    pub(crate) fn seen(&self, machine: &MachineId) {
        lock(&self.asked).remove(machine);
    }

    /// Forgets that a start was not possible a moment ago: something has changed since.
    pub(crate) fn ask_again(&self, machine: &MachineId) {
        let mut asked = lock(&self.asked);
        if asked
            .get(machine)
            .is_some_and(|asked| asked.state == Asking::Busy)
        {
            asked.remove(machine);
        }
    }

    /// Returns whether any start is remembered.
    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.asked).is_empty()
    }

    /// Drops what is over.
    pub(crate) fn tidy(&self, now: Instant) {
        lock(&self.asked).retain(|_, asked| now < asked.until);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
