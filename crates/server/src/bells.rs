//! Who waits for a Machine hears of its changes alone.
//!
//! A thousand waits on a thousand Machines must not all look again whenever one of them changes. One
//! task follows the store and rings the bells of the Machines that changed; a Machine that nobody
//! waits for has none.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hangar_api::id::MachineId;
use hangar_store::Delta;
use hangar_store::tables::{Observations, Ops, Specs};
use tokio::sync::watch;

use crate::core::Core;

/// The bells of the Machines that somebody waits for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bells(Arc<Mutex<HashMap<MachineId, watch::Sender<()>>>>);

/// Somebody who waits for a Machine.
#[derive(Debug)]
pub(crate) struct Listener {
    bells: Bells,
    id: MachineId,
    heard: watch::Receiver<()>,
}

// === impl Bells ===

impl Bells {
    fn lock(&self) -> MutexGuard<'_, HashMap<MachineId, watch::Sender<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to listen: look at the Machine afterwards, and nothing is missed.
    pub(crate) fn listen(&self, id: &MachineId) -> Listener {
        let mut bells = self.lock();
        let bell = bells
            .entry(id.clone())
            .or_insert_with(|| watch::Sender::new(()));
        Listener {
            bells: self.clone(),
            id: id.clone(),
            heard: bell.subscribe(),
        }
    }

    fn ring(&self, delta: &Delta) {
        let bells = self.lock();
        if bells.is_empty() {
            return;
        }
        let (Some(seen), Some(specs), Some(ops)) = (
            delta.keys::<Observations>(),
            delta.keys::<Specs>(),
            delta.keys::<Ops>(),
        ) else {
            bells.values().for_each(|bell| {
                bell.send_replace(());
            });
            return;
        };
        for (_, id) in seen.iter().chain(&specs).chain(&ops) {
            if let Some(bell) = bells.get(id) {
                bell.send_replace(());
            }
        }
    }
}

/// Rings the bells, until the server stops.
pub(crate) async fn run(core: Arc<Core>) {
    let mut deltas = core.cache.deltas();
    loop {
        tokio::select! {
            biased;
            () = core.stop.cancelled() => return,
            delta = deltas.next() => match delta {
                Some(delta) => core.bells.ring(&delta),
                None => return,
            },
        }
    }
}

// === impl Listener ===

impl Listener {
    /// Waits until the Machine has changed since the last time. May be cancelled.
    pub(crate) async fn changed(&mut self) {
        if self.heard.changed().await.is_err() {
            // The bell is kept as long as somebody listens.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut bells = self.bells.lock();
        // We are still counted.
        let last = bells
            .get(&self.id)
            .is_some_and(|bell| bell.receiver_count() <= 1);
        if last {
            bells.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_bell_goes_with_the_last_who_listens() {
        let bells = Bells::default();
        let id = |text: &str| MachineId::new(text).unwrap();
        let (one, two) = (id("00000000000001"), id("00000000000002"));
        let mut first = bells.listen(&one);
        let second = bells.listen(&one);
        let other = bells.listen(&two);
        assert_eq!(bells.lock().len(), 2);
        bells.ring(&Delta::All { revision: 1 });
        first.changed().await;
        drop(second);
        assert_eq!(bells.lock().len(), 2);
        drop(first);
        drop(other);
        assert!(bells.lock().is_empty());
    }
}
