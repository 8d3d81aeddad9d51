//! Requests and answers over one HTTP/1.1 connection each.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hangar_api::error::ErrorBody;
use hangar_api::fingerprint::Fingerprint;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::ClientError;
use crate::ssh::Target;
use crate::tls::Trust;

/// Time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time from the request to the answer's head; `wait` may take 60 s by itself.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);
/// Time for an upload to be taken in whole: images are large.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(1800);
/// Time between two parts of an answer that is read whole.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Most bytes of an answer that is read whole.
const MAX_ANSWER: usize = 256 << 20;

pub(crate) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// A client of one server, as one token. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    way: Way,
    base: String,
    token: String,
    limits: Limits,
}

/// How a server is reached.
#[derive(Clone, Debug)]
enum Way {
    /// In the clear, or with TLS.
    Tcp {
        host: String,
        port: u16,
        tls: Option<Trust>,
    },
    /// Through the system's `ssh`.
    Ssh(Target),
}

/// A connection to a server, whatever carries it.
pub type Connection = Box<dyn Stream>;

/// Bytes both ways.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
struct Limits {
    connect: Duration,
    answer: Duration,
    upload: Duration,
    idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: CONNECT_TIMEOUT,
            answer: ANSWER_TIMEOUT,
            upload: UPLOAD_TIMEOUT,
            idle: IDLE_TIMEOUT,
        }
    }
}

// === impl Client ===

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Returns a client for a base URL: `http://127.0.0.1:4280`, `https://HOST[:PORT]` or
    /// `ssh://USER@HOST[:PORT]`. Connects to nothing yet. Without a token, one that is reached by
    /// ssh has that of the user there.
    pub fn new(base: &str, token: &str) -> Result<Self, ClientError> {
        if http::HeaderValue::from_str(token).is_err() {
            return Err(ClientError::BadToken);
        }
        Ok(Self {
            way: Way::parse(base)?,
            base: base.trim_end_matches('/').to_owned(),
            token: token.to_owned(),
            limits: Limits::default(),
        })
    }

    /// Returns a client that takes the certificate with this fingerprint and no other.
    #[must_use]
    pub fn pinned(mut self, fingerprint: Fingerprint) -> Self {
        if let Way::Tcp { tls: Some(tls), .. } = &mut self.way {
            *tls = Trust::Pinned(fingerprint);
        }
        self
    }

    /// Returns the fingerprint of the certificate that the server shows now, whoever vouches for
    /// it; `None` when it is not spoken to by TLS. Sends it nothing.
    pub async fn look_at_certificate(&self) -> Result<Option<Fingerprint>, ClientError> {
        let Way::Tcp {
            host,
            port,
            tls: Some(_),
        } = &self.way
        else {
            return Ok(None);
        };
        let look = async {
            let stream = crate::dial::dial(host, *port).await?;
            crate::tls::look(host, stream).await
        };
        let looked = tokio::time::timeout(self.limits.connect, look).await;
        let looked = looked.map_err(|_| self.unreachable("connecting took too long".to_owned()))?;
        looked.map(Some).map_err(|reason| self.unreachable(reason))
    }

    /// Returns whether an authority vouches for the server's certificate. Sends it nothing.
    pub async fn is_vouched_for(&self) -> bool {
        self.connect().await.is_ok()
    }

    /// Returns the token.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Returns a connection on which nothing was said yet.
    pub async fn connect(&self) -> Result<Connection, ClientError> {
        Ok(self.dial().await?.0)
    }

    /// Returns a connection, and the token to be used on it.
    async fn dial(&self) -> Result<(Connection, String), ClientError> {
        let dialled = self.way.dial();
        let limit = match &self.way {
            Way::Tcp { .. } => self.limits.connect,
            // Somebody may be asked for a passphrase.
            Way::Ssh(_) => self.limits.answer,
        };
        let dialled = tokio::time::timeout(limit, dialled).await;
        let (stream, theirs) = dialled
            .map_err(|_| self.unreachable("connecting took too long".to_owned()))?
            .map_err(|reason| self.unreachable(reason))?;
        let token = match self.token.as_str() {
            "" => theirs,
            ours => ours.to_owned(),
        };
        Ok((stream, token))
    }

    fn unreachable(&self, reason: String) -> ClientError {
        ClientError::Unreachable {
            url: self.base.clone(),
            reason,
        }
    }

    /// Returns the base URL.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call(Method::GET, path, None::<&()>, &[]).await
    }

    pub(crate) async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        self.call(Method::POST, path, Some(body), &[]).await
    }

    /// Returns the same client, but an answer may come so much later: for requests that
    /// themselves say how long they take.
    pub(crate) fn with_patience(&self, more: Duration) -> Self {
        let mut patient = self.clone();
        patient.limits.answer = patient.limits.answer.saturating_add(more);
        patient
    }

    /// Sends a request and reads the answer's JSON; an empty answer reads as null.
    pub(crate) async fn call<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
        headers: &[(&str, &str)],
    ) -> Result<T, ClientError> {
        let content = body
            .map(serde_json::to_vec)
            .transpose()
            .map_err(|e| ClientError::BadAnswer(e.to_string()))?;
        let has_body = content.is_some();
        let body = full(content.unwrap_or_default());
        let mut request = self.request(method, path, body)?;
        if has_body {
            request.headers_mut().insert(
                CONTENT_TYPE,
                http::HeaderValue::from_static("application/json"),
            );
        }
        for (name, value) in headers {
            let name: http::HeaderName = name
                .parse()
                .map_err(|_| ClientError::BadAnswer((*name).to_owned()))?;
            let value = value
                .parse()
                .map_err(|_| ClientError::BadAnswer(format!("header {name}")))?;
            request.headers_mut().insert(name, value);
        }
        let answer = self.send(request, self.limits.answer).await?;
        let bytes = self.read(answer.into_body()).await?;
        let bytes = if bytes.is_empty() {
            Bytes::from_static(b"null")
        } else {
            bytes
        };
        serde_json::from_slice(&bytes).map_err(|error| ClientError::BadAnswer(error.to_string()))
    }

    /// Sends a body of any length and reads the answer's JSON.
    pub(crate) async fn upload<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Body,
    ) -> Result<T, ClientError> {
        let mut request = self.request(Method::POST, path, body)?;
        request.headers_mut().insert(
            CONTENT_TYPE,
            http::HeaderValue::from_static("application/x-tar"),
        );
        let answer = self.send(request, self.limits.upload).await?;
        let bytes = self.read(answer.into_body()).await?;
        serde_json::from_slice(&bytes).map_err(|error| ClientError::BadAnswer(error.to_string()))
    }

    /// Sends a request whose answer is read as it comes.
    pub(crate) async fn stream(&self, path: &str) -> Result<Incoming, ClientError> {
        let request = self.request(Method::GET, path, full(Vec::new()))?;
        Ok(self.send(request, self.limits.answer).await?.into_body())
    }

    pub(crate) fn request(
        &self,
        method: Method,
        path: &str,
        body: Body,
    ) -> Result<Request<Body>, ClientError> {
        Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, self.way.authority())
            .header(USER_AGENT, concat!("hangar/", env!("CARGO_PKG_VERSION")))
            .body(body)
            .map_err(|error| ClientError::BadAnswer(error.to_string()))
    }

    async fn send(
        &self,
        request: Request<Body>,
        limit: Duration,
    ) -> Result<Response<Incoming>, ClientError> {
        let answer = self.exchange(request, limit).await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        self.refused(answer).await
    }

    /// Sends a request after whose answer the connection speaks another protocol.
    pub(crate) async fn ask_to_upgrade(
        &self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, ClientError> {
        let answer = self.exchange(request, self.limits.answer).await?;
        if answer.status() == http::StatusCode::SWITCHING_PROTOCOLS {
            return Ok(answer);
        }
        self.refused(answer).await
    }

    async fn refused<T>(&self, answer: Response<Incoming>) -> Result<T, ClientError> {
        let status = answer.status().as_u16();
        Err(refusal(status, &self.read(answer.into_body()).await?))
    }

    async fn exchange(
        &self,
        mut request: Request<Body>,
        limit: Duration,
    ) -> Result<Response<Incoming>, ClientError> {
        let (stream, token) = self.dial().await?;
        if !token.is_empty() {
            let header = http::HeaderValue::from_str(&format!("Bearer {token}"));
            let header = header.map_err(|_| ClientError::BadToken)?;
            request.headers_mut().insert(AUTHORIZATION, header);
        }
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| ClientError::Broken(error.to_string()))?;
        tokio::spawn(async move {
            // Its end reaches the caller through the answer it was reading.
            let _ended = connection.with_upgrades().await;
        });
        let answer = tokio::time::timeout(limit, sender.send_request(request)).await;
        let answer = answer.map_err(|_| ClientError::TimedOut(limit.as_secs()))?;
        answer.map_err(|error| match &self.way {
            Way::Tcp { tls: None, .. } if error.is_parse() => ClientError::Broken(format!(
                "what answers at {} is not HTTP ({error}): if it speaks TLS, its URL begins with https://",
                self.base
            )),
            _ => ClientError::Broken(error.to_string()),
        })
    }

    /// Reads an answer whole.
    async fn read(&self, mut body: Incoming) -> Result<Bytes, ClientError> {
        let mut whole = BytesMut::new();
        loop {
            let next = tokio::time::timeout(self.limits.idle, body.frame()).await;
            let next = next.map_err(|_| {
                let idle = self.limits.idle.as_secs();
                ClientError::Broken(format!("nothing more came for {idle} seconds"))
            })?;
            let Some(frame) = next else {
                return Ok(whole.freeze());
            };
            let frame = frame.map_err(|error| ClientError::Broken(error.to_string()))?;
            if let Some(data) = frame.data_ref() {
                whole.extend_from_slice(data);
            }
            if whole.len() > MAX_ANSWER {
                return Err(ClientError::BadAnswer("it is too long".to_owned()));
            }
        }
    }
}

// === impl Way ===

impl Way {
    fn parse(base: &str) -> Result<Self, ClientError> {
        let bad = |reason: &str| ClientError::BadUrl {
            url: base.to_owned(),
            reason: reason.to_owned(),
        };
        if let Some(rest) = base.strip_prefix("ssh://") {
            return Target::parse(rest).map(Self::Ssh).map_err(|why| bad(&why));
        }
        let uri: Uri = base.parse().map_err(|_| bad("it is not a URL"))?;
        let (tls, usual) = match uri.scheme_str() {
            Some("http") => (None, 80),
            Some("https") => (Some(Trust::Authorities), 443),
            _ => return Err(bad("it must begin with http://, https:// or ssh://")),
        };
        let host = uri.host().ok_or_else(|| bad("it names no host"))?;
        let path = uri.path_and_query();
        if path.is_some_and(|path| path.as_str() != "/") {
            return Err(bad("it goes on behind the host and port"));
        }
        Ok(Self::Tcp {
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(usual),
            tls,
        })
    }

    fn authority(&self) -> String {
        match self {
            Self::Tcp { host, port, .. } => format!("{host}:{port}"),
            Self::Ssh(target) => target.host().to_owned(),
        }
    }

    async fn dial(&self) -> Result<(Connection, String), String> {
        match self {
            Self::Tcp { host, port, tls } => {
                let stream = crate::dial::dial(host, *port).await?;
                let stream: Connection = match tls {
                    Some(trust) => Box::new(crate::tls::begin(host, *trust, stream).await?),
                    None => Box::new(stream),
                };
                Ok((stream, String::new()))
            }
            Self::Ssh(target) => {
                let (piped, token) = target.dial().await?;
                Ok((Box::new(piped), token))
            }
        }
    }
}

/// Percent-encodes a path segment or query value.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Returns `path?name=value&...` of the pairs that have a value.
pub(crate) fn with_query(path: &str, pairs: &[(&str, Option<String>)]) -> String {
    let mut out = path.to_owned();
    let mut mark = '?';
    for (name, value) in pairs {
        if let Some(value) = value {
            out.push(mark);
            out.push_str(name);
            out.push('=');
            out.push_str(&encode(value));
            mark = '&';
        }
    }
    out
}

pub(crate) fn full(bytes: Vec<u8>) -> Body {
    Full::new(Bytes::from(bytes))
        .map_err(|never| match never {})
        .boxed_unsync()
}

fn refusal(status: u16, body: &[u8]) -> ClientError {
    match serde_json::from_slice::<ErrorBody>(body) {
        Ok(parsed) => ClientError::Api {
            status,
            message: parsed.error,
            code: parsed.status,
        },
        Err(_) => {
            let text = String::from_utf8_lossy(body);
            let text = if text.trim().is_empty() {
                "no reason given".into()
            } else {
                text
            };
            ClientError::Api {
                status,
                message: format!("the server answered {status}: {}", text.trim()),
                code: None,
            }
        }
    }
}

#[cfg(test)]
mod tests;
