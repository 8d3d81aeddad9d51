//! One HTTP request to one host: names, TCP, TLS, and a body that may not stall.
//!
//! Called by the registry client alone. Names are resolved by hickory over the system's files,
//! because a static binary cannot load the system's own resolver; each request has a connection
//! of its own, which ends with the reply.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hangar_api::env::Env;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::ResolverConfig;
use http::header::{HOST, HeaderName, HeaderValue, USER_AGENT};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::error::ImageError;

/// For one address of a host.
const CONNECT_LIMIT: Duration = Duration::from_secs(8);
const RESOLVE_LIMIT: Duration = Duration::from_secs(15);
const TLS_LIMIT: Duration = Duration::from_secs(10);
/// Until an answer begins.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Between two pieces of a body.
const STALL_LIMIT: Duration = Duration::from_secs(30);
/// Addresses of one host that are tried.
const MAX_ADDRESSES: usize = 4;
const AGENT: &str = concat!("hangar/", env!("CARGO_PKG_VERSION"));

/// Sends requests.
#[derive(Clone)]
pub(super) struct Client {
    env: Env,
    tls: TlsConnector,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Fault {
    /// Trying again may help.
    Transient(String),
    Final(String),
}

/// An answer whose body is still to be read.
#[derive(Debug)]
pub(super) struct Reply {
    response: Response<Incoming>,
    _connection: Connection,
}

/// Drives a connection until dropped.
#[derive(Debug)]
struct Connection(JoinHandle<()>);

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Returns whether a host (with or without a port) is this machine.
pub(super) fn is_loopback(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

// === impl Client ===

impl Client {
    pub(super) fn new(ca_files: &[PathBuf], env: Env) -> Result<Self, ImageError> {
        let mut roots = rustls::RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        };
        for path in ca_files {
            let bad = |reason: String| {
                ImageError::broken(format!("certificate file {}", path.display()), reason)
            };
            let found = CertificateDer::pem_file_iter(path).map_err(|e| bad(e.to_string()))?;
            for certificate in found {
                let certificate = certificate.map_err(|e| bad(e.to_string()))?;
                roots.add(certificate).map_err(|e| bad(e.to_string()))?;
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has the default protocol versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            env,
            tls: TlsConnector::from(Arc::new(config)),
        })
    }

    /// Sends a GET and returns once the answer begins.
    pub(super) async fn get(
        &self,
        uri: &Uri,
        headers: Vec<(HeaderName, HeaderValue)>,
    ) -> Result<Reply, Fault> {
        let authority = uri
            .authority()
            .ok_or_else(|| Fault::Final("no host".to_owned()))?;
        let stream = self.connect(uri).await?;
        let lost = |e: hyper::Error| Fault::Transient(format!("the connection broke: {e}"));
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
        let connection = Connection(self.env.spawn(async move {
            // What goes wrong shows in the reply.
            drop(connection.await);
        }));
        let mut request = Request::get(uri.path_and_query().map_or("/", |p| p.as_str()))
            .header(HOST, authority.as_str())
            .header(USER_AGENT, AGENT);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request
            .body(Empty::<Bytes>::new())
            .map_err(|e| Fault::Final(format!("the request cannot be made: {e}")))?;
        let response = timeout(ANSWER_LIMIT, sender.send_request(request))
            .await
            .map_err(|_| Fault::Transient(format!("no answer within {ANSWER_LIMIT:?}")))?
            .map_err(lost)?;
        Ok(Reply {
            response,
            _connection: connection,
        })
    }

    async fn connect(&self, uri: &Uri) -> Result<Box<dyn Stream>, Fault> {
        let secure = uri.scheme_str() != Some("http");
        let host = uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let stream = dial(host, port).await?;
        if !secure {
            return Ok(Box::new(stream));
        }
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| Fault::Final(format!("{host} is no host name")))?;
        let stream = timeout(TLS_LIMIT, self.tls.connect(name, stream))
            .await
            .map_err(|_| Fault::Transient(format!("no TLS handshake within {TLS_LIMIT:?}")))?
            .map_err(|e| match e.kind() {
                // Not a matter of luck: a wrong certificate, or a peer that speaks plain http.
                std::io::ErrorKind::InvalidData => Fault::Final(format!(
                    "TLS failed: {e}; a registry without https has to be configured as insecure"
                )),
                _ => Fault::Transient(format!("TLS failed: {e}")),
            })?;
        Ok(Box::new(stream))
    }
}

async fn dial(host: &str, port: u16) -> Result<TcpStream, Fault> {
    let mut last = format!("{host} has no address");
    for ip in resolve(host).await?.into_iter().take(MAX_ADDRESSES) {
        match timeout(CONNECT_LIMIT, TcpStream::connect(SocketAddr::new(ip, port))).await {
            Ok(Ok(stream)) => {
                stream
                    .set_nodelay(true)
                    .map_err(|e| Fault::Transient(e.to_string()))?;
                return Ok(stream);
            }
            Ok(Err(e)) => last = format!("connect to {ip} port {port}: {e}"),
            Err(_) => {
                last = format!("connect to {ip} port {port}: no answer within {CONNECT_LIMIT:?}")
            }
        }
    }
    Err(Fault::Transient(last))
}

async fn resolve(host: &str) -> Result<Vec<IpAddr>, Fault> {
    if let Ok(ip) = host.parse() {
        return Ok(vec![ip]);
    }
    if host == "localhost" {
        return Ok(vec![[127, 0, 0, 1].into()]);
    }
    let failed = |e: String| Fault::Transient(format!("look up {host}: {e}"));
    // Built anew each time: machines change networks. Without name servers /etc/hosts still works.
    let builder = TokioResolver::builder_tokio().unwrap_or_else(|_| {
        TokioResolver::builder_with_config(
            ResolverConfig::from_parts(None, vec![], vec![]),
            Default::default(),
        )
    });
    let resolver = builder.build().map_err(|e| failed(e.to_string()))?;
    let found = timeout(RESOLVE_LIMIT, resolver.lookup_ip(host))
        .await
        .map_err(|_| failed(format!("no answer within {RESOLVE_LIMIT:?}")))?
        .map_err(|e| {
            if e.is_no_records_found() {
                // Its own words are the whole query.
                return Fault::Transient(format!("there is no host called {host}"));
            }
            failed(e.to_string())
        })?;
    Ok(found.iter().collect())
}

// === impl Reply ===

impl Reply {
    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(super) fn header(&self, name: &HeaderName) -> Option<String> {
        let value = self.response.headers().get(name)?;
        value.to_str().ok().map(str::to_owned)
    }

    /// Returns the next piece of the body, or why there is none.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            let frame = timeout(STALL_LIMIT, self.response.body_mut().frame())
                .await
                .map_err(|_| format!("it sent nothing for {STALL_LIMIT:?}"))?;
            match frame {
                None => return Ok(None),
                Some(Err(e)) => return Err(format!("the connection broke: {e}")),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

// === impl Connection ===

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "127.9.9.9",
            "[::1]:5000",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "example.com",
            "localhost.example.com:1",
            "10.0.0.1:5000",
            "128.0.0.1",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
