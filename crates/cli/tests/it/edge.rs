//! What a fly.toml asks of the proxy and of checks, through the real server, with real Machines.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};

use serde_json::Value;

use hangar_image::build::ImageFile;

use crate::world::{IMAGE, LIMIT, World, fly_toml, image_spec, service};

/// Four groups: a web app whose answers are compressed and changed, one that says what it is told
/// of its client, one that speaks only TLS and is checked so, and one of datagrams.
const GROUPS: &str = r#"
[processes]
web = "serve 8080"
told = "told 5000"
secure = "secure 8443"
dns = "datagrams 5353"

[http_service]
internal_port = 8080
processes = ["web"]
[http_service.http_options]
compress = true
headers_read_timeout = 1
[http_service.http_options.response]
pristine = true
[http_service.http_options.response.headers]
X-Edge = ["one", "two"]
[http_service.tls_options]
versions = ["TLSv1.3"]
[[http_service.checks]]
path = "/health"
interval = "2s"
timeout = "1s"

[[services]]
internal_port = 5000
protocol = "tcp"
processes = ["told"]
[[services.ports]]
port = 5001
handlers = ["proxy_proto"]
[[services.ports]]
port = 5432
handlers = ["pg_tls", "proxy_proto"]
[[services.tcp_checks]]
interval = "2s"
timeout = "1s"

[[services]]
internal_port = 5353
protocol = "udp"
processes = ["dns"]
[[services.ports]]
port = 5353

[checks.tls]
type = "http"
port = 8443
protocol = "https"
tls_skip_verify = true
interval = "2s"
timeout = "1s"
processes = ["secure"]
"#;

/// Writes bytes and reads to the end.
fn talk(address: SocketAddr, words: &[u8]) -> (SocketAddr, Vec<u8>) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(words).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    (stream.local_addr().unwrap(), answer)
}

fn ask(world: &World, path: &str, lines: &str) -> (String, Vec<u8>) {
    let edge = world.edge(80);
    let head =
        format!("GET {path} HTTP/1.1\r\nhost: edge.localhost\r\nconnection: close\r\n{lines}\r\n");
    let (_, answer) = world.inside(|| talk(edge, head.as_bytes()));
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    (head, answer[end + 4..].to_vec())
}

#[test]
fn a_fly_toml_with_handlers_options_and_checks_of_the_edge_does_what_it_says() {
    let Some(world) = World::start() else { return };
    let folder = world.app("edge", &fly_toml("edge", GROUPS));
    let validated = world.ok(&["config", "validate", "-c", &format!("{folder}/fly.toml")]);
    let said = format!("{}{}", validated.stdout, validated.stderr);
    assert!(!said.contains("not acted on"), "{said}");
    // The deploy waits for all checks, that over https among them.
    world.ok(&["deploy", &folder, "--ha=false"]);
    let checks = world.json(&["checks", "list", "-a", "edge"]);
    let text = checks.to_string();
    assert!(text.contains("200 secret"), "{text}");

    let (head, body) = ask(&world, "/bytes?n=50000", "accept-encoding: gzip\r\n");
    assert!(head.contains("content-encoding: gzip"), "{head}");
    assert!(
        head.contains("x-edge: one") && head.contains("x-edge: two"),
        "{head}"
    );
    assert!(
        !head.contains("fly-request-id") && !head.contains("hangar"),
        "{head}"
    );
    assert!(body.len() < 5_000, "{}", body.len());
    let (head, body) = ask(&world, "/bytes?n=50000", "");
    assert!(
        !head.contains("content-encoding") && body.len() == 50_000,
        "{head}"
    );
    let (head, _) = ask(&world, "/slow?ms=20000", "");
    assert!(head.starts_with("HTTP/1.1 504"), "{head}");

    let edge = world.json(&["services", "list", "-a", "edge"]).to_string();
    assert!(edge.contains("udp"), "{edge}");
    let id = world.only("edge", "dns");
    assert!(datagram(&world, b"one").ends_with(b" one"));
    // It is started by a datagram, which waits for it.
    world.ok(&["machine", "stop", &id, "-a", "edge"]);
    assert!(datagram(&world, b"two").ends_with(b" two"));
    assert_eq!(world.machine("edge", &id)["state"], "started");

    let told = world.edge(5001);
    let (own, line) = world.inside(|| talk(told, b""));
    let wanted = format!(
        "PROXY TCP4 {} {} {} {}\r\n",
        own.ip(),
        told.ip(),
        own.port(),
        told.port()
    );
    assert_eq!(String::from_utf8_lossy(&line), wanted);
    let postgres = world.edge(5432);
    let plain = b"\0\0\0\x13\0\x03\0\0user\0someone\0\0";
    let (_, refused) = world.inside(|| talk(postgres, plain));
    assert!(String::from_utf8_lossy(&refused).contains("sslmode=require"));
    let kept = std::fs::read(world.data_dir().join("edge-tls.json")).unwrap();
    let kept: Value = serde_json::from_slice(&kept).unwrap();
    let certificate = kept["certificate"].as_str().unwrap();
    let line = world.inside(|| over_tls(postgres, certificate));
    assert!(line.starts_with("PROXY TCP4 "), "{line}");
}

#[test]
fn files_of_a_machine_are_served_without_its_app() {
    let Some(world) = World::start() else { return };
    let mut spec = image_spec();
    for (path, content) in [("/www/a.txt", "from the file"), ("/secret", "not this")] {
        spec.files.push(ImageFile {
            path: path.into(),
            mode: 0o600,
            content: content.into(),
        });
    }
    world.import("site", &spec);
    let statics = "[[statics]]\nguest_path = \"/www\"\nurl_prefix = \"/public\"\n";
    let text = fly_toml("site", &format!("{}{statics}", service(&[])));
    let folder = world.app("site", &text.replace(IMAGE, "site"));
    world.ok(&["deploy", &folder, "--ha=false"]);
    let file = world.get("site", "/public/a.txt");
    assert_eq!((file.status, file.body.as_str()), (200, "from the file"));
    // What is no file below the folder is the app's.
    for path in [
        "/public/none",
        "/public/../secret",
        "/public/%2e%2e/secret",
        "/a.txt",
    ] {
        let answer = world.get("site", path);
        assert!(
            answer.body.contains("\"machine\""),
            "{path}: {}",
            answer.body
        );
    }
    let id = world.only("site", "app");
    world.ok(&["machine", "stop", &id, "-a", "site"]);
    assert_eq!(world.get("site", "/public/a.txt").body, "from the file");
    assert_eq!(world.machine("site", &id)["state"], "started");
    let bucket = text.replace("url_prefix", "tigris_bucket = \"b\"\nurl_prefix");
    let folder = world.app("bucket", &bucket.replace("\"site\"", "\"bucket\""));
    let refused = world.hangar(&["deploy", &folder, "--ha=false"]);
    assert_ne!(refused.code, 0);
    assert!(
        refused.stderr.contains("buckets are not there"),
        "{}",
        refused.stderr
    );
}

/// Sends one datagram and waits for the answer.
fn datagram(world: &World, text: &[u8]) -> Vec<u8> {
    let kept = std::fs::read(world.data_dir().join("edge.json")).unwrap();
    let kept: Value = serde_json::from_slice(&kept).unwrap();
    let bound: u16 = kept["udp"]["5353"].as_u64().unwrap().try_into().unwrap();
    world.inside(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket.connect(("127.0.0.1", bound)).unwrap();
        socket.send(text).unwrap();
        let mut answer = vec![0; 1024];
        let count = socket.recv(&mut answer).unwrap();
        answer.truncate(count);
        answer
    })
}

/// Asks for TLS as a Postgres client does, and reads what comes through it.
fn over_tls(address: SocketAddr, certificate: &str) -> String {
    use rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls;
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).unwrap();
    let mut answer = [0; 1];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"S");
    // The certificate is the one that the data directory keeps.
    let certificate = rustls::pki_types::CertificateDer::from_pem_slice(certificate.as_bytes());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.unwrap()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    // As an older client, it names no app: there is only one on this port.
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let session = rustls::ClientConnection::new(std::sync::Arc::new(config), name);
    let mut session = session.unwrap();
    let mut tls = rustls::Stream::new(&mut session, &mut stream);
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(&mut tls), &mut line).unwrap();
    line
}
