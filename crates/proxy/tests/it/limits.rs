//! What the proxy does at the end of its means.

use std::process::Command;
use std::time::Duration;

use hyper::{Request, StatusCode};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::rig::{Rig, SOON, Server, WEB, until, up, web};

#[tokio::test]
async fn a_client_that_says_nothing_is_sent_away() {
    let rig = Rig::start_with(|config| config.limits.handshake = Duration::from_millis(100));
    let one = Server::start("one").await;
    rig.app("app", vec![up(1, one.address, &web())]).await;
    let mut silent = TcpStream::connect(rig.at(WEB)).await.unwrap();
    let mut nothing = Vec::new();
    let read = silent.read_to_end(&mut nothing);
    tokio::time::timeout(SOON, read).await.unwrap().unwrap();
    assert!(nothing.is_empty());
}

#[tokio::test]
async fn a_client_that_never_ends_its_head_is_sent_away() {
    let rig = Rig::start_with(|config| config.limits.header_read = Duration::from_millis(200));
    let one = Server::start("one").await;
    rig.app("app", vec![up(1, one.address, &web())]).await;
    let mut slow = TcpStream::connect(rig.at(WEB)).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut slow, b"GET / HTTP/1.1\r\nhost: a")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let read = slow.read_to_end(&mut answer);
    tokio::time::timeout(SOON, read).await.unwrap().unwrap();
    assert_eq!(one.requests(), 0);
}

#[test]
fn without_descriptors_what_is_open_goes_on_and_the_rest_waits() {
    let program = std::env::current_exe().unwrap();
    let inner = "limits::with_few_descriptors";
    let script = format!("ulimit -n 200; exec {program:?} --exact {inner} --ignored --nocapture");
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let wrong = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}\n{wrong}"
    );
}

#[tokio::test]
#[ignore = "run by the test above, in a process with few descriptors"]
async fn with_few_descriptors() {
    let rig = Rig::start_with(|config| config.cores = 1);
    let one = Server::start("one").await;
    rig.app("app", vec![up(1, one.address, &web())]).await;
    let client = rig.client("app");
    let mut kept = client.connect().await.unwrap();
    kept.send(Request::get("/"), "").await.unwrap();
    // Client and proxy share the descriptors of this process: the client's run out first, or the
    // proxy's accept does.
    let mut idle = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect(client.at) {
        idle.push(stream);
    }
    assert!(idle.len() > 50);
    let answer = kept.send(Request::get("/"), "").await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    idle.clear();
    until("the idle ones are gone", || rig.proxy.connections() <= 1).await;
    assert_eq!(client.get("/").await.body, "one");
}
