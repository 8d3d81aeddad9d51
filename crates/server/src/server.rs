//! Starting and stopping the server.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use hangar_api::certificate::ToEdge;
use hangar_api::edge::EdgeMap;
use hangar_api::env::Env;
use hangar_api::id::{AppName, MachineId};
use hangar_api::link::{FromHost, ToHost};
use hangar_api::region::Slot;
use hangar_api::rights::{Access, Action};
use hangar_api::seam::{BoxFuture, Connection, HostCalls, ImageCalls, MachineApi, VolumeCalls};
use hangar_image::Hosted;
use hangar_store::{Cache, Store, StoreError};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::auth::{self, AuthError, Caller};
use crate::core::{Core, MAX_OPEN};
use crate::desk::Desk;
use crate::inside::{self, Paces};
use crate::keyring::{Keyring, KeyringError};
use crate::rate::RateLimit;
use crate::routes::{self, Routes};
use crate::{
    apps, bells, certificates, deployments, files, formations, http, link, orgs, schedules,
    standby, supervise, tidy, volumes,
};

/// How long a task may take to end.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What an operator decides.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The slots that Machines are placed on; the first one's region is the default region.
    pub slots: Vec<Slot>,
    /// Apps are `APP.DOMAIN`.
    pub domain: String,
    /// How often a client may ask for the same thing.
    pub rate_limit: RateLimit,
    /// Holds `token` (the admin token, mode 0600), `keyring/` and `tmp/` for uploads.
    pub data_dir: PathBuf,
}

/// What the server works with.
#[derive(Debug)]
pub struct ServerParts {
    /// The store.
    pub store: Store,
    /// Images.
    pub images: Arc<dyn ImageCalls>,
    /// The registry that is embedded in their store.
    pub registry: Arc<Hosted>,
    /// Questions to the host.
    pub calls: Arc<dyn HostCalls>,
    /// The host's volumes.
    pub volumes: Arc<dyn VolumeCalls>,
    /// To the host.
    pub to_host: mpsc::Sender<ToHost>,
    /// From the host.
    pub from_host: mpsc::Receiver<FromHost>,
    /// Where the proxy listens.
    pub edge: watch::Receiver<EdgeMap>,
    /// The revision of the published routes that the proxy answers requests by.
    pub applied: watch::Receiver<hangar_store::Revision>,
    /// To the proxy: certificates with their keys.
    pub to_edge: mpsc::Sender<ToEdge>,
    /// The revision of the certificates that the proxy serves; absent before it has any.
    pub served: watch::Receiver<Option<hangar_store::Revision>>,
    /// Clock, randomness, tasks.
    pub env: Env,
}

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// There is nowhere to put Machines.
    #[error("there is no slot to place machines on; name at least one")]
    NoSlots,
    /// The data directory cannot be used.
    #[error("use the data directory {path}")]
    DataDir {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The keys cannot be used.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// There is no admin token.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The store cannot be read.
    #[error("read the store")]
    Store(#[from] StoreError),
}

/// The API server.
#[derive(Debug)]
pub struct Server;

/// A running server.
#[derive(Debug)]
pub struct ServerHandle {
    core: Arc<Core>,
    router: OnceLock<axum::Router>,
    routes: watch::Receiver<Arc<Routes>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    feed: JoinHandle<()>,
}

// === impl Server ===

impl Server {
    /// Reads the store, makes sure that there are keys and an admin token, and begins the
    /// reconcilers. Deployments that a former server left go on.
    pub async fn start(
        config: ServerConfig,
        parts: ServerParts,
    ) -> Result<Arc<ServerHandle>, ServerError> {
        if config.slots.is_empty() {
            return Err(ServerError::NoSlots);
        }
        let ServerParts { env, .. } = &parts;
        let env = env.clone();
        sweep_uploads(&config.data_dir)?;
        let keyring = Keyring::ensure(&config.data_dir.join("keyring"), &env)?;
        let (cache, feed) = Cache::open(&parts.store).await?;
        let feed = env.spawn(async move {
            if let Err(error) = feed.run().await {
                tracing::error!(error = %error, "view of the store stands still");
            }
        });
        auth::ensure_admin(&config.data_dir.join("token"), &cache, &env).await?;
        orgs::ensure_personal(&cache, &env).await?;
        let core = Arc::new(Core {
            slots: config.slots,
            domain: config.domain,
            rate_limit: config.rate_limit,
            data_dir: config.data_dir,
            cache,
            images: parts.images,
            registry: parts.registry,
            calls: parts.calls,
            volumes: parts.volumes,
            edge: parts.edge,
            applied: parts.applied,
            served: parts.served,
            env,
            keyring,
            formations: formations::Memory::default(),
            bells: bells::Bells::default(),
            watch: crate::watch::Hub::default(),
            paces: Paces::default(),
            open: Arc::new(Semaphore::new(MAX_OPEN)),
            stop: CancellationToken::new(),
        });
        apps::ensure_numbers(&core).await?;
        let (routes_in, routes) = watch::channel(Arc::default());
        let env = &core.env;
        let tasks = vec![
            env.spawn(link::tell_host(core.clone(), parts.to_host.clone())),
            env.spawn(link::hear_host(
                core.clone(),
                parts.from_host,
                parts.to_host,
            )),
            env.spawn(routes::publish(core.clone(), routes_in)),
            env.spawn(certificates::feed::tell_edge(core.clone(), parts.to_edge)),
            env.spawn(tidy::run(core.clone())),
            env.spawn(tidy::collect_images(core.clone())),
            env.spawn(supervise::run(core.clone())),
            env.spawn(deployments::client::run(core.clone())),
            env.spawn(volumes::work::run(core.clone())),
            env.spawn(standby::run(core.clone())),
            env.spawn(formations::run(core.clone())),
            env.spawn(schedules::run(core.clone())),
            env.spawn(crate::watch::run(core.clone())),
            env.spawn(bells::run(core.clone())),
            env.spawn(files::run(core.clone())),
        ];
        Ok(Arc::new(ServerHandle {
            router: OnceLock::new(),
            routes,
            tasks: Mutex::new(tasks),
            feed,
            core,
        }))
    }
}

/// Removes uploads that a former server left behind.
fn sweep_uploads(data_dir: &Path) -> Result<(), ServerError> {
    let dir = data_dir.join("tmp");
    match std::fs::remove_dir_all(&dir) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(ServerError::DataDir { path: dir, source })
        }
        _ => Ok(()),
    }
}

// === impl ServerHandle ===

impl ServerHandle {
    /// Returns the API, to be served by the node.
    pub fn router(&self) -> axum::Router {
        let made = || http::router(self.core.clone());
        self.router.get_or_init(made).clone()
    }

    /// Returns what front ends other than this API ask, such as that of GraphQL.
    #[must_use]
    pub fn desk(&self) -> Desk {
        Desk::new(self.core.clone())
    }

    /// Returns who sends an `Authorization` header, for what is served beside the router; nobody
    /// when it carries no token that is good.
    #[must_use]
    pub fn authenticate(&self, header: &str) -> Option<Caller> {
        auth::caller(&self.core, header)
    }

    /// Returns whether a caller may do this to an app, or to one set of its functions such as
    /// [`hangar_api::rights::FEATURE_IMAGES`]; `None` when there is no such app.
    #[must_use]
    pub fn may_use_app(
        &self,
        caller: &Caller,
        app: &AppName,
        action: Action,
        feature: Option<&str>,
    ) -> Option<bool> {
        let record = self.core.app(app).ok()?;
        let access = Access {
            app_feature: feature.map(str::to_owned),
            ..auth::caller::app(&self.core.cache.snapshot(), &record.value, action)
        };
        Some(caller.may(&access))
    }

    /// Returns the server's part of the Catalog.
    #[must_use]
    pub fn routes(&self) -> watch::Receiver<Arc<Routes>> {
        self.routes.clone()
    }

    /// Serves the API over a connection from a Machine that has to show a token, as anybody else.
    /// Returns when it has ended.
    pub async fn serve_connection(&self, connection: Box<dyn Connection>) {
        inside::serve(self.core.clone(), self.router(), None, connection).await;
    }

    /// Ends all tasks and every answer that follows something. What is in the store stays as it
    /// is; the next server goes on from there. May be repeated.
    pub async fn shutdown(&self) {
        self.core.stop.cancel();
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for mut task in tasks {
            if tokio::time::timeout(LAST_WORDS, &mut task).await.is_err() {
                task.abort();
            }
        }
        self.feed.abort();
    }
}

impl MachineApi for ServerHandle {
    fn serve(&self, machine: MachineId, connection: Box<dyn Connection>) -> BoxFuture<'_, ()> {
        let (core, router) = (self.core.clone(), self.router());
        Box::pin(inside::serve(core, router, Some(machine), connection))
    }
}
