//! The HTTP surface: the table of endpoints, who may call them, and what every answer carries.
//!
//! Handlers live in one file per resource; they read the request, call the app logic and shape
//! the answer, and decide nothing else. Statuses of errors are decided in [`crate::error`].

mod absent;
mod answers;
mod apps;
mod certificates;
mod deployments;
mod described;
mod events;
mod extract;
mod fly_logs;
mod fly_table;
mod formation;
mod guard;
mod images;
mod ips;
mod lease;
mod limit;
mod logs;
mod machines;
mod metadata;
mod openapi;
mod ops;
mod options;
mod org_fleet;
mod orgs;
mod platform;
mod registry;
mod releases;
mod secrets;
mod session;
mod table;
mod tokens;
mod uiex;
mod usage;
mod volumes;
mod watch;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, Method};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::{Router, body::Body};

pub use self::guard::Need;
use self::guard::{Guard, check_need, check_token};
use self::table::{Endpoint, table};
use crate::core::Core;
use crate::error::Problem;

/// Most bytes of a JSON body. Uploads of images have their own limit.
pub(crate) const MAX_BODY: usize = 1024 * 1024;

/// The same with the files of a configuration.
pub(crate) const MAX_WITH_FILES: usize = 8 * 1024 * 1024;

/// Returns method, path and need of every endpoint; tests walk through it.
#[must_use]
pub fn endpoints() -> Vec<(Method, String, Need)> {
    table()
        .into_iter()
        .map(|endpoint| (endpoint.method, endpoint.path, endpoint.need))
        .collect()
}

/// Returns the router: the table, each row behind its need, and all but the open ones behind the
/// token check.
pub(crate) fn router(core: Arc<Core>) -> Router {
    let limiter = limit::Limiter::new(core.rate_limit);
    let mut guarded = Router::new();
    let mut open = Router::new();
    for Endpoint {
        path,
        need,
        handler,
        ..
    } in table()
    {
        if need == Need::Open {
            open = open.route(&path, handler);
            continue;
        }
        let core = core.clone();
        let guard = middleware::from_fn_with_state(Guard { core, need }, check_need);
        guarded = guarded.route(&path, handler.layer(guard));
    }
    let check = middleware::from_fn_with_state(core.clone(), check_token);
    guarded
        .fallback(|| async { Problem::NotFound("there is nothing at this path".to_owned()) })
        .method_not_allowed_fallback(|| async { Problem::MethodNotAllowed })
        .layer(middleware::from_fn_with_state(core.clone(), uiex::hear))
        .layer(middleware::from_fn_with_state(limiter, limit::limit))
        .layer(check)
        .merge(open)
        .merge(registry::router())
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(core.clone(), add_request_id))
        .with_state(core)
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
