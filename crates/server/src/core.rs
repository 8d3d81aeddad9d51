//! What every part of the server works with.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hangar_api::app::AppRecord;
use hangar_api::edge::EdgeMap;
use hangar_api::env::Env;
use hangar_api::id::AppName;
use hangar_api::region::Slot;
use hangar_api::seam::{HostCalls, ImageCalls, VolumeCalls};
use hangar_image::Hosted;
use hangar_store::tables::Apps;
use hangar_store::{Cache, Delta, Deltas, Record, Revision, StoreError, Txn};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::bells::Bells;
use crate::error::Problem;
use crate::formations::Memory;
use crate::inside::Paces;
use crate::keyring::Keyring;
use crate::rate::RateLimit;
use crate::watch::Hub;

/// How often a write is tried again when somebody else was first.
pub(crate) const MAX_TRIES: usize = 16;

/// How long a writer that was second waits to see what the first has written.
const CATCH_UP: Duration = Duration::from_millis(20);
/// Most sessions and tunnels at the same time.
pub(crate) const MAX_OPEN: usize = 512;

/// The server's inside, shared by its handlers and tasks.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) slots: Vec<Slot>,
    pub(crate) domain: String,
    pub(crate) rate_limit: RateLimit,
    pub(crate) data_dir: PathBuf,
    pub(crate) cache: Cache,
    pub(crate) images: Arc<dyn ImageCalls>,
    pub(crate) registry: Arc<Hosted>,
    pub(crate) calls: Arc<dyn HostCalls>,
    pub(crate) volumes: Arc<dyn VolumeCalls>,
    pub(crate) edge: watch::Receiver<EdgeMap>,
    pub(crate) applied: watch::Receiver<Revision>,
    /// The revision of the certificates that the edge serves; absent before it has any.
    pub(crate) served: watch::Receiver<Option<Revision>>,
    pub(crate) env: Env,
    pub(crate) keyring: Keyring,
    /// Why formations could not be kept.
    pub(crate) formations: Memory,
    /// Those who wait for Machines.
    pub(crate) bells: Bells,
    /// Those who watch apps.
    pub(crate) watch: Hub,
    /// How fast Machines ask without a token.
    pub(crate) paces: Paces,
    /// Room for sessions and tunnels.
    pub(crate) open: Arc<Semaphore>,
    /// Ends every task and every answer that follows something.
    pub(crate) stop: CancellationToken,
}

// === impl Core ===

impl Core {
    /// Returns the record of an app that exists and is not being destroyed.
    pub(crate) fn app(&self, name: &AppName) -> Result<Arc<Record<Apps>>, Problem> {
        self.cache
            .get::<Apps>(name)
            .filter(|app| !app.value.deleting)
            .ok_or_else(|| Problem::AppNotFound(name.to_string()))
    }

    /// Returns the name under which an app is found from outside.
    pub(crate) fn hostname(&self, app: &AppRecord) -> String {
        format!("{}.{}", app.name, self.domain)
    }

    /// Waits until a reconciler is to look again: a change that matters has come, or the time has.
    /// Returns false when the server stops.
    pub(crate) async fn is_due(
        &self,
        deltas: &mut Deltas,
        until: Instant,
        matters: impl Fn(&Delta) -> bool,
    ) -> bool {
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return false,
                delta = deltas.next() => match delta {
                    Some(delta) if matters(&delta) => return true,
                    Some(_) => {}
                    None => return false,
                },
                () = tokio::time::sleep_until(until) => return true,
            }
        }
    }

    /// Commits, and says by `None` that somebody else was first: read again and retry.
    ///
    /// An outcome that is not known is settled by waiting for the view, then reading again.
    pub(crate) async fn try_commit(&self, txn: Txn) -> Result<Option<Revision>, StoreError> {
        let mut view = self.cache.changes();
        match self.cache.commit(txn).await {
            Ok(revision) => Ok(Some(revision)),
            Err(error) if error.is_conflict() => {
                // What the other wrote shows in the view in a moment; before, reading again would
                // find what was read already. It may show by now.
                let _ = tokio::time::timeout(CATCH_UP, view.changed()).await;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Returns the refusal for a write that lost every race.
pub(crate) fn too_contended() -> Problem {
    Problem::Conflict("it was changed by others again and again; try again".to_owned())
}
