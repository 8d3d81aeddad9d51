//! The handlers pg_tls and proxy_proto, and the options of TLS.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::version::{TLS12, TLS13};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::rig::{Rig, SOON, Server, WEB, raw, service, shake_hands, talk, tls, up};

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const GSS_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 48];
const POSTGRES: u16 = 5432;

/// A server that says its name and then what it hears, as it hears it.
async fn echo(name: &'static str) -> std::net::Ipv4Addr {
    raw(move |mut stream| async move {
        stream.write_all(name.as_bytes()).await.unwrap();
        let (mut from, mut to) = stream.split();
        // The client may be gone.
        drop(tokio::io::copy(&mut from, &mut to).await);
    })
    .await
}

fn on(port: serde_json::Value) -> hangar_api::machine::Service {
    service(json!({"internal_port": Server::PORT, "ports": [port]}))
}

fn postgres() -> hangar_api::machine::Service {
    on(json!({"port": POSTGRES, "handlers": ["pg_tls"]}))
}

async fn connect(rig: &Rig, first: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(rig.at(POSTGRES)).await.unwrap();
    stream.write_all(first).await.unwrap();
    stream
}

async fn byte(stream: &mut TcpStream) -> u8 {
    let read = tokio::time::timeout(SOON, stream.read_u8());
    read.await.unwrap().unwrap()
}

#[tokio::test]
async fn a_postgres_client_gets_tls_after_it_has_asked_and_its_name_tells_the_app() {
    let rig = Rig::start();
    let both = &[&TLS12, &TLS13];
    rig.app("one", vec![up(1, echo("one ").await, &postgres())])
        .await;
    // An older client names no host: there is only one app.
    let mut stream = connect(&rig, &SSL_REQUEST).await;
    assert_eq!(byte(&mut stream).await, b'S');
    let mut stream = shake_hands(stream, "", &[], both).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(talk(stream, "").await, "one ");
    rig.app("two", vec![up(2, echo("two ").await, &postgres())])
        .await;
    for (name, said) in [("one.localhost", "one "), ("two.localhost", "two ")] {
        // It asks for another encryption first, as libpq does with Kerberos.
        let mut stream = connect(&rig, &GSS_REQUEST).await;
        assert_eq!(byte(&mut stream).await, b'N');
        stream.write_all(&SSL_REQUEST).await.unwrap();
        assert_eq!(byte(&mut stream).await, b'S');
        let alpn = ["postgresql"];
        let mut stream = shake_hands(stream, name, &alpn, both).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"postgresql"[..]));
        let mut answer = [0; 9];
        stream.write_all(b"query").await.unwrap();
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer[..], *format!("{said}query").as_bytes());
    }
    // A newer one begins with TLS at once, and insists on the protocol.
    let stream = tls(&rig, POSTGRES, "two.localhost", &["postgresql"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"postgresql"[..]));
}

#[tokio::test]
async fn a_postgres_client_without_tls_is_told_so_and_nothing_of_it_reaches_the_app() {
    let rig = Rig::start();
    let heard = Arc::new(Mutex::new(0));
    let count = heard.clone();
    let address = raw(move |mut stream| {
        let heard = count.clone();
        async move {
            *heard.lock().unwrap() += 1;
            let mut all = Vec::new();
            drop(stream.read_to_end(&mut all).await);
        }
    });
    rig.app("one", vec![up(1, address.await, &postgres())])
        .await;
    let start = b"\0\0\0\x13\0\x03\0\0user\0someone\0\0";
    let plain = connect(&rig, start).await;
    let answer = talk(plain, "").await;
    assert!(
        answer.starts_with('E') && answer.contains("FATAL"),
        "{answer:?}"
    );
    assert!(answer.contains("sslmode=require"), "{answer:?}");
    // Asked for TLS, and went on in the clear: neither that nor garbage is answered.
    let mut smuggled = connect(&rig, &[&SSL_REQUEST[..], start].concat()).await;
    assert_eq!(byte(&mut smuggled).await, b'S');
    for (mut stream, what) in [
        (smuggled, "a start in the clear"),
        (connect(&rig, &[0; 64]).await, "garbage"),
        (
            connect(&rig, b"\0\0\0\x10\x04\xd2\x16\x2e12345678").await,
            "a cancel",
        ),
    ] {
        let mut rest = Vec::new();
        let read = tokio::time::timeout(SOON, stream.read_to_end(&mut rest));
        // A reset is an end too; an alert of TLS may come before it.
        drop(read.await.expect(what));
        assert!(!rest.contains(&b'E'), "{what}: {rest:?}");
    }
    assert_eq!(*heard.lock().unwrap(), 0);
}

#[tokio::test]
async fn raw_tcp_and_postgres_share_a_port_and_a_name_for_another_service_is_no_way_in() {
    let rig = Rig::start();
    rig.app("sql", vec![up(1, echo("sql ").await, &postgres())])
        .await;
    let plain = on(json!({"port": POSTGRES}));
    rig.app("raw", vec![up(2, echo("raw ").await, &plain)])
        .await;
    let mut stream = connect(&rig, b"\0\0\0\x10binary protocol").await;
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"raw \0\0\0\x10");
    let mut stream = connect(&rig, &SSL_REQUEST).await;
    assert_eq!(byte(&mut stream).await, b'S');
    let both = &[&TLS12, &TLS13];
    let shaken = shake_hands(stream, "raw.localhost", &[], both).await;
    let mut rest = Vec::new();
    let read = tokio::time::timeout(SOON, async {
        // How it ends is the same to the client.
        drop(shaken.unwrap().read_to_end(&mut rest).await);
    });
    read.await.unwrap();
    assert_eq!(rest, b"");
}

#[tokio::test]
async fn proxy_proto_tells_the_app_of_the_client_in_the_version_that_is_asked_for() {
    let rig = Rig::start();
    let app = service(json!({
        "internal_port": Server::PORT,
        "ports": [
            {"port": 5001, "handlers": ["proxy_proto"]},
            {"port": 5002, "handlers": ["proxy_proto"], "proxy_proto_options": {"version": "v2"}},
            {"port": 5003, "handlers": ["tls", "proxy_proto"]},
            {"port": 5004, "handlers": ["pg_tls", "proxy_proto"]},
        ],
    }));
    rig.app("app", vec![up(1, echo("").await, &app)]).await;
    let line = |port: u16, own: std::net::SocketAddr| {
        let bound = rig.at(port).port();
        format!(
            "PROXY TCP4 127.0.0.1 {} {} {bound}\r\n",
            rig.address,
            own.port()
        )
    };
    let mut stream = TcpStream::connect(rig.at(5001)).await.unwrap();
    let own = stream.local_addr().unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(talk_only(stream).await, line(5001, own).into_bytes());

    let mut stream = TcpStream::connect(rig.at(5002)).await.unwrap();
    let own = stream.local_addr().unwrap();
    stream.shutdown().await.unwrap();
    let mut wanted = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01".to_vec();
    wanted.extend(rig.address.octets());
    wanted.extend(own.port().to_be_bytes());
    wanted.extend(rig.at(5002).port().to_be_bytes());
    assert_eq!(talk_only(stream).await, wanted);

    for port in [5003, 5004] {
        let mut stream = tls(&rig, port, "app.localhost", &[]).await;
        let own = stream.get_ref().0.local_addr().unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(talk(stream, "").await, line(port, own));
    }
}

async fn talk_only(mut stream: TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    tokio::time::timeout(SOON, read).await.unwrap().unwrap();
    answer
}

/// A server of HTTP, either version, behind a line of proxy_proto; it answers with that line.
async fn told() -> std::net::Ipv4Addr {
    raw(|mut stream| async move {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(stream.read_u8().await.unwrap());
        }
        let line = Bytes::from(line);
        let answer = service_fn(move |_: Request<hyper::body::Incoming>| {
            let line = line.clone();
            async move { Ok::<_, std::convert::Infallible>(Response::new(Full::new(line))) }
        });
        let builder = auto::Builder::new(TokioExecutor::new());
        drop(builder.serve_connection(TokioIo::new(stream), answer).await);
    })
    .await
}

#[tokio::test]
async fn with_http_each_request_has_a_connection_of_its_own_that_begins_with_its_client() {
    for h2_backend in [false, true] {
        let rig = Rig::start();
        let app = service(json!({
            "internal_port": Server::PORT,
            "concurrency": {"type": "requests"},
            "ports": [{"port": 8080, "handlers": ["http", "proxy_proto"],
                "http_options": {"h2_backend": h2_backend}}],
        }));
        rig.app("app", vec![up(1, told().await, &app)]).await;
        // Two clients in turn, each with two requests on a kept connection.
        for _ in 0..2 {
            let stream = TcpStream::connect(rig.at(WEB)).await.unwrap();
            let port = stream.local_addr().unwrap().port();
            let ask = "GET / HTTP/1.1\r\nhost: app.localhost\r\n";
            let both = format!("{ask}\r\n{ask}connection: close\r\n\r\n");
            let answer = talk(stream, &both).await;
            let line = format!("PROXY TCP4 127.0.0.1 {} {port} ", rig.address);
            assert_eq!(answer.matches(&line).count(), 2, "{h2_backend}: {answer}");
        }
    }
}

#[tokio::test]
async fn only_the_versions_of_tls_that_are_asked_for_are_spoken() {
    let rig = Rig::start();
    let port = |port: u16, versions: &[&str]| json!({"port": port, "handlers": ["tls"], "tls_options": {"versions": versions}});
    let app = service(json!({
        "internal_port": Server::PORT,
        "ports": [port(6001, &["TLSv1.2"]), port(6002, &["TLSv1.3"]), port(6003, &["TLSv1.3", "TLSv1.2"])],
    }));
    rig.app("app", vec![up(1, echo("").await, &app)]).await;
    for (port, old, new) in [(6001, true, false), (6002, false, true), (6003, true, true)] {
        for (version, wanted) in [(&TLS12, old), (&TLS13, new)] {
            let stream = TcpStream::connect(rig.at(port)).await.unwrap();
            let shaken = shake_hands(stream, "app.localhost", &[], &[version]).await;
            assert_eq!(shaken.is_ok(), wanted, "{port} {version:?}");
        }
    }
}
