//! The one door to clock, randomness, ids and tasks (D16).
//!
//! Host, server and proxy take an [`Env`] as an argument; calling the clock or spawning directly
//! is refused by lint. A simulated `Env` follows tokio's paused clock and a seed, so that a run
//! can be repeated exactly.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use crate::Timestamp;

/// Clock, randomness, ids and task spawning, real or simulated. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Env(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    random: Mutex<SplitMix>,
}

#[derive(Debug)]
enum Clock {
    Real,
    /// Wall time is a fixed start plus what tokio's clock has advanced.
    Simulated {
        start: Timestamp,
        began: tokio::time::Instant,
    },
}

#[derive(Debug)]
struct SplitMix(u64);

// === impl Env ===

impl Env {
    /// Returns the real environment, seeded by the system.
    #[must_use]
    pub fn real() -> Self {
        let mut seed = [0_u8; 8];
        // Without the system's randomness nothing here would be safe to start.
        getrandom::fill(&mut seed).expect("the kernel gives random bytes");
        Self(Arc::new(Inner {
            clock: Clock::Real,
            random: Mutex::new(SplitMix(u64::from_le_bytes(seed))),
        }))
    }

    /// Returns a simulated environment: tokio's (pausable) clock and a seed.
    ///
    /// Call it inside a current-thread runtime with `start_paused`.
    #[must_use]
    pub fn simulated(seed: u64) -> Self {
        let start = Timestamp::from_second(1_700_000_000).unwrap_or(Timestamp::UNIX_EPOCH);
        let clock = Clock::Simulated {
            start,
            began: tokio::time::Instant::now(),
        };
        Self(Arc::new(Inner {
            clock,
            random: Mutex::new(SplitMix(seed)),
        }))
    }

    /// Returns the wall-clock time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match &self.0.clock {
            Clock::Real => Timestamp::now(),
            Clock::Simulated { start, began } => {
                let passed = jiff::SignedDuration::try_from(began.elapsed()).unwrap_or_default();
                start.saturating_add(passed).unwrap_or(*start)
            }
        }
    }

    /// Returns 64 random bits. Not for keys: use [`Env::secret_bytes`].
    #[must_use]
    pub fn random_u64(&self) -> u64 {
        self.0
            .random
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .next()
    }

    /// Fills `out` with bytes fit for tokens and keys (from the system, except in simulation).
    pub fn secret_bytes(&self, out: &mut [u8]) {
        match self.0.clock {
            Clock::Real => getrandom::fill(out).expect("the kernel gives random bytes"),
            Clock::Simulated { .. } => {
                for chunk in out.chunks_mut(8) {
                    chunk.copy_from_slice(&self.random_u64().to_le_bytes()[..chunk.len()]);
                }
            }
        }
    }

    /// Returns a new ULID.
    #[must_use]
    pub fn ulid(&self) -> ulid::Ulid {
        let millis = u64::try_from(self.now().as_millisecond()).unwrap_or(0);
        let random = u128::from(self.random_u64()) << 64 | u128::from(self.random_u64());
        ulid::Ulid::from_parts(millis, random)
    }

    /// Spawns a task on the current runtime. The caller keeps the handle and joins or aborts it.
    pub fn spawn<F>(&self, future: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        tokio::spawn(future)
    }
}

// === impl SplitMix ===

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
