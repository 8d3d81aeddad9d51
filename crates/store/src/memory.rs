//! The store in memory: for tests and simulation, with the same limits as every backend.
//!
//! It lives as long as an [`Arc`] of it: a simulated server that is killed and started again
//! takes the same one. Told to, it merges watch batches at random and answers "outcome unknown".

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hangar_api::seam::{BoxFuture, BoxStream};

use crate::backend::{
    Backend, Batch, Change, Entry, MAX_PAGE_BYTES, MAX_PAGE_ENTRIES, Page, RawTxn, Revision, Write,
    validate_key, validate_prefix,
};
use crate::error::StoreError;
use crate::feed::{Feed, Pace, Wait};

/// How a store in memory misbehaves, within what a backend may do.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryOptions {
    /// What random choices follow from.
    pub seed: u64,
    /// Hold watch batches back at random, so that they are merged.
    pub merge_watch: bool,
    /// Answer one in so many transactions with "outcome unknown", written or not; 0 for never.
    pub unknown_one_in: u32,
}

/// The store in memory.
#[derive(Debug)]
pub struct MemoryBackend {
    state: Mutex<State>,
    feed: Arc<Feed>,
    random: Arc<Random>,
    unknown_one_in: AtomicU32,
}

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<Arc<str>, Entry>,
    revision: Revision,
}

/// Small numbers from a seed; not for keys.
#[derive(Debug)]
struct Random(Mutex<u64>);

// === impl MemoryBackend ===

impl Default for MemoryBackend {
    fn default() -> Self {
        Self::new(MemoryOptions::default())
    }
}

impl MemoryBackend {
    /// Returns an empty store.
    #[must_use]
    pub fn new(options: MemoryOptions) -> Self {
        let random = Arc::new(Random(Mutex::new(options.seed)));
        let pace = options.merge_watch.then(|| -> Pace {
            let random = Arc::clone(&random);
            Arc::new(move || {
                if random.below(4) > 0 {
                    Wait::Yes
                } else {
                    Wait::No
                }
            })
        });
        Self {
            state: Mutex::default(),
            feed: Feed::new(0, pace),
            random,
            unknown_one_in: AtomicU32::new(options.unknown_one_in),
        }
    }

    /// Answers one in so many transactions with "outcome unknown" from now on; 0 for never.
    pub fn set_unknown_one_in(&self, one_in: u32) {
        self.unknown_one_in.store(one_in, Ordering::Relaxed);
    }

    /// Forgets all changes so far, so that a watch from before must list again.
    pub fn compact(&self) {
        let _state = self.state();
        self.feed.compact();
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn page(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        validate_prefix(prefix)?;
        let state = self.state();
        let mut page = Page {
            revision: state.revision,
            ..Page::default()
        };
        let begin = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let limit = limit.clamp(1, MAX_PAGE_ENTRIES);
        let mut bytes = 0;
        for (key, entry) in state.entries.range::<str, _>((begin, Bound::Unbounded)) {
            if !key.starts_with(prefix) {
                break;
            }
            if page.entries.len() == limit || bytes >= MAX_PAGE_BYTES {
                page.next = page.entries.last().map(|entry| Arc::clone(&entry.key));
                break;
            }
            bytes += key.len() + entry.value.len();
            page.entries.push(entry.clone());
        }
        Ok(page)
    }

    fn commit(&self, txn: &RawTxn) -> Result<Revision, StoreError> {
        txn.validate()?;
        let one_in = self.unknown_one_in.load(Ordering::Relaxed);
        let unknown = one_in > 0 && self.random.below(one_in) == 0;
        let applied = if unknown && self.random.below(2) == 0 {
            Ok(0)
        } else {
            self.apply(txn)
        };
        if unknown {
            // A refusal that got lost on its way looks the same.
            let reason = "the answer got lost".to_owned();
            return Err(StoreError::Unknown { reason });
        }
        applied
    }

    fn apply(&self, txn: &RawTxn) -> Result<Revision, StoreError> {
        let mut state = self.state();
        for check in &txn.checks {
            let found = state.entries.get(check.key()).map(|e| e.mod_revision);
            if !check.holds(found) {
                let key = check.key().to_string();
                return Err(StoreError::Conflict { key });
            }
        }
        let revision = state.revision + 1;
        let mut changes = Vec::with_capacity(txn.writes.len());
        for write in &txn.writes {
            changes.extend(state.write(write, revision));
        }
        if changes.is_empty() {
            return Ok(state.revision);
        }
        state.revision = revision;
        // Under the lock, so that revisions are published in their order.
        self.feed.publish(revision, changes);
        Ok(revision)
    }
}

impl Backend for MemoryBackend {
    fn get(&self, key: Arc<str>) -> BoxFuture<'_, Result<Option<Entry>, StoreError>> {
        Box::pin(async move {
            validate_key(&key)?;
            Ok(self.state().entries.get(&key).cloned())
        })
    }

    fn list(
        &self,
        prefix: Arc<str>,
        after: Option<Arc<str>>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page, StoreError>> {
        Box::pin(async move { self.page(&prefix, after.as_deref(), limit) })
    }

    fn txn(&self, txn: RawTxn) -> BoxFuture<'_, Result<Revision, StoreError>> {
        Box::pin(async move { self.commit(&txn) })
    }

    fn watch(
        &self,
        prefix: Arc<str>,
        from: Revision,
    ) -> BoxFuture<'_, Result<BoxStream<Result<Batch, StoreError>>, StoreError>> {
        Box::pin(async move {
            validate_prefix(&prefix)?;
            self.feed.watch(prefix, from)
        })
    }
}

// === impl State ===

impl State {
    fn write(&mut self, write: &Write, revision: Revision) -> Option<Change> {
        match write {
            Write::Put(key, value) => {
                let old = self.entries.get(key);
                let entry = Entry {
                    key: Arc::clone(key),
                    value: Arc::clone(value),
                    create_revision: old.map_or(revision, |old| old.create_revision),
                    mod_revision: revision,
                };
                self.entries.insert(Arc::clone(key), entry.clone());
                Some(Change::from(entry))
            }
            Write::Delete(key) => self.entries.remove(key).map(|gone| Change {
                key: gone.key,
                entry: None,
            }),
        }
    }
}

// === impl Random ===

impl Random {
    /// Returns a number below `limit` (xorshift over a counter).
    fn below(&self, limit: u32) -> u32 {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z ^= z >> 27;
        u32::try_from(z % u64::from(limit.max(1))).unwrap_or(0)
    }
}
