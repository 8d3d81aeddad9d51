//! What API calls cost with 10, 1,000 and 50,000 Machines: a real server on SQLite behind a real
//! socket, with a host that does at once what it is asked. Called by `benches/run.py api`; prints
//! one JSON object a line.
//!
//! Client and server share the processors, so that the figures are those of a busy machine.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]
#![expect(clippy::unwrap_used, reason = "a bench that cannot go on shall panic")]
#![expect(dead_code, reason = "the doubles are the tests' and can do more")]

#[path = "../tests/it/cluster.rs"]
mod cluster;
#[path = "../tests/it/disk.rs"]
mod disk;
#[path = "../tests/it/host.rs"]
mod host;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hangar_api::env::Env;
use hangar_store::{SqliteBackend, SqliteOptions, Store};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::SendRequest;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use crate::cluster::Cluster;

/// Connections that ask at the same time.
const CONNECTIONS: usize = 16;
/// How long each kind of call is made.
const EACH: Duration = Duration::from_secs(4);
/// Machines of an app in the biggest world.
const IN_APP: usize = 100;

#[tokio::main]
async fn main() {
    let sizes = std::env::args()
        .skip(1)
        .map(|size| size.parse().expect("the world of the bench works"));
    let mut sizes: Vec<usize> = sizes.collect();
    if sizes.is_empty() {
        sizes = vec![10, 1_000, 50_000];
    }
    for size in sizes {
        World::of(size).await.measure().await;
    }
}

/// A server with so many Machines.
struct World {
    cluster: Cluster,
    size: usize,
    /// Path of each Machine.
    machines: Arc<Vec<String>>,
    apps: usize,
}

// === impl World ===

impl World {
    async fn of(size: usize) -> Self {
        let folder = tempfile::tempdir_in(".").expect("the world of the bench works");
        let database =
            SqliteBackend::open(&folder.path().join("store.db"), SqliteOptions::default());
        let store = Store::new(Arc::new(database.expect("the world of the bench works")));
        let cluster = Cluster::start_in(Env::real(), store).await;
        let apps = size.div_ceil(IN_APP);
        for app in 0..apps {
            cluster.app(&app_name(app)).await;
        }
        let mut world = Self {
            cluster,
            size,
            machines: Arc::default(),
            apps,
        };
        let begun = Instant::now();
        let paths = world.fill().await;
        let rate = per_second(size, begun.elapsed());
        world.machines = Arc::new(paths);
        print(json!({"machines": size, "call": "fill", "per_second": rate}));
        // The folder goes with the process: the store has it open.
        std::mem::forget(folder);
        world
    }

    async fn fill(&self) -> Vec<String> {
        let next = Arc::new(AtomicUsize::new(0));
        let mut tasks = Vec::new();
        for _ in 0..CONNECTIONS.min(self.size) {
            let (mut line, next) = (self.line().await, Arc::clone(&next));
            let (size, apps) = (self.size, self.apps);
            tasks.push(tokio::spawn(async move {
                let mut paths = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= size {
                        return paths;
                    }
                    paths.push(line.create(&app_name(number % apps)).await);
                }
            }));
        }
        let mut paths = Vec::new();
        for task in tasks {
            paths.extend(task.await.expect("the world of the bench works"));
        }
        paths
    }

    async fn line(&self) -> Line {
        let stream = self.cluster.connect().await;
        stream
            .set_nodelay(true)
            .expect("the world of the bench works");
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .expect("the world of the bench works");
        tokio::spawn(connection);
        Line {
            sender,
            token: self.cluster.token.clone(),
        }
    }

    async fn measure(&self) {
        self.load("get", |line, machines, number| async move {
            line.call(Method::GET, &machines[number % machines.len()], Value::Null)
                .await
        })
        .await;
        let apps = self.apps;
        self.load("list of an app", move |line, _, number| async move {
            let path = format!("/v1/apps/{}/machines", app_name(number % apps));
            line.call(Method::GET, &path, Value::Null).await
        })
        .await;
        self.load("metadata write", |line, machines, number| async move {
            let path = format!("{}/metadata/key", machines[number % machines.len()]);
            let body = json!({"value": number.to_string()});
            line.call(Method::POST, &path, body).await
        })
        .await;
        self.load("create", move |line, _, number| async move {
            let path = format!("/v1/apps/{}/machines", app_name(number % apps));
            let body = json!({"config": {"image": "nginx"}});
            line.call(Method::POST, &path, body).await
        })
        .await;
        // Each connection has a Machine of its own there.
        if self.size >= CONNECTIONS {
            self.load(
                "stop, wait, start, wait",
                |mut line, machines, number| async move {
                    let path = &machines[number % CONNECTIONS];
                    for (verb, state) in [("stop", "stopped"), ("start", "started")] {
                        let asked = format!("{path}/{verb}");
                        (line, _) = line.call(Method::POST, &asked, Value::Null).await;
                        let wait = format!("{path}/wait?state={state}&timeout=10");
                        (line, _) = line.call(Method::GET, &wait, Value::Null).await;
                    }
                    (line, 0)
                },
            )
            .await;
        }
        self.list_all().await;
        print(
            json!({"machines": self.size, "call": "memory of server and host", "mib": resident_mib()}),
        );
    }

    /// Makes one kind of call on all connections for a while.
    async fn load<F, R>(&self, call: &str, make: F)
    where
        F: Fn(Line, Arc<Vec<String>>, usize) -> R + Copy + Send + Sync + 'static,
        R: Future<Output = (Line, usize)> + Send,
    {
        let end = Instant::now() + EACH;
        let mut tasks = Vec::new();
        for first in 0..CONNECTIONS {
            let (mut line, machines) = (self.line().await, Arc::clone(&self.machines));
            tasks.push(tokio::spawn(async move {
                let mut times = Vec::new();
                // Large steps, so that neighbours in memory do not follow each other.
                let mut number = first * 7919;
                while Instant::now() < end {
                    let begun = Instant::now();
                    (line, _) = make(line, Arc::clone(&machines), number).await;
                    times.push(begun.elapsed());
                    number += CONNECTIONS * 7919;
                }
                times
            }));
        }
        let mut times = Vec::new();
        for task in tasks {
            times.extend(task.await.expect("the world of the bench works"));
        }
        let rate = per_second(times.len(), EACH);
        times.sort_unstable();
        let at = |percent: usize| milliseconds(times[(times.len() - 1) * percent / 100]);
        print(json!({
            "machines": self.size, "call": call, "per_second": rate,
            "p50_ms": at(50), "p99_ms": at(99),
        }));
    }

    /// Lists every app's Machines, one after the other, on one connection.
    async fn list_all(&self) {
        let mut line = self.line().await;
        let (begun, mut bytes) = (Instant::now(), 0);
        for app in 0..self.apps {
            let path = format!("/v1/apps/{}/machines", app_name(app));
            let read;
            (line, read) = line.call(Method::GET, &path, Value::Null).await;
            bytes += read;
        }
        let seconds = begun.elapsed().as_secs_f64();
        let mb = bytes as f64 / 1e6;
        print(json!({
            "machines": self.size, "call": "list of all", "mb": mb, "mb_per_second": mb / seconds,
        }));
    }
}

/// A connection that is kept.
struct Line {
    sender: SendRequest<Full<Bytes>>,
    token: String,
}

// === impl Line ===

impl Line {
    async fn call(mut self, method: Method, path: &str, body: Value) -> (Self, usize) {
        let answer = self.answer(method, path, &body).await;
        (self, answer.len())
    }

    async fn answer(&mut self, method: Method, path: &str, body: &Value) -> Bytes {
        let body = match body {
            Value::Null => Bytes::new(),
            body => Bytes::from(body.to_string()),
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("authorization", format!("Bearer {}", self.token))
            .body(Full::new(body))
            .expect("the world of the bench works");
        self.sender
            .ready()
            .await
            .expect("the world of the bench works");
        let response = self
            .sender
            .send_request(request)
            .await
            .expect("the world of the bench works");
        let status = response.status();
        let bytes = response
            .into_body()
            .collect()
            .await
            .expect("the world of the bench works")
            .to_bytes();
        let text = String::from_utf8_lossy(&bytes);
        assert!(
            status.is_success() || status == 409,
            "{path}: {status} {text}"
        );
        bytes
    }

    /// Makes a Machine and returns its path.
    async fn create(&mut self, app: &str) -> String {
        let path = format!("/v1/apps/{app}/machines");
        let body = json!({"config": {"image": "nginx", "env": {"A": "b"}}});
        let answer = self.answer(Method::POST, &path, &body).await;
        let machine: Value = serde_json::from_slice(&answer).expect("the world of the bench works");
        format!(
            "{path}/{}",
            machine["id"]
                .as_str()
                .expect("the world of the bench works")
        )
    }
}

fn app_name(number: usize) -> String {
    format!("app-{number}")
}

fn per_second(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn resident_mib() -> u64 {
    let status =
        std::fs::read_to_string("/proc/self/status").expect("the world of the bench works");
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    let kib: u64 = line
        .expect("the world of the bench works")
        .split_whitespace()
        .nth(1)
        .expect("the world of the bench works")
        .parse()
        .expect("the world of the bench works");
    kib / 1024
}

fn print(row: Value) {
    println!("{row}");
}
