//! What the clients counted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Most faults that are kept in words.
const MAX_FAULTS: usize = 40;
/// Answers below which a run proves nothing.
const ENOUGH: u64 = 500;

/// Kinds of clients.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    KeptAlive,
    New,
    Http2,
    WebSocket,
}

const KINDS: [Kind; 4] = [Kind::KeptAlive, Kind::New, Kind::Http2, Kind::WebSocket];

#[derive(Debug)]
pub(super) struct Tally {
    began: Instant,
    answered: [AtomicU64; KINDS.len()],
    /// Times that the WebSocket was closed politely.
    goodbyes: AtomicU64,
    slowest_micros: AtomicU64,
    faults: AtomicU64,
    words: Mutex<Vec<String>>,
}

// === impl Tally ===

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            answered: Default::default(),
            goodbyes: AtomicU64::new(0),
            slowest_micros: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            words: Mutex::default(),
        }
    }

    /// Counts what came of a request that began then.
    pub(super) fn count(&self, kind: Kind, began: Instant, result: Result<(), String>) -> bool {
        let took = began.elapsed();
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.slowest_micros.fetch_max(micros, Ordering::Relaxed);
        match result {
            Ok(()) => {
                self.answered[kind as usize].fetch_add(1, Ordering::Relaxed);
                true
            }
            Err(why) => {
                self.faults.fetch_add(1, Ordering::Relaxed);
                let at = self.began.elapsed().as_secs_f64();
                let clock = std::time::SystemTime::now()
                    .duration_since(std::time::UNIX_EPOCH)
                    .unwrap_or_default()
                    .as_secs_f64();
                let words = format!("{at:.3} s ({clock:.3}), {kind:?}, after {took:?}: {why}");
                let mut all = self.words.lock().unwrap_or_else(PoisonError::into_inner);
                if all.len() < MAX_FAULTS {
                    all.push(words);
                }
                false
            }
        }
    }

    pub(super) fn goodbye(&self) {
        self.goodbyes.fetch_add(1, Ordering::Relaxed);
    }

    /// Prints the figures, and panics where there was a fault or a client did nothing.
    pub(super) fn judge(&self, rounds: usize) {
        let answered = KINDS.map(|kind| {
            let count = self.answered[kind as usize].load(Ordering::Relaxed);
            (kind, count)
        });
        let slowest = Duration::from_micros(self.slowest_micros.load(Ordering::Relaxed));
        let goodbyes = self.goodbyes.load(Ordering::Relaxed);
        let faults = self.faults.load(Ordering::Relaxed);
        let figures = format!(
            "{rounds} rounds in {:.1} s, answered {answered:?}, slowest {slowest:?}, \
             WebSocket closed politely {goodbyes} times, {faults} faults",
            self.began.elapsed().as_secs_f64()
        );
        eprintln!("{figures}");
        let words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(faults == 0, "{figures}\n{}", words.join("\n"));
        assert!(answered.iter().all(|(_, count)| *count > 0), "{figures}");
        let all: u64 = answered.iter().map(|(_, count)| count).sum();
        assert!(all > ENOUGH, "{figures}");
    }
}
