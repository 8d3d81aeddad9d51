//! A client's connection, from accept to the handler: detect, end TLS, choose.
//!
//! ```text
//! only raw services on the port ............... pass through, nothing is looked at
//! first bytes: TLS ─► SNI names the app ─► http? serve : pass through, decrypted
//!              a Postgres client that asks for TLS ─► the same, after the answer
//!              HTTP ─► serve; each request names its app
//!              else ─► the one raw app of the port, or close
//! ```

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use hangar_api::machine::service::handling::TlsVersions;
use hyper::header::HeaderValue;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::core::Core;
use crate::http::serve::{Speaks, serve as serve_http};
use crate::index::{Group, Spoken};
use crate::policy::Policy;
use crate::{postgres, tcp};

/// First byte of a TLS handshake.
const TLS_HANDSHAKE: u8 = 0x16;
/// Bytes that tell HTTP/2 (`PRI * HTTP/2.0`) from any method of HTTP/1.
const ENOUGH: usize = 3;
/// Bytes that are looked at.
const LOOKED_AT: usize = postgres::HEAD;
/// Pause before looking again at fewer bytes than that.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// What is known of a client, as requests need it.
#[derive(Debug)]
pub(crate) struct Client {
    /// The external port of the service.
    pub(crate) port: u16,
    pub(crate) tls: bool,
    pub(crate) ends: Ends,
    pub(crate) ip: HeaderValue,
    /// The client's address and the one it reached.
    pub(crate) forwarded_for: HeaderValue,
    pub(crate) external: HeaderValue,
    /// The port that it reached: another one where the external port could not be bound.
    pub(crate) bound: HeaderValue,
    /// Its place among the connections of the port, which goes over with the connection to
    /// another protocol.
    pub(crate) place: Place,
    /// It went over to another protocol.
    pub(crate) upgraded: AtomicBool,
}

/// A place among the connections of a port, given back when the last holder is done.
pub(crate) type Place = Arc<OwnedSemaphorePermit>;

/// The ends of a client's connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
}

/// What the first bytes look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opening {
    Tls,
    Http(Speaks),
    /// A client of Postgres.
    Postgres,
    Other,
    /// Nothing came in time, or the client went away.
    Nothing,
}

/// Serves a connection until it ends.
pub(crate) async fn serve(
    core: Arc<Core>,
    external: u16,
    stream: TcpStream,
    peer: SocketAddr,
    place: Place,
) {
    let Ok(local) = stream.local_addr() else {
        return;
    };
    let ends = Ends { peer, local };
    let spoken = core.shared.index.load().ports.get(&external).cloned();
    let Some(spoken) = spoken else {
        return;
    };
    if !spoken.http && !spoken.tls {
        return pass_raw(core, &spoken, external, stream, ends).await;
    }
    let limit = core.shared.config.limits.handshake;
    let opening = tokio::time::timeout(limit, look(&stream, &spoken));
    match opening.await.unwrap_or(Opening::Nothing) {
        Opening::Tls if spoken.tls => {
            serve_tls(core, &spoken, external, stream, ends, place).await;
        }
        Opening::Postgres => serve_postgres(core, &spoken, external, stream, ends).await,
        Opening::Http(speaks) => {
            // A port that speaks TLS only says so in words.
            let client = Client::new(external, false, ends, place);
            serve_http(core, client, stream, speaks).await;
        }
        Opening::Nothing if spoken.raw.is_empty() => {}
        Opening::Tls | Opening::Other | Opening::Nothing => {
            pass_raw(core, &spoken, external, stream, ends).await;
        }
    }
}

/// Looks at the first bytes without taking them.
async fn look(stream: &TcpStream, spoken: &Spoken) -> Opening {
    let mut bytes = [0; LOOKED_AT];
    loop {
        let seen = match stream.peek(&mut bytes).await {
            Ok(0) | Err(_) => return Opening::Nothing,
            Ok(count) => &bytes[..count],
        };
        if let Some(opening) = judge(seen, spoken) {
            return opening;
        }
        // Readiness does not tell of more bytes while some are there.
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Returns what the first bytes look like on a port, or `None` while more are needed.
fn judge(seen: &[u8], spoken: &Spoken) -> Option<Opening> {
    if spoken.postgres {
        match postgres::opening(seen) {
            postgres::Opening::More => return None,
            postgres::Opening::Tls | postgres::Opening::Gss => return Some(Opening::Postgres),
            // Where there is a raw app, it is that one's client.
            postgres::Opening::Plain if spoken.raw.is_empty() => return Some(Opening::Postgres),
            postgres::Opening::Plain | postgres::Opening::Other => {}
        }
    }
    let method = &seen[..seen.len().min(ENOUGH)];
    match method {
        [TLS_HANDSHAKE, ..] => Some(Opening::Tls),
        b"PRI" => Some(Opening::Http(Speaks::Http2)),
        other if !other.iter().all(u8::is_ascii_uppercase) => Some(Opening::Other),
        other if other.len() < ENOUGH => None,
        _ => Some(Opening::Http(Speaks::Http1)),
    }
}

async fn serve_tls(
    core: Arc<Core>,
    spoken: &Spoken,
    external: u16,
    stream: TcpStream,
    ends: Ends,
    place: Place,
) {
    let limit = core.shared.config.limits.handshake;
    let shaking = shake_hands(&core, spoken, external, stream);
    // Clients that go away or refuse the certificate are no news.
    let Ok(Some((group, stream))) = tokio::time::timeout(limit, shaking).await else {
        return;
    };
    match group {
        Some(group) if !group.policy.http => tcp::pass(core, group, stream, ends).await,
        // Requests name their host; one that is unknown is told so.
        _ => {
            let speaks = match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => Speaks::Http2,
                _ => Speaks::Http1,
            };
            let client = Client::new(external, true, ends, place);
            serve_http(core, client, stream, speaks).await;
        }
    }
}

/// Answers a Postgres client that asks for TLS, and passes what comes through it.
async fn serve_postgres(
    core: Arc<Core>,
    spoken: &Spoken,
    external: u16,
    mut stream: TcpStream,
    ends: Ends,
) {
    let limit = core.shared.config.limits.handshake;
    let shaking = async {
        if !postgres::negotiate(&mut stream).await.ok()? {
            return None;
        }
        shake_hands(&core, spoken, external, stream).await
    };
    let Ok(Some((group, stream))) = tokio::time::timeout(limit, shaking).await else {
        return;
    };
    // The name may be that of an app that takes something else here.
    if let Some(group) = group.filter(|group| group.policy.postgres) {
        tcp::pass(core, group, stream, ends).await;
    }
}

/// Ends TLS with the protocols of the app that SNI names.
async fn shake_hands(
    core: &Core,
    spoken: &Spoken,
    external: u16,
    stream: TcpStream,
) -> Option<(Option<Arc<Group>>, TlsStream<TcpStream>)> {
    let acceptor = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream);
    let start = acceptor.await.ok()?;
    let group = {
        let index = core.shared.index.load();
        let hello = start.client_hello();
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let named = name.and_then(|name| index.host(&name)?.group(external).cloned());
        named.or_else(|| match &spoken.behind_tls[..] {
            [only] => index.group(only, external).cloned(),
            _ => None,
        })
    };
    let tls = &core.shared.tls;
    let config = match &group {
        Some(group) => tls.offering(&group.policy.alpn, group.policy.versions),
        // It is told in HTTP that there is no such app.
        None => tls.offering(&Policy::http_alpn(), TlsVersions::Both),
    };
    let stream = start.into_stream(config?).await.ok()?;
    Some((group, stream))
}

/// Passes raw TCP to the one app that takes it on this port.
async fn pass_raw<S>(core: Arc<Core>, spoken: &Spoken, external: u16, stream: S, ends: Ends)
where
    S: AsyncRead + AsyncWrite + Send + Unpin,
{
    let [only] = &spoken.raw[..] else {
        if !spoken.raw.is_empty() {
            tracing::debug!(port = external, "several apps take raw tcp here, closed");
        }
        return;
    };
    let group = core.shared.index.load().group(only, external).cloned();
    if let Some(group) = group {
        tcp::pass(core, group, stream, ends).await;
    }
}

// === impl Client ===

impl Client {
    fn new(external: u16, tls: bool, ends: Ends, place: Place) -> Self {
        let ip = plain(ends.peer.ip());
        let text = |text: String| {
            HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
        };
        Self {
            port: external,
            tls,
            ends,
            ip: text(ip.to_string()),
            forwarded_for: text(format!("{ip}, {}", plain(ends.local.ip()))),
            external: external.into(),
            bound: ends.local.port().into(),
            place,
            upgraded: AtomicBool::new(false),
        }
    }
}

/// Returns an IPv4 address that came by an IPv6 socket as what it is.
fn plain(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}
