use super::*;
use std::net::SocketAddr;
use tokio::net::TcpListener;

/// Answers one connection with `answer` and returns what was asked and what the prober says.
async fn ask(answer: &'static str, headers: &[(&str, &str)]) -> (String, Result<String, String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = vec![0; 1024];
        let count = stream.read(&mut asked).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8_lossy(&asked[..count]).into_owned()
    });
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let said = NetProber::new()
        .probe(http(target, headers.iter().map(own).collect()))
        .await;
    (server.await.unwrap(), said.map_err(|missed| missed.text))
}

fn http(target: SocketAddr, headers: Vec<(String, String)>) -> Probe {
    let kind = ProbeKind::Http {
        method: "GET".to_owned(),
        path: "/up".to_owned(),
        headers,
        tls: None,
    };
    let timeout = Duration::from_secs(5);
    Probe {
        target,
        timeout,
        kind,
    }
}

#[tokio::test]
async fn only_an_answer_of_2xx_passes_and_redirects_are_not_followed() {
    let (asked, said) = ask("HTTP/1.1 204 No Content\r\n\r\n", &[("X-A", "b")]).await;
    assert!(asked.starts_with("GET /up HTTP/1.1\r\n") && asked.contains("X-A: b\r\n"));
    assert_eq!(said, Ok("204".to_owned()));
    let (_, said) = ask("HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", &[]).await;
    assert_eq!(said, Err("got status 302".to_owned()));
    let (_, said) = ask("HTTP/1.1 500 Oh\r\n\r\nno database\n", &[]).await;
    assert_eq!(said, Err("got status 500 no database".to_owned()));
    let (_, said) = ask("SSH-2.0-x\r\n", &[]).await;
    assert_eq!(said, Err("the answer is not HTTP".to_owned()));
}

#[tokio::test]
async fn a_port_that_nothing_listens_on_is_said_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    drop(listener);
    let said = NetProber::new()
        .probe(http(target, Vec::new()))
        .await
        .unwrap_err();
    assert!(
        said.is_refused && said.text.contains("nothing listens"),
        "{said:?}"
    );
}

#[tokio::test]
async fn a_header_with_a_line_end_is_refused_instead_of_sent() {
    let target = "127.0.0.1:9".parse().unwrap();
    let probe = http(target, vec![("X".to_owned(), "a\r\nb: c".to_owned())]);
    let ProbeKind::Http {
        method,
        path,
        headers,
        ..
    } = &probe.kind
    else {
        unreachable!()
    };
    assert!(request_text(&probe, method, path, headers).is_err());
}

/// Answers one connection over TLS with a certificate for `app.example`. Returns its address and
/// who signed it.
async fn secure() -> (SocketAddr, RootCertStore) {
    let made = rcgen::generate_simple_self_signed(vec!["app.example".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der());
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.unwrap())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let Ok(mut stream) = acceptor.accept(stream).await else {
            return;
        };
        let mut asked = [0; 1024];
        let count = stream.read(&mut asked).await.unwrap();
        assert!(asked[..count].starts_with(b"GET /up HTTP/1.1\r\n"));
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        stream.write_all(answer.as_bytes()).await.unwrap();
    });
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    (target, roots)
}

async fn ask_secure(trusted: bool, skip_verify: bool, name: &str) -> Result<String, String> {
    let (target, roots) = secure().await;
    let prober = if trusted {
        NetProber::trusting(roots)
    } else {
        NetProber::new()
    };
    let mut probe = http(target, Vec::new());
    if let ProbeKind::Http { tls, .. } = &mut probe.kind {
        *tls = Some(crate::checks::ProbeTls {
            skip_verify,
            server_name: Some(name.to_owned()).filter(|name| !name.is_empty()),
        });
    }
    let said = prober.probe(probe).await;
    said.map_err(|missed| missed.text)
}

#[tokio::test]
async fn over_tls_the_certificate_must_be_signed_and_for_the_name_unless_any_will_do() {
    let ok = Ok("200 ok".to_owned());
    assert_eq!(ask_secure(true, false, "app.example").await, ok);
    assert_eq!(ask_secure(false, true, "").await, ok);
    assert_eq!(ask_secure(false, true, "other.example").await, ok);
    for (trusted, name) in [(true, "other.example"), (true, ""), (false, "app.example")] {
        let said = ask_secure(trusted, false, name).await.unwrap_err();
        assert!(said.contains("is not valid"), "{name:?}: {said}");
        assert!(said.contains("tls_skip_verify"), "{name:?}: {said}");
    }
    let said = ask_secure(true, false, "no name").await.unwrap_err();
    assert!(said.contains("is no name of a host"), "{said}");
}

#[tokio::test]
async fn a_port_that_does_not_speak_tls_is_said_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let answer = "HTTP/1.1 400 Bad Request\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        drop(stream.read_to_end(&mut rest).await);
    });
    let mut probe = http(target, Vec::new());
    if let ProbeKind::Http { tls, .. } = &mut probe.kind {
        *tls = Some(crate::checks::ProbeTls::default());
    }
    let said = NetProber::new().probe(probe).await.unwrap_err();
    assert!(
        !said.is_refused && said.text.contains("does not speak TLS"),
        "{said:?}"
    );
}
