//! Clients.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

/// A client that makes a connection for each request.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) at: SocketAddr,
    pub(crate) host: String,
}

/// A kept connection.
pub(crate) struct Sender {
    inner: http1::SendRequest<Full<Bytes>>,
    host: String,
}

impl Client {
    pub(crate) fn new(at: SocketAddr, host: String) -> Self {
        Self { at, host }
    }

    pub(crate) async fn connect(&self) -> Result<Sender, Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect(self.at).await?;
        stream.set_nodelay(true)?;
        let (inner, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let host = self.host.clone();
        Ok(Sender { inner, host })
    }

    /// Asks on a new connection. Fails the test when there is no answer.
    pub(crate) async fn send(&self, request: hyper::http::request::Builder, body: &str) -> Answer {
        let asked = async {
            let mut sender = self.connect().await?;
            sender.send(request, body).await
        };
        let limit = Duration::from_secs(60);
        tokio::time::timeout(limit, asked).await.unwrap().unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path), "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        self.send(Request::post(path), body).await
    }

    /// Starts a GET in a task.
    pub(crate) fn spawn_get(&self, path: &str) -> tokio::task::JoinHandle<Answer> {
        let (client, path) = (self.clone(), path.to_owned());
        tokio::spawn(async move { client.get(&path).await })
    }
}

impl Sender {
    pub(crate) async fn send(
        &mut self,
        request: hyper::http::request::Builder,
        body: &str,
    ) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
        let has_host = request
            .headers_ref()
            .is_some_and(|h| h.contains_key("host"));
        let request = if has_host {
            request
        } else {
            request.header("host", &self.host)
        };
        let request = request.body(Full::new(Bytes::from(body.to_owned())))?;
        self.inner.ready().await?;
        let (parts, body) = self.inner.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    }
}
