//! The API's listener: connections in, the server's router behind each.

use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Time that requests in flight have to end.
const GRACE: Duration = Duration::from_secs(5);
/// Pause after an accept that failed for want of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(50);
/// Time for the head of a request.
const HEADER_READ: Duration = Duration::from_secs(30);
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

/// Serves until told to stop, then lets requests in flight end.
pub(crate) async fn serve(listener: TcpListener, router: axum::Router, stop: CancellationToken) {
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
        let connection = builder
            .serve_connection_with_upgrades(TokioIo::new(stream), service.clone())
            .into_owned();
        let watched = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = watched.await {
                tracing::debug!(error = %error, "a connection to the API ended early");
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
