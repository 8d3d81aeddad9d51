//! Where external ports are bound.

use std::time::Duration;

use hyper::StatusCode;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::rig::{Client, Rig, SOON, Server, WEB, fresh_address, service, up};

#[tokio::test]
async fn a_taken_port_moves_to_a_stable_other_one_and_stays_there_after_a_restart() {
    let one = Server::start("one").await;
    let address = fresh_address();
    let taken = std::net::TcpListener::bind((address, 8080)).unwrap();
    let on_8080 = crate::rig::web();
    let rig = Rig::start_with(|config| config.address = address.into());
    rig.app("app", vec![up(1, one.address, &on_8080)]).await;
    let edge = rig.proxy.edge().borrow().clone();
    assert_eq!(edge.ports[&8080], 18080);
    let client = Client::new((address, 18080).into(), "app.localhost".to_owned());
    let answer = client.get("/headers").await;
    assert!(
        answer.body.contains("fly-forwarded-port: 8080\n"),
        "{}",
        answer.body
    );
    assert!(
        answer.body.contains("x-forwarded-port: 18080\n"),
        "{}",
        answer.body
    );
    rig.proxy.shutdown(SOON).await;
    drop(taken);
    let file = rig.dir.path().join("edge.json");
    let again = Rig::start_with(|config| {
        config.address = address.into();
        config.ports_file = file;
    });
    again.app("app", vec![up(1, one.address, &on_8080)]).await;
    assert_eq!(again.proxy.edge().borrow().ports[&8080], 18080);
    assert_eq!(client.get("/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_port_of_another_proxy_counts_as_taken() {
    let one = Server::start("one").await;
    let first = Rig::start();
    first
        .app("app", vec![up(1, one.address, &crate::rig::web())])
        .await;
    let second = Rig::start_with(|config| config.address = first.address.into());
    second
        .app("app", vec![up(1, one.address, &crate::rig::web())])
        .await;
    assert_eq!(second.proxy.edge().borrow().ports[&8080], 18080);
}

#[tokio::test]
async fn a_port_that_cannot_be_bound_is_named_with_the_reason() {
    let one = Server::start("one").await;
    // TEST-NET-1 is no address of this machine.
    let rig = Rig::start_with(|config| config.address = [192, 0, 2, 1].into());
    rig.app("app", vec![up(1, one.address, &crate::rig::web())])
        .await;
    let edge = rig.proxy.edge().borrow().clone();
    assert!(edge.ports.is_empty());
    assert!(
        edge.refused[&8080].contains("not one of this machine"),
        "{edge:?}"
    );
}

#[tokio::test]
async fn listeners_follow_the_catalog_and_two_services_do_not_meet() {
    let rig = Rig::start();
    let one = Server::start("one").await;
    let both = service(json!({
        "internal_port": Server::PORT,
        "ports": [{"port": 9000, "handlers": ["http"]}, {"start_port": 9001, "end_port": 9003}],
    }));
    rig.app("app", vec![up(1, one.address, &both)]).await;
    let ports: Vec<u16> = rig.proxy.edge().borrow().ports.keys().copied().collect();
    assert_eq!(ports, [9000, 9001, 9002, 9003]);
}

#[tokio::test]
async fn connections_beyond_the_limit_of_a_port_wait_until_one_ends() {
    let rig = Rig::start_with(|config| {
        config.cores = 1;
        config.limits.connections_per_port = 2;
    });
    let one = Server::start("one").await;
    rig.app("app", vec![up(1, one.address, &crate::rig::web())])
        .await;
    let client = rig.client("app");
    let (first, second) = (
        client.connect().await.unwrap(),
        client.connect().await.unwrap(),
    );
    crate::rig::until("both are taken", || rig.proxy.connections() == 2).await;
    let mut third = client.spawn_get("/");
    assert!(crate::rig::stays_pending(&mut third).await);
    drop(first);
    assert_eq!(third.await.unwrap().status, StatusCode::OK);
    drop(second);
}

#[tokio::test]
async fn a_port_on_which_two_apps_take_raw_tcp_is_named_and_serves_neither() {
    let rig = Rig::start();
    let one = Server::start("one").await;
    let raw = service(json!({"internal_port": Server::PORT, "ports": [{"port": 9100}]}));
    rig.app("first", vec![up(1, one.address, &raw)]).await;
    assert!(rig.proxy.edge().borrow().refused.is_empty());
    rig.app("second", vec![up(2, one.address, &raw)]).await;
    let mut edge = rig.proxy.edge();
    let named = edge.wait_for(|edge| edge.refused.contains_key(&9100));
    tokio::time::timeout(SOON, named).await.unwrap().unwrap();
    let mut stream = tokio::net::TcpStream::connect(rig.at(9100)).await.unwrap();
    let mut nothing = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut nothing);
    tokio::time::timeout(SOON, read).await.unwrap().unwrap();
    assert_eq!(one.requests(), 0);
}

#[tokio::test]
async fn a_connection_that_went_over_to_another_protocol_keeps_its_place() {
    let rig = Rig::start_with(|config| {
        config.cores = 1;
        config.limits.connections_per_port = 2;
    });
    let one = Server::start("one").await;
    rig.app("app", vec![up(1, one.address, &crate::rig::web())])
        .await;
    let mut sockets = Vec::new();
    for _ in 0..2 {
        let mut socket = TcpStream::connect(rig.at(WEB)).await.unwrap();
        let ask = b"GET /ws HTTP/1.1\r\nhost: app.localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
        socket.write_all(ask).await.unwrap();
        let mut head = [0; 12];
        socket.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 101");
        sockets.push(socket);
    }
    let mut third = rig.client("app").spawn_get("/");
    assert!(crate::rig::stays_pending(&mut third).await);
    sockets.pop();
    assert_eq!(third.await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn a_port_whose_places_are_all_taken_is_closed_and_opened_again_as_itself() {
    let rig = Rig::start_with(|config| {
        config.cores = 1;
        config.limits.connections_per_port = 1;
        config.limits.vanished = Duration::from_millis(100);
    });
    let one = Server::start("one").await;
    rig.app("app", vec![up(1, one.address, &crate::rig::web())])
        .await;
    let before = rig.at(WEB);
    let _taken = rig.client("app").connect().await.unwrap();
    crate::rig::until("it is taken", || rig.proxy.connections() == 1).await;
    rig.app("app", vec![]).await;
    let mut edge = rig.proxy.edge();
    let closed = edge.wait_for(|edge| edge.ports.is_empty());
    tokio::time::timeout(SOON, closed).await.unwrap().unwrap();
    crate::rig::until("nobody is let in", || {
        std::net::TcpStream::connect(before).is_err()
    })
    .await;
    rig.app("app", vec![up(2, one.address, &crate::rig::web())])
        .await;
    assert_eq!(rig.at(WEB), before);
}
