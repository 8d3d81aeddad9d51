//! What is said when things go wrong.

use hangar_api::id::AppName;
use hangar_client::{Client, ClientError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::server::Server;

fn app() -> AppName {
    AppName::new("shop").unwrap()
}

#[tokio::test]
async fn a_refusal_has_the_words_status_and_code_of_the_api() {
    let text = r#"{"error":"name is taken","status":"name_taken"}"#;
    let server = Server::always(422, text).await;
    let error = server
        .client()
        .create_app(&app(), None, None)
        .await
        .unwrap_err();
    assert_eq!(
        (error.to_string().as_str(), error.status()),
        ("name is taken", Some(422))
    );
    assert!(matches!(error, ClientError::Api { code: Some(code), .. } if code == "name_taken"));
}

#[tokio::test]
async fn a_refusal_by_something_else_is_told_as_it_came() {
    let server = Server::always(502, "bad gateway\n").await;
    let error = server.client().apps().await.unwrap_err();
    assert_eq!(error.to_string(), "the server answered 502: bad gateway");
    let server = Server::always(500, "").await;
    let error = server.client().apps().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the server answered 500: no reason given"
    );
}

#[tokio::test]
async fn an_answer_that_is_not_json_is_said_to_be_so() {
    let server = Server::always(200, "<html>").await;
    let error = server.client().apps().await.unwrap_err();
    assert!(matches!(error, ClientError::BadAnswer(_)), "{error}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_with_a_hint() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = Client::new(&base, "t").unwrap().apps().await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{text}");
    assert!(
        text.contains(&base) && text.contains("hangar server"),
        "{text}"
    );
}

#[tokio::test]
async fn a_connection_that_breaks_is_not_taken_for_an_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        for cut in [
            "",
            "HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{\"apps\":[]",
        ] {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _read = stream.read(&mut request).await.unwrap();
            stream.write_all(cut.as_bytes()).await.unwrap();
        }
    });
    for _ in 0..2 {
        let error = Client::new(&base, "t").unwrap().apps().await.unwrap_err();
        assert!(matches!(error, ClientError::Broken(_)), "{error}");
    }
    server.await.unwrap();
}

#[test]
fn a_base_url_that_cannot_be_used_is_refused_with_the_reason() {
    let cases = [
        ("", "not usable"),
        ("127.0.0.1:4280", "begin with http://"),
        ("ftp://example.com", "begin with http://"),
        ("ssh://", "names no host"),
        ("ssh://-oProxyCommand=x", "names no host"),
        ("http://example.com/api", "behind the host"),
        ("http://exa mple", "not usable"),
    ];
    for (base, reason) in cases {
        let error = Client::new(base, "t").unwrap_err().to_string();
        assert!(error.contains(reason), "{base}: {error}");
    }
    for base in [
        "http://127.0.0.1:4280",
        "http://[::1]:1/",
        "http://localhost",
        "https://example.com",
        "ssh://me@example.com:2222",
    ] {
        assert!(Client::new(base, "t").is_ok(), "{base}");
    }
}

#[test]
fn a_token_that_cannot_be_sent_is_refused_and_never_shown() {
    let error = Client::new("http://localhost", "hidden\nx").unwrap_err();
    assert!(!error.to_string().contains("hidden"), "{error}");
    let client = Client::new("http://localhost", "hidden").unwrap();
    assert!(!format!("{client:?}").contains("hidden"));
}

#[tokio::test]
async fn localhost_and_names_under_it_need_no_resolver() {
    let server = Server::always(200, r#"{"ok":true}"#).await;
    let port = server.base.rsplit(':').next().unwrap();
    for host in ["localhost", "shop.localhost", "LOCALHOST"] {
        let client = Client::new(&format!("http://{host}:{port}"), "t").unwrap();
        client.health().await.unwrap();
    }
    // Reserved: no resolver knows it.
    let client = Client::new("http://nowhere.invalid", "t").unwrap();
    let error = client.health().await.unwrap_err();
    assert!(error.to_string().contains("nowhere.invalid"), "{error}");
}
