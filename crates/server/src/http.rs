//! The HTTP surface: the table of endpoints, who may call them, and what every answer carries.
//!
//! Handlers live in one file per resource; they read the request, call the app logic and shape
//! the answer, and decide nothing else. Statuses of errors are decided in [`crate::error`].

mod apps;
mod deployments;
mod events;
mod extract;
mod formation;
mod images;
mod lease;
mod logs;
mod machines;
mod metadata;
mod ops;
mod platform;
mod releases;
mod secrets;
mod session;
mod volumes;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, Method, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, delete, get, patch, post, put};
use axum::{Router, body::Body};

use crate::core::Core;
use crate::error::Problem;

/// Most bytes of a JSON body. Uploads of images have their own limit.
pub(crate) const MAX_BODY: usize = 1024 * 1024;

/// Whose token a request carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The user, as leases and releases show it.
    pub(crate) user: String,
}

/// What an endpoint asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A known token.
    Token,
    /// Nothing.
    Open,
}

struct Endpoint {
    method: Method,
    path: String,
    access: Access,
    handler: MethodRouter<Arc<Core>>,
}

/// Returns method, path and access of every endpoint; tests walk through it.
#[must_use]
pub fn endpoints() -> Vec<(Method, String, Access)> {
    table()
        .into_iter()
        .map(|endpoint| (endpoint.method, endpoint.path, endpoint.access))
        .collect()
}

/// Returns the router: the table, behind the token check.
pub(crate) fn router(core: Arc<Core>) -> Router {
    let mut guarded = Router::new();
    let mut open = Router::new();
    for endpoint in table() {
        match endpoint.access {
            Access::Token => guarded = guarded.route(&endpoint.path, endpoint.handler),
            Access::Open => open = open.route(&endpoint.path, endpoint.handler),
        }
    }
    let check = middleware::from_fn_with_state(core.clone(), check_token);
    guarded
        .fallback(|| async { Problem::NotFound("there is nothing at this path".to_owned()) })
        .method_not_allowed_fallback(|| async { Problem::MethodNotAllowed })
        .layer(check)
        .merge(open)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(core.clone(), add_request_id))
        .with_state(core)
}

fn table() -> Vec<Endpoint> {
    let health = Endpoint {
        method: Method::GET,
        path: "/v1/health".to_owned(),
        access: Access::Open,
        handler: get(platform::health),
    };
    let groups = [
        ("/v1", platform_rows()),
        ("/v1/apps", app_rows()),
        ("/v1/apps/{app}/machines", machine_rows()),
        ("/v1/apps/{app}/volumes", volume_rows()),
        (
            "/v1/apps/{app}/machines/{machine}/metadata",
            metadata_rows(),
        ),
    ];
    let mut table = vec![health];
    for (base, rows) in groups {
        table.extend(rows.into_iter().map(|(method, rest, handler)| Endpoint {
            method,
            path: format!("{base}{rest}"),
            access: Access::Token,
            handler,
        }));
    }
    table
}

type Row = (Method, &'static str, MethodRouter<Arc<Core>>);

fn platform_rows() -> Vec<Row> {
    // An archive is streamed to disk, under a limit of its own.
    let import = post(images::import).layer(DefaultBodyLimit::disable());
    vec![
        (Method::GET, "/platform/regions", get(platform::regions)),
        (Method::GET, "/platform/edge", get(platform::edge)),
        (Method::GET, "/platform/slots", get(platform::slots)),
        (
            Method::POST,
            "/platform/slots/{slot}/lost",
            post(platform::lost),
        ),
        (
            Method::POST,
            "/platform/slots/{slot}/back",
            post(platform::back),
        ),
        (Method::GET, "/images", get(images::list)),
        (Method::POST, "/images", import),
        (Method::POST, "/images/prune", post(images::prune)),
        (Method::GET, "/images/resolve", get(images::resolve)),
    ]
}

fn app_rows() -> Vec<Row> {
    vec![
        (Method::GET, "", get(apps::list)),
        (Method::POST, "", post(apps::create)),
        (Method::GET, "/{app}", get(apps::show)),
        (Method::DELETE, "/{app}", delete(apps::destroy)),
        (Method::GET, "/{app}/secrets", get(secrets::list)),
        (Method::POST, "/{app}/secrets", post(secrets::update)),
        (Method::GET, "/{app}/secrets/{name}", get(secrets::show)),
        (Method::POST, "/{app}/secrets/{name}", post(secrets::set)),
        (
            Method::DELETE,
            "/{app}/secrets/{name}",
            delete(secrets::unset),
        ),
        (Method::GET, "/{app}/releases", get(releases::list)),
        (
            Method::GET,
            "/{app}/releases/{version}",
            get(releases::show),
        ),
        (Method::GET, "/{app}/deployments", get(deployments::list)),
        (
            Method::POST,
            "/{app}/deployments",
            post(deployments::create),
        ),
        (
            Method::GET,
            "/{app}/deployments/{id}",
            get(deployments::show),
        ),
        (
            Method::GET,
            "/{app}/deployments/{id}/events",
            get(events::follow),
        ),
        (
            Method::POST,
            "/{app}/deployments/{id}/cancel",
            post(deployments::cancel),
        ),
        (Method::GET, "/{app}/formation", get(formation::show)),
        (Method::PUT, "/{app}/formation", put(formation::update)),
        (Method::GET, "/{app}/logs", get(logs::read)),
    ]
}

fn volume_rows() -> Vec<Row> {
    vec![
        (Method::GET, "", get(volumes::list)),
        (Method::POST, "", post(volumes::create)),
        (Method::GET, "/{volume}", get(volumes::show)),
        (Method::PUT, "/{volume}", put(volumes::update)),
        (Method::DELETE, "/{volume}", delete(volumes::destroy)),
        (Method::PUT, "/{volume}/extend", put(volumes::extend)),
        (Method::GET, "/{volume}/snapshots", get(volumes::snapshots)),
        (Method::POST, "/{volume}/snapshots", post(volumes::snapshot)),
        (
            Method::DELETE,
            "/{volume}/snapshots/{snapshot}",
            delete(volumes::remove_snapshot),
        ),
    ]
}

fn machine_rows() -> Vec<Row> {
    vec![
        (Method::GET, "", get(machines::list)),
        (Method::POST, "", post(machines::create)),
        (Method::GET, "/{machine}", get(machines::show)),
        (Method::POST, "/{machine}", post(machines::update)),
        (Method::DELETE, "/{machine}", delete(machines::destroy)),
        (Method::GET, "/{machine}/events", get(machines::events)),
        (Method::GET, "/{machine}/wait", get(ops::wait)),
        (Method::POST, "/{machine}/start", post(ops::start)),
        (Method::POST, "/{machine}/stop", post(ops::stop)),
        (Method::POST, "/{machine}/suspend", post(ops::suspend)),
        (Method::POST, "/{machine}/restart", post(ops::restart)),
        (Method::POST, "/{machine}/signal", post(ops::signal)),
        (Method::POST, "/{machine}/exec", post(ops::exec)),
        (Method::POST, "/{machine}/session", post(session::open)),
        (Method::GET, "/{machine}/tunnel", get(session::tunnel)),
        (Method::POST, "/{machine}/cordon", post(ops::cordon)),
        (Method::POST, "/{machine}/uncordon", post(ops::uncordon)),
        (Method::GET, "/{machine}/lease", get(lease::show)),
        (Method::POST, "/{machine}/lease", post(lease::take)),
        (Method::DELETE, "/{machine}/lease", delete(lease::release)),
    ]
}

fn metadata_rows() -> Vec<Row> {
    vec![
        (Method::GET, "", get(metadata::all)),
        (Method::PATCH, "", patch(metadata::merge)),
        (Method::PUT, "", put(metadata::merge)),
        (Method::GET, "/{key}", get(metadata::show)),
        (Method::POST, "/{key}", post(metadata::set)),
        (Method::DELETE, "/{key}", delete(metadata::unset)),
    ]
}

async fn check_token(State(core): State<Arc<Core>>, mut request: Request, next: Next) -> Response {
    let header = request.headers().get(header::AUTHORIZATION);
    let user = header
        .and_then(|value| value.to_str().ok())
        .and_then(|header| crate::auth::user_of(&core, header));
    match user {
        Some(user) => {
            request.extensions_mut().insert(Caller { user });
            next.run(request).await
        }
        None => Problem::Unauthorized.into_response(),
    }
}

async fn add_request_id(
    State(core): State<Arc<Core>>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let region = core
        .slots
        .first()
        .map_or("dev", |slot| slot.region.as_str());
    let id = format!("{}-{region}", core.env.ulid());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = next.run(request).await;
    let status = response.status().as_u16();
    tracing::debug!(method = %method, path, status, request_id = id, "request answered");
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("fly-request-id", value);
    }
    response
}
