//! What is sent again, and what is not.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::{Request, StatusCode};

use crate::rig::{Rig, SOON, Server, fresh_address, up, web};

/// A server that reads each request's head and closes the connection; from the `good`th request of
/// a connection on. Those before it are answered.
struct Closer {
    address: Ipv4Addr,
    requests: Arc<AtomicUsize>,
}

impl Closer {
    fn start(good: usize) -> Self {
        let address = fresh_address();
        let listener = TcpListener::bind((address, Server::PORT)).unwrap();
        let requests = Arc::<AtomicUsize>::default();
        let counter = requests.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, counter) = (stream.unwrap(), counter.clone());
                std::thread::spawn(move || {
                    for n in 0.. {
                        let mut head = Vec::new();
                        let mut byte = [0];
                        while !head.ends_with(b"\r\n\r\n") {
                            if stream.read(&mut byte).unwrap_or(0) == 0 {
                                return;
                            }
                            head.push(byte[0]);
                        }
                        counter.fetch_add(1, Ordering::SeqCst);
                        if n >= good {
                            return;
                        }
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood";
                        stream.write_all(answer).unwrap();
                    }
                });
            }
        });
        Self { address, requests }
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn a_machine_that_refuses_connections_is_passed_over_for_any_method() {
    let rig = Rig::start();
    let one = Server::start("one").await;
    let nobody = fresh_address();
    rig.app(
        "app",
        vec![up(1, one.address, &web()), up(2, nobody, &web())],
    )
    .await;
    for n in 0..40 {
        let answer = rig.client("app").post("/count", &"x".repeat(n)).await;
        assert_eq!(answer.body, format!("one got {n} bytes"));
    }
}

#[tokio::test]
async fn a_request_is_held_until_a_machine_that_just_came_up_listens() {
    let rig = Rig::start();
    let address = fresh_address();
    rig.app("app", vec![up(1, address, &web())]).await;
    let mut task = rig.client("app").spawn_get("/");
    assert!(crate::rig::stays_pending(&mut task).await);
    let one = Server::start_at("one", address).await;
    assert_eq!(task.await.unwrap().body, "one");
    drop(one);
}

#[tokio::test]
async fn a_port_that_nothing_listens_on_is_named() {
    let rig = Rig::start_with(|config| {
        config.limits.connect_just_up = std::time::Duration::from_millis(200);
    });
    rig.app("app", vec![up(1, fresh_address(), &web())]).await;
    let answer = rig.client("app").get("/").await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    let hint = "[PC01] machine 00000000000001 refused the connection. is your app listening on 0.0.0.0:3000?";
    assert!(answer.body.contains(hint), "{}", answer.body);
}

#[tokio::test]
async fn a_get_whose_connection_closes_without_an_answer_goes_to_another_machine() {
    let rig = Rig::start();
    let (one, closer) = (Server::start("one").await, Closer::start(0));
    rig.app(
        "app",
        vec![up(1, one.address, &web()), up(2, closer.address, &web())],
    )
    .await;
    for _ in 0..20 {
        assert_eq!(rig.client("app").get("/").await.body, "one");
    }
    assert!(closer.requests() > 0);
}

#[tokio::test]
async fn a_put_with_a_small_body_is_sent_again_whole() {
    let rig = Rig::start();
    let (one, closer) = (Server::start("one").await, Closer::start(0));
    let machines = vec![up(1, one.address, &web()), up(2, closer.address, &web())];
    rig.app("app", machines).await;
    for _ in 0..20 {
        let request = Request::put("/count");
        let answer = rig.client("app").send(request, &"y".repeat(900)).await;
        assert_eq!(answer.body, "one got 900 bytes");
    }
    assert!(closer.requests() > 0);
}

#[tokio::test]
async fn a_post_that_may_have_been_done_is_not_sent_again() {
    let rig = Rig::start();
    let closer = Closer::start(0);
    rig.app("app", vec![up(1, closer.address, &web())]).await;
    let answer = rig.client("app").post("/", "once").await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert!(answer.body.contains("[PU02]"), "{}", answer.body);
    assert_eq!(closer.requests(), 1);
}

#[tokio::test]
async fn a_get_is_not_sent_again_for_ever() {
    let rig = Rig::start();
    let closer = Closer::start(0);
    rig.app("app", vec![up(1, closer.address, &web())]).await;
    let task = rig.client("app").spawn_get("/");
    let answer = tokio::time::timeout(SOON, task).await.unwrap().unwrap();
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert_eq!(closer.requests(), 3);
}

#[tokio::test]
async fn a_kept_connection_that_closes_on_the_next_request_is_no_error() {
    let rig = Rig::start_with(|config| config.cores = 1);
    // Each connection answers one request, takes the second, and closes.
    let closer = Closer::start(1);
    rig.app("app", vec![up(1, closer.address, &web())]).await;
    let mut sender = rig.client("app").connect().await.unwrap();
    for _ in 0..10 {
        let answer = sender.send(Request::get("/"), "").await.unwrap();
        assert_eq!(answer.body, "good");
    }
}
