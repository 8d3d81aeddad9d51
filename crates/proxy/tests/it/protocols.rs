//! HTTP/2, TLS, WebSockets, raw TCP and the corners of HTTP/1.1.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper::client::conn::http2;
use hyper::{Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::rig::{Rig, Server, WEB, canned, fresh_address, service, talk, tls, up, web, websocket};

async fn ask_http2<S>(stream: S, authority: &str, body: &str) -> (Version, String)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let io = TokioIo::new(stream);
    let shaken = http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), io).await;
    let (mut sender, connection) = shaken.unwrap();
    tokio::spawn(connection);
    let request = Request::post(format!("http://{authority}/echo"))
        .body(Full::new(Bytes::from(body.to_owned())))
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.headers()["via"], "2 hangar");
    let version = response.version();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (version, String::from_utf8_lossy(&body).into_owned())
}

fn both_ports() -> hangar_api::machine::Service {
    service(json!({
        "internal_port": Server::PORT,
        "concurrency": {"type": "requests"},
        "ports": [
            {"port": 8080, "handlers": ["http"]},
            {"port": 8443, "handlers": ["tls", "http"]},
        ],
    }))
}

#[tokio::test]
async fn http2_is_spoken_with_tls_by_alpn_and_without_by_its_preface() {
    let rig = Rig::start();
    let one = Server::start("one").await;
    rig.app("app", vec![up(1, one.address, &both_ports())])
        .await;
    let large = "z".repeat(300_000);
    let stream = tls(&rig, 8443, "app.localhost", &["h2", "http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (version, body) = ask_http2(stream, "app.localhost:8443", &large).await;
    assert_eq!((version, body == large), (Version::HTTP_2, true));
    let stream = TcpStream::connect(rig.at(WEB)).await.unwrap();
    let (version, body) = ask_http2(stream, "app.localhost", "plain").await;
    assert_eq!((version, body.as_str()), (Version::HTTP_2, "plain"));
}

#[tokio::test]
async fn https_tells_the_app_so_and_the_certificate_is_kept() {
    let rig = Rig::start();
    let one = Server::start("one").await;
    rig.app("app", vec![up(1, one.address, &both_ports())])
        .await;
    let stream = tls(&rig, 8443, "app.localhost", &[]).await;
    let certificate = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
    let ask = "GET /headers HTTP/1.1\r\nhost: app.localhost\r\nconnection: close\r\n\r\n";
    let answer = talk(stream, ask).await;
    assert!(answer.contains("x-forwarded-proto: https\n"), "{answer}");
    assert!(answer.contains("x-forwarded-ssl: on\n"), "{answer}");
    assert!(answer.contains("fly-forwarded-port: 8443\n"), "{answer}");
    let file = rig.dir.path().join("edge.json");
    let again = Rig::start_with(|config| config.ports_file = file);
    again
        .app("app", vec![up(1, one.address, &both_ports())])
        .await;
    let stream = tls(&again, 8443, "app.localhost", &[]).await;
    assert_eq!(
        stream.get_ref().1.peer_certificates().unwrap()[0],
        certificate
    );
}

#[tokio::test]
async fn an_h2_backend_is_spoken_to_in_http2_over_one_connection() {
    let rig = Rig::start_with(|config| config.cores = 1);
    let one = Server::start("one").await;
    let service = service(json!({
        "internal_port": Server::PORT,
        "ports": [{"port": 8080, "handlers": ["http"], "http_options": {"h2_backend": true}}],
    }));
    rig.app("app", vec![up(1, one.address, &service)]).await;
    for _ in 0..5 {
        let answer = rig.client("app").get("/headers").await;
        assert!(answer.body.starts_with("HTTP/2.0\n"), "{}", answer.body);
        assert!(answer.body.contains("fly-client-ip"));
    }
    assert_eq!(
        one.state
            .connections
            .load(std::sync::atomic::Ordering::SeqCst),
        1
    );
}

#[tokio::test]
async fn a_websocket_passes_both_ways_and_holds_its_claim() {
    let rig = Rig::start();
    let one = Server::start("one").await;
    let service = crate::rig::web_with(json!({"type": "requests", "hard_limit": 1}));
    rig.app("app", vec![up(1, one.address, &service)]).await;
    let (mut socket, head) = websocket(&rig).await;
    assert!(
        head.contains("upgrade: websocket") && head.contains("fly-request-id"),
        "{head}"
    );
    socket.write_all(b"ping").await.unwrap();
    let mut echo = [0; 4];
    socket.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"ping");
    let mut other = rig.client("app").spawn_get("/");
    assert!(crate::rig::stays_pending(&mut other).await);
    drop(socket);
    assert_eq!(other.await.unwrap().body, "one");
}

#[tokio::test]
async fn expect_continue_is_answered_before_the_body() {
    let rig = Rig::start();
    let one = Server::start("one").await;
    rig.app("app", vec![up(1, one.address, &web())]).await;
    let mut socket = TcpStream::connect(rig.at(WEB)).await.unwrap();
    let ask = "POST /count HTTP/1.1\r\nhost: app.localhost\r\ncontent-length: 5\r\n\
               expect: 100-continue\r\nconnection: close\r\n\r\n";
    socket.write_all(ask.as_bytes()).await.unwrap();
    let mut line = [0; 25];
    socket.read_exact(&mut line).await.unwrap();
    assert_eq!(&line, b"HTTP/1.1 100 Continue\r\n\r\n");
    let answer = talk(socket, "12345").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.ends_with("one got 5 bytes"), "{answer}");
}

#[tokio::test]
async fn head_has_the_length_of_the_body_that_it_does_not_send() {
    let rig = Rig::start();
    let one = Server::start("one").await;
    rig.app("app", vec![up(1, one.address, &web())]).await;
    let socket = TcpStream::connect(rig.at(WEB)).await.unwrap();
    let ask = "HEAD / HTTP/1.1\r\nhost: app.localhost\r\nconnection: close\r\n\r\n";
    let answer = talk(socket, ask).await;
    assert!(answer.contains("content-length: 3\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn chunks_and_trailers_pass_both_ways() {
    let rig = Rig::start();
    let one = Server::start("one").await;
    rig.app("app", vec![up(1, one.address, &web())]).await;
    let socket = TcpStream::connect(rig.at(WEB)).await.unwrap();
    let ask = "POST /echo HTTP/1.1\r\nhost: app.localhost\r\ntransfer-encoding: chunked\r\n\
               connection: close\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    let answer = talk(socket, ask).await;
    assert!(
        answer.contains("transfer-encoding: chunked\r\n"),
        "{answer}"
    );
    assert!(answer.contains("abc") && answer.contains("de"), "{answer}");
    assert!(answer.ends_with("0\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn a_service_without_handlers_passes_tcp_and_the_proxy_line_where_asked() {
    let rig = Rig::start();
    let address = fresh_address();
    let listener = TcpListener::bind((address, 4000)).await.unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                // Speaks first, as some protocols do.
                stream.write_all(b"hello ").await.unwrap();
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await.unwrap();
            });
        }
    });
    let raw = service(json!({
        "internal_port": 4000,
        "ports": [
            {"port": 5001},
            {"port": 5002, "handlers": ["proxy_proto"]},
            {"port": 5003, "handlers": ["tls"], "tls_options": {"alpn": ["mqtt"]}},
        ],
    }));
    rig.app("raw", vec![up(1, address, &raw)]).await;
    for port in [5001, 5002] {
        let mut stream = TcpStream::connect(rig.at(port)).await.unwrap();
        let sent = "x".repeat(200_000);
        let (mut from, mut to) = stream.split();
        let write = async {
            to.write_all(sent.as_bytes()).await.unwrap();
            to.shutdown().await.unwrap();
        };
        let mut answer = String::new();
        let (read, ()) = tokio::join!(from.read_to_string(&mut answer), write);
        read.unwrap();
        let line = format!("PROXY TCP4 127.0.0.1 {} ", rig.address);
        let answer = answer.strip_prefix("hello ").unwrap();
        assert_eq!(answer.starts_with(&line), port == 5002);
        assert!(answer.ends_with(&sent));
    }
    let mut stream = tls(&rig, 5003, "raw.localhost", &["mqtt"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"mqtt"[..]));
    stream.write_all(b"secret").await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"hello secret");
}

#[tokio::test]
async fn many_requests_at_once_on_one_http2_connection_are_all_answered() {
    let rig = Rig::start();
    let one = Server::start("one").await;
    rig.app("app", vec![up(1, one.address, &web())]).await;
    let stream = TcpStream::connect(rig.at(WEB)).await.unwrap();
    let io = TokioIo::new(stream);
    let shaken = http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), io).await;
    let (sender, connection) = shaken.unwrap();
    tokio::spawn(connection);
    let tasks: Vec<_> = (0..200)
        .map(|_| {
            let mut sender = sender.clone();
            tokio::spawn(async move {
                let request = Request::get("http://app.localhost/")
                    .body(Empty::new())
                    .unwrap();
                let response = sender.send_request(request).await.unwrap();
                response.into_body().collect().await.unwrap().to_bytes()
            })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), "one");
    }
}

async fn ask(rig: &Rig, head: &str) -> String {
    let socket = TcpStream::connect(rig.at(WEB)).await.unwrap();
    talk(
        socket,
        &format!("{head}\r\nhost: app.localhost\r\nconnection: close\r\n\r\n"),
    )
    .await
}

#[tokio::test]
async fn an_answer_that_ends_with_the_connection_is_passed_whole() {
    let rig = Rig::start();
    let address = canned("HTTP/1.0 200 OK\r\nserver: old\r\n\r\nall of it").await;
    rig.app("app", vec![up(1, address, &web())]).await;
    let answer = ask(&rig, "GET / HTTP/1.1").await;
    assert!(answer.contains("server: old\r\n"), "{answer}");
    assert!(answer.ends_with("9\r\nall of it\r\n0\r\n\r\n"), "{answer}");
    let answer = ask(&rig, "GET / HTTP/1.0").await;
    assert!(answer.starts_with("HTTP/1.0 200 OK"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nall of it"), "{answer}");
}

#[tokio::test]
async fn answers_without_a_body_are_passed_without_one() {
    let rig = Rig::start();
    let address = canned("HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\n\r\n").await;
    rig.app("app", vec![up(1, address, &web())]).await;
    let answer = ask(&rig, "GET / HTTP/1.1").await;
    assert!(answer.starts_with("HTTP/1.1 304"), "{answer}");
    assert!(!answer.contains("content-length"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let address = canned(chunked).await;
    rig.app("app", vec![up(2, address, &web())]).await;
    let answer = ask(&rig, "HEAD / HTTP/1.1").await;
    assert!(!answer.contains("content-length: 0"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_a_bad_gateway() {
    let rig = Rig::start();
    let address = canned("SSH-2.0-something\r\n").await;
    rig.app("app", vec![up(1, address, &web())]).await;
    let answer = ask(&rig, "POST / HTTP/1.1").await;
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    assert!(
        answer.contains("[PU02]") && answer.contains("not HTTP"),
        "{answer}"
    );
}
