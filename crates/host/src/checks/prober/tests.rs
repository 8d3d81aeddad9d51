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
    let said = NetProber
        .probe(http(target, headers.iter().map(own).collect()))
        .await;
    (server.await.unwrap(), said)
}

fn http(target: SocketAddr, headers: Vec<(String, String)>) -> Probe {
    let kind = ProbeKind::Http {
        method: "GET".to_owned(),
        path: "/up".to_owned(),
        headers,
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
    let said = NetProber.probe(http(target, Vec::new())).await.unwrap_err();
    assert!(said.contains("nothing listens"), "{said}");
}

#[tokio::test]
async fn a_header_with_a_line_end_is_refused_instead_of_sent() {
    let target = "127.0.0.1:9".parse().unwrap();
    let probe = http(target, vec![("X".to_owned(), "a\r\nb: c".to_owned())]);
    let ProbeKind::Http {
        method,
        path,
        headers,
    } = &probe.kind
    else {
        unreachable!()
    };
    assert!(request_text(&probe, method, path, headers).is_err());
}
