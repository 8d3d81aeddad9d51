//! A client's connection that speaks HTTP, served by hyper.

use std::pin::pin;
use std::sync::Arc;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::forward;
use super::stall::{Impatient, Streams};
use crate::connection::Client;
use crate::core::Core;

/// Most requests at a time on one HTTP/2 connection.
const MAX_STREAMS: u32 = 250;
/// Window of one stream and of a whole connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// The version that a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    Http1,
    Http2,
}

/// Serves a connection until it ends, or the proxy finishes and its request is answered.
pub(crate) async fn serve<S>(core: Arc<Core>, client: Client, stream: S, speaks: Speaks)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let client = Arc::new(client);
    let limit = core.shared.config.limits.body_idle;
    let stream = TokioIo::new(Impatient::new(stream, limit, client.clone()));
    match speaks {
        Speaks::Http1 => serve_http1(core, client, stream).await,
        Speaks::Http2 => serve_http2(core, client, stream).await,
    }
}

async fn serve_http1<S>(core: Arc<Core>, client: Arc<Client>, stream: TokioIo<S>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let shared = core.shared.clone();
    let limits = &shared.config.limits;
    let service = service_fn(move |request| forward::handle(core.clone(), client.clone(), request));
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_read)
        .max_headers(limits.headers)
        .max_header_size(limits.head_bytes);
    let mut connection = pin!(builder.serve_connection(stream, service).with_upgrades());
    // Errors are the client's: it went away, or does not speak HTTP; hyper has answered it.
    tokio::select! {
        biased;
        ended = connection.as_mut() => return drop(ended),
        () = shared.finish.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    drop(connection.await);
}

async fn serve_http2<S>(core: Arc<Core>, client: Arc<Client>, stream: TokioIo<S>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let shared = core.shared.clone();
    let limits = &shared.config.limits;
    let service = service_fn(move |request| forward::handle(core.clone(), client.clone(), request));
    let streams = Streams::new(shared.env.clone(), limits.body_idle);
    let mut builder = http2::Builder::new(streams.clone());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(limits.header_read)
        .keep_alive_timeout(limits.handshake);
    let mut connection = pin!(builder.serve_connection(stream, service));
    let is_idle = tokio::select! {
        biased;
        ended = connection.as_mut() => return drop(ended),
        () = shared.finish.cancelled() => false,
        () = streams.idle(limits.header_read) => true,
    };
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        biased;
        ended = connection => drop(ended),
        // It was told that this is the end, and does not hang up.
        () = streams.idle(limits.header_read), if is_idle => {}
    }
}
