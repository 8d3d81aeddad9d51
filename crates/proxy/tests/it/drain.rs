//! Draining: nothing new reaches a Machine, what is in flight ends, and no request fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use hangar_api::catalog::Phase;
use hangar_api::seam::Drain;
use hyper::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::rig::{
    Client, Rig, SOON, Server, come_up, machine_id, stays_pending, until, up, web, web_with,
};

#[tokio::test]
async fn a_drain_ends_when_the_last_request_does_and_nothing_new_comes() {
    let rig = Rig::start();
    let (one, two) = (Server::start("one").await, Server::start("two").await);
    rig.app("app", vec![up(1, one.address, &web())]).await;
    let slow = rig.client("app").spawn_get("/slow");
    until("the request is there", || one.slow() == 1).await;
    rig.app(
        "app",
        vec![up(1, one.address, &web()), up(2, two.address, &web())],
    )
    .await;
    let proxy = rig.proxy.clone();
    // The Catalog does not show it yet: the drain itself is enough.
    let mut drain = tokio::spawn(async move { proxy.drained(machine_id(1), 1, SOON).await });
    assert!(stays_pending(&mut drain).await);
    for _ in 0..30 {
        assert_eq!(rig.client("app").get("/").await.body, "two");
    }
    rig.set_phase("app", 1, Phase::Draining).await;
    one.state.gate.add_permits(1);
    assert_eq!(slow.await.unwrap().body, "one");
    tokio::time::timeout(SOON, drain).await.unwrap().unwrap();
    assert_eq!(one.requests(), 1);
}

#[tokio::test]
async fn a_drain_gives_up_at_its_limit() {
    let rig = Rig::start();
    let one = Server::start("one").await;
    rig.app("app", vec![up(1, one.address, &web())]).await;
    let slow = rig.client("app").spawn_get("/slow");
    until("the request is there", || one.slow() == 1).await;
    let began = Instant::now();
    rig.proxy
        .drained(machine_id(1), 1, Duration::from_millis(200))
        .await;
    assert!(began.elapsed() >= Duration::from_millis(200));
    one.state.gate.add_permits(1);
    assert_eq!(slow.await.unwrap().body, "one");
}

#[tokio::test]
async fn a_drain_of_a_machine_that_nobody_knows_returns_at_once() {
    let rig = Rig::start();
    let drain = rig.proxy.drained(machine_id(9), 1, SOON);
    tokio::time::timeout(Duration::from_secs(5), drain)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_websocket_of_a_drained_machine_is_closed_with_going_away() {
    let rig = Rig::start();
    let one = Server::start("one").await;
    rig.app("app", vec![up(1, one.address, &web())]).await;
    let mut socket = TcpStream::connect(rig.at(crate::rig::WEB)).await.unwrap();
    let ask = "GET /ws HTTP/1.1\r\nhost: app.localhost\r\nconnection: Upgrade\r\n\
               upgrade: websocket\r\n\r\n";
    socket.write_all(ask.as_bytes()).await.unwrap();
    let head = read_head(&mut socket).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    // The server echoes, so a frame that is sent comes back as one.
    socket.write_all(&[0x81, 2, b'h', b'i']).await.unwrap();
    let mut frame = [0; 4];
    socket.read_exact(&mut frame).await.unwrap();
    assert_eq!(frame, [0x81, 2, b'h', b'i']);
    let proxy = rig.proxy.clone();
    let limit = Duration::from_millis(400);
    let drain = tokio::spawn(async move { proxy.drained(machine_id(1), 1, limit).await });
    let mut rest = Vec::new();
    let read = socket.read_to_end(&mut rest);
    tokio::time::timeout(SOON, read).await.unwrap().unwrap();
    assert_eq!(rest, [0x88, 2, 0x03, 0xe9]);
    drop(socket);
    tokio::time::timeout(SOON, drain).await.unwrap().unwrap();
}

async fn read_head(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// Asks without pause on kept and on new connections, and counts what went wrong.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    tasks: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(client: &Client, kept: usize, new: usize) -> Self {
        let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let task = |n: usize| {
            let (stop, done, client) = (stop.clone(), done.clone(), client.clone());
            tokio::spawn(async move {
                let mut wrong = Vec::new();
                let mut sender = client.connect().await.unwrap();
                let mut round = 0_usize;
                while !stop.load(Ordering::SeqCst) {
                    round += 1;
                    if n >= kept && round > 1 {
                        match client.connect().await {
                            Ok(new) => sender = new,
                            Err(error) => wrong.push(format!("connect: {error}")),
                        }
                    }
                    let body = "x".repeat((round * 37) % 5000);
                    let (request, body) = if (n + round).is_multiple_of(2) {
                        (Request::get("/"), "")
                    } else {
                        (Request::post("/count"), body.as_str())
                    };
                    match sender.send(request, body).await {
                        Ok(answer) if answer.status.is_success() => {
                            done.fetch_add(1, Ordering::SeqCst);
                        }
                        Ok(answer) => wrong.push(format!("{}: {}", answer.status, answer.body)),
                        Err(error) => {
                            wrong.push(format!("{error:?}"));
                            if let Ok(new) = client.connect().await {
                                sender = new;
                            }
                        }
                    }
                }
                wrong
            })
        };
        let tasks = (0..kept + new).map(task).collect();
        Self { stop, done, tasks }
    }

    async fn more(&self, count: usize) {
        let goal = self.done.load(Ordering::SeqCst) + count;
        until("requests are answered", || {
            self.done.load(Ordering::SeqCst) >= goal
        })
        .await;
    }

    async fn end(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        for task in self.tasks {
            let wrong = tokio::time::timeout(SOON, task).await.unwrap().unwrap();
            assert!(wrong.is_empty(), "{wrong:?}");
        }
        self.done.load(Ordering::SeqCst)
    }
}

/// Replaces a Machine as a host does: publish, drain, stop, come back.
async fn replace(rig: &Rig, n: u32, starts: u64, old: Server) -> Server {
    rig.set_phase("app", n, Phase::Draining).await;
    rig.proxy.drained(machine_id(n), starts, SOON).await;
    let address = old.address;
    // Connections that are open now are cut: none may be in use.
    drop(old);
    rig.set_phase("app", n, Phase::Coming).await;
    let new = loop {
        // The old listener goes when its task is dropped, a moment later.
        let free = std::net::TcpListener::bind((address, Server::PORT));
        if free.map(drop).is_ok() {
            break Server::start_at("new", address).await;
        }
        tokio::task::yield_now().await;
    };
    rig.change("app", n, |machine| come_up(machine, new.address))
        .await;
    new
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_two_machines_are_replaced_under_load() {
    let rig = Rig::start();
    let mut servers = vec![Server::start("a").await, Server::start("b").await];
    let machines = vec![
        up(1, servers[0].address, &web()),
        up(2, servers[1].address, &web()),
    ];
    rig.app("app", machines).await;
    let load = Load::start(&rig.client("app"), 64, 4);
    load.more(300).await;
    for starts in 1..=3 {
        for n in [1, 2] {
            let old = servers.remove(0);
            servers.push(replace(&rig, n, starts, old).await);
            load.more(100).await;
        }
    }
    assert!(load.end().await > 900);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_the_only_machine_is_replaced_under_load() {
    let rig = Rig::start();
    let connections = web_with(serde_json::json!({"type": "connections"}));
    let mut server = Server::start("a").await;
    rig.app("app", vec![up(1, server.address, &connections)])
        .await;
    let load = Load::start(&rig.client("app"), 64, 4);
    load.more(300).await;
    for starts in 1..=3 {
        server = replace(&rig, 1, starts, server).await;
        load.more(100).await;
    }
    assert!(load.end().await > 600);
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_when_a_group_is_renamed_under_load() {
    let rig = Rig::start();
    let (old, new) = (Server::start("old").await, Server::start("new").await);
    rig.app("app", vec![up(1, old.address, &web())]).await;
    let load = Load::start(&rig.client("app"), 64, 4);
    load.more(300).await;
    rig.app(
        "app",
        vec![up(1, old.address, &web()), up(2, new.address, &web())],
    )
    .await;
    load.more(100).await;
    rig.set_phase("app", 1, Phase::Draining).await;
    rig.proxy.drained(machine_id(1), 1, SOON).await;
    drop(old);
    rig.app("app", vec![up(2, new.address, &web())]).await;
    load.more(100).await;
    load.end().await;
}

#[tokio::test]
async fn a_shutdown_lets_requests_end_and_closes_the_port() {
    let rig = Rig::start();
    let one = Server::start("one").await;
    rig.app("app", vec![up(1, one.address, &web())]).await;
    let client = rig.client("app");
    let mut idle = client.connect().await.unwrap();
    idle.send(Request::get("/"), "").await.unwrap();
    let slow = client.spawn_get("/slow");
    until("the request is there", || one.slow() == 1).await;
    let proxy = rig.proxy.clone();
    let mut shutdown = tokio::spawn(async move { proxy.shutdown(SOON).await });
    assert!(stays_pending(&mut shutdown).await);
    assert!(client.connect().await.is_err());
    one.state.gate.add_permits(1);
    assert_eq!(slow.await.unwrap().body, "one");
    tokio::time::timeout(SOON, shutdown).await.unwrap().unwrap();
    assert!(idle.send(Request::get("/"), "").await.is_err());
}
