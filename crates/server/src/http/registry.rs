//! `/v2/`: the registry that Hangar embeds, as the OCI distribution specification has it.
//!
//! A repository is an app's: `APP`, or `APP/` and more. The content is kept by
//! [`hangar_image::Hosted`]; here stands who may have it, and what it looks like over HTTP. Bodies
//! are streamed to disk, under limits of their own.

mod access;
mod content;
mod lists;
mod range;
mod refusal;
mod route;
mod uploads;

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, BodyDataStream};
use axum::extract::{FromRequestParts as _, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use hangar_image::{Hosted, RepositoryName};

use super::extract::Params;
use super::images::drain;
use crate::core::Core;
use crate::images;

use refusal::Refusal;
use route::{Route, Target};

/// Clients of long ago look for this before they speak the protocol.
const API_VERSION: (HeaderName, HeaderValue) = (
    HeaderName::from_static("docker-distribution-api-version"),
    HeaderValue::from_static("registry/2.0"),
);
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// A request that was understood and is allowed.
struct Asked {
    name: RepositoryName,
    method: Method,
    headers: HeaderMap,
    query: Params,
    registry: Arc<Hosted>,
}

type Answer = Result<Response, Refusal>;

/// Returns the registry's paths. It asks for tokens in its own way.
pub(super) fn router() -> Router<Arc<Core>> {
    Router::new()
        .route("/v2", any(answer))
        .route("/v2/", any(answer))
        .route("/v2/{*rest}", any(answer))
}

async fn answer(State(core): State<Arc<Core>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    // A client that waits for leave to send has sent nothing.
    let waits = parts.headers.contains_key(header::EXPECT);
    let mut body = body.into_data_stream();
    let answered = dispatch(&core, parts, &mut body).await;
    let mut response = answered.unwrap_or_else(Refusal::into_response);
    if !response.status().is_success() && !waits {
        drain(body).await;
    }
    let (name, value) = API_VERSION;
    response.headers_mut().insert(name, value);
    response
}

async fn dispatch(core: &Core, mut parts: Parts, body: &mut BodyDataStream) -> Answer {
    let caller = access::caller(core, &parts.headers).ok_or(Refusal::Unauthorized)?;
    let query = Params::from_request_parts(&mut parts, &()).await;
    let query = query.map_err(|problem| Refusal::Invalid(problem.text()))?;
    let (name, target) = match route::parse(parts.uri.path())? {
        Route::Support => return support(&parts.method),
        Route::Catalog => return lists::catalog(core, &caller, &parts.method, &query),
        Route::In(name, target) => (name, target),
    };
    let action = access::action(&parts.method, &target);
    access::require(core, &caller, name.app(), action)?;
    let asked = Asked {
        name,
        method: parts.method,
        headers: parts.headers,
        query,
        registry: Arc::clone(&core.registry),
    };
    match target {
        Target::Tags => lists::tags(&asked),
        Target::Referrers(digest) => lists::referrers(&asked, &digest).await,
        Target::Manifest(reference) => content::manifest(&asked, &reference, body).await,
        Target::Blob(digest) => content::blob(&asked, &digest).await,
        Target::Uploads => {
            let from = asked.query.get("from").and_then(|from| from.parse().ok());
            // One that the caller may not read does not exist for it.
            let from: Option<RepositoryName> =
                from.filter(|from: &RepositoryName| images::may_pull(core, &caller, from.app()));
            uploads::begin(&asked, from, body).await
        }
        Target::Upload(id) => uploads::go_on(&asked, &id, body).await,
    }
}

fn support(method: &Method) -> Answer {
    match *method {
        Method::GET | Method::HEAD => Ok(axum::Json(serde_json::json!({})).into_response()),
        _ => Err(Refusal::Method),
    }
}

/// Returns an answer with these headers.
fn reply(
    status: axum::http::StatusCode,
    headers: impl IntoIterator<Item = (HeaderName, String)>,
    body: Body,
) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    for (name, value) in headers {
        // Names, digests, tags and media types are made of plain letters; what is not, is left out.
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().append(name, value);
        }
    }
    response
}
