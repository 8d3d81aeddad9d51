//! One piece of work for all who want the same thing at the same time.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{Shared, WeakShared};
use hangar_api::seam::BoxFuture;

use crate::error::ImageError;

type Work<T> = BoxFuture<'static, Result<T, ImageError>>;

/// Work in progress, by what it makes. When nobody waits for a piece of work any more, it stops.
pub(super) struct Flights<T>(Mutex<BTreeMap<String, WeakShared<Work<T>>>>);

/// The outcome of shared work.
pub(super) struct Landed<T> {
    pub(super) outcome: Result<T, ImageError>,
    /// Whether the work was begun for somebody else.
    pub(super) joined: bool,
}

// === impl Flights ===

impl<T: Clone> Flights<T> {
    /// Joins the work for `key`, or begins it.
    pub(super) async fn run(&self, key: &str, make: impl FnOnce() -> Work<T>) -> Landed<T> {
        let (shared, joined) = self.join(key, make);
        let outcome = shared.clone().await;
        self.leave(key, shared);
        Landed { outcome, joined }
    }

    fn join(&self, key: &str, make: impl FnOnce() -> Work<T>) -> (Shared<Work<T>>, bool) {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let running = flights.get(key).and_then(WeakShared::upgrade);
        // What has landed already is history: the world may have changed since.
        if let Some(shared) = running.filter(|shared| shared.peek().is_none()) {
            return (shared, true);
        }
        flights.retain(|_, weak| weak.upgrade().is_some());
        let shared = make().shared();
        if let Some(weak) = shared.downgrade() {
            flights.insert(key.to_owned(), weak);
        }
        (shared, false)
    }

    fn leave(&self, key: &str, shared: Shared<Work<T>>) {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(shared);
        if flights
            .get(key)
            .is_some_and(|weak| weak.upgrade().is_none())
        {
            flights.remove(key);
        }
    }
}

impl<T> Default for Flights<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> std::fmt::Debug for Flights<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flights").finish_non_exhaustive()
    }
}
