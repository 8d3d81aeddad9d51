//! Each role, made from what the operator decided; and the small adapters between them.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use hangar_api::catalog::Catalog;
use hangar_api::certificate::ToEdge;
use hangar_api::env::Env;
use hangar_api::error::{ErrorKind, Failure};
use hangar_api::id::{HostId, MachineId};
use hangar_api::image::ImageRef;
use hangar_api::link::{FromHost, ToHost};
use hangar_api::net::{NetworkId, RESOLVER};
use hangar_api::region::Slot;
use hangar_api::seam::{BoxFuture, Drain, IdleMachine, MachineApi, MachineFiles, Waker};
use hangar_dns::{Dns, DnsConfig, DnsHandle, Upstreams};
use hangar_host::agent::{self, HostAgent, HostConfig, HostHandle, HostLink, HostParts, NetHooks};
use hangar_host::checks::NetProber;
use hangar_host::ledger::DiskFiles;
use hangar_host::machine::images::{Guard, Images, PreparedImage};
use hangar_host::net::{NetConfig, Network};
use hangar_host::runtime::container::{ContainerRuntime, Settings};
use hangar_host::volumes::DiskVolumes;
use hangar_image::{ImageStore, RegistryConfig};
use hangar_proxy::{Proxy, ProxyConfig, ProxyHandle};
use hangar_server::{RateLimit, Server, ServerConfig, ServerHandle, ServerParts};
use hangar_store::{SqliteBackend, SqliteOptions, Store};
use tokio::sync::{mpsc, watch};

use crate::{NodeConfig, NodeError};

const DNS_PORT: u16 = 53;

/// Opens the store. Blocks on the disk, so on a thread for that.
pub(crate) async fn store(root: &Path) -> Result<Store, NodeError> {
    let path = root.join("store.db");
    let open =
        tokio::task::spawn_blocking(move || SqliteBackend::open(&path, SqliteOptions::default()));
    let opened = open.await.map_err(NodeError::role("the store"))?;
    Ok(Store::new(Arc::new(
        opened.map_err(NodeError::role("the store"))?,
    )))
}

/// Opens the image store.
pub(crate) fn images(
    root: &Path,
    config: &NodeConfig,
    api: SocketAddr,
    env: &Env,
) -> Result<Arc<ImageStore>, NodeError> {
    let mut registries = RegistryConfig {
        insecure: config.insecure_registries.iter().cloned().collect(),
        embedded: registry_hosts(config, api),
        ..RegistryConfig::default()
    };
    for mirror in &config.registry_mirrors {
        registries.add_mirror(mirror);
    }
    if let Some(path) = &config.registry_auth {
        let read = registries.add_auth_file(path);
        read.map_err(NodeError::role("the sign-ins to registries"))?;
    }
    ImageStore::open(root.join("images"), env.clone(), registries)
        .map_err(NodeError::role("the image store"))
}

/// Returns the hosts of image names that mean the API's own registry.
fn registry_hosts(config: &NodeConfig, api: SocketAddr) -> BTreeSet<String> {
    let local = ["localhost", "127.0.0.1", "[::1]"];
    let mut hosts: BTreeSet<String> = local.map(|host| format!("{host}:{}", api.port())).into();
    hosts.insert(api.to_string());
    hosts.extend(config.registry_hosts.iter().map(|host| host.to_lowercase()));
    hosts
}

/// Makes the private network, with the networks of the Machines that may still run.
pub(crate) async fn network(
    root: &Path,
    config: &NodeConfig,
    env: &Env,
) -> Result<Network, NodeError> {
    let known = agent::known_networks(root, Arc::new(DiskFiles), env).await;
    let networks = known.map_err(NodeError::role("the private network"))?;
    let config = NetConfig {
        networks,
        egress: config.egress.clone(),
    };
    let network = Network::ensure(config, env)
        .await
        .map_err(NodeError::role("the private network"))?;
    for finding in network.findings() {
        tracing::warn!(problem = %finding.problem, remedy = %finding.remedy, "the private network is not whole");
    }
    Ok(network)
}

/// Starts the proxy.
pub(crate) fn proxy(
    root: &Path,
    config: &NodeConfig,
    catalog: watch::Receiver<Arc<Catalog>>,
    certificates: mpsc::Receiver<ToEdge>,
    host: Arc<LateWaker>,
    env: Env,
) -> Result<Arc<ProxyHandle>, NodeError> {
    let config = ProxyConfig {
        address: config.edge,
        domain: config.domain.clone(),
        autostop_every: config.autostop_every,
        ..ProxyConfig::new(root.join("edge.json"))
    };
    Proxy::start(config, catalog, certificates, host.clone(), host, env)
        .map_err(NodeError::role("the proxy"))
}

/// What the host is made of.
pub(crate) struct HostInput {
    pub(crate) root: PathBuf,
    pub(crate) host: HostId,
    pub(crate) slots: Vec<Slot>,
    pub(crate) network: Network,
    pub(crate) images: Arc<ImageStore>,
    pub(crate) drain: Arc<dyn Drain>,
    pub(crate) api: Arc<dyn MachineApi>,
    pub(crate) incoming: mpsc::Receiver<ToHost>,
    pub(crate) outgoing: mpsc::Sender<FromHost>,
    pub(crate) env: Env,
}

/// Starts the host: Machines that were left running are taken over. Returns it with its volumes.
pub(crate) async fn host(input: HostInput) -> Result<(HostHandle, Arc<DiskVolumes>), NodeError> {
    let failed = NodeError::role("the host");
    let executable = std::env::current_exe().map_err(&failed)?;
    let settings = Settings {
        data_dir: input.root.clone(),
        executable,
        connect: true,
        api: Some(input.api),
    };
    let env = input.env.clone();
    let runtime = tokio::task::spawn_blocking(move || ContainerRuntime::new(env, &settings));
    let runtime = runtime
        .await
        .map_err(NodeError::role("the host"))?
        .map_err(&failed)?;
    let volumes = runtime.volumes();
    if let Err(error) = volumes.settle().await {
        tracing::warn!(%error, "what was left of work on volumes is not cleared");
    }
    let parts = HostParts {
        runtime: Arc::new(runtime),
        images: Arc::new(StoreImages(input.images)),
        net: Arc::new(KeptNetwork(input.network)),
        drain: input.drain,
        prober: Arc::new(NetProber::new()),
        files: Arc::new(DiskFiles),
        env: input.env,
    };
    let config = HostConfig {
        host: input.host,
        slots: input.slots,
        data_dir: input.root,
    };
    let link = HostLink {
        incoming: input.incoming,
        outgoing: input.outgoing,
    };
    let host = HostAgent::start(config, parts, link)
        .await
        .map_err(NodeError::role("the host"))?;
    Ok((host, volumes))
}

/// What the server is made of.
pub(crate) struct ServerInput {
    pub(crate) root: PathBuf,
    pub(crate) domain: String,
    pub(crate) rate_limit: RateLimit,
    pub(crate) slots: Vec<Slot>,
    pub(crate) store: Store,
    pub(crate) images: Arc<ImageStore>,
    pub(crate) host: HostHandle,
    pub(crate) volumes: Arc<DiskVolumes>,
    pub(crate) to_host: mpsc::Sender<ToHost>,
    pub(crate) from_host: mpsc::Receiver<FromHost>,
    pub(crate) to_edge: mpsc::Sender<ToEdge>,
    pub(crate) proxy: Arc<ProxyHandle>,
    pub(crate) env: Env,
}

/// Starts the server.
pub(crate) async fn server(input: ServerInput) -> Result<Arc<ServerHandle>, NodeError> {
    let config = ServerConfig {
        slots: input.slots,
        domain: input.domain,
        rate_limit: input.rate_limit,
        data_dir: input.root,
    };
    let parts = ServerParts {
        store: input.store,
        registry: input.images.hosted(),
        images: input.images,
        calls: Arc::new(input.host),
        volumes: input.volumes,
        to_host: input.to_host,
        from_host: input.from_host,
        edge: input.proxy.edge(),
        applied: input.proxy.applied(),
        to_edge: input.to_edge,
        served: input.proxy.certificates(),
        env: input.env,
    };
    Server::start(config, parts)
        .await
        .map_err(NodeError::role("the server"))
}

/// Starts the resolver at the address that every Machine asks.
pub(crate) async fn dns(
    config: &NodeConfig,
    catalog: watch::Receiver<Arc<Catalog>>,
    env: Env,
) -> Result<DnsHandle, NodeError> {
    let upstreams = match config.dns_upstreams.as_slice() {
        [] => Upstreams::default(),
        some => Upstreams::Fixed(
            some.iter()
                .map(|ip| SocketAddr::new(*ip, DNS_PORT))
                .collect(),
        ),
    };
    let listen = vec![SocketAddr::from((RESOLVER, DNS_PORT))];
    let config = DnsConfig {
        listen,
        upstreams,
        loopback: None,
    };
    Dns::start(config, catalog, env)
        .await
        .map_err(NodeError::role("the resolver"))
}

/// A [`Waker`] that is known before the host is: the proxy starts first.
#[derive(Debug, Default)]
pub(crate) struct LateWaker(OnceLock<HostHandle>);

/// The image store, as a host's actors see it.
#[derive(Debug)]
struct StoreImages(Arc<ImageStore>);

/// The private network, as a host's actors see it.
#[derive(Debug)]
struct KeptNetwork(Network);

// === impl LateWaker ===

impl LateWaker {
    /// Says who wakes Machines. Once.
    pub(crate) fn set(&self, host: HostHandle) {
        // A node starts one host; a second would be a fault of ours, and changes nothing.
        let _first_stays = self.0.set(host);
    }
}

impl Waker for LateWaker {
    fn wake(&self, machine: MachineId) -> BoxFuture<'_, Result<(), Failure>> {
        match self.0.get() {
            Some(host) => host.wake(machine),
            None => still_starting(),
        }
    }

    fn rest(&self, idle: IdleMachine) -> BoxFuture<'_, Result<(), Failure>> {
        match self.0.get() {
            Some(host) => host.rest(idle),
            None => still_starting(),
        }
    }
}

impl MachineFiles for LateWaker {
    fn open(
        &self,
        machine: MachineId,
        path: PathBuf,
    ) -> BoxFuture<'_, Result<Option<std::fs::File>, Failure>> {
        match self.0.get() {
            Some(host) => host.open(machine, path),
            None => still_starting(),
        }
    }
}

fn still_starting<'a, T: Send + 'a>() -> BoxFuture<'a, Result<T, Failure>> {
    let starting = Failure::new(ErrorKind::Unavailable, "the host is still starting");
    Box::pin(std::future::ready(Err(starting)))
}

// === impl StoreImages ===

impl Images for StoreImages {
    fn ensure(&self, image: &ImageRef) -> BoxFuture<'_, Result<PreparedImage, Failure>> {
        let image = image.clone();
        Box::pin(async move {
            let ready = self.0.ensure(&image).await.map_err(Failure::from)?;
            Ok(PreparedImage {
                layers: ready.layers.clone(),
                entrypoint: ready.config.entrypoint.clone(),
                cmd: ready.config.cmd.clone(),
                env: ready.config.env.clone(),
                user: ready.config.user.clone(),
                workdir: ready.config.workdir.clone(),
                guard: Some(Guard(Arc::new(ready))),
            })
        })
    }
}

// === impl KeptNetwork ===

impl NetHooks for KeptNetwork {
    fn ensure_network(&self, network: NetworkId) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            let made = self.0.ensure_network(network).await;
            made.map_err(|error| {
                Failure::new(
                    ErrorKind::Internal,
                    format!("open the private network: {error}"),
                )
            })
        })
    }

    fn v4(&self, index: u16) -> Option<Ipv4Addr> {
        self.0.pool().address(index)
    }
}
