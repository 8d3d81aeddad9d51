//! Headers of requests and answers, and bodies that come with them.

use hyper::{Request, StatusCode};

use crate::rig::{Client, Rig, Server, WEB, up, web, web_with};

#[tokio::test]
async fn a_machine_is_told_about_the_client_and_a_spoofed_header_is_replaced() {
    let rig = Rig::start();
    let one = Server::start("one").await;
    rig.app("app", vec![up(1, one.address, &web())]).await;
    let request = Request::get("/headers")
        .header("fly-client-ip", "6.6.6.6")
        .header("fly-src", "instance=x")
        .header("fly-prefer-region", "iad")
        .header("x-forwarded-for", "9.9.9.9")
        .header("x-forwarded-proto", "https")
        .header("connection", "keep-alive, x-secret")
        .header("x-secret", "1");
    let answer = rig.client("app").send(request, "").await;
    let has = |line: &str| {
        assert!(
            answer.body.contains(line),
            "{line:?} not in {}",
            answer.body
        )
    };
    has("fly-client-ip: 127.0.0.1\n");
    has("fly-forwarded-port: 8080\n");
    has("fly-region: iad\n");
    has(&format!(
        "x-forwarded-for: 9.9.9.9, 127.0.0.1, {}\n",
        rig.address
    ));
    has("x-forwarded-proto: http\n");
    has("x-forwarded-port: 8080\n");
    has("x-forwarded-ssl: off\n");
    has("x-request-start: t=");
    has("via: 1.1 hangar\n");
    has("host: app.localhost\n");
    has("fly-prefer-region: iad\n");
    for gone in ["6.6.6.6", "fly-src:", "x-secret", "connection:"] {
        assert!(!answer.body.contains(gone), "{gone:?} in {}", answer.body);
    }
    let id = answer.headers["fly-request-id"].to_str().unwrap();
    assert_eq!(id.len(), 30);
    assert!(id.ends_with("-iad"));
    has(&format!("fly-request-id: {id}\n"));
    assert_eq!(answer.headers["server"], "Hangar");
    assert_eq!(answer.headers["via"], "1.1 hangar");
}

#[tokio::test]
async fn a_service_that_counts_connections_gets_one_for_each_request() {
    let rig = Rig::start();
    let one = Server::start("one").await;
    let service = web_with(serde_json::json!({"type": "connections"}));
    rig.app("app", vec![up(1, one.address, &service)]).await;
    let mut sender = rig.client("app").connect().await.unwrap();
    for _ in 0..5 {
        let answer = sender.send(Request::get("/headers"), "").await.unwrap();
        assert!(answer.body.contains("connection: close"));
    }
    assert_eq!(
        one.state
            .connections
            .load(std::sync::atomic::Ordering::SeqCst),
        5
    );
}

#[tokio::test]
async fn a_service_that_counts_requests_keeps_its_connections() {
    let rig = Rig::start_with(|config| config.cores = 1);
    let one = Server::start("one").await;
    rig.app("app", vec![up(1, one.address, &web())]).await;
    let mut sender = rig.client("app").connect().await.unwrap();
    for n in 0..50 {
        let body = "x".repeat(n * 100);
        let answer = sender.send(Request::post("/count"), &body).await.unwrap();
        assert_eq!(answer.body, format!("one got {} bytes", body.len()));
    }
    assert_eq!(
        one.state
            .connections
            .load(std::sync::atomic::Ordering::SeqCst),
        1
    );
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let rig = Rig::start();
    let one = Server::start("one").await;
    rig.app("app", vec![up(1, one.address, &web())]).await;
    let request = Request::get("/").header("x-large", "x".repeat(70_000));
    let answer = rig.client("app").send(request, "").await;
    assert_eq!(answer.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    assert_eq!(one.requests(), 0);
}

#[tokio::test]
async fn a_request_without_a_host_is_refused() {
    let rig = Rig::start();
    let one = Server::start("one").await;
    rig.app("app", vec![up(1, one.address, &web())]).await;
    let client = Client::new(rig.at(WEB), String::new());
    assert_eq!(client.get("/").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn cookies_that_http2_has_split_are_one_field_again() {
    let rig = Rig::start();
    let one = Server::start("one").await;
    rig.app("app", vec![up(1, one.address, &web())]).await;
    let stream = tokio::net::TcpStream::connect(rig.at(WEB)).await.unwrap();
    let shaking = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(stream),
    );
    let (mut sender, connection) = shaking.await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://app.localhost/headers")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(http_body_util::Full::<bytes::Bytes>::default())
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let body = http_body_util::BodyExt::collect(answer.into_body()).await;
    let told = String::from_utf8(body.unwrap().to_bytes().to_vec()).unwrap();
    assert!(told.contains("a=1; b=2"), "{told}");
}
