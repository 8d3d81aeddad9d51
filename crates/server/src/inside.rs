//! The API as Machines have it: over a connection that is known to come from one of them, without a
//! token (machines-api.md 1.2).
//!
//! Whose connection it is, is said by the host whose socket it came by; nothing that the Machine
//! writes counts for that. Without a token a Machine may read itself, stop or suspend itself, and
//! read and write the metadata of its app's Machines; with one it is anybody. What it sends is
//! bounded in size, time and number, so that a hostile one is a burden to itself alone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use hangar_api::error::ErrorBody;
use hangar_api::id::{AppName, MachineId};
use hangar_api::rights::{Action, Caveat};
use hangar_api::seam::Connection;
use hangar_store::tables::{Apps, MachineHomes};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::time::Instant;

use crate::auth::Caller;
use crate::core::Core;

/// Most bytes of the head of a request.
const MAX_HEAD: usize = 64 * 1024;
/// Most bytes of a body that comes without a token: metadata, or how to stop.
const MAX_BODY: usize = 64 * 1024;
/// Time for the head of a request.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// Time for a whole request without a token.
const REQUEST_TIME: Duration = Duration::from_secs(30);
/// Time that a request in flight has to end when the server stops.
const GRACE: Duration = Duration::from_secs(5);
/// Requests without a token that a Machine may make at once, and how many of them it gets back in a
/// second: each may write to the store, which is everybody's.
const BURST: f64 = 60.0;
const PER_SECOND: f64 = 20.0;
/// Machines whose pace is remembered; beyond it, those that rest are forgotten.
const MAX_PACES: usize = 4096;

const MACHINE: &str = "/v1/apps/{app}/machines/{machine}";
const METADATA: &str = "/v1/apps/{app}/machines/{machine}/metadata";
const METADATA_KEY: &str = "/v1/apps/{app}/machines/{machine}/metadata/{key}";
const OIDC: &str = "/v1/tokens/oidc";

/// The Machine that a request came from. Set by [`serve`] alone.
#[derive(Clone, Debug, PartialEq, Eq)]
struct From(MachineId);

/// What a Machine may do without a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// Of itself.
    Itself,
    /// Of every Machine of its app.
    App,
}

/// How fast Machines ask without a token.
#[derive(Debug, Default)]
pub(crate) struct Paces(Mutex<BTreeMap<MachineId, Pace>>);

#[derive(Clone, Copy, Debug)]
struct Pace {
    left: f64,
    at: Instant,
}

/// Returns what a Machine may do with an endpoint without a token.
fn reach(method: &Method, endpoint: &str) -> Option<Reach> {
    match (method, endpoint) {
        (&Method::GET, MACHINE) => Some(Reach::Itself),
        (&Method::POST, path) => match path.strip_prefix(MACHINE) {
            Some("/stop" | "/suspend") => Some(Reach::Itself),
            Some("/metadata/{key}") => Some(Reach::App),
            _ => None,
        },
        (&Method::GET, METADATA | METADATA_KEY)
        | (&Method::PATCH | &Method::PUT, METADATA)
        | (&Method::DELETE, METADATA_KEY) => Some(Reach::App),
        _ => None,
    }
}

/// Returns whether a Machine may ask this of these: `home` is its app, `app` and `machine` are those
/// of the path.
fn may(reach: Reach, from: (&MachineId, &AppName), app: &str, machine: &str) -> bool {
    let (own, home) = from;
    home.as_str() == app && (reach == Reach::App || own.as_str() == machine)
}

/// Returns as whom a request without a token is let in: as its Machine, where that may do so. What
/// it may touch is its app alone, whatever the endpoint does.
pub(crate) fn admitted(core: &Core, request: &Request) -> Option<Caller> {
    let From(machine) = request.extensions().get::<From>()?;
    let endpoint = request.extensions().get::<MatchedPath>()?;
    let reach = reach(request.method(), endpoint.as_str())?;
    let home = core.cache.get::<MachineHomes>(machine)?;
    // The same parts that the handlers will see: no name or id has anything to be decoded.
    let mut parts = request.uri().path().split('/').skip(3);
    let (app, other) = (parts.next()?, parts.nth(1)?);
    if !may(reach, (machine, &home.value.app), app, other) {
        return None;
    }
    let number = core.cache.get::<Apps>(&home.value.app)?.value.number;
    let limits = vec![Caveat::Apps([(number, Action::ALL)].into())];
    let user = format!("{machine}@machines");
    Some(Caller::inside(user, limits, core.env.now()))
}

/// Serves the API over one connection: from a Machine that is known, or from one that has to show a
/// token. Returns when it has ended, or the server stops.
pub(crate) async fn serve(
    core: Arc<Core>,
    router: axum::Router,
    machine: Option<MachineId>,
    connection: Box<dyn Connection>,
) {
    let router = TowerToHyperService::new(router);
    let stop = core.stop.clone();
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let (core, router, machine) = (core.clone(), router.clone(), machine.clone());
        async move {
            let has_token = request.headers().contains_key(header::AUTHORIZATION);
            let request = request.map(Body::new);
            let Some(machine) = machine.filter(|_| !has_token) else {
                return router.call(request).await;
            };
            if let Some(refusal) = refusal(&core, &machine, &request) {
                return Ok(refusal);
            }
            let answered = async {
                let (mut parts, body) = request.into_parts();
                let Ok(body) = axum::body::to_bytes(body, MAX_BODY).await else {
                    let text = format!("the request body is longer than {MAX_BODY} bytes");
                    return Ok(refused(StatusCode::PAYLOAD_TOO_LARGE, &text));
                };
                parts.extensions.insert(From(machine));
                router
                    .call(Request::from_parts(parts, Body::from(body)))
                    .await
            };
            let text = "the request took too long";
            let too_long = |_| Ok(refused(StatusCode::REQUEST_TIMEOUT, text));
            let limited = tokio::time::timeout(REQUEST_TIME, answered).await;
            limited.unwrap_or_else(too_long)
        }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(MAX_HEAD);
    let served = builder
        .serve_connection(TokioIo::new(connection), service)
        .with_upgrades();
    let mut served = std::pin::pin!(served);
    let ended = tokio::select! {
        biased;
        ended = served.as_mut() => ended,
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            tokio::time::timeout(GRACE, served).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a Machine's connection to the API ended early");
    }
}

/// Returns the answer to what comes too fast, and to what is not there. Neither is logged: a Machine
/// could fill the log with it.
fn refusal(core: &Core, machine: &MachineId, request: &Request) -> Option<Response> {
    if !core.paces.takes(machine, Instant::now()) {
        let text = "rate limit exceeded";
        return Some(refused(StatusCode::TOO_MANY_REQUESTS, text));
    }
    let oidc = request.method() == Method::POST && request.uri().path() == OIDC;
    oidc.then(|| {
        let text = "Hangar issues no OIDC tokens: it is no identity provider that others could ask";
        refused(StatusCode::NOT_IMPLEMENTED, text)
    })
}

fn refused(status: StatusCode, text: &str) -> Response {
    let body = ErrorBody {
        error: text.to_owned(),
        status: None,
    };
    (status, Json(body)).into_response()
}

// === impl Paces ===

impl Paces {
    /// Returns whether a Machine may make one more request now, and counts it.
    fn takes(&self, machine: &MachineId, now: Instant) -> bool {
        let mut paces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if paces.len() >= MAX_PACES && !paces.contains_key(machine) {
            paces.retain(|_, pace| pace.refilled(now) < BURST);
        }
        let full = Pace {
            left: BURST,
            at: now,
        };
        let pace = paces.entry(machine.clone()).or_insert(full);
        pace.left = pace.refilled(now);
        pace.at = now;
        let takes = pace.left >= 1.0;
        if takes {
            pace.left -= 1.0;
        }
        takes
    }
}

impl Pace {
    fn refilled(&self, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        (self.left + passed * PER_SECOND).min(BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u32) -> MachineId {
        MachineId::new(format!("{n:014x}")).unwrap()
    }

    #[test]
    fn of_all_endpoints_a_machine_has_these_without_a_token() {
        let mut open: Vec<String> = crate::http::endpoints()
            .into_iter()
            .filter_map(|(method, path, _)| {
                let reach = reach(&method, &path)?;
                Some(format!("{method} {} {reach:?}", path.replace(MACHINE, "M")))
            })
            .collect();
        open.sort();
        assert_eq!(
            open,
            [
                "DELETE M/metadata/{key} App",
                "GET M Itself",
                "GET M/metadata App",
                "GET M/metadata/{key} App",
                "PATCH M/metadata App",
                "POST M/metadata/{key} App",
                "POST M/stop Itself",
                "POST M/suspend Itself",
                "PUT M/metadata App",
            ]
        );
    }

    #[test]
    fn nobody_reaches_into_another_app_or_stops_another_machine() {
        let (own, home) = (id(1), AppName::new("web").unwrap());
        let from = (&own, &home);
        assert!(may(Reach::Itself, from, "web", own.as_str()));
        assert!(!may(Reach::Itself, from, "web", id(2).as_str()));
        assert!(!may(Reach::Itself, from, "api", own.as_str()));
        assert!(may(Reach::App, from, "web", id(2).as_str()));
        assert!(!may(Reach::App, from, "api", own.as_str()));
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_too_fast_waits_and_nobody_else_does() {
        let paces = Paces::default();
        let (fast, slow) = (id(1), id(2));
        let allowed = (0..1000).filter(|_| paces.takes(&fast, Instant::now()));
        assert_eq!(allowed.count(), 60);
        assert!(paces.takes(&slow, Instant::now()));
        tokio::time::advance(Duration::from_millis(500)).await;
        let allowed = (0..1000).filter(|_| paces.takes(&fast, Instant::now()));
        assert_eq!(allowed.count(), 10);
        for n in 0..20_000 {
            paces.takes(&id(n), Instant::now());
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        let kept = paces.0.lock().unwrap().len();
        assert!(kept <= MAX_PACES, "{kept}");
    }
}
