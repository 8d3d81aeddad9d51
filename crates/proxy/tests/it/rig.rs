//! The rig: a proxy, a Catalog to write, Machines to serve, clients to ask.

mod client;
mod machine;
mod tls;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hangar_api::catalog::{
    Catalog, CatalogApp, CatalogMachine, LiveService, Liveness, MachineRoute, Phase,
};
use hangar_api::certificate::ToEdge;
use hangar_api::env::Env;
use hangar_api::error::{ErrorKind, Failure};
use hangar_api::id::{AppName, GroupName, HostId, MachineId, Region};
use hangar_api::machine::Service;
use hangar_api::net::NetworkId;
use hangar_api::seam::{BoxFuture, IdleMachine, MachineFiles, Waker};
use hangar_proxy::{Proxy, ProxyConfig, ProxyHandle};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

pub(crate) use client::Client;
pub(crate) use machine::{Server, canned, raw};
pub(crate) use tls::{shake_hands, tls};

/// A time that is never reached when things work.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A proxy and its surroundings.
pub(crate) struct Rig {
    pub(crate) proxy: Arc<ProxyHandle>,
    pub(crate) address: Ipv4Addr,
    pub(crate) waker: Arc<TestWaker>,
    pub(crate) dir: tempfile::TempDir,
    catalog: watch::Sender<Arc<Catalog>>,
    certificates: mpsc::Sender<ToEdge>,
    apps: Mutex<BTreeMap<AppName, CatalogApp>>,
}

/// Does as the test says, and remembers what it was asked.
#[derive(Debug, Default)]
pub(crate) struct TestWaker {
    pub(crate) asked: Mutex<Vec<MachineId>>,
    pub(crate) refuse: Mutex<Vec<MachineId>>,
    pub(crate) busy: Mutex<Vec<MachineId>>,
    /// What it was asked to bring to rest.
    pub(crate) idle: Mutex<Vec<IdleMachine>>,
}

impl Waker for TestWaker {
    fn wake(&self, machine: MachineId) -> BoxFuture<'_, Result<(), Failure>> {
        self.asked.lock().unwrap().push(machine.clone());
        let refused = self.refuse.lock().unwrap().contains(&machine);
        let busy = self.busy.lock().unwrap().contains(&machine);
        Box::pin(async move {
            if busy {
                let text = "it is being updated";
                return Err(Failure::new(ErrorKind::Unavailable, text));
            }
            if refused {
                return Err(Failure::new(
                    ErrorKind::Conflict,
                    "it is leased by somebody",
                ));
            }
            Ok(())
        })
    }

    fn rest(&self, idle: IdleMachine) -> BoxFuture<'_, Result<(), Failure>> {
        let refused = self.refuse.lock().unwrap().contains(&idle.machine);
        self.idle.lock().unwrap().push(idle);
        Box::pin(async move {
            if refused {
                let text = "it is leased by somebody";
                return Err(Failure::new(ErrorKind::Unavailable, text));
            }
            Ok(())
        })
    }
}

/// The files of each Machine are those of a folder with its id.
#[derive(Debug)]
struct Folders(PathBuf);

impl MachineFiles for Folders {
    fn open(
        &self,
        machine: MachineId,
        path: PathBuf,
    ) -> BoxFuture<'_, Result<Option<std::fs::File>, Failure>> {
        let below = path.strip_prefix("/").unwrap();
        let path = self.0.join(machine.to_string()).join(below);
        let found = path.is_file().then(|| std::fs::File::open(path).unwrap());
        Box::pin(std::future::ready(Ok(found)))
    }
}

impl TestWaker {
    pub(crate) fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    /// Returns which Machines it was asked to bring to rest, in order.
    pub(crate) fn rested(&self) -> Vec<MachineId> {
        let idle = self.idle.lock().unwrap();
        idle.iter().map(|idle| idle.machine.clone()).collect()
    }
}

/// Returns an address of this process that no other test uses.
pub(crate) fn fresh_address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(next < 255, "the tests of one process have 254 addresses");
    Ipv4Addr::new(127, 64 | (high & 0x3f), low, next)
}

pub(crate) fn machine_id(n: u32) -> MachineId {
    MachineId::new(format!("0000000000{n:04x}")).unwrap()
}

/// Returns a service from JSON, as a fly.toml gives it.
pub(crate) fn service(json: serde_json::Value) -> Service {
    serde_json::from_value(json).unwrap()
}

/// Returns the usual service: http on 80, requests counted and connections kept.
pub(crate) fn web() -> Service {
    web_with(serde_json::json!({"type": "requests"}))
}

pub(crate) fn web_with(concurrency: serde_json::Value) -> Service {
    service(serde_json::json!({
        "internal_port": Server::PORT,
        "concurrency": concurrency,
        "ports": [{"port": 8080, "handlers": ["http"]}],
    }))
}

/// The external port of the usual service.
pub(crate) const WEB: u16 = 8080;

/// Returns a Machine that is up at an address with one healthy service.
pub(crate) fn up(n: u32, address: Ipv4Addr, service: &Service) -> CatalogMachine {
    let mut machine = down(n, service);
    come_up(&mut machine, address);
    machine
}

/// Returns a Machine that is down.
pub(crate) fn down(n: u32, service: &Service) -> CatalogMachine {
    CatalogMachine {
        route: MachineRoute {
            id: machine_id(n),
            host: HostId::new("here").unwrap(),
            group: GroupName::new("web").unwrap(),
            region: Region::new("iad").unwrap(),
            private_ip: std::net::Ipv6Addr::LOCALHOST,
            metadata: BTreeMap::new(),
            skip_dns: false,
            cordoned: false,
            standby: false,
            services: Arc::new([service.clone()]),
        },
        live: Liveness::default(),
    }
}

/// Starts it once more.
pub(crate) fn come_up(machine: &mut CatalogMachine, address: Ipv4Addr) {
    let live = machine.route.services.iter().map(|service| LiveService {
        service: service.clone(),
        healthy: true,
    });
    machine.live = Liveness {
        phase: Phase::Up,
        instance: None,
        starts: machine.live.starts + 1,
        address: Some(address),
        services: live.collect(),
        statics: machine.live.statics.clone(),
    };
}

impl Rig {
    pub(crate) fn start() -> Self {
        Self::start_with(|_| {})
    }

    pub(crate) fn start_with(change: impl FnOnce(&mut ProxyConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = fresh_address();
        let mut config = ProxyConfig::new(dir.path().join("edge.json"));
        config.address = IpAddr::V4(address);
        config.cores = 2;
        change(&mut config);
        let (catalog, watched) = watch::channel(Arc::default());
        let waker = Arc::new(TestWaker::default());
        let files = Arc::new(Folders(dir.path().to_owned()));
        let (certificates, stream) = mpsc::channel(64);
        let none = ToEdge::Sync {
            certificates: Vec::new(),
            revision: 0,
        };
        certificates.try_send(none).unwrap();
        let proxy = Proxy::start(config, watched, stream, waker.clone(), files, Env::real());
        let proxy = proxy.unwrap();
        Self {
            proxy,
            address,
            waker,
            dir,
            catalog,
            certificates,
            apps: Mutex::default(),
        }
    }

    /// Publishes an app, named `NAME.localhost`, and waits until the proxy has it.
    pub(crate) async fn app(&self, name: &str, machines: Vec<CatalogMachine>) {
        self.deploying(name, machines, None).await;
    }

    /// The same for an app that is being deployed until then.
    pub(crate) async fn deploying(
        &self,
        name: &str,
        machines: Vec<CatalogMachine>,
        deploying_until: Option<hangar_api::Timestamp>,
    ) {
        let app = CatalogApp {
            name: AppName::new(name).unwrap(),
            network: NetworkId(1),
            primary_region: Some(Region::new("iad").unwrap()),
            deploying_until,
            hostnames: vec![format!("{name}.localhost")],
            machines: machines.into_iter().map(Arc::new).collect(),
        };
        self.apps.lock().unwrap().insert(app.name.clone(), app);
        self.publish().await;
    }

    /// Gives an app more host names.
    pub(crate) async fn name(&self, app: &str, hostnames: &[&str]) {
        {
            let mut apps = self.apps.lock().unwrap();
            let app = apps.get_mut(app).unwrap();
            app.hostnames
                .extend(hostnames.iter().map(ToString::to_string));
        }
        self.publish().await;
    }

    /// Sends certificates, and waits until the proxy serves them.
    pub(crate) async fn certify(&self, message: ToEdge) {
        let (ToEdge::Sync { revision, .. } | ToEdge::Change { revision, .. }) = &message;
        let revision = *revision;
        self.certificates.send(message).await.unwrap();
        let mut served = self.proxy.certificates();
        let reached = served.wait_for(|at| at.is_some_and(|at| at >= revision));
        drop(tokio::time::timeout(SOON, reached).await.unwrap().unwrap());
    }

    /// Changes one Machine of an app.
    pub(crate) async fn change(&self, app: &str, n: u32, change: impl FnOnce(&mut CatalogMachine)) {
        {
            let mut apps = self.apps.lock().unwrap();
            let app = apps.get_mut(app).unwrap();
            let machine = app
                .machines
                .iter_mut()
                .find(|m| m.route.id == machine_id(n));
            change(Arc::make_mut(machine.unwrap()));
        }
        self.publish().await;
    }

    pub(crate) async fn set_phase(&self, app: &str, n: u32, phase: Phase) {
        self.change(app, n, |machine| machine.live.phase = phase)
            .await;
    }

    async fn publish(&self) {
        let apps = self.apps.lock().unwrap().clone();
        let apps = apps.into_iter().map(|(name, app)| (name, Arc::new(app)));
        let revision = self.catalog.borrow().revision + 1;
        let apps = apps.collect();
        self.catalog.send_replace(Arc::new(Catalog {
            revision,
            routes: revision,
            apps,
        }));
        until("the proxy has the catalog", || {
            self.proxy.revision() >= revision
        })
        .await;
        let wanted: Vec<(bool, u16)> = {
            let apps = self.apps.lock().unwrap();
            let machines = apps.values().flat_map(|app| app.machines.iter());
            let services = machines.flat_map(|machine| machine.route.services.iter().cloned());
            let each = services.flat_map(|service| {
                let udp = service.protocol == "udp";
                let ports = service.ports.into_iter().flat_map(|port| port.range());
                ports.map(move |port| (udp, port))
            });
            each.collect()
        };
        let mut edge = self.proxy.edge();
        let open = edge.wait_for(|edge| {
            let known = |(udp, port): &(bool, u16)| {
                let (open, refused) = if *udp {
                    (&edge.udp, &edge.udp_refused)
                } else {
                    (&edge.ports, &edge.refused)
                };
                open.contains_key(port) || refused.contains_key(port)
            };
            wanted.iter().all(known)
        });
        tokio::time::timeout(SOON, open).await.unwrap().unwrap();
    }

    /// Returns where an external port is bound.
    pub(crate) fn at(&self, external: u16) -> SocketAddr {
        let bound = self.proxy.edge().borrow().ports[&external];
        SocketAddr::from((self.address, bound))
    }

    /// Returns a client of an app's usual service.
    pub(crate) fn client(&self, app: &str) -> Client {
        Client::new(self.at(WEB), format!("{app}.localhost"))
    }
}

/// Opens a WebSocket with the app `app`, and returns it with the head of the answer.
pub(crate) async fn websocket(rig: &Rig) -> (TcpStream, String) {
    let mut socket = TcpStream::connect(rig.at(WEB)).await.unwrap();
    let ask = "GET /ws HTTP/1.1\r\nhost: app.localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    socket.write_all(ask.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    (socket, String::from_utf8(head).unwrap())
}

/// Writes text and reads until the other side ends.
pub(crate) async fn talk<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, text: &str) -> String {
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    tokio::time::timeout(SOON, read).await.unwrap().unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(
        tokio::time::timeout(SOON, wait).await.is_ok(),
        "waited in vain: {what}"
    );
}

/// Returns whether it stays unfinished for a moment: long enough for a mistake to show.
pub(crate) async fn stays_pending<T>(task: &mut tokio::task::JoinHandle<T>) -> bool {
    tokio::time::timeout(Duration::from_millis(150), task)
        .await
        .is_err()
}
