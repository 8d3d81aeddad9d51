//! One request: route, policy, pick, claim, dial, forward.
//!
//! When it is sent again. A failed connect sent nothing: any request goes to the next pick. So
//! does one that a kept connection gave back unsent. Where some of it may have been sent and no
//! byte of an answer came, only idempotent methods are sent again (RFC 9110, 9.2.2), and only
//! while the body is at hand: there is none, or no more than 64 KiB were taken from it. For the
//! other methods a connection that was idle for longer is not used, so that they seldom meet one
//! that the app is closing. Once the head of an answer is there, nothing is repeated.

use std::borrow::Cow;
use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{HOST, HeaderMap, HeaderValue};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use tokio::time::Instant;

use super::body::{Again, Flight, Progress, RequestBody, ResponseBody};
use super::compress::{self, Coding};
use super::upstream::{self, Line, NotAnswered};
use super::{answer, headers, statics, tunnel};
use crate::acquire::{Attempt, Chosen, Refusal, acquire};
use crate::announce;
use crate::connection::{Client, Place};
use crate::core::Core;
use crate::index::Group;
use crate::policy::Policy;

/// Times a request is sent again after some of it may have been sent.
const MAX_RESENDS: u32 = 2;
/// Kept connections that may turn out closed before only new ones are used.
const MAX_STALE: u32 = 3;
/// Oldest kept connection for a request that cannot be sent twice.
const FRESH: Duration = Duration::from_secs(1);

/// Answers one request of a client.
pub(crate) async fn handle(
    core: Arc<Core>,
    client: Arc<Client>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let version = request.version();
    let (id, group, answer) = match route(&core, &client, &request) {
        Ok(group) => {
            let id = request_id(&core, &group.region);
            let answer = forward(&core, &client, &group, &id, request).await;
            let answer = answer.map_err(|refusal| {
                let (code, reason) = (refusal.code, &refusal.text);
                tracing::debug!(app = %group.app, code, reason, "request refused");
                answer::refusal(&refusal)
            });
            (id, Some(group), answer)
        }
        Err(answer) => {
            let region = core.shared.config.regions.first();
            let region = region.and_then(|region| HeaderValue::from_str(region.as_str()).ok());
            let region = region.unwrap_or_else(|| HeaderValue::from_static("local"));
            (request_id(&core, &region), None, Err(*answer))
        }
    };
    Ok(answer.unwrap_or_else(|mut own| {
        let answers = group.map(|group| group.policy.answers.clone());
        let answers = answers.unwrap_or_default();
        headers::for_client(own.headers_mut(), version, &id, false, &answers);
        own
    }))
}

/// Finds the service that a request is for, or the answer to one that has none.
fn route(
    core: &Core,
    client: &Client,
    request: &Request<Incoming>,
) -> Result<Arc<Group>, Box<Response<ResponseBody>>> {
    let say = |status, text: &str| Err(Box::new(answer::words(status, text)));
    if request.method() == Method::CONNECT {
        let text = "CONNECT is not served here";
        return say(StatusCode::METHOD_NOT_ALLOWED, text);
    }
    let Some(host) = host(request.uri(), request.headers()) else {
        return say(StatusCode::BAD_REQUEST, "the request names no host");
    };
    let index = core.shared.index.load();
    let Some(app) = index.host(&host) else {
        let domain = &core.shared.config.domain;
        let text = format!("no app has the host name {host:?} here; apps are at APP.{domain}");
        return say(StatusCode::NOT_FOUND, &text);
    };
    let Some(group) = app.group(client.port) else {
        let text = format!("{host} has no service on port {}", client.port);
        return say(StatusCode::NOT_FOUND, &text);
    };
    let policy = &group.policy;
    if !policy.http {
        let text = format!("{host} does not speak HTTP on port {}", client.port);
        return say(StatusCode::NOT_FOUND, &text);
    }
    if policy.force_https && !client.tls {
        let port = app.https_port().unwrap_or(443);
        let port = core
            .shared
            .edge
            .borrow()
            .ports
            .get(&port)
            .copied()
            .unwrap_or(port);
        let path = request
            .uri()
            .path_and_query()
            .map_or("/", |path| path.as_str());
        return Err(Box::new(answer::redirect(&host, port, path)));
    }
    if policy.tls != client.tls {
        let scheme = if policy.tls { "https" } else { "http" };
        let text = format!("{host} speaks {scheme} on port {}", client.port);
        return say(StatusCode::BAD_REQUEST, &text);
    }
    Ok(group.clone())
}

/// Sends a request to a Machine of the service, and to another one where that is right.
async fn forward(
    core: &Arc<Core>,
    client: &Client,
    group: &Arc<Group>,
    id: &HeaderValue,
    mut request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Refusal> {
    let version = request.version();
    let mut upgrade = None;
    if request.extensions().get::<OnUpgrade>().is_some() {
        upgrade = Some(hyper::upgrade::on(&mut request));
    }
    let (mut parts, incoming) = request.into_parts();
    let upgrade = upgrade.filter(|_| headers::asks_upgrade(&parts));
    let policy = &group.policy;
    let coding = compress::wanted(&policy.answers, &parts.method, &parts.headers);
    let asked = Asked {
        version,
        id,
        coding,
    };
    let line = line(policy, client);
    let mut tries = Tries::new(headers::is_idempotent(&parts.method) && upgrade.is_none());
    let (region, start) = (&group.region, request_start(core));
    headers::for_machine(&mut parts, client, region, id, start, upgrade.is_some());
    parts.version = Version::HTTP_11;
    let body = RequestBody::new(incoming, tries.again, core.shared.config.limits.body_idle);
    let mut outgoing = Request::from_parts(parts, body);
    loop {
        let chosen = acquire(core, group, &mut tries.attempt).await?;
        let mut chosen = match statics::answer(core, chosen, &outgoing).await {
            Ok(file) => return Ok(asked.answered(file, group)),
            Err(chosen) => chosen,
        };
        chosen.pooled &= line.announced.is_none();
        let max_idle = tries.max_idle(core).filter(|_| upgrade.is_none());
        let connecting = upstream::connect(core, &chosen, &line, max_idle);
        let (connection, reused) = match connecting.await {
            Ok(connected) => connected,
            Err(refusal) => {
                let load = chosen.claim.load();
                tries.attempt.failed(core, load, refusal)?;
                continue;
            }
        };
        fit(&mut outgoing, &chosen, upgrade.is_some());
        let progress = outgoing.body().progress();
        let spare = Spare::of(&outgoing, tries.may_resend());
        let limit = policy.headers_read_timeout;
        let sending = in_time(connection.send(outgoing), limit, progress.as_deref());
        let Some(sent) = sending.await else {
            return Err(too_slow(&chosen, "headers_read_timeout"));
        };
        match sent {
            Ok((response, sender)) => {
                note_head(client, &response, version, progress.as_deref());
                let flight = Flight {
                    core: core.number,
                    sender: sender.filter(|_| chosen.pooled && !chosen.http2),
                    claim: chosen.claim,
                    idle_timeout: line.idle_timeout,
                    progress,
                };
                let upgrade = upgrade.map(|upgrade| (upgrade, client.place.clone()));
                return Ok(respond(core, group, response, flight, upgrade, &asked));
            }
            Err(failed) => {
                let stalled = progress.as_ref().is_some_and(|body| body.is_stalled());
                outgoing = tries.next(core, &chosen, failed, reused, stalled, spare)?;
            }
        }
    }
}

fn line(policy: &Policy, client: &Client) -> Line {
    let announced = policy.proxy_proto;
    Line {
        idle_timeout: policy.idle_timeout,
        announced: announced.map(|form| announce::header(form, client.ends)),
    }
}

/// Returns the outcome of sending a request, or `None` when the head of an answer was not there
/// in time, which runs from when all of the request was sent.
async fn in_time<T>(
    sending: impl Future<Output = T>,
    limit: Option<Duration>,
    progress: Option<&Progress>,
) -> Option<T> {
    let Some(limit) = limit else {
        return Some(sending.await);
    };
    let mut sending = pin!(sending);
    let mut until = Instant::now() + limit;
    loop {
        if let Ok(sent) = tokio::time::timeout_at(until, sending.as_mut()).await {
            return Some(sent);
        }
        let now = Instant::now();
        until = match progress {
            Some(progress) => progress.sent_at().unwrap_or(now) + limit,
            None => now,
        };
        if until <= now {
            return None;
        }
    }
}

/// What a client asked for, as its answer needs it.
struct Asked<'a> {
    version: Version,
    id: &'a HeaderValue,
    coding: Option<Coding>,
}

// === impl Asked ===

impl Asked<'_> {
    /// Makes an answer that did not come from the app one for the client.
    fn answered(&self, mut own: Response<ResponseBody>, group: &Group) -> Response<ResponseBody> {
        let answers = &group.policy.answers;
        headers::for_client(own.headers_mut(), self.version, self.id, false, answers);
        own
    }
}

/// How often a request was sent, and may be.
struct Tries {
    /// Sending it twice is the same as once.
    again: bool,
    resends: u32,
    stale: u32,
    attempt: Attempt,
}

// === impl Tries ===

impl Tries {
    fn new(again: bool) -> Self {
        Self {
            again,
            resends: 0,
            stale: 0,
            attempt: Attempt::default(),
        }
    }

    /// Returns how old a kept connection may be, or `None` where only a new one will do.
    fn max_idle(&self, core: &Core) -> Option<Duration> {
        let max_idle = core.shared.config.limits.upstream_idle;
        let max_idle = if self.again {
            max_idle
        } else {
            max_idle.min(FRESH)
        };
        (self.stale < MAX_STALE).then_some(max_idle)
    }

    fn may_resend(&self) -> bool {
        self.again && self.resends < MAX_RESENDS
    }

    /// Returns the request to send next after one that got no answer, or what the client is told.
    fn next(
        &mut self,
        core: &Core,
        chosen: &Chosen,
        failed: NotAnswered,
        reused: bool,
        stalled: bool,
        spare: Option<Spare>,
    ) -> Result<Request<RequestBody>, Refusal> {
        let NotAnswered {
            unsent,
            silent,
            error,
        } = failed;
        match unsent {
            Some(request) if reused => {
                self.stale += 1;
                return Ok(request);
            }
            _ if stalled => return Err(client_stalled()),
            _ if silent => return Err(too_slow(chosen, "idle_timeout")),
            _ => {}
        }
        let refusal = not_answered(chosen, &error);
        self.resends += u32::from(unsent.is_none());
        let next = unsent.or_else(|| spare.and_then(Spare::request));
        let Some(next) = next else {
            return Err(refusal);
        };
        self.attempt.failed(core, chosen.claim.load(), refusal)?;
        Ok(next)
    }
}

/// Notes what the head of an answer changes for the time limits.
fn note_head(
    client: &Client,
    response: &Response<Incoming>,
    version: Version,
    progress: Option<&Progress>,
) {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        client.upgraded.store(true, Ordering::Relaxed);
    }
    // Both sides may now talk in turns, as gRPC does. HTTP/1 clients do not.
    if let Some(progress) = progress.filter(|_| version == Version::HTTP_2) {
        progress.be_patient();
    }
}

/// What is needed to send a request again.
struct Spare {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Again,
}

impl Spare {
    fn of(request: &Request<RequestBody>, wanted: bool) -> Option<Self> {
        let body = wanted.then(|| request.body().again()).flatten()?;
        Some(Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
            body,
        })
    }

    fn request(self) -> Option<Request<RequestBody>> {
        let mut request = Request::new(self.body.body()?);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        Some(request)
    }
}

/// Fits a request to the kind of connection that was chosen.
fn fit(request: &mut Request<RequestBody>, chosen: &Chosen, upgrade: bool) {
    let is_plain = request.uri().authority().is_none();
    if chosen.http2 || !is_plain {
        let host = request.headers().get(HOST);
        let uri = headers::target(request.uri(), host, chosen.http2);
        *request.uri_mut() = uri;
    }
    *request.version_mut() = if chosen.http2 {
        Version::HTTP_2
    } else {
        Version::HTTP_11
    };
    if !upgrade {
        headers::set_close(request.headers_mut(), !chosen.pooled && !chosen.http2);
    }
}

/// Turns a Machine's answer into the client's, whose end gives the claim back.
fn respond(
    core: &Arc<Core>,
    group: &Group,
    mut response: Response<Incoming>,
    flight: Flight,
    upgrade: Option<(OnUpgrade, Place)>,
    asked: &Asked<'_>,
) -> Response<ResponseBody> {
    let answers = &group.policy.answers;
    let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if upgraded {
        let Some((client, place)) = upgrade else {
            let text = "the app changed the protocol without being asked".to_owned();
            let own = answer::refusal(&Refusal::bad_gateway("PU02", text));
            return asked.answered(own, group);
        };
        let machine = hyper::upgrade::on(&mut response);
        let is_websocket = tunnel::is_websocket(response.headers());
        tunnel::start(core, client, machine, flight.claim, is_websocket, place);
        headers::for_client(
            response.headers_mut(),
            asked.version,
            asked.id,
            true,
            answers,
        );
        return response.map(|_| ResponseBody::Words(None));
    }
    let places = &core.shared.compressed;
    let compressor = compress::prepare(answers, asked.coding, &mut response, places);
    headers::for_client(
        response.headers_mut(),
        asked.version,
        asked.id,
        false,
        answers,
    );
    *response.version_mut() = Version::HTTP_11;
    response.map(|incoming| ResponseBody::upstream(incoming, flight, compressor))
}

fn client_stalled() -> Refusal {
    Refusal {
        status: StatusCode::REQUEST_TIMEOUT,
        code: "PU02",
        text: "the client stopped sending the request's body".to_owned(),
        retry: false,
    }
}

/// Says that a Machine was silent for longer than an option of the service allows.
fn too_slow(chosen: &Chosen, option: &str) -> Refusal {
    let machine = &chosen.claim.load().machine;
    Refusal {
        status: StatusCode::GATEWAY_TIMEOUT,
        code: "PU02",
        text: format!("machine {machine} did not answer within the service's {option}"),
        retry: false,
    }
}

fn not_answered(chosen: &Chosen, error: &hyper::Error) -> Refusal {
    let machine = &chosen.claim.load().machine;
    let what = if error.is_parse() {
        "its answer is not HTTP"
    } else if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        "connection closed before message completed"
    } else {
        "connection broke"
    };
    let text = format!("could not complete the request to machine {machine}: {what}");
    Refusal::bad_gateway("PU02", text)
}

/// Returns the host that a request names, in lower case, without port.
fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<Cow<'a, str>> {
    let name = match uri.host() {
        Some(host) => host,
        None => without_port(headers.get(HOST)?.to_str().ok()?),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        return None;
    }
    Some(if name.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    })
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Returns a new `ULID-region`.
fn request_id(core: &Core, region: &HeaderValue) -> HeaderValue {
    let millis = core.shared.env.now().as_millisecond();
    let random = u128::from(core.random()) << 64 | u128::from(core.random());
    let ulid = ulid::Ulid::from_parts(u64::try_from(millis).unwrap_or(0), random);
    let mut buffer = [0; ulid::ULID_LEN];
    let mut id = Vec::with_capacity(40);
    id.extend_from_slice(ulid.array_to_str(&mut buffer).as_bytes());
    id.push(b'-');
    id.extend_from_slice(region.as_bytes());
    HeaderValue::from_maybe_shared(bytes::Bytes::from(id))
        .unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

/// Returns the time at the edge, as `X-Request-Start` has it.
fn request_start(core: &Core) -> HeaderValue {
    let micros = core.shared.env.now().as_microsecond();
    HeaderValue::from_maybe_shared(bytes::Bytes::from(format!("t={micros}")))
        .unwrap_or_else(|_| HeaderValue::from_static("t=0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_read_without_port_dot_and_case() {
        let of = |value: &'static str| {
            let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static(value))]);
            let uri = Uri::from_static("/x");
            host(&uri, &headers).map(Cow::into_owned)
        };
        assert_eq!(of("Web.LocalHost:8080").as_deref(), Some("web.localhost"));
        assert_eq!(of("web.localhost.").as_deref(), Some("web.localhost"));
        assert_eq!(of("[::1]:80").as_deref(), Some("[::1]"));
        assert_eq!(of(""), None);
    }

    #[test]
    fn a_name_in_the_request_line_beats_the_header() {
        let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static("a"))]);
        let uri = Uri::from_static("http://b:80/x");
        assert_eq!(host(&uri, &headers).as_deref(), Some("b"));
    }
}
