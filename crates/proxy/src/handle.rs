//! Starting the proxy, ending it, and draining a Machine.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use hangar_api::catalog::Catalog;
use hangar_api::certificate::ToEdge;
use hangar_api::edge::EdgeMap;
use hangar_api::env::Env;
use hangar_api::id::MachineId;
use hangar_api::seam::{BoxFuture, Drain, MachineFiles, Waker};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::autostop::Autostop;
use crate::config::ProxyConfig;
use crate::control::Control;
use crate::core::{Core, CoreThread};
use crate::error::ProxyError;
use crate::load::Load;
use crate::registry::Registry;
use crate::shared::Shared;
use crate::tls::Tls;
use crate::wake::Wakes;
use crate::{index::Index, ports};

/// How long a drained start stays closed though the Catalog does not show the drain.
const CLOSED_AFTER_DRAIN: Duration = Duration::from_secs(30);
/// Part of a drain's or shutdown's time in which upgraded connections are asked to end.
const POLITE: Duration = Duration::from_secs(1);

/// The proxy.
#[derive(Debug)]
pub struct Proxy;

/// A running proxy. Dropping the last one ends it at once.
#[derive(Debug)]
pub struct ProxyHandle {
    shared: Arc<Shared>,
    threads: Mutex<Vec<CoreThread>>,
    control: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

// === impl Proxy ===

impl Proxy {
    /// Starts the proxy: its threads, and a task on the current runtime that follows the Catalog.
    ///
    /// It listens as soon as the Catalog has a service and the first of `certificates` has come, or
    /// none will; they are what was imported, each change whole. Fails when a file beside `ports_file`
    /// cannot be read or written, or no thread can be started.
    pub fn start(
        config: ProxyConfig,
        catalog: watch::Receiver<Arc<Catalog>>,
        certificates: mpsc::Receiver<ToEdge>,
        waker: Arc<dyn Waker>,
        files: Arc<dyn MachineFiles>,
        env: Env,
    ) -> Result<Arc<ProxyHandle>, ProxyError> {
        let config = ProxyConfig {
            cores: config.cores.max(1),
            ..config
        };
        let remembered = ports::remembered(&config.ports_file)?;
        let index = Arc::new(ArcSwap::from_pointee(Index::default()));
        let tls = Tls::open(&config, index.clone())?;
        let held = Arc::default();
        let edge = EdgeMap {
            address: config.address,
            domain: config.domain.clone(),
            ..EdgeMap::default()
        };
        let shared = Arc::new(Shared {
            registry: Registry::new(config.cores, Arc::clone(&held)),
            wakes: Wakes::new(waker),
            files,
            tls,
            env: env.clone(),
            index,
            held,
            compressed: Arc::new(Semaphore::new(config.limits.compressed)),
            edge: watch::Sender::new(edge),
            applied: watch::Sender::new(0),
            stop: CancellationToken::new(),
            finish: CancellationToken::new(),
            exit: CancellationToken::new(),
            connections: TaskTracker::new(),
            config,
        });
        let handle = Arc::new(ProxyHandle {
            shared: shared.clone(),
            threads: Mutex::default(),
            control: Mutex::default(),
        });
        let mut doors = Vec::new();
        for number in 0..shared.config.cores {
            // On failure the handle is dropped, which ends the threads before this one.
            let thread = Core::start(number, shared.clone())?;
            doors.push(thread.doors.clone());
            lock(&handle.threads).push(thread);
        }
        let autostop = Autostop::new(shared.clone());
        let (imported, stop) = (shared.tls.imported().clone(), shared.stop.clone());
        let control = Control::new(shared, doors, remembered);
        let all = async move {
            let follow = imported.follow(certificates, stop);
            tokio::join!(control.run(catalog), autostop.run(), follow);
        };
        *lock(&handle.control) = Some(env.spawn(all));
        Ok(handle)
    }
}

// === impl ProxyHandle ===

impl ProxyHandle {
    /// Returns where external ports are bound, following changes.
    #[must_use]
    pub fn edge(&self) -> watch::Receiver<EdgeMap> {
        self.shared.edge.subscribe()
    }

    /// Returns the revision of the server's facts in the Catalog that is applied by all cores,
    /// following changes.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.shared.applied.subscribe()
    }

    /// Returns the server's revision that the imported certificates are of, following changes;
    /// absent before the first came.
    #[must_use]
    pub fn certificates(&self) -> watch::Receiver<Option<u64>> {
        self.shared.tls.imported().served()
    }

    /// Returns the revision of the Catalog that is applied by all cores.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.shared.index.load().revision
    }

    /// Returns how many client connections are open, upgraded ones included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections.len()
    }

    /// Ends the proxy: stops listening, lets requests end for up to `grace`, then cuts the rest.
    /// May be repeated.
    pub async fn shutdown(&self, grace: Duration) {
        let end = Instant::now() + grace;
        self.shared.stop.cancel();
        let control = lock(&self.control).take();
        if let Some(control) = control {
            // It has only to close the doors.
            if tokio::time::timeout_at(end + POLITE, control)
                .await
                .is_err()
            {
                tracing::warn!("the proxy's control task did not end in time");
            }
        }
        self.shared.finish.cancel();
        self.shared.connections.close();
        let polite = end - POLITE.min(grace / 4);
        let ended = self.shared.connections.wait();
        if tokio::time::timeout_at(polite, ended).await.is_err() {
            for load in self.shared.registry.all() {
                load.cut.cancel();
            }
            let ended = self.shared.connections.wait();
            if tokio::time::timeout_at(end, ended).await.is_err() {
                let open = self.shared.connections.len();
                tracing::warn!(open, "connections cut at the end of the grace period");
            }
        }
        self.exit();
    }

    /// Ends the threads, with whatever they are at.
    fn exit(&self) {
        self.shared.stop.cancel();
        self.shared.finish.cancel();
        self.shared.exit.cancel();
        let threads = std::mem::take(&mut *lock(&self.threads));
        for thread in threads {
            thread.join();
        }
    }

    async fn drain(&self, machine: MachineId, starts: u64, limit: Duration) {
        let end = Instant::now() + limit;
        let closed_until = end + CLOSED_AFTER_DRAIN;
        let registry = &self.shared.registry;
        let loads = registry.close(&machine, starts, closed_until);
        let polite = end - POLITE.min(limit / 4);
        if tokio::time::timeout_at(polite, all_emptied(&loads))
            .await
            .is_ok()
        {
            return;
        }
        for load in &loads {
            load.cut.cancel();
        }
        if tokio::time::timeout_at(end, all_emptied(&loads))
            .await
            .is_err()
        {
            let open: u32 = loads.iter().map(|load| load.in_flight()).sum();
            tracing::info!(machine = %machine, open, "drain ran out of time");
        }
    }
}

impl Drain for ProxyHandle {
    fn drained(&self, machine: MachineId, starts: u64, limit: Duration) -> BoxFuture<'_, ()> {
        Box::pin(self.drain(machine, starts, limit))
    }

    fn reopened(&self, machine: &MachineId, starts: u64) {
        self.shared.registry.reopen(machine, starts);
        self.shared.index.load().wake_waiters_for(machine);
    }
}

impl Drop for ProxyHandle {
    fn drop(&mut self) {
        self.exit();
    }
}

async fn all_emptied(loads: &[Arc<Load>]) {
    for load in loads {
        load.emptied().await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
