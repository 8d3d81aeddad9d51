//! A server that records what is asked and answers what the test says.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::Stream;
use hangar_client::Client;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub(crate) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// A request that came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) line: String,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
}

/// The server; it ends with the value.
pub(crate) struct Server {
    pub(crate) base: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(
        answer: impl Fn(&Seen) -> Response<Body> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (answer, record) = (Arc::new(answer), Arc::clone(&seen));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (answer, record) = (Arc::clone(&answer), Arc::clone(&record));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (answer, record) = (Arc::clone(&answer), Arc::clone(&record));
                    async move {
                        let (head, body) = request.into_parts();
                        let seen = Seen {
                            line: format!("{} {}", head.method, head.uri),
                            headers: head.headers,
                            body: body.collect().await.unwrap().to_bytes(),
                        };
                        let response = answer(&seen);
                        record.lock().unwrap().push(seen);
                        Ok::<_, Infallible>(response)
                    }
                });
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { base, seen, task }
    }

    /// Starts one that always answers this.
    pub(crate) async fn always(status: u16, text: &'static str) -> Self {
        Self::start(move |_| answer(status, text)).await
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(&self.base, "secret").unwrap()
    }

    /// Returns the last request.
    pub(crate) fn last(&self) -> Seen {
        self.seen.lock().unwrap().last().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) fn answer(status: u16, text: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(text.into()).map_err(|never| match never {});
    let response = Response::builder().status(status);
    response.body(body.boxed_unsync()).unwrap()
}

/// Answers with chunks as they come.
pub(crate) fn streaming<S>(chunks: S) -> Response<Body>
where
    S: Stream<Item = Result<Frame<Bytes>, std::io::Error>> + Send + 'static,
{
    Response::new(StreamBody::new(chunks).boxed_unsync())
}
