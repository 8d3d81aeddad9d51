//! The bounded list of recent changes, and the watches that read from it.
//!
//! Filled by a backend after each commit, in the order of revisions. Values are shared, so a
//! watch never asks the backend; what is older than the list is "compacted": list again. The
//! list is not on disk: after a restart everything before is compacted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::stream;
use hangar_api::seam::BoxStream;
use tokio::sync::watch;

use crate::backend::{Batch, Change, Entry, Revision};
use crate::error::StoreError;

/// Most changes kept.
pub(crate) const CHANGES_KEPT: usize = 16 * 1024;
/// Most bytes of values kept in them.
pub(crate) const BYTES_KEPT: usize = 16 * 1024 * 1024;

/// Decides up to which revision a watch reports now, given what it could: for tests that merge
/// at random.
pub(crate) type Pace = Arc<dyn Fn() -> Wait + Send + Sync>;

/// Whether a watch that has something to report waits for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Report now.
    No,
    /// Let others run, then ask again.
    Yes,
}

/// The recent changes of a store.
pub(crate) struct Feed {
    recent: Mutex<Recent>,
    head: watch::Sender<Revision>,
    pace: Option<Pace>,
}

struct Recent {
    changes: VecDeque<Recorded>,
    bytes: usize,
    /// The oldest revision whose changes are all in the list.
    oldest: Revision,
}

struct Recorded {
    revision: Revision,
    change: Change,
}

struct Cursor {
    feed: Arc<Feed>,
    head: watch::Receiver<Revision>,
    prefix: Arc<str>,
    /// Everything before is reported.
    next: Revision,
    ended: bool,
}

// === impl Feed ===

impl Feed {
    /// Returns an empty list for a store at this revision.
    pub(crate) fn new(revision: Revision, pace: Option<Pace>) -> Arc<Self> {
        Arc::new(Self {
            recent: Mutex::new(Recent {
                changes: VecDeque::new(),
                bytes: 0,
                oldest: revision + 1,
            }),
            head: watch::Sender::new(revision),
            pace,
        })
    }

    /// Records what a transaction changed, then wakes the watches.
    pub(crate) fn publish(&self, revision: Revision, changes: Vec<Change>) {
        {
            let mut recent = self.recent();
            for change in changes {
                recent.bytes += weight(&change);
                recent.changes.push_back(Recorded { revision, change });
            }
            recent.evict();
        }
        self.head.send_replace(revision);
    }

    /// Forgets everything before the next revision, as a compaction does.
    pub(crate) fn compact(&self) {
        let mut recent = self.recent();
        recent.changes.clear();
        recent.bytes = 0;
        recent.oldest = *self.head.borrow() + 1;
    }

    /// Returns the changes at `from` and later.
    pub(crate) fn watch(
        self: &Arc<Self>,
        prefix: Arc<str>,
        from: Revision,
    ) -> Result<BoxStream<Result<Batch, StoreError>>, StoreError> {
        let oldest = self.recent().oldest;
        if from < oldest {
            return Err(StoreError::Compacted { oldest });
        }
        let cursor = Cursor {
            feed: Arc::clone(self),
            head: self.head.subscribe(),
            prefix,
            next: from,
            ended: false,
        };
        Ok(Box::pin(stream::unfold(cursor, Cursor::step)))
    }

    fn recent(&self) -> std::sync::MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed").finish_non_exhaustive()
    }
}

// === impl Recent ===

impl Recent {
    fn evict(&mut self) {
        while self.changes.len() > CHANGES_KEPT || self.bytes > BYTES_KEPT {
            let Some(gone) = self.changes.pop_front() else {
                return;
            };
            self.bytes -= weight(&gone.change);
            self.oldest = gone.revision + 1;
        }
    }

    /// Returns the latest of each key's changes in a range of revisions, oldest first.
    fn collect(&self, prefix: &str, from: Revision, to: Revision) -> Vec<Change> {
        let begin = self.changes.partition_point(|c| c.revision < from);
        let end = self.changes.partition_point(|c| c.revision <= to);
        let mut latest: BTreeMap<&str, usize> = BTreeMap::new();
        for (index, recorded) in self.changes.range(begin..end).enumerate() {
            if recorded.change.key.starts_with(prefix) {
                latest.insert(&recorded.change.key, begin + index);
            }
        }
        let mut order: Vec<usize> = latest.into_values().collect();
        order.sort_unstable();
        order
            .into_iter()
            .map(|index| self.changes[index].change.clone())
            .collect()
    }
}

// === impl Cursor ===

impl Cursor {
    async fn step(mut self) -> Option<(Result<Batch, StoreError>, Self)> {
        if self.ended {
            return None;
        }
        let next = self.next;
        if self.head.wait_for(|head| *head >= next).await.is_err() {
            return None;
        }
        while self
            .feed
            .pace
            .as_ref()
            .is_some_and(|pace| pace() == Wait::Yes)
        {
            tokio::task::yield_now().await;
        }
        let to = *self.head.borrow_and_update();
        let item = {
            let recent = self.feed.recent();
            if self.next < recent.oldest {
                let oldest = recent.oldest;
                Err(StoreError::Compacted { oldest })
            } else {
                let changes = recent.collect(&self.prefix, self.next, to);
                Ok(Batch {
                    revision: to,
                    changes,
                })
            }
        };
        self.ended = item.is_err();
        self.next = to + 1;
        Some((item, self))
    }
}

fn weight(change: &Change) -> usize {
    let value = change
        .entry
        .as_ref()
        .map_or(0, |entry: &Entry| entry.value.len());
    change.key.len() + value
}
