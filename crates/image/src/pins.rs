//! Marks blobs and layers as being used, so that a prune leaves them alone.
//!
//! Whoever works on something pins it first and looks for it on disk afterwards; whoever removes
//! something moves it out of sight under the same lock and only if nobody pins it. So a look that
//! finds something may rely on it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::digest::Digest;

/// A kind of thing in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Blob,
    Layer,
}

type Counts = BTreeMap<(Kind, Digest), usize>;

/// What is pinned, and how often.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pins(Arc<Mutex<Counts>>);

/// Keeps one thing in the store until dropped.
#[derive(Debug)]
pub(crate) struct Pin {
    pins: Pins,
    key: (Kind, Digest),
}

// === impl Pins ===

impl Pins {
    pub(crate) fn pin(&self, kind: Kind, digest: &Digest) -> Pin {
        let key = (kind, digest.clone());
        *self.lock().entry(key.clone()).or_default() += 1;
        Pin {
            pins: self.clone(),
            key,
        }
    }

    /// Calls `remove` unless the thing is pinned. Nobody can pin it meanwhile, so `remove` is to
    /// be quick: a rename.
    pub(crate) fn unless_pinned<T>(
        &self,
        kind: Kind,
        digest: &Digest,
        remove: impl FnOnce() -> T,
    ) -> Option<T> {
        let counts = self.lock();
        let free = !counts.contains_key(&(kind, digest.clone()));
        free.then(remove)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Pin ===

impl Drop for Pin {
    fn drop(&mut self) {
        let mut counts = self.pins.lock();
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}
