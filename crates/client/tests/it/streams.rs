//! Answers that come bit by bit, and uploads.

use std::sync::Mutex;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use hangar_api::id::{AppName, DeploymentId};
use hangar_api::logs::LogQuery;
use hangar_client::{ClientError, Followed};
use hyper::body::Frame;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::server::{Body, Server, answer, streaming};

fn app() -> AppName {
    AppName::new("shop").unwrap()
}

fn query() -> LogQuery {
    LogQuery {
        app: app(),
        group: None,
        machine: None,
        region: None,
        tail: 0,
        follow: true,
        since: None,
    }
}

fn line(message: &str) -> String {
    let line = json!({
        "timestamp": "2024-01-01T00:00:00Z", "provider": "app", "level": "info",
        "instance": "0123456789abcd", "group": "web", "region": "iad", "message": message,
    });
    format!("{line}\n")
}

/// A server whose one answer is what the sender sends, as it is sent.
async fn fed() -> (Server, mpsc::Sender<Result<String, std::io::Error>>) {
    let (sender, receiver) = mpsc::channel::<Result<String, std::io::Error>>(8);
    let receiver = Mutex::new(Some(receiver));
    let server = Server::start(move |_| -> http::Response<Body> {
        let receiver = receiver.lock().unwrap().take().expect("one request");
        let chunks = stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|chunk| (chunk, receiver))
        });
        streaming(chunks.map(|chunk| chunk.map(|text| Frame::data(Bytes::from(text)))))
    });
    (server.await, sender)
}

#[tokio::test]
async fn log_lines_are_read_as_they_come() {
    let (server, sender) = fed().await;
    let mut logs = server.client().logs(&query()).await.unwrap();
    for number in 0..20_usize {
        let text = line(&format!("line {number} ä"));
        // Cut anywhere, also within a character.
        let cut = text.floor_char_boundary(number * text.len() / 20);
        sender.send(Ok(text[..cut].to_owned())).await.unwrap();
        sender.send(Ok(text[cut..].to_owned())).await.unwrap();
        let read = logs.next().await.unwrap().unwrap();
        assert_eq!(read.message, format!("line {number} ä"));
    }
    let three = [line("a"), "\n".to_owned(), line("b")].concat();
    sender.send(Ok(three)).await.unwrap();
    drop(sender);
    assert_eq!(logs.next().await.unwrap().unwrap().message, "a");
    assert_eq!(logs.next().await.unwrap().unwrap().message, "b");
    assert!(logs.next().await.unwrap().is_none());
}

#[tokio::test]
async fn a_log_stream_that_breaks_says_so() {
    let (server, sender) = fed().await;
    let mut logs = server.client().logs(&query()).await.unwrap();
    sender.send(Ok(line("a"))).await.unwrap();
    assert!(logs.next().await.unwrap().is_some());
    let broken = std::io::Error::other("gone");
    sender.send(Err(broken)).await.unwrap();
    assert!(matches!(logs.next().await, Err(ClientError::Broken(_))));
}

#[tokio::test]
async fn a_line_without_end_is_given_up() {
    let (server, sender) = fed().await;
    let mut logs = server.client().logs(&query()).await.unwrap();
    let flood =
        tokio::spawn(async move { while sender.send(Ok("x".repeat(256 * 1024))).await.is_ok() {} });
    assert!(matches!(logs.next().await, Err(ClientError::BadAnswer(_))));
    drop(logs);
    flood.await.unwrap();
}

#[tokio::test]
async fn a_deployment_is_followed_to_its_end_and_resumed_in_between() {
    let id = DeploymentId::new("01ARZ3NDEKTSV4RRFFQ69G5FAV").unwrap();
    let event = json!({"at": "2024-01-01T00:00:00Z", "message": "web: updated", "level": "info"});
    let over = json!({
        "id": id, "app": "shop", "release": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "version": 2,
        "status": "complete", "options": {}, "user": "me", "created_at": "2024-01-01T00:00:00Z",
    });
    let (first, sender) = fed().await;
    let client = first.client();
    let mut follow = client.follow_deployment(&app(), &id, "").await.unwrap();
    assert!(first.last().line.ends_with("/events"));
    let sent = format!(": hello\n\nid: 7\nevent: event\ndata: {event}\n\n");
    sender.send(Ok(sent)).await.unwrap();
    let Some(Followed::Event(told)) = follow.next().await.unwrap() else {
        panic!("an event was sent");
    };
    assert_eq!(told.message, "web: updated");
    drop(sender);
    assert!(
        follow.next().await.unwrap().is_none(),
        "it ended before the end"
    );
    assert_eq!(follow.last_id(), "7");

    let (second, sender) = fed().await;
    let client = second.client();
    let mut follow = client
        .follow_deployment(&app(), &id, follow.last_id())
        .await
        .unwrap();
    assert!(second.last().line.ends_with("/events?from=7"));
    sender
        .send(Ok(format!("event: over\ndata: {over}\n\n")))
        .await
        .unwrap();
    let Some(Followed::Over(deployment)) = follow.next().await.unwrap() else {
        panic!("the end was sent");
    };
    assert!(deployment.status.is_over());
}

#[tokio::test]
async fn an_archive_is_sent_as_it_is() {
    let server = Server::start(|_| answer(201, r#"{"repository":"a","digest":"sha256:0"}"#)).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    std::fs::write(file.path(), &content).unwrap();
    let image = server
        .client()
        .import_image(file.path(), "shop:v1")
        .await
        .unwrap();
    assert_eq!(image.digest, "sha256:0");
    let seen = server.last();
    assert_eq!(seen.line, "POST /v1/images?name=shop%3Av1");
    assert!(seen.body == content);
    let missing = server
        .client()
        .import_image("/nowhere/x.tar".as_ref(), "a")
        .await;
    let text = missing.unwrap_err().to_string();
    assert!(text.contains("/nowhere/x.tar"), "{text}");
}

#[tokio::test]
async fn an_upload_that_is_refused_at_once_says_why() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 512];
        let _read = stream.read(&mut head).await.unwrap();
        let text = r#"{"error":"a token is needed"}"#;
        let answer = format!(
            "HTTP/1.1 401 Unauthorized\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{text}",
            text.len()
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        // Read on, as a server does for a while, so that the answer is not lost.
        let mut rest = vec![0; 65536];
        while stream.read(&mut rest).await.is_ok_and(|n| n > 0) {}
    });
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), vec![0; 20 << 20]).unwrap();
    let client = hangar_client::Client::new(&base, "wrong").unwrap();
    let error = client.import_image(file.path(), "a").await.unwrap_err();
    assert_eq!(error.to_string(), "a token is needed");
    server.await.unwrap();
}
