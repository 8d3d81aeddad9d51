//! Requests of one service that wait for a Machine.
//!
//! Waiters are woken one at a time, in order, when something is given back, and all at once when
//! the Catalog changes. A waiter that leaves wakes the next one, so no wake-up is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The queue of one service.
#[derive(Debug)]
pub(crate) struct Queue {
    waiting: AtomicUsize,
    /// Requests that wait between two attempts to connect: bounded, but not in order.
    backing_off: AtomicUsize,
    notify: Notify,
    /// Waiters of all services: while it is zero, nobody looks at any queue.
    held: Arc<AtomicUsize>,
}

/// A place in the queue.
pub(crate) struct Place<'a> {
    queue: &'a Queue,
    /// Whether others waited before.
    pub(crate) behind_others: bool,
}

/// A place among those who wait before they connect again.
pub(crate) struct Pause<'a>(&'a Queue);

// === impl Queue ===

impl Queue {
    pub(crate) fn new(held: Arc<AtomicUsize>) -> Self {
        Self {
            waiting: AtomicUsize::new(0),
            backing_off: AtomicUsize::new(0),
            notify: Notify::new(),
            held,
        }
    }

    /// Returns whether anybody waits; newcomers then wait behind them.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) != 0
    }

    /// Returns the future of the next wake-up. It counts from the moment it is enabled.
    pub(crate) fn woken(&self) -> tokio::sync::futures::Notified<'_> {
        self.notify.notified()
    }

    /// Takes a place, unless `max` are waiting.
    pub(crate) fn enter(&self, max: usize) -> Option<Place<'_>> {
        let before = self.waiting.fetch_add(1, Ordering::SeqCst);
        self.held.fetch_add(1, Ordering::SeqCst);
        let place = Place {
            queue: self,
            behind_others: before != 0,
        };
        (before < max).then_some(place)
    }

    /// Takes a place between two attempts to connect, unless `max` have one.
    pub(crate) fn pause(&self, max: usize) -> Option<Pause<'_>> {
        let before = self.backing_off.fetch_add(1, Ordering::SeqCst);
        let pause = Pause(self);
        (before < max).then_some(pause)
    }

    /// Wakes the first waiter, if there is one.
    pub(crate) fn wake_one(&self) {
        if self.is_waiting() {
            self.notify.notify_one();
        }
    }

    /// Wakes all.
    pub(crate) fn wake_all(&self) {
        self.notify.notify_waiters();
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.queue.held.fetch_sub(1, Ordering::SeqCst);
        if self.queue.waiting.fetch_sub(1, Ordering::SeqCst) > 1 {
            self.queue.notify.notify_one();
        }
    }
}

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        self.0.backing_off.fetch_sub(1, Ordering::SeqCst);
    }
}
