//! What there is: tags, referrers and repositories.

use axum::body::Body;
use axum::http::{HeaderName, Method, StatusCode, header};
use hangar_image::{Digest, page};
use serde_json::{Value, json};

use super::refusal::Refusal;
use super::{Answer, Asked, reply, route};
use crate::auth::Caller;
use crate::core::Core;
use crate::http::extract::Params;
use crate::images;

const FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// `GET` of a repository's tags, a page of them with `n` and `last`.
pub(super) fn tags(asked: &Asked) -> Answer {
    only_get(&asked.method)?;
    let all = asked.registry.tags(&asked.name)?;
    let (tags, next) = paged(all, &asked.query)?;
    let path = format!("/v2/{}/tags/list", asked.name);
    let body = json!({"name": asked.name.as_str(), "tags": tags});
    Ok(listed(&path, next, "application/json", &body, None))
}

/// `GET` of the repositories that the caller may read.
pub(super) fn catalog(core: &Core, caller: &Caller, method: &Method, query: &Params) -> Answer {
    only_get(method)?;
    let all = core.registry.repositories().into_iter();
    let own = all.filter(|name| images::may_pull(core, caller, name.app()));
    let own = own.map(|name| name.as_str().to_owned()).collect();
    let (names, next) = paged(own, query)?;
    let body = json!({"repositories": names});
    Ok(listed(
        "/v2/_catalog",
        next,
        "application/json",
        &body,
        None,
    ))
}

/// `GET` of the manifests that are about one.
pub(super) async fn referrers(asked: &Asked, subject: &Digest) -> Answer {
    only_get(&asked.method)?;
    let kind = asked.query.get("artifactType").map(str::to_owned);
    let last = asked.query.get("last").map(route::digest).transpose()?;
    let found = asked
        .registry
        .referrers(&asked.name, subject, kind.clone(), last)
        .await?;
    let path = format!("/v2/{}/referrers/{subject}", asked.name);
    let filter = kind.as_ref().map(|_| "artifactType");
    let next = found.next.map(|last| {
        let mut query = vec![("last", last.to_string())];
        query.extend(kind.map(|kind| ("artifactType", kind)));
        query
    });
    let body = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": found.manifests});
    Ok(listed(&path, next, INDEX, &body, filter))
}

type Next = Option<Vec<(&'static str, String)>>;

/// Cuts a list down to the page that is asked for; returns with it how to ask for the next one.
fn paged(all: Vec<String>, query: &Params) -> Result<(Vec<String>, Next), Refusal> {
    let n = query.parsed::<usize>("n");
    let n = n.map_err(|_| Refusal::Invalid("n is a number of entries".to_owned()))?;
    let (found, more) = page(all.into_iter(), query.get("last"), n);
    let last = found.last().filter(|_| more).cloned();
    let next = last
        .zip(n)
        .map(|(last, n)| vec![("n", n.to_string()), ("last", last)]);
    Ok((found, next))
}

fn listed(
    path: &str,
    next: Next,
    content_type: &str,
    body: &Value,
    filter: Option<&str>,
) -> axum::response::Response {
    let mut headers = vec![(header::CONTENT_TYPE, content_type.to_owned())];
    headers.extend(filter.map(|filter| (FILTERS, filter.to_owned())));
    if let Some(next) = next {
        let pairs = next
            .iter()
            .map(|(key, value)| format!("{key}={}", escaped(value)));
        let query = pairs.collect::<Vec<_>>().join("&");
        headers.push((header::LINK, format!("<{path}?{query}>; rel=\"next\"")));
    }
    reply(StatusCode::OK, headers, Body::from(body.to_string()))
}

/// Returns a value fit for a query.
fn escaped(value: &str) -> String {
    let mut text = String::new();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

fn only_get(method: &Method) -> Result<(), Refusal> {
    match *method {
        Method::GET | Method::HEAD => Ok(()),
        _ => Err(Refusal::Method),
    }
}
