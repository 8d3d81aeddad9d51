//! The API's listener: connections in, the server's router behind each.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use hangar_api::fingerprint::Fingerprint;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::tls::Tls;

/// Time that requests in flight have to end.
const GRACE: Duration = Duration::from_secs(5);
/// Pause after an accept that failed for want of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(50);
/// Time for the head of a request.
const HEADER_READ: Duration = Duration::from_secs(30);
/// Time for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections served at the same time; more wait to be accepted.
const CONNECTIONS: usize = 4096;

/// A client that has gone without a word is found out after this, and two tries more.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// Lets the kernel look whether the client is still there: sessions and tunnels may be silent for
/// as long as they like.
fn keep_alive(stream: &tokio::net::TcpStream) {
    use rustix::net::sockopt;
    // Without it a client that is gone is found out later, when something is sent to it.
    let _later = sockopt::set_socket_keepalive(stream, true)
        .and_then(|()| sockopt::set_tcp_keepidle(stream, KEEP_ALIVE))
        .and_then(|()| sockopt::set_tcp_keepintvl(stream, KEEP_ALIVE / 4))
        .and_then(|()| sockopt::set_tcp_keepcnt(stream, 3));
}

/// The API's listener at work.
#[derive(Debug)]
pub(crate) struct Api {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Its certificate's fingerprint and file, when it speaks TLS.
    pub(crate) certificate: Option<(Fingerprint, PathBuf)>,
    /// Tells it to stop.
    pub(crate) stop: CancellationToken,
    task: JoinHandle<()>,
}

// === impl Api ===

impl Api {
    /// Begins to serve.
    pub(crate) fn begin(
        listener: TcpListener,
        address: SocketAddr,
        tls: Option<Tls>,
        router: axum::Router,
        tasks: &mut JoinSet<&'static str>,
    ) -> Self {
        let stop = CancellationToken::new();
        let certificate = tls.as_ref().and_then(Tls::certificate);
        let acceptor = tls.as_ref().map(Tls::acceptor);
        let task = tokio::spawn(serve(listener, router, acceptor, stop.clone()));
        if let Some(tls) = tls {
            // Ends with the node's tasks, and not before.
            tasks.spawn(async move { (tls.watch().await, "certificate").1 });
        }
        tracing::info!(%address, tls = certificate.is_some(), "serving");
        Self {
            address,
            certificate,
            stop,
            task,
        }
    }

    /// Returns once requests in flight have ended, after it was told to stop.
    pub(crate) async fn ended(self) {
        if self.task.await.is_err() {
            tracing::error!("the API's listener ended in a panic");
        }
    }
}

/// What serves one connection.
struct Served {
    builder: auto::Builder<TokioExecutor>,
    service: TowerToHyperService<axum::Router>,
    watcher: Watcher,
}

// === impl Served ===

impl Served {
    async fn run<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connection = self
            .builder
            .serve_connection_with_upgrades(TokioIo::new(stream), self.service)
            .into_owned();
        if let Err(error) = self.watcher.watch(connection).await {
            tracing::debug!(error = %error, "a connection to the API ended early");
        }
    }
}

/// Serves until told to stop, then lets requests in flight end.
async fn serve(
    listener: TcpListener,
    router: axum::Router,
    tls: Option<TlsAcceptor>,
    stop: CancellationToken,
) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ);
    let service = TowerToHyperService::new(router);
    let graceful = GracefulShutdown::new();
    let permits = std::sync::Arc::new(tokio::sync::Semaphore::new(CONNECTIONS));
    loop {
        let permit = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            permit = std::sync::Arc::clone(&permits).acquire_owned() => permit,
        };
        let Ok(permit) = permit else { break };
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _peer)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection to the API");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        // A failure to turn off batching only costs time.
        let _slower = stream.set_nodelay(true);
        keep_alive(&stream);
        let served = Served {
            builder: builder.clone(),
            service: service.clone(),
            watcher: graceful.watcher(),
        };
        let tls = tls.clone();
        tokio::spawn(async move {
            match tls {
                None => served.run(stream).await,
                Some(tls) => match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
                    Ok(Ok(stream)) => served.run(stream).await,
                    Ok(Err(error)) => tracing::debug!(%error, "no TLS with a client of the API"),
                    Err(_) => tracing::debug!("a client of the API did not finish its handshake"),
                },
            }
            drop(permit);
        });
    }
    drop(listener);
    if tokio::time::timeout(GRACE, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("requests to the API were cut off at the end of the grace period");
    }
}
