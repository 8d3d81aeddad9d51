//! Clients that stop in the middle.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::{Body, Frame};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::rig::{Rig, SOON, Server, WEB, stays_pending, until, up, web, web_with};

/// Starts a proxy with a short patience, before a Machine that takes one request at a time.
async fn start(idle: u64) -> (Rig, Server) {
    let rig = Rig::start_with(|config| config.limits.body_idle = Duration::from_millis(idle));
    let one = Server::start("one").await;
    let service = web_with(json!({"type": "requests", "soft_limit": 1, "hard_limit": 1}));
    rig.app("app", vec![up(1, one.address, &service)]).await;
    (rig, one)
}

async fn say(rig: &Rig, words: &str) -> TcpStream {
    let mut client = TcpStream::connect(rig.at(WEB)).await.unwrap();
    client.write_all(words.as_bytes()).await.unwrap();
    client
}

#[tokio::test]
async fn a_client_that_stops_sending_gives_its_place_back() {
    let (rig, one) = start(200).await;
    for (count, method) in (1..).zip(["POST", "PUT"]) {
        let head = "HTTP/1.1\r\nhost: app.localhost\r\ncontent-length: 10\r\n\r\n";
        let mut client = say(&rig, &format!("{method} /count {head}x")).await;
        until("it is there", || one.requests() == 2 * count - 1).await;
        let next = rig.client("app").spawn_get("/");
        let mut answer = String::new();
        let read = client.read_to_string(&mut answer);
        tokio::time::timeout(SOON, read).await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        assert!(answer.contains("stopped sending"), "{answer}");
        assert_eq!(next.await.unwrap().body, "one");
        assert_eq!(one.requests(), 2 * count, "it is not sent again");
    }
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_its_answer_gives_its_place_back() {
    let (rig, one) = start(200).await;
    let idle = say(&rig, "GET /big HTTP/1.1\r\nhost: app.localhost\r\n\r\n").await;
    until("it is there", || one.requests() == 1).await;
    let next = tokio::time::timeout(SOON, rig.client("app").spawn_get("/"));
    assert_eq!(next.await.unwrap().unwrap().body, "one");
    drop(idle);
}

#[tokio::test]
async fn a_stream_that_takes_nothing_ends_alone() {
    let (rig, _one) = start(200).await;
    let stream = TcpStream::connect(rig.at(WEB)).await.unwrap();
    let shaken = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.unwrap();
    tokio::spawn(connection);
    let mut ask = |path: &str| {
        let uri = format!("http://app.localhost{path}");
        sender.send_request(Request::get(uri).body(Empty::<Bytes>::new()).unwrap())
    };
    let stalled = ask("/big").await.unwrap();
    let next = tokio::time::timeout(SOON, ask("/")).await.unwrap().unwrap();
    let body = next.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "one");
    assert!(stalled.into_body().collect().await.is_err());
}

#[tokio::test]
async fn a_client_that_takes_its_answer_slowly_gets_all_of_it() {
    let (rig, _one) = start(1_000).await;
    let stream = TcpStream::connect(rig.at(WEB)).await.unwrap();
    let shaken = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://app.localhost/big").body(Empty::<Bytes>::new());
    let mut answer = sender.send_request(request.unwrap()).await.unwrap();
    let mut taken = 0;
    while let Some(frame) = answer.frame().await {
        let slow = taken < 400_000;
        taken += frame.unwrap().into_data().map_or(0, |data| data.len());
        if slow {
            // The time is what is tested: all pauses together are longer than the limit.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    assert_eq!(taken, 64 << 20);
}

#[tokio::test]
async fn an_app_may_be_silent_for_longer() {
    let (rig, one) = start(50).await;
    let mut task = rig.client("app").spawn_get("/slow");
    until("it is there", || one.slow() == 1).await;
    assert!(stays_pending(&mut task).await);
    one.state.gate.add_permits(1);
    assert_eq!(task.await.unwrap().body, "one");
}

/// A body that is said piece by piece.
struct Said(mpsc::Receiver<Bytes>);

impl Body for Said {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.0.poll_recv(cx);
        piece.map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

#[tokio::test]
async fn a_client_of_a_stream_that_is_answered_may_be_silent_between_its_words() {
    let (rig, _one) = start(100).await;
    let stream = TcpStream::connect(rig.at(WEB)).await.unwrap();
    let shaken = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.unwrap();
    tokio::spawn(connection);
    let (words, said) = mpsc::channel(4);
    let request = Request::post("http://app.localhost/echo").body(Said(said));
    let mut answer = sender.send_request(request.unwrap()).await.unwrap();
    words.send(Bytes::from("first ")).await.unwrap();
    let first = answer.frame().await.unwrap().unwrap();
    assert_eq!(first.into_data().unwrap(), "first ");
    let mut rest = tokio::spawn(answer.into_body().collect());
    assert!(stays_pending(&mut rest).await);
    words.send(Bytes::from("second")).await.unwrap();
    drop(words);
    let rest = rest.await.unwrap().unwrap().to_bytes();
    assert_eq!(rest, "second");
}

#[tokio::test]
async fn an_http2_client_without_requests_is_sent_away() {
    let rig = Rig::start_with(|config| config.limits.header_read = Duration::from_millis(50));
    let one = Server::start("one").await;
    rig.app("app", vec![up(1, one.address, &web())]).await;
    let stream = TcpStream::connect(rig.at(WEB)).await.unwrap();
    let shaken = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.unwrap();
    let mut connection = tokio::spawn(connection);
    let request = Request::get("http://app.localhost/slow").body(Empty::<Bytes>::new());
    let answer = tokio::spawn(sender.send_request(request.unwrap()));
    until("it is there", || one.slow() == 1).await;
    assert!(stays_pending(&mut connection).await);
    one.state.gate.add_permits(1);
    assert_eq!(answer.await.unwrap().unwrap().status(), 200);
    let ended = tokio::time::timeout(SOON, connection).await.unwrap();
    ended.unwrap().unwrap();
    drop(sender);
    until("it is gone", || rig.proxy.connections() == 0).await;
}
