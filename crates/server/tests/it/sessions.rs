//! Connections that go over to another protocol.

use hangar_api::session::{ClientNote, Frame, Frames, ServerNote, TerminalSize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::cluster::{Cluster, PATIENCE};

/// Asks for a connection of another protocol and returns the answer's head.
async fn ask(
    cluster: &Cluster,
    (method, path): (&str, &str),
    headers: &str,
    body: &str,
) -> (TcpStream, String) {
    let mut stream = cluster.connect().await;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n{headers}content-length: {}\r\n\r\n{body}",
        cluster.token,
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        let read = timeout(PATIENCE, stream.read_exact(&mut byte)).await;
        read.unwrap().unwrap();
        head.push(byte[0]);
    }
    (stream, String::from_utf8(head).unwrap())
}

async fn rest(mut stream: TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut all)).await;
    read.unwrap().unwrap();
    all
}

fn frames(bytes: &[u8]) -> Vec<Frame> {
    let (mut frames, mut all) = (Frames::default(), Vec::new());
    frames.feed(bytes);
    while let Some(frame) = frames.next_frame().unwrap() {
        all.push(frame);
    }
    all
}

const SESSION: &str = "connection: upgrade\r\nupgrade: hangar-session/1\r\n";
const TUNNEL: &str = "connection: upgrade\r\nupgrade: hangar-tunnel/1\r\n";

#[tokio::test]
async fn a_session_carries_input_sizes_output_and_the_exit_code() {
    let cluster = Cluster::start().await;
    cluster.app("app").await;
    let id = cluster.machine("app").await;
    cluster.wait("app", &id, "started").await;
    let path = format!("/v1/apps/app/machines/{id}/session");
    let body = r#"{"command":["cat","-"]}"#;
    let (mut stream, head) = ask(&cluster, ("POST", &path), SESSION, body).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(
        head.to_lowercase().contains("upgrade: hangar-session/1"),
        "{head}"
    );
    let size = TerminalSize { rows: 1, cols: 2 };
    for frame in [
        Frame::Stdin(b"typed".to_vec()),
        Frame::note(&ClientNote::Ping {}),
        Frame::Unknown(77),
        Frame::note(&ClientNote::Resize(size)),
        Frame::Stdin(Vec::new()),
    ] {
        stream.write_all(&frame.encode()).await.unwrap();
    }
    let said = frames(&rest(stream).await);
    let resized = format!("{:?}", hangar_api::session::SessionInput::Resize(size));
    assert_eq!(
        said,
        [
            Frame::Stdout(b"cat -".to_vec()),
            Frame::Stdout(b"typed".to_vec()),
            Frame::Stderr(resized.into_bytes()),
            Frame::note(&ServerNote::Exit(3)),
        ]
    );
    // A client that sends nonsense is cut off, and nobody else.
    let (mut stream, _) = ask(&cluster, ("POST", &path), SESSION, body).await;
    stream.write_all(&[255; 64]).await.unwrap();
    let said = frames(&rest(stream).await);
    assert!(
        !said.contains(&Frame::note(&ServerNote::Exit(3))),
        "{said:?}"
    );
    cluster.get("/v1/apps/app").await;
}

#[tokio::test]
async fn each_way_of_a_tunnel_ends_by_itself() {
    let cluster = Cluster::start().await;
    cluster.app("app").await;
    let id = cluster.machine("app").await;
    cluster.wait("app", &id, "started").await;
    let path = format!("/v1/apps/app/machines/{id}/tunnel?port=80");
    let (mut stream, head) = ask(&cluster, ("GET", &path), TUNNEL, "").await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    stream.write_all(b"there and back").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(rest(stream).await, b"there and back");
}

#[tokio::test]
async fn what_cannot_go_over_is_refused_in_words() {
    let cluster = Cluster::start().await;
    cluster.app("app").await;
    let id = cluster.machine("app").await;
    cluster.wait("app", &id, "started").await;
    let session = format!("/v1/apps/app/machines/{id}/session");
    let tunnel = format!("/v1/apps/app/machines/{id}/tunnel");
    let other = "/v1/apps/app/machines/00000000000000/session";
    let close = "connection: close\r\n";
    let body = r#"{"command":["sh"]}"#;
    for (request, headers, body, status, told) in [
        (
            ("POST", session.as_str()),
            close,
            body,
            400,
            "Upgrade: hangar-session/1",
        ),
        (
            ("POST", &session),
            TUNNEL,
            body,
            400,
            "speaks hangar-session/1",
        ),
        (
            ("POST", &session),
            SESSION,
            "{}",
            400,
            "command is required",
        ),
        (("POST", other), SESSION, body, 404, "machine not found"),
        (("GET", &tunnel), TUNNEL, "", 400, "port is required"),
        (("GET", &tunnel), close, "", 400, "Upgrade"),
    ] {
        let (mut stream, head) = ask(&cluster, request, headers, body).await;
        let expected = format!("HTTP/1.1 {status}");
        assert!(head.starts_with(&expected), "{request:?}: {head}");
        let mut answer = vec![0; 4096];
        let count = timeout(PATIENCE, stream.read(&mut answer)).await;
        let count = count.unwrap().unwrap();
        let answer = String::from_utf8_lossy(&answer[..count]).into_owned();
        assert!(answer.contains(told), "{request:?}: {answer}");
    }
    cluster
        .post(
            &format!("/v1/apps/app/machines/{id}/stop"),
            serde_json::json!({}),
        )
        .await;
    cluster.wait("app", &id, "stopped").await;
    let (_, head) = ask(&cluster, ("POST", &session), SESSION, body).await;
    assert!(head.starts_with("HTTP/1.1 412"), "{head}");
}
