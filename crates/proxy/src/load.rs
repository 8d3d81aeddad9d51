//! What is in flight to one service of one start of a Machine, and its idle connections.
//!
//! The count is the process's, not a core's: a claim is a compare-and-swap under the hard limit.
//! A closed load gives no new claim, so that "closed and empty" means that nothing of the proxy
//! reaches the Machine any more. Idle connections live here too, one set a core: they die with
//! the start of the Machine that they belong to.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hangar_api::id::MachineId;
use hyper::client::conn::http2;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::http::body::RequestBody;
use crate::http::idle::Silent;
use crate::http::upstream::Kept;
use crate::queue::Queue;

/// Set in the state while nothing new is let in; the other bits count.
const CLOSED: u32 = 1 << 31;
/// Most idle connections kept to one service of a Machine by one core.
const MAX_IDLE: usize = 512;

/// What a service is reached by. External ports of one are not those of the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Transport {
    #[default]
    Tcp,
    Udp,
}

/// One service of one start of a Machine.
pub(crate) struct Load {
    /// The Machine.
    pub(crate) machine: MachineId,
    /// Its start.
    pub(crate) starts: u64,
    /// Where the service listens, and by what.
    pub(crate) address: SocketAddr,
    pub(crate) transport: Transport,
    /// When the proxy first saw this start up.
    pub(crate) up_since: Instant,
    /// Asks upgraded connections to end, politely.
    pub(crate) cut: CancellationToken,
    state: AtomicU32,
    empty: Notify,
    pools: Box<[Mutex<Pool>]>,
    queues: Mutex<Vec<Arc<Queue>>>,
    held: Arc<AtomicUsize>,
    /// Milliseconds after `up_since` until which others are preferred; 0 for none.
    avoid: AtomicU64,
    /// Whether a claim was given since somebody last looked.
    used: AtomicBool,
}

/// A share of a Machine's limit, given back on drop.
#[derive(Debug)]
pub(crate) struct Claim {
    load: Arc<Load>,
}

/// Why a claim was not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoClaim {
    /// The hard limit is reached.
    Full,
    /// The Machine takes nothing new.
    Closed,
}

#[derive(Default)]
struct Pool {
    idle: Vec<Idle>,
    http2: Option<(KeptHttp2, IdleTimeout)>,
}

/// A connection of HTTP/2, and what tells of its silence.
pub(crate) type KeptHttp2 = (http2::SendRequest<RequestBody>, Silent);

struct Idle {
    sender: Kept,
    since: Instant,
    idle_timeout: IdleTimeout,
}

/// How long a connection may be silent. External ports that differ in it share no connections.
type IdleTimeout = Option<Duration>;

// === impl Load ===

impl Load {
    pub(crate) fn new(
        machine: MachineId,
        starts: u64,
        (transport, address): (Transport, SocketAddr),
        up_since: Instant,
        cores: usize,
        held: Arc<AtomicUsize>,
    ) -> Self {
        Self {
            machine,
            starts,
            address,
            transport,
            up_since,
            cut: CancellationToken::new(),
            state: AtomicU32::new(0),
            empty: Notify::new(),
            pools: (0..cores).map(|_| Mutex::default()).collect(),
            queues: Mutex::default(),
            held,
            avoid: AtomicU64::new(0),
            used: AtomicBool::new(false),
        }
    }

    /// Returns how much is in flight.
    pub(crate) fn in_flight(&self) -> u32 {
        self.state.load(Ordering::SeqCst) & !CLOSED
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.load(Ordering::SeqCst) & CLOSED != 0
    }

    /// Returns whether what is left of it was asked to end, which cannot be taken back: where the
    /// start goes on all the same, it has another load.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut.is_cancelled()
    }

    /// Takes a share below the hard limit.
    pub(crate) fn claim(self: &Arc<Self>, hard: Option<u32>) -> Result<Claim, NoClaim> {
        let limit = hard.unwrap_or(CLOSED - 1);
        let mut now = self.state.load(Ordering::SeqCst);
        loop {
            if now & CLOSED != 0 {
                return Err(NoClaim::Closed);
            }
            if now >= limit {
                return Err(NoClaim::Full);
            }
            match self
                .state
                .compare_exchange_weak(now, now + 1, Ordering::SeqCst, Ordering::SeqCst)
            {
                Ok(_) => {
                    if !self.used.load(Ordering::Relaxed) {
                        self.used.store(true, Ordering::Relaxed);
                    }
                    return Ok(Claim { load: self.clone() });
                }
                Err(other) => now = other,
            }
        }
    }

    /// Lets nothing new in and drops what is idle. May be repeated.
    pub(crate) fn close(&self) {
        self.state.fetch_or(CLOSED, Ordering::SeqCst);
        for pool in &self.pools {
            let taken = std::mem::take(&mut *lock(pool));
            drop(taken);
        }
        self.empty.notify_waiters();
    }

    /// Lets nothing new in, if nothing is in flight. Returns whether it is closed so.
    pub(crate) fn close_if_empty(&self) -> bool {
        let closed = self
            .state
            .compare_exchange(0, CLOSED, Ordering::SeqCst, Ordering::SeqCst);
        matches!(closed, Ok(_) | Err(CLOSED))
    }

    /// Returns whether anything was sent there since the last time this was asked.
    pub(crate) fn take_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    /// Lets claims in again: the Machine goes on after all.
    pub(crate) fn open(&self) {
        self.state.fetch_and(!CLOSED, Ordering::SeqCst);
    }

    /// Returns when nothing is in flight. Only sure to stay so on a closed load.
    pub(crate) async fn emptied(&self) {
        loop {
            let notified = self.empty.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.in_flight() == 0 {
                return;
            }
            notified.await;
        }
    }

    /// Says which queues wait for what this load gives back.
    pub(crate) fn feed(&self, queues: Vec<Arc<Queue>>) {
        *lock(&self.queues) = queues;
    }

    /// Notes that the Machine did not take a connection, so that others are preferred for a
    /// while.
    pub(crate) fn avoid_for(&self, now: Instant, time: Duration) {
        let until = now.saturating_duration_since(self.up_since) + time;
        let millis = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
        self.avoid.store(millis.max(1), Ordering::Relaxed);
    }

    /// Notes that the Machine took a connection.
    pub(crate) fn is_fine(&self) {
        if self.avoid.load(Ordering::Relaxed) != 0 {
            self.avoid.store(0, Ordering::Relaxed);
        }
    }

    /// Returns whether others are to be preferred for now.
    pub(crate) fn is_avoided(&self) -> bool {
        let until = self.avoid.load(Ordering::Relaxed);
        until != 0 && self.up_since.elapsed() < Duration::from_millis(until)
    }

    /// Takes an idle connection that is not older than `max_idle`, the last used one first.
    pub(crate) fn take_idle(
        &self,
        core: usize,
        max_idle: Duration,
        idle_timeout: IdleTimeout,
    ) -> Option<Kept> {
        let mut pool = lock(self.pools.get(core)?);
        let alike = |idle: &Idle| idle.idle_timeout == idle_timeout;
        while let Some(last) = pool.idle.iter().rposition(alike) {
            let idle = pool.idle.remove(last);
            if idle.since.elapsed() > max_idle {
                // The ones below are older still.
                pool.idle.drain(..last);
                return None;
            }
            if !idle.sender.0.is_closed() {
                return Some(idle.sender);
            }
        }
        None
    }

    /// Keeps a connection that has just become idle.
    pub(crate) fn put_idle(&self, core: usize, sender: Kept, idle_timeout: IdleTimeout) {
        let Some(pool) = self.pools.get(core) else {
            return;
        };
        let mut pool = lock(pool);
        // Under the lock: `close` sets the flag first and then empties every pool.
        if !self.is_closed() && pool.idle.len() < MAX_IDLE {
            let since = Instant::now();
            pool.idle.push(Idle {
                sender,
                since,
                idle_timeout,
            });
        }
    }

    /// Returns the core's HTTP/2 connection, if it has a live one.
    pub(crate) fn http2(&self, core: usize, idle_timeout: IdleTimeout) -> Option<KeptHttp2> {
        let mut pool = lock(self.pools.get(core)?);
        let (kept, kept_for) = pool.http2.as_ref()?;
        if kept.0.is_closed() {
            pool.http2 = None;
            return None;
        }
        (*kept_for == idle_timeout).then(|| kept.clone())
    }

    /// Keeps the core's HTTP/2 connection.
    pub(crate) fn put_http2(&self, core: usize, kept: KeptHttp2, idle_timeout: IdleTimeout) {
        if let Some(pool) = self.pools.get(core) {
            let mut pool = lock(pool);
            if !self.is_closed() {
                pool.http2 = Some((kept, idle_timeout));
            }
        }
    }

    /// Drops connections that have been idle for longer than `max_idle`.
    pub(crate) fn reap(&self, max_idle: Duration) {
        for pool in &self.pools {
            let mut pool = lock(pool);
            // Oldest first, so the first young one ends the search.
            let old = pool
                .idle
                .iter()
                .take_while(|idle| idle.since.elapsed() > max_idle)
                .count();
            pool.idle.drain(..old);
        }
    }

    fn release(&self) {
        let before = self.state.fetch_sub(1, Ordering::SeqCst);
        if before == CLOSED | 1 {
            self.empty.notify_waiters();
        }
        if self.held.load(Ordering::SeqCst) != 0 {
            for queue in lock(&self.queues).iter() {
                queue.wake_one();
            }
        }
    }
}

impl std::fmt::Debug for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Load")
            .field("machine", &self.machine)
            .field("starts", &self.starts)
            .field("address", &self.address)
            .field("in_flight", &self.in_flight())
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}

// === impl Claim ===

impl Claim {
    pub(crate) fn load(&self) -> &Arc<Load> {
        &self.load
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.load.release();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load() -> Arc<Load> {
        Arc::new(Load::new(
            MachineId::new("0123456789abcd").unwrap(),
            1,
            (Transport::Tcp, ([127, 0, 0, 2], 80).into()),
            Instant::now(),
            1,
            Arc::default(),
        ))
    }

    #[test]
    fn never_more_claims_than_the_hard_limit_from_many_threads() {
        let load = load();
        let given: usize = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..8)
                .map(|_| {
                    let load = load.clone();
                    scope.spawn(move || {
                        let claims: Vec<_> =
                            (0..100).filter_map(|_| load.claim(Some(25)).ok()).collect();
                        let count = claims.len();
                        std::mem::forget(claims);
                        count
                    })
                })
                .collect();
            tries.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(given, 25);
        assert_eq!(load.in_flight(), 25);
    }

    #[tokio::test]
    async fn a_closed_load_gives_nothing_and_tells_when_it_is_empty() {
        let load = load();
        let claim = load.claim(None).unwrap();
        load.close();
        assert_eq!(load.claim(None).unwrap_err(), NoClaim::Closed);
        let waiting = load.clone();
        let emptied = tokio::spawn(async move { waiting.emptied().await });
        tokio::task::yield_now().await;
        assert!(!emptied.is_finished());
        drop(claim);
        emptied.await.unwrap();
        load.open();
        assert!(load.claim(Some(1)).is_ok());
    }
}
