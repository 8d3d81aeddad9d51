//! What all cores of one proxy share.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use arc_swap::ArcSwap;
use hangar_api::edge::EdgeMap;
use hangar_api::env::Env;
use hangar_api::seam::MachineFiles;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::ProxyConfig;
use crate::index::Index;
use crate::registry::Registry;
use crate::tls::Tls;
use crate::wake::Wakes;

/// What all cores of one proxy share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: ProxyConfig,
    pub(crate) env: Env,
    /// The Catalog, ready to be looked up.
    pub(crate) index: Arc<ArcSwap<Index>>,
    pub(crate) registry: Registry,
    pub(crate) wakes: Wakes,
    pub(crate) files: Arc<dyn MachineFiles>,
    pub(crate) tls: Tls,
    /// Requests that wait in any queue.
    pub(crate) held: Arc<AtomicUsize>,
    /// Places for answers that are being compressed.
    pub(crate) compressed: Arc<Semaphore>,
    pub(crate) edge: watch::Sender<EdgeMap>,
    /// The revision of the server's facts that requests are answered by.
    pub(crate) applied: watch::Sender<u64>,
    /// Listening ends.
    pub(crate) stop: CancellationToken,
    /// Connections end with the request that they are at.
    pub(crate) finish: CancellationToken,
    /// The threads end.
    pub(crate) exit: CancellationToken,
    /// Client connections, and what became of them by an upgrade.
    pub(crate) connections: TaskTracker,
}
