//! Files of Machines that the proxy answers with.

use std::sync::Arc;

use hangar_api::catalog::CatalogMachine;
use hangar_api::machine::Static;
use hyper::{Request, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::rig::{Rig, Server, WEB, down, machine_id, talk, until, up, web, web_with};

fn serving(mut machine: CatalogMachine) -> CatalogMachine {
    let one = |prefix: &str, folder: &str| Static {
        url_prefix: prefix.to_owned(),
        guest_path: folder.to_owned(),
        ..Static::default()
    };
    machine.live.statics = Arc::new([one("/public", "/www"), one("/public/img", "/img")]);
    machine
}

fn put(rig: &Rig, n: u32, path: &str, content: &[u8]) {
    let path = rig.dir.path().join(machine_id(n).to_string()).join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

#[tokio::test]
async fn a_file_below_a_prefix_is_answered_without_the_app() {
    let rig = Rig::start();
    let one = Server::start("one").await;
    put(&rig, 1, "www/a.css", b"body {}");
    put(&rig, 1, "img/b c.png", &[7; 200_000]);
    rig.app("app", vec![serving(up(1, one.address, &web()))])
        .await;
    let client = rig.client("app");
    let answer = client.get("/public/a.css?v=1").await;
    assert_eq!(answer.body, "body {}");
    assert_eq!(answer.headers["content-type"], "text/css; charset=utf-8");
    assert_eq!(answer.headers["via"], "1.1 hangar");
    assert!(answer.headers.contains_key("fly-request-id"));
    let tag = answer.headers["etag"].to_str().unwrap();
    let again = Request::get("/public/a.css").header("if-none-match", tag);
    let again = client.send(again, "").await;
    assert_eq!(
        (again.status, again.body.as_str()),
        (StatusCode::NOT_MODIFIED, "")
    );
    let image = client.get("/public/img/b%20c.png").await;
    assert_eq!(
        (image.body.len(), &image.headers["content-type"]),
        (200_000, &"image/png".parse().unwrap())
    );
    let stream = TcpStream::connect(rig.at(WEB)).await.unwrap();
    let head = "HEAD /public/a.css HTTP/1.1\r\nhost: app.localhost\r\nconnection: close\r\n\r\n";
    let head = talk(stream, head).await;
    assert!(
        head.contains("content-length: 7\r\n") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    assert_eq!(one.requests(), 0);
    // What is no file there is the app's, and so is every other method.
    for path in [
        "/",
        "/public/none",
        "/public/",
        "/public/../www/a.css",
        "/www/a.css",
    ] {
        assert_eq!(client.get(path).await.body, "one", "{path}");
    }
    assert_eq!(client.post("/public/a.css", "").await.body, "one");
    assert_eq!(one.requests(), 6);
}

#[tokio::test]
async fn a_file_starts_a_stopped_machine_and_counts_while_it_is_sent() {
    let rig = Rig::start();
    let one = Server::start("one").await;
    put(&rig, 1, "www/big", &vec![b'x'; 32 << 20]);
    let limited = web_with(json!({"type": "requests", "hard_limit": 1}));
    rig.app("app", vec![serving(down(1, &limited))]).await;
    let mut stream = TcpStream::connect(rig.at(WEB)).await.unwrap();
    let ask = "GET /public/big HTTP/1.1\r\nhost: app.localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(ask.as_bytes()).await.unwrap();
    until("it was asked for", || rig.waker.count() == 1).await;
    let address = one.address;
    rig.change("app", 1, |machine| crate::rig::come_up(machine, address))
        .await;
    let mut first = [0; 15];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    let mut other = rig.client("app").spawn_get("/");
    assert!(crate::rig::stays_pending(&mut other).await);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.len() > 32 << 20);
    assert_eq!(other.await.unwrap().body, "one");
}

#[tokio::test]
async fn a_file_that_gets_shorter_ends_its_connection() {
    let rig = Rig::start();
    let one = Server::start("one").await;
    put(&rig, 1, "www/log", &vec![b'x'; 32 << 20]);
    rig.app("app", vec![serving(up(1, one.address, &web()))])
        .await;
    let mut stream = TcpStream::connect(rig.at(WEB)).await.unwrap();
    let ask = "GET /public/log HTTP/1.1\r\nhost: app.localhost\r\n\r\n";
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut first = [0; 15];
    stream.read_exact(&mut first).await.unwrap();
    put(&rig, 1, "www/log", b"");
    let mut rest = Vec::new();
    // It ends, though the client has asked to keep the connection.
    drop(stream.read_to_end(&mut rest).await);
    assert!(rest.len() < 32 << 20);
}
