//! Options of the http handler: compression, headers of answers, time limits.

use std::io::Read;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::rig::{
    Rig, SOON, Server, WEB, canned, fresh_address, raw, service, talk, until, up, websocket,
};

/// The shortest time that an option can give.
const SECOND: Duration = Duration::from_secs(1);

fn with(options: &Value) -> hangar_api::machine::Service {
    service(json!({
        "internal_port": Server::PORT,
        "concurrency": {"type": "requests"},
        "ports": [{"port": WEB, "handlers": ["http"], "http_options": options}],
    }))
}

/// Returns a proxy before one Machine, whose service has these options.
async fn start(address: std::net::Ipv4Addr, options: &Value) -> Rig {
    let rig = Rig::start();
    rig.app("app", vec![up(1, address, &with(options))]).await;
    rig
}

/// Asks in HTTP/1.1 and returns head and body, chunks put together.
async fn ask(rig: &Rig, lines: &str) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(rig.at(WEB)).await.unwrap();
    let ask = format!("{lines}\r\nhost: app.localhost\r\nconnection: close\r\n\r\n");
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    tokio::time::timeout(SOON, read).await.unwrap().unwrap();
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let body = answer[end + 4..].to_vec();
    if head.contains("transfer-encoding: chunked") {
        let body = unchunk(&body);
        return (head, body);
    }
    (head, body)
}

fn unchunk(mut rest: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let end = rest.windows(2).position(|w| w == b"\r\n").unwrap();
        let size = std::str::from_utf8(&rest[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return whole;
        }
        whole.extend(&rest[end + 2..end + 2 + size]);
        rest = &rest[end + 4 + size..];
    }
}

fn gunzip(packed: &[u8]) -> String {
    let mut plain = String::new();
    let mut decoder = flate2::read::GzDecoder::new(packed);
    decoder.read_to_string(&mut plain).unwrap();
    plain
}

/// Answers each request of a connection with 40,000 bytes of text and the given lines.
async fn text(lines: &'static str) -> std::net::Ipv4Addr {
    raw(move |mut stream| async move {
        let body = "0123456789".repeat(4_000);
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n{lines}\r\n{body}",
            body.len()
        );
        let mut asked = Vec::new();
        while let Ok(byte) = stream.read_u8().await {
            asked.push(byte);
            if asked.ends_with(b"\r\n\r\n") && stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    })
    .await
}

#[tokio::test]
async fn an_answer_is_compressed_for_a_client_that_takes_it() {
    let rig = start(
        text("etag: \"a\"\r\naccept-ranges: bytes\r\n").await,
        &json!({"compress": true}),
    )
    .await;
    let (head, body) = ask(&rig, "GET / HTTP/1.1\r\naccept-encoding: br, gzip").await;
    for line in [
        "content-encoding: gzip",
        "vary: accept-encoding",
        "etag: W/\"a\"",
    ] {
        assert!(head.contains(line), "{head}");
    }
    assert!(
        !head.contains("content-length") && !head.contains("accept-ranges"),
        "{head}"
    );
    assert!(body.len() < 2_000, "{}", body.len());
    assert_eq!(gunzip(&body), "0123456789".repeat(4_000));
    let (head, body) = ask(&rig, "GET / HTTP/1.1\r\naccept-encoding: deflate").await;
    assert!(head.contains("content-encoding: deflate"), "{head}");
    let mut plain = Vec::new();
    flate2::read::ZlibDecoder::new(&body[..])
        .read_to_end(&mut plain)
        .unwrap();
    assert_eq!(plain.len(), 40_000);
    // Others get it as it is, and caches are told that there are two forms.
    let (head, body) = ask(&rig, "GET / HTTP/1.1").await;
    assert!(
        !head.contains("content-encoding") && head.contains("vary: accept-encoding"),
        "{head}"
    );
    assert!(
        head.contains("etag: \"a\"") && head.contains("content-length: 40000"),
        "{head}"
    );
    assert_eq!(body.len(), 40_000);
}

#[tokio::test]
async fn an_answer_stays_as_it_is_without_the_option_or_where_the_app_says_so() {
    let gzip = "GET / HTTP/1.1\r\naccept-encoding: gzip";
    let off = start(text("").await, &json!({"compress": false})).await;
    let (head, body) = ask(&off, gzip).await;
    assert!(!head.contains("vary") && body.len() == 40_000, "{head}");
    let none = start(
        text("content-encoding: none\r\n").await,
        &json!({"compress": true}),
    )
    .await;
    let (head, body) = ask(&none, gzip).await;
    assert!(
        !head.contains("content-encoding") && body.len() == 40_000,
        "{head}"
    );
    let own = start(
        text("content-encoding: br\r\n").await,
        &json!({"compress": true}),
    )
    .await;
    let (head, body) = ask(&own, gzip).await;
    assert!(
        head.contains("content-encoding: br") && body.len() == 40_000,
        "{head}"
    );
    // No place to compress it: it goes out all the same.
    let full = Rig::start_with(|config| config.limits.compressed = 0);
    let service = with(&json!({"compress": true}));
    full.app("app", vec![up(1, text("").await, &service)]).await;
    let (head, body) = ask(&full, gzip).await;
    assert!(
        !head.contains("content-encoding") && body.len() == 40_000,
        "{head}"
    );
}

#[tokio::test]
async fn compressed_answers_leave_the_machines_connection_to_the_next_request() {
    let connections = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = connections.clone();
    let address = raw(move |mut stream| {
        count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        async move {
            let mut asked = Vec::new();
            while let Ok(byte) = stream.read_u8().await {
                asked.push(byte);
                if asked.ends_with(b"\r\n\r\n") {
                    let body = "a".repeat(5_000);
                    let head =
                        "HTTP/1.1 200 OK\r\ncontent-type: text/css\r\ncontent-length: 5000\r\n\r\n";
                    let answer = format!("{head}{body}");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            }
        }
    });
    let rig = Rig::start_with(|config| config.cores = 1);
    let service = with(&json!({"compress": true}));
    rig.app("app", vec![up(1, address.await, &service)]).await;
    let stream = TcpStream::connect(rig.at(WEB)).await.unwrap();
    let io = TokioIo::new(stream);
    let shaken = http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), io).await;
    let (mut sender, connection) = shaken.unwrap();
    tokio::spawn(connection);
    for _ in 0..5 {
        let request = Request::get("http://app.localhost/").header("accept-encoding", "gzip");
        let request = request.body(Empty::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.headers()["content-encoding"], "gzip");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(gunzip(&body), "a".repeat(5_000));
    }
    assert_eq!(connections.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_the_app_has_sent_is_not_kept_back_while_it_pauses() {
    let (go_on, wait) = tokio::sync::mpsc::channel::<()>(1);
    let wait = std::sync::Arc::new(tokio::sync::Mutex::new(wait));
    let address = raw(move |mut stream| {
        let wait = wait.clone();
        async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                        transfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n";
            stream.write_all(head.as_bytes()).await.unwrap();
            wait.lock().await.recv().await.unwrap();
            stream.write_all(b"6\r\nsecond\r\n0\r\n\r\n").await.unwrap();
        }
    });
    let rig = start(address.await, &json!({"compress": true})).await;
    let mut stream = TcpStream::connect(rig.at(WEB)).await.unwrap();
    let ask = "GET / HTTP/1.0\r\nhost: app.localhost\r\naccept-encoding: gzip\r\n\r\n";
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let body = |answer: &[u8]| {
        let end = answer.windows(4).position(|w| w == b"\r\n\r\n");
        let packed = end.map_or(&[][..], |end| &answer[end + 4..]);
        let mut plain = Vec::new();
        // It is not all there yet.
        drop(flate2::read::GzDecoder::new(packed).read_to_end(&mut plain));
        plain
    };
    while body(&answer) != b"first" {
        let read = tokio::time::timeout(SOON, stream.read_buf(&mut answer));
        assert_ne!(read.await.unwrap().unwrap(), 0, "it goes on");
    }
    go_on.send(()).await.unwrap();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(body(&answer), b"firstsecond");
}

#[tokio::test]
async fn headers_of_answers_are_set_and_removed_last_of_all() {
    let address = canned(
        "HTTP/1.1 200 OK\r\nserver: app\r\nx-old: 1\r\nx-old: 2\r\nx-new: app\r\ncontent-length: 0\r\n\r\n",
    );
    let headers = json!({
        "X-Old": false, "X-New": "edge", "X-Many": ["a", "b"], "Server": false, "Via": false,
    });
    let options = json!({"response": {"headers": headers}});
    let rig = Rig::start_with(|config| config.limits.connect_just_up = SECOND);
    let machine = up(1, address.await, &with(&options));
    rig.app("app", vec![machine]).await;
    let (head, _) = ask(&rig, "GET / HTTP/1.1").await;
    for line in ["x-new: edge", "x-many: a", "x-many: b", "fly-request-id: "] {
        assert!(head.contains(line), "{line:?} in {head}");
    }
    for gone in ["x-old", "x-new: app", "server", "via"] {
        assert!(!head.contains(gone), "{gone:?} in {head}");
    }
    // The proxy's own answers of the service are no other.
    rig.change("app", 1, |machine| {
        machine.live.address = Some(fresh_address())
    })
    .await;
    let (head, _) = ask(&rig, "POST / HTTP/1.1\r\ncontent-length: 0").await;
    assert!(
        head.starts_with("HTTP/1.1 502") && head.contains("x-new: edge"),
        "{head}"
    );
}

#[tokio::test]
async fn a_pristine_answer_has_nothing_of_the_proxy() {
    let lines =
        "HTTP/1.1 200 OK\r\nvia: 1.1 app\r\nfly-request-id: own\r\ncontent-length: 0\r\n\r\n";
    let pristine = json!({"response": {"pristine": true, "headers": {"X-Set": "1"}}});
    let rig = start(canned(lines).await, &pristine).await;
    let (head, _) = ask(&rig, "GET / HTTP/1.1").await;
    for line in ["via: 1.1 app", "fly-request-id: own", "x-set: 1"] {
        assert!(head.contains(line), "{line:?} in {head}");
    }
    assert!(
        !head.contains("hangar") && !head.contains("server:"),
        "{head}"
    );
    // A WebSocket's answer is one, too.
    let one = Server::start("one").await;
    let rig = start(one.address, &pristine).await;
    let (_socket, head) = websocket(&rig).await;
    assert!(
        head.contains("upgrade: websocket") && head.contains("x-set: 1"),
        "{head}"
    );
    assert!(!head.contains("fly-request-id"), "{head}");
}

#[tokio::test]
async fn an_app_that_does_not_begin_its_answer_in_time_is_a_gateway_timeout() {
    let one = Server::start("one").await;
    let rig = start(one.address, &json!({"headers_read_timeout": 1})).await;
    let began = Instant::now();
    let answer = rig.client("app").get("/slow").await;
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
    assert!(
        answer.body.contains("headers_read_timeout"),
        "{}",
        answer.body
    );
    assert!(began.elapsed() >= SECOND);
    assert_eq!(one.requests(), 1, "it is not sent again");
    assert_eq!(rig.client("app").get("/").await.body, "one");
    // The time runs from when the app has all of the request.
    let mut stream = TcpStream::connect(rig.at(WEB)).await.unwrap();
    let ask = "POST /count HTTP/1.1\r\nhost: app.localhost\r\ncontent-length: 15\r\nconnection: close\r\n\r\n";
    stream.write_all(ask.as_bytes()).await.unwrap();
    let began = Instant::now();
    let mut count = 0;
    while count < 15 && began.elapsed() < SECOND * 15 / 10 {
        tokio::time::sleep(SECOND / 10).await;
        count += 1;
        stream.write_all(b"x").await.unwrap();
    }
    let answer = talk(stream, &"x".repeat(15 - count)).await;
    assert!(answer.contains("one got 15 bytes"), "{answer}");
}

#[tokio::test]
async fn a_connection_to_the_app_on_which_nothing_moves_is_given_up() {
    let one = Server::start("one").await;
    let rig = start(one.address, &json!({"idle_timeout": 1})).await;
    let began = Instant::now();
    let answer = rig.client("app").get("/slow").await;
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
    assert!(answer.body.contains("idle_timeout"), "{}", answer.body);
    assert!(began.elapsed() >= SECOND);
    assert_eq!(one.requests(), 1, "it is not sent again");
    // A connection of HTTP/2, too.
    let two = Server::start("two").await;
    let h2 = start(two.address, &json!({"idle_timeout": 1, "h2_backend": true})).await;
    let answer = h2.client("app").get("/slow").await;
    assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(two.requests(), 1, "it is not sent again");
    assert_eq!(h2.client("app").get("/").await.body, "two");
    // In the middle of an answer, and after an upgrade.
    let half = canned("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
    let stalled = start(half.await, &json!({"idle_timeout": 1})).await;
    let hang = raw(|mut stream| async move {
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf";
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        drop(stream.read_to_end(&mut rest).await);
    });
    let silent = start(hang.await, &json!({"idle_timeout": 1})).await;
    for rig in [&stalled, &silent] {
        let stream = TcpStream::connect(rig.at(WEB)).await.unwrap();
        let answer = talk(stream, "GET / HTTP/1.1\r\nhost: app.localhost\r\n\r\n").await;
        assert!(answer.ends_with("half"), "{answer}");
    }
    let stream = TcpStream::connect(rig.at(WEB)).await.unwrap();
    let ask = "GET /ws HTTP/1.1\r\nhost: app.localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let answer = talk(stream, ask).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    until("the proxy let go", || rig.proxy.connections() == 0).await;
}
