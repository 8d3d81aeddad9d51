//! A small server that stands for a Machine.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::fresh_address;

type Body = BoxBody<Bytes, hyper::Error>;

/// A server. It stops at once when it is dropped.
pub(crate) struct Server {
    pub(crate) address: Ipv4Addr,
    pub(crate) state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

/// What a test looks at, and how it steers.
pub(crate) struct State {
    name: String,
    pub(crate) requests: AtomicUsize,
    pub(crate) connections: AtomicUsize,
    /// Requests of `/slow` that are waiting.
    pub(crate) slow: AtomicUsize,
    pub(crate) most_slow: AtomicUsize,
    /// Lets requests of `/slow` go on.
    pub(crate) gate: Semaphore,
}

impl Server {
    /// The port that every server listens on.
    pub(crate) const PORT: u16 = 3000;

    pub(crate) async fn start(name: &str) -> Self {
        Self::start_at(name, fresh_address()).await
    }

    pub(crate) async fn start_at(name: &str, address: Ipv4Addr) -> Self {
        let listener = TcpListener::bind(SocketAddr::from((address, Self::PORT)));
        let listener = listener.await.unwrap();
        let state = Arc::new(State {
            name: name.to_owned(),
            requests: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            slow: AtomicUsize::new(0),
            most_slow: AtomicUsize::new(0),
            gate: Semaphore::new(0),
        });
        let task = tokio::spawn(serve(listener, state.clone()));
        Self {
            address,
            state,
            task,
        }
    }

    pub(crate) fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    pub(crate) fn slow(&self) -> usize {
        self.state.slow.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A server that does the same with each of its connections.
pub(crate) async fn raw<F>(each: impl Fn(TcpStream) -> F + Send + 'static) -> Ipv4Addr
where
    F: Future<Output = ()> + Send + 'static,
{
    let address = fresh_address();
    let listener = TcpListener::bind((address, Server::PORT)).await.unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(each(stream));
        }
    });
    address
}

/// A server that answers each connection with the same bytes, once the head is there.
pub(crate) async fn canned(answer: &'static str) -> Ipv4Addr {
    let each = move |mut stream: TcpStream| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
    };
    raw(each).await
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        state.connections.fetch_add(1, Ordering::SeqCst);
        let state = state.clone();
        tasks.spawn(async move {
            let service = service_fn(move |request| answer(state.clone(), request));
            let builder = auto::Builder::new(TokioExecutor::new());
            let io = TokioIo::new(stream);
            drop(builder.serve_connection_with_upgrades(io, service).await);
        });
    }
}

fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into())
        .map_err(|never| match never {})
        .boxed()
}

async fn answer(
    state: Arc<State>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    state.requests.fetch_add(1, Ordering::SeqCst);
    let path = request.uri().path().to_owned();
    Ok(match path.as_str() {
        "/headers" => {
            let line =
                |(name, value): (&hyper::header::HeaderName, &hyper::header::HeaderValue)| {
                    format!("{name}: {}\n", value.to_str().unwrap())
                };
            let lines: String = request.headers().iter().map(line).collect();
            Response::new(full(format!("{:?}\n{lines}", request.version())))
        }
        "/echo" => {
            let mut response = Response::new(request.into_body().boxed());
            response
                .headers_mut()
                .insert("x-machine", state.name.parse().unwrap());
            response
        }
        "/count" => {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            Response::new(full(format!("{} got {} bytes", state.name, body.len())))
        }
        "/big" => Response::new(full(vec![b'x'; 64 << 20])),
        "/slow" => {
            let now = state.slow.fetch_add(1, Ordering::SeqCst) + 1;
            state.most_slow.fetch_max(now, Ordering::SeqCst);
            state.gate.acquire().await.unwrap().forget();
            state.slow.fetch_sub(1, Ordering::SeqCst);
            Response::new(full(state.name.clone()))
        }
        "/ws" => {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut io = TokioIo::new(upgrade.await.unwrap());
                let mut buffer = [0; 1024];
                while let Ok(count) = io.read(&mut buffer).await {
                    if count == 0 || io.write_all(&buffer[..count]).await.is_err() {
                        break;
                    }
                }
            });
            Response::builder()
                .status(StatusCode::SWITCHING_PROTOCOLS)
                .header("connection", "upgrade")
                .header("upgrade", "websocket")
                .body(full(""))
                .unwrap()
        }
        _ => Response::new(full(state.name.clone())),
    })
}
