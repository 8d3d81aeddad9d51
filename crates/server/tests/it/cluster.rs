//! A server with its HTTP port and its host, which can be killed and started again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hangar_api::edge::EdgeMap;
use hangar_api::env::Env;
use hangar_api::id::{HostId, MachineId, Region, SlotId};
use hangar_api::net::HostPart;
use hangar_api::region::Slot;
use hangar_server::{RateLimit, Server, ServerConfig, ServerHandle, ServerParts};
use hangar_store::Store;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::disk::Disk;
use crate::host::{Host, Images};

/// Nothing in these tests takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Cluster {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) store: Store,
    pub(crate) host: Host,
    pub(crate) disk: Disk,
    pub(crate) token: String,
    /// Where the proxy listens, from the next start on.
    pub(crate) edge: std::net::IpAddr,
    /// How often the same may be asked for, from the next start on.
    pub(crate) rate_limit: RateLimit,
    /// The clock of server and host.
    pub(crate) env: Env,
    running: Option<Running>,
}

struct Running {
    handle: Arc<ServerHandle>,
    address: std::net::SocketAddr,
    tasks: Vec<JoinHandle<()>>,
}

fn slots() -> Vec<Slot> {
    let regions = ["iad", "gru"];
    let each = regions
        .iter()
        .flat_map(|region| [(region, "a"), (region, "b")]);
    each.zip(1..)
        .map(|((region, zone), part)| Slot {
            id: SlotId::new(format!("{region}-{zone}")).unwrap(),
            host: HostId::new("here").unwrap(),
            region: Region::new(*region).unwrap(),
            zone: zone.to_owned(),
            host_part: HostPart(part),
            lost: false,
        })
        .collect()
}

// === impl Cluster ===

impl Cluster {
    pub(crate) async fn start() -> Self {
        Self::start_on(Store::memory()).await
    }

    pub(crate) async fn start_on(store: Store) -> Self {
        Self::start_in(Env::real(), store).await
    }

    pub(crate) async fn start_in(env: Env, store: Store) -> Self {
        let mut cluster = Self {
            env,
            dir: tempfile::tempdir().unwrap(),
            store,
            host: Host::default(),
            disk: Disk::default(),
            token: String::new(),
            rate_limit: RateLimit::OFF,
            edge: std::net::Ipv4Addr::LOCALHOST.into(),
            running: None,
        };
        cluster.up().await;
        cluster
    }

    /// Starts a server on the store that is there.
    pub(crate) async fn up(&mut self) {
        let env = self.env.clone();
        let (to_host, at_host) = mpsc::channel(64);
        let (from_host, at_server) = mpsc::channel(64);
        let (_, edge) = watch::channel(EdgeMap {
            address: self.edge,
            ports: [(80, 8080), (443, 443)].into(),
            ..EdgeMap::default()
        });
        let config = ServerConfig {
            slots: slots(),
            domain: "localhost".to_owned(),
            rate_limit: self.rate_limit,
            data_dir: self.dir.path().to_owned(),
        };
        let registries = hangar_image::RegistryConfig::default();
        let images = self.dir.path().join("images");
        let images = hangar_image::ImageStore::open(images, env.clone(), registries).unwrap();
        let parts = ServerParts {
            store: self.store.clone(),
            registry: images.hosted(),
            images: Arc::new(Images(images)),
            calls: Arc::new(self.host.clone()),
            volumes: Arc::new(self.disk.clone()),
            to_host,
            from_host: at_server,
            edge,
            applied: watch::channel(u64::MAX).1,
            to_edge: tokio::sync::mpsc::channel(64).0,
            served: watch::channel(Some(u64::MAX)).1,
            env: env.clone(),
        };
        let host = tokio::spawn(self.host.clone().serve(env, at_host, from_host));
        let handle = Server::start(config, parts).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = handle.router();
        let http = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let token = std::fs::read_to_string(self.dir.path().join("token")).unwrap();
        self.token = token.trim().to_owned();
        self.running = Some(Running {
            handle,
            address,
            tasks: vec![host, http],
        });
    }

    /// Ends the server; the host's Machines and the store stay.
    pub(crate) async fn down(&mut self) {
        let running = self.running.take().unwrap();
        for task in &running.tasks {
            task.abort();
        }
        running.handle.shutdown().await;
    }

    pub(crate) fn handle(&self) -> &ServerHandle {
        &self.running.as_ref().unwrap().handle
    }

    /// Returns a bare connection to the API.
    pub(crate) async fn connect(&self) -> TcpStream {
        let address = self.running.as_ref().unwrap().address;
        TcpStream::connect(address).await.unwrap()
    }

    /// Sends a request as it is and returns the answer's head and body.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Response<Incoming> {
        Self::send_over(self.connect().await, request).await
    }

    /// Returns a connection that takes little before somebody reads.
    pub(crate) async fn narrow(&self) -> TcpStream {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let address = self.running.as_ref().unwrap().address;
        socket.connect(address).await.unwrap()
    }

    pub(crate) async fn send_over(
        stream: TcpStream,
        request: Request<Full<Bytes>>,
    ) -> Response<Incoming> {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        let answer = sender.send_request(request);
        tokio::time::timeout(PATIENCE, answer)
            .await
            .expect("an answer in time")
            .unwrap()
    }

    pub(crate) fn request(&self, method: Method, path: &str, body: &Value) -> Request<Full<Bytes>> {
        let bytes = if body.is_null() {
            Bytes::new()
        } else {
            Bytes::from(body.to_string())
        };
        Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("authorization", format!("Bearer {}", self.token))
            .body(Full::new(bytes))
            .unwrap()
    }

    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Value,
    ) -> (StatusCode, Value) {
        self.call_with(method, path, body, None).await
    }

    /// Calls with the nonce of a lease.
    pub(crate) async fn call_with(
        &self,
        method: Method,
        path: &str,
        body: Value,
        nonce: Option<&str>,
    ) -> (StatusCode, Value) {
        let mut request = self.request(method, path, &body);
        if let Some(nonce) = nonce {
            let nonce = nonce.parse().unwrap();
            request
                .headers_mut()
                .insert("fly-machine-lease-nonce", nonce);
        }
        read(self.send(request).await).await
    }

    /// Calls with another token than the admin's.
    pub(crate) async fn call_as(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: Value,
    ) -> (StatusCode, Value) {
        let mut request = self.request(method, path, &body);
        let header = format!("Bearer {token}").parse().unwrap();
        request.headers_mut().insert("authorization", header);
        read(self.send(request).await).await
    }

    /// Makes a token of an organisation or an app (`orgs/SLUG`, `apps/NAME`) and returns it as it
    /// is answered.
    pub(crate) async fn token(&self, of: &str, body: Value) -> Value {
        self.post(&format!("/v1/{of}/tokens"), body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call(Method::GET, path, Value::Null).await;
        assert_eq!(status, StatusCode::OK, "GET {path}: {body}");
        body
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.call(Method::POST, path, body).await;
        assert!(status.is_success(), "POST {path}: {status} {answer}");
        answer
    }

    pub(crate) async fn app(&self, name: &str) {
        self.post("/v1/apps", json!({"name": name, "org_slug": "personal"}))
            .await;
    }

    /// Makes a Machine and waits until it is started.
    pub(crate) async fn machine(&self, app: &str) -> String {
        let path = format!("/v1/apps/{app}/machines");
        let machine = self
            .post(&path, json!({"config": {"image": "nginx"}}))
            .await;
        let id = machine["id"].as_str().unwrap().to_owned();
        self.wait(app, &id, "started").await;
        id
    }

    pub(crate) async fn wait(&self, app: &str, id: &str, state: &str) -> Value {
        self.get(&format!(
            "/v1/apps/{app}/machines/{id}/wait?state={state}&timeout=10"
        ))
        .await
    }

    /// Looks until what is at the path is as wanted.
    pub(crate) async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let (_, body) = self.call(Method::GET, path, Value::Null).await;
            if wanted(&body) {
                return body;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "{path} stays {body}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

pub(crate) async fn read(response: Response<Incoming>) -> (StatusCode, Value) {
    let status = response.status();
    let bytes = tokio::time::timeout(PATIENCE, response.into_body().collect())
        .await
        .expect("a whole answer in time")
        .unwrap()
        .to_bytes();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::String(text));
    (status, body)
}

pub(crate) fn id(text: &str) -> MachineId {
    MachineId::new(text).unwrap()
}
