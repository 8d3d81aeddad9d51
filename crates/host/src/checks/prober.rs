//! Probing over the network: connect, or one HTTP/1.1 request whose status is read.
//!
//! The request may go over TLS. Redirects are not followed, and at most [`MAX_ANSWER`] bytes are read of what a Machine sends.

mod tls;

use std::io;
use std::time::Duration;

use hangar_api::seam::BoxFuture;
use rustls::RootCertStore;
use tls::Tls;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Missed, Probe, ProbeKind, Prober};

/// Most bytes read of an answer.
const MAX_ANSWER: usize = 4096;
/// How long the body of a failure is waited for.
const FOR_THE_BODY: Duration = Duration::from_millis(200);
/// Most characters of a body that are shown.
const MAX_SHOWN: usize = 200;

/// A [`Prober`] that opens real connections.
#[derive(Clone, Debug)]
pub struct NetProber {
    tls: Tls,
}

// === impl NetProber ===

impl NetProber {
    /// Returns the prober. It trusts the authorities that browsers know.
    #[must_use]
    pub fn new() -> Self {
        Self::trusting(RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        })
    }

    /// Returns a prober that trusts these authorities.
    #[must_use]
    pub fn trusting(roots: RootCertStore) -> Self {
        Self {
            tls: Tls::new(roots),
        }
    }
}

impl Default for NetProber {
    fn default() -> Self {
        Self::new()
    }
}

impl Prober for NetProber {
    fn probe(&self, probe: Probe) -> BoxFuture<'_, Result<String, Missed>> {
        Box::pin(async move {
            let limit = probe.timeout;
            match timeout(limit, probe_once(&self.tls, &probe)).await {
                Ok(result) => result,
                Err(_) => Err(format!(
                    "no answer from port {} within {} s",
                    probe.target.port(),
                    limit.as_secs()
                )
                .into()),
            }
        })
    }
}

async fn probe_once(tls: &Tls, probe: &Probe) -> Result<String, Missed> {
    if let ProbeKind::Unsupported(reason) = &probe.kind {
        return Err(reason.clone().into());
    }
    let connect = TcpStream::connect(probe.target).await;
    let stream = connect.map_err(|error| {
        let port = probe.target.port();
        let is_refused = error.kind() == io::ErrorKind::ConnectionRefused;
        let why = match is_refused {
            true => "connection refused: nothing listens on it".into(),
            false => error.to_string(),
        };
        Missed {
            text: format!("connect to port {port}: {why}"),
            is_refused,
        }
    })?;
    Ok(ask(tls, probe, stream).await?)
}

/// Says what is to be said to whoever listens.
async fn ask(tls: &Tls, probe: &Probe, mut stream: TcpStream) -> Result<String, String> {
    match &probe.kind {
        ProbeKind::Http {
            method,
            path,
            headers,
            tls: how,
        } => {
            let request = request_text(probe, method, path, headers)?;
            match how {
                Some(how) => {
                    let mut stream = tls.begin(probe, how, stream).await?;
                    exchange(&mut stream, &request).await
                }
                None => exchange(&mut stream, &request).await,
            }
        }
        ProbeKind::Tcp | ProbeKind::Unsupported(_) => Ok("connected".to_owned()),
    }
}

fn request_text(
    probe: &Probe,
    method: &str,
    path: &str,
    headers: &[(String, String)],
) -> Result<String, String> {
    let is_line = |text: &str| !text.contains(['\r', '\n', '\0']);
    let is_word = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
    let sound = is_word(method)
        && is_word(path)
        && headers
            .iter()
            .all(|(name, value)| is_word(name) && !name.contains(':') && is_line(value));
    if !sound {
        return Err("the check's method, path or headers are not valid in HTTP".to_owned());
    }
    let mut text = format!("{method} {path} HTTP/1.1\r\n");
    let has = |wanted: &str| {
        headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case(wanted))
    };
    if !has("host") {
        text.push_str(&format!("Host: {}\r\n", probe.target));
    }
    if !has("user-agent") {
        text.push_str("User-Agent: Hangar-HealthCheck\r\n");
    }
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("Connection: close\r\n\r\n");
    Ok(text)
}

/// Sends a request, reads the beginning of the answer and judges its status.
async fn exchange<S>(stream: &mut S, request: &str) -> Result<String, String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let sent = stream.write_all(request.as_bytes()).await;
    sent.map_err(|error| format!("send the request: {error}"))?;
    let mut answer = Vec::new();
    let mut limited = stream.take(u64::try_from(MAX_ANSWER).unwrap_or(u64::MAX));
    let mut block = [0_u8; 1024];
    while !is_enough(&answer) {
        let known = status_of(&answer).is_some();
        // The status is what counts: the rest of a failure's text is not waited for.
        let patience = if known { FOR_THE_BODY } else { Duration::MAX };
        match timeout(patience, limited.read(&mut block)).await {
            Ok(Ok(0)) | Err(_) => break,
            Ok(Ok(count)) => answer.extend_from_slice(block.get(..count).unwrap_or_default()),
            Ok(Err(_)) if known => break,
            Ok(Err(error)) => return Err(format!("read the answer: {error}")),
        }
    }
    let Some(status) = status_of(&answer) else {
        return Err("the answer is not HTTP".to_owned());
    };
    let shown = format!("{status} {}", body_of(&answer));
    if (200..300).contains(&status) {
        Ok(shown.trim_end().to_owned())
    } else {
        Err(format!("got status {}", shown.trim_end()))
    }
}

/// A status that passes is all that counts; of the others some of the body is worth showing.
fn is_enough(answer: &[u8]) -> bool {
    let headers_end = answer.windows(4).position(|part| part == b"\r\n\r\n");
    match (status_of(answer), headers_end) {
        (Some(200..300), Some(_)) => true,
        (_, Some(at)) => answer.len() > at + 4 + MAX_SHOWN,
        _ => false,
    }
}

fn status_of(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\n').next()?;
    if answer.len() == line.len() {
        return None;
    }
    let line = std::str::from_utf8(line).ok()?;
    let mut words = line.split(' ');
    words.next().filter(|word| word.starts_with("HTTP/1."))?;
    words.next()?.trim().parse().ok()
}

fn body_of(answer: &[u8]) -> String {
    let at = answer.windows(4).position(|part| part == b"\r\n\r\n");
    let body = at.and_then(|at| answer.get(at + 4..)).unwrap_or_default();
    let text = String::from_utf8_lossy(body);
    let line: String = text.chars().take(MAX_SHOWN).collect();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
