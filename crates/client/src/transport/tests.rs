//! Limits in time, made short.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// A server that reads a request, sends `text` and then nothing; and a client of little patience.
async fn stalling(text: &'static str) -> (Client, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        let _read = stream.read(&mut request).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        // Until the client has gone.
        while stream.read(&mut request).await.is_ok_and(|n| n > 0) {}
    });
    let mut client = Client::new(&base, "t").unwrap();
    client.limits.answer = Duration::from_millis(50);
    client.limits.idle = Duration::from_millis(50);
    (client, server)
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up() {
    let (client, server) = stalling("").await;
    let error = client.health().await.unwrap_err();
    assert!(matches!(error, ClientError::TimedOut(_)), "{error}");
    server.await.unwrap();
}

#[tokio::test]
async fn an_answer_that_stops_midway_is_given_up() {
    let (client, server) = stalling("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{").await;
    let error = client.health().await.unwrap_err();
    assert!(matches!(error, ClientError::Broken(_)), "{error}");
    server.await.unwrap();
}

#[test]
fn a_long_command_is_waited_for_so_much_longer() {
    let client = Client::new("http://localhost", "t").unwrap();
    let patient = client.with_patience(Duration::from_secs(300));
    assert_eq!(
        patient.limits.answer,
        ANSWER_TIMEOUT + Duration::from_secs(300)
    );
}
