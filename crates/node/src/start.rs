//! The order of start and stop.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hangar_api::catalog::Catalog;
use hangar_api::edge::EdgeMap;
use hangar_api::env::Env;
use hangar_api::fingerprint::Fingerprint;
use hangar_api::id::HostId;
use hangar_api::region::Slot;
use hangar_dns::DnsHandle;
use hangar_host::agent::HostHandle;
use hangar_host::net::IpNet;
use hangar_proxy::ProxyHandle;
use hangar_server::{RateLimit, ServerHandle};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::data_dir::DataDir;
use crate::http::Api;
use crate::inside::{self, LateApi};
use crate::parts::{self, LateWaker};
use crate::tls::{Tls, TlsFiles};
use crate::{NodeError, catalog, link, slots};

/// Time that requests through the proxy have to end when the node stops.
const PROXY_GRACE: Duration = Duration::from_secs(10);
/// The one host of a node; more come with more nodes.
const HOST: &str = "local";

/// What an operator decides.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Where state is kept.
    pub data_dir: PathBuf,
    /// Address of the API. One that is not loopback speaks TLS.
    pub listen: SocketAddr,
    /// The certificate of the API. Without one, an address that is not loopback has one that is
    /// made here.
    pub tls: Option<TlsFiles>,
    /// Address that the proxy serves apps on.
    pub edge: IpAddr,
    /// Apps are `APP.DOMAIN`.
    pub domain: String,
    /// Slots as `NAME=REGION`; none means two for every region.
    pub slots: Vec<String>,
    /// Where names outside `.internal` are asked; none means `/etc/resolv.conf`.
    pub dns_upstreams: Vec<IpAddr>,
    /// Private ranges that Machines may reach beside the internet.
    pub egress: Vec<IpNet>,
    /// Registries spoken to over plain HTTP.
    pub insecure_registries: Vec<String>,
    /// Registries that are asked before others.
    pub registry_mirrors: Vec<hangar_image::Mirror>,
    /// A file with sign-ins to registries, in the form of Docker's `config.json`.
    pub registry_auth: Option<PathBuf>,
    /// More hosts that mean the embedded registry, beside `registry.fly.io` and the API's own.
    pub registry_hosts: Vec<String>,
    /// Time between two looks for Machines that nobody uses; zero for none.
    pub autostop_every: Duration,
    /// How often a client may ask for the same thing; `None` means as on Fly, and without limit
    /// where only this machine can ask.
    pub rate_limit: Option<RateLimit>,
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    api: Api,
    token_file: PathBuf,
    edge: watch::Receiver<EdgeMap>,
    server: Arc<ServerHandle>,
    host: HostHandle,
    proxy: Arc<ProxyHandle>,
    dns: DnsHandle,
    tasks: tokio::sync::Mutex<JoinSet<&'static str>>,
    // Goes last: while anything of ours runs, the directory is ours.
    _data_dir: DataDir,
}

/// What must be ours before any role starts.
struct Ground {
    data_dir: DataDir,
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Tls>,
    host_id: HostId,
    slots: Vec<Slot>,
}

// === impl NodeConfig ===

impl NodeConfig {
    fn rate_limit(&self) -> RateLimit {
        let usual = match self.listen.ip().is_loopback() {
            true => RateLimit::OFF,
            false => RateLimit::as_on_fly(),
        };
        self.rate_limit.unwrap_or(usual)
    }
}

// === impl Ground ===

impl Ground {
    async fn take(config: &NodeConfig) -> Result<Self, NodeError> {
        if !rustix::process::geteuid().is_root() {
            return Err(NodeError::NotRoot);
        }
        let data_dir = DataDir::open(&config.data_dir)?;
        let tls = match &config.tls {
            Some(files) => Some(Tls::of_files(files.clone())?),
            None if config.listen.ip().is_loopback() => None,
            None => Some(Tls::self_signed(data_dir.path(), config.listen.ip())?),
        };
        let taken = |source| NodeError::Listen {
            address: config.listen,
            source,
        };
        let listener = TcpListener::bind(config.listen).await.map_err(taken)?;
        let address = listener.local_addr().map_err(taken)?;
        let host_id = HostId::new(HOST).map_err(NodeError::role("the host"))?;
        let slots = slots::slots(&data_dir.path().join("slots.json"), &host_id, &config.slots)?;
        Ok(Self {
            data_dir,
            listener,
            address,
            tls,
            host_id,
            slots,
        })
    }
}

/// Opens the API to Machines: at their own sockets, and at the address that they all know.
fn let_machines_in(
    server: &Arc<ServerHandle>,
    sockets: &LateApi,
    api: &Api,
    tasks: &mut JoinSet<&'static str>,
) {
    sockets.set(server);
    let private = inside::serve(server.clone(), api.stop.clone());
    tasks.spawn(async { (private.await, "private API").1 });
}

// === impl Node ===

impl Node {
    /// Starts every role. Machines that were left running are taken over.
    pub async fn start(config: NodeConfig, env: Env) -> Result<Self, NodeError> {
        let Ground {
            data_dir,
            listener,
            address,
            tls,
            host_id,
            slots,
        } = Ground::take(&config).await?;
        let root = data_dir.path().to_owned();

        let store = parts::store(&root).await?;
        let images = parts::images(&root, &config, address, &env)?;
        let network = parts::network(&root, &config, &env).await?;
        let mut tasks = JoinSet::new();

        let (catalog_out, catalog) = watch::channel(Arc::new(Catalog::default()));
        let waker = Arc::new(LateWaker::default());
        let late_api = Arc::new(LateApi::new());
        let (to_edge, edge_in) = link::carried(&mut tasks);
        let (feed, wakes) = (catalog.clone(), waker.clone());
        let proxy = parts::proxy(&root, &config, feed, edge_in, wakes, env.clone())?;
        let (to_host, host_in) = link::carried(&mut tasks);
        let (to_server, server_in) = link::carried(&mut tasks);
        let (host, volumes) = parts::host(parts::HostInput {
            root: root.clone(),
            host: host_id,
            slots: slots.clone(),
            network,
            images: Arc::clone(&images),
            drain: proxy.clone(),
            api: late_api.clone(),
            incoming: host_in,
            outgoing: to_server,
            env: env.clone(),
        })
        .await?;
        waker.set(host.clone());
        let server = parts::server(parts::ServerInput {
            root: root.clone(),
            domain: config.domain.clone(),
            rate_limit: config.rate_limit(),
            slots,
            store,
            images,
            host: host.clone(),
            volumes,
            to_host,
            from_host: server_in,
            to_edge,
            proxy: proxy.clone(),
            env: env.clone(),
        })
        .await?;
        let merged = catalog::keep(server.routes(), host.liveness(), catalog_out);
        tasks.spawn(async move { (merged.await, "catalog").1 });
        let dns = parts::dns(&config, catalog, env.clone()).await?;
        let router = server.router().merge(hangar_graphql::router(server.desk()));
        let api = Api::begin(listener, address, tls, router, &mut tasks);
        let_machines_in(&server, &late_api, &api, &mut tasks);
        Ok(Self {
            api,
            token_file: root.join("token"),
            edge: proxy.edge(),
            server,
            host,
            proxy,
            dns,
            tasks: tokio::sync::Mutex::new(tasks),
            _data_dir: data_dir,
        })
    }

    /// Returns the API's base URL as it is used on this machine.
    #[must_use]
    pub fn url(&self) -> String {
        let mut address = self.api.address;
        if address.ip().is_unspecified() {
            address.set_ip(match address {
                SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        let scheme = if self.api.certificate.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{address}")
    }

    /// Returns where the API listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.api.address
    }

    /// Returns fingerprint and file of the API's certificate, when it speaks TLS.
    #[must_use]
    pub fn certificate(&self) -> Option<&(Fingerprint, PathBuf)> {
        self.api.certificate.as_ref()
    }

    /// Returns the file that holds the admin token.
    #[must_use]
    pub fn token_file(&self) -> PathBuf {
        self.token_file.clone()
    }

    /// Returns where the proxy listens now.
    #[must_use]
    pub fn edge(&self) -> EdgeMap {
        self.edge.borrow().clone()
    }

    /// Returns the name of a part that ended by itself. Waits for ever while all is well.
    pub async fn failed(&self) -> &'static str {
        match self.tasks.lock().await.join_next().await {
            Some(Ok(name)) => name,
            Some(Err(_)) => "background",
            None => std::future::pending().await,
        }
    }

    /// Stops listening, lets requests end, and leaves Machines running.
    pub async fn shutdown(self) {
        self.api.stop.cancel();
        // Ends waits and followed streams, which would hold their connections open.
        self.server.shutdown().await;
        self.api.ended().await;
        self.proxy.shutdown(PROXY_GRACE).await;
        self.host.shutdown().await;
        self.dns.close().await;
        self.tasks.into_inner().shutdown().await;
        tracing::info!("stopped");
    }
}
