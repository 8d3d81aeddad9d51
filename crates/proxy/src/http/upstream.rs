//! Connections to Machines: an idle one of this core, or a new one.

use std::io;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use socket2::SockRef;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::body::RequestBody;
use super::idle::{Silent, Watched};
use crate::acquire::{Chosen, Refusal};
use crate::core::Core;
use crate::listen;
use crate::load::Load;

/// An idle connection that does not get ready within this time is given up.
const READY_LIMIT: Duration = Duration::from_millis(100);
/// Largest part of a body that HTTP/2 sends before it asks for more.
const WINDOW: u32 = 1024 * 1024;

/// A connection that can take a request.
#[derive(Debug)]
pub(crate) enum Connection {
    Http1(http1::SendRequest<RequestBody>, Silent),
    Http2(http2::SendRequest<RequestBody>, Silent),
}

/// A connection of HTTP/1.1 for the next request, and what tells of its silence.
pub(crate) type Kept = (http1::SendRequest<RequestBody>, Silent);

/// What a connection is made with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Line {
    /// It is given up when it is silent for so long.
    pub(crate) idle_timeout: Option<Duration>,
    /// What it begins with: it is for one client alone then.
    pub(crate) announced: Option<Vec<u8>>,
}

/// Why a request got no answer.
#[derive(Debug)]
pub(crate) struct NotAnswered {
    /// The request, if none of it was sent.
    pub(crate) unsent: Option<Request<RequestBody>>,
    /// The connection was silent for too long.
    pub(crate) silent: bool,
    pub(crate) error: hyper::Error,
}

/// Returns a connection to a Machine; an idle one only if it is not older than `max_idle`. The
/// second value tells whether it was used before.
pub(crate) async fn connect(
    core: &Core,
    chosen: &Chosen,
    line: &Line,
    max_idle: Option<Duration>,
) -> Result<(Connection, bool), Refusal> {
    let load = chosen.claim.load();
    if let Some(max_idle) = max_idle.filter(|_| line.announced.is_none()) {
        if chosen.http2 {
            if let Some((sender, silent)) = load.http2(core.number, line.idle_timeout) {
                return Ok((Connection::Http2(sender, silent), true));
            }
        } else if chosen.pooled
            && let Some((sender, silent)) = idle(core, load, line, max_idle).await
        {
            return Ok((Connection::Http1(sender, silent), true));
        }
    }
    let mut stream = dial(core, load).await?;
    if let Some(announced) = &line.announced {
        let written = stream.write_all(announced).await;
        written.map_err(|error| not_connected(load, &error))?;
    }
    if !chosen.http2 && !chosen.pooled {
        // One connection a request: none of them shall linger and keep its local port.
        drop(SockRef::from(&stream).set_linger(Some(Duration::ZERO)));
    }
    let stream = Watched::new(stream, line.idle_timeout);
    let silent = stream.silent();
    if chosen.http2 {
        let sender = http2_handshake(core, stream).await?;
        if line.announced.is_none() {
            let kept = (sender.clone(), silent.clone());
            load.put_http2(core.number, kept, line.idle_timeout);
        }
        return Ok((Connection::Http2(sender, silent), false));
    }
    let sender = http1_handshake(core, stream).await?;
    Ok((Connection::Http1(sender, silent), false))
}

/// Connects to a service of a Machine.
pub(crate) async fn dial(core: &Core, load: &Load) -> Result<TcpStream, Refusal> {
    let limit = core.shared.config.limits.connect;
    let connecting = TcpStream::connect(load.address);
    let stream = match tokio::time::timeout(limit, connecting).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(not_connected(load, &error)),
        Err(_) => return Err(not_connected(load, &io::ErrorKind::TimedOut.into())),
    };
    listen::prepare_upstream(&stream).map_err(|error| not_connected(load, &error))?;
    load.is_fine();
    Ok(stream)
}

async fn idle(
    core: &Core,
    load: &Load,
    line: &Line,
    max_idle: Duration,
) -> Option<(http1::SendRequest<RequestBody>, Silent)> {
    while let Some((mut sender, silent)) = load.take_idle(core.number, max_idle, line.idle_timeout)
    {
        if sender.is_ready() {
            return Some((sender, silent));
        }
        // The answer before was read to the end, but its task has not run since.
        let ready = tokio::time::timeout(READY_LIMIT, sender.ready()).await;
        if matches!(ready, Ok(Ok(()))) {
            return Some((sender, silent));
        }
    }
    None
}

async fn http1_handshake(
    core: &Core,
    stream: Watched<TcpStream>,
) -> Result<http1::SendRequest<RequestBody>, Refusal> {
    let limits = &core.shared.config.limits;
    let (sender, connection) = http1::Builder::new()
        .max_headers(limits.headers)
        .max_header_size(limits.head_bytes)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| Refusal::bad_gateway("PU02", format!("connection not set up: {error}")))?;
    // It ends when the sender is dropped, or the Machine closes the connection; what went wrong
    // is told to the request on it.
    drop(core.shared.env.spawn(async move {
        drop(connection.with_upgrades().await);
    }));
    Ok(sender)
}

async fn http2_handshake(
    core: &Core,
    stream: Watched<TcpStream>,
) -> Result<http2::SendRequest<RequestBody>, Refusal> {
    let failed = |error: &dyn std::fmt::Display| {
        let text = format!("the app did not speak HTTP/2 without TLS (h2_backend): {error}");
        Refusal::bad_gateway("PU01", text)
    };
    let shaking = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .handshake(TokioIo::new(stream));
    let limit = core.shared.config.limits.handshake;
    let (sender, connection) = match tokio::time::timeout(limit, shaking).await {
        Ok(Ok(pair)) => pair,
        Ok(Err(error)) => return Err(failed(&error)),
        Err(_) => return Err(failed(&"it took too long")),
    };
    drop(core.shared.env.spawn(async move {
        drop(connection.await);
    }));
    Ok(sender)
}

impl Connection {
    /// Sends a request and returns the answer's head. An HTTP/1.1 connection comes back with it.
    pub(crate) async fn send(
        self,
        request: Request<RequestBody>,
    ) -> Result<(Response<Incoming>, Option<Kept>), NotAnswered> {
        let not_answered =
            |mut failed: hyper::client::conn::TrySendError<_>, silent: &Silent| NotAnswered {
                unsent: failed.take_message(),
                silent: silent.is_told(),
                error: failed.into_error(),
            };
        match self {
            Self::Http1(mut sender, silent) => {
                let answer = sender.try_send_request(request).await;
                let answer = answer.map_err(|failed| not_answered(failed, &silent))?;
                Ok((answer, Some((sender, silent))))
            }
            Self::Http2(mut sender, silent) => {
                let answer = sender.try_send_request(request).await;
                let answer = answer.map_err(|failed| not_answered(failed, &silent))?;
                Ok((answer, None))
            }
        }
    }
}

/// Says why there is no connection, with Fly's code.
fn not_connected(load: &Load, error: &io::Error) -> Refusal {
    let machine = &load.machine;
    let port = load.address.port();
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Refusal::bad_gateway(
            "PC01",
            format!(
                "machine {machine} refused the connection. is your app listening on \
                 0.0.0.0:{port}? make sure it is not only listening on 127.0.0.1 (hint: look at \
                 your startup logs, servers often print the address they are listening on)"
            ),
        ),
        io::ErrorKind::ConnectionReset => Refusal::bad_gateway(
            "PC03",
            format!("machine {machine} reset the connection to port {port}"),
        ),
        io::ErrorKind::TimedOut => Refusal::bad_gateway(
            "PC05",
            format!("machine {machine} did not take a connection to port {port} in time"),
        ),
        _ => Refusal::bad_gateway(
            "PC06",
            format!("no connection to machine {machine} port {port}: {error}"),
        ),
    }
}
