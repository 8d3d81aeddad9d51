//! Hangar's own OpenAPI document, made from the table of endpoints and the types of the API, and
//! the page that shows it.

mod operation;
mod page;
mod schemas;
#[cfg(test)]
mod tests;

use std::sync::OnceLock;

use axum::Json;
use axum::response::Html;
use serde_json::{Map, Value, json};

use self::operation::operation;
use self::schemas::Schemas;
use super::table::table;

/// What the groups of the document are about.
const TAGS: [(&str, &str); 8] = [
    (
        "Apps",
        "Apps, with their secrets, releases, deployments and logs.",
    ),
    ("Machines", "Machines and what is asked of them."),
    ("Volumes", "Volumes and their snapshots."),
    ("Certificates", "Hostnames and certificates."),
    ("Organizations", "Who owns apps."),
    ("Tokens", "What callers carry."),
    ("Platform", "The server, its regions, slots and images."),
    ("flyctl", "What flyctl asks beside the Machines API."),
];

/// What a reader has to know first.
const ABOUT: &str = "The API of Hangar, which is wire-compatible with the Fly Machines API. Send a \
    token as `Authorization: Bearer TOKEN`. Options of an endpoint may stand in the query or in a \
    JSON body; numbers and booleans may be written as text, and `null` is as good as absent. \
    GraphQL (`/graphql`) and the registry (`/v2/`) have descriptions of their own.";

/// Returns the document. It is the same for as long as the program runs.
pub(super) fn whole() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(make)
}

/// `GET /v1/openapi.json`.
pub(super) async fn document() -> Json<Value> {
    Json(whole().clone())
}

/// `GET /docs`.
pub(super) async fn page() -> Html<&'static str> {
    static PAGE: OnceLock<String> = OnceLock::new();
    Html(PAGE.get_or_init(|| page::page(whole())))
}

fn make() -> Value {
    let mut schemas = Schemas::new();
    let mut paths: Map<String, Value> = Map::new();
    for endpoint in table() {
        let path = endpoint.path.replace("{*", "{");
        let method = endpoint.method.as_str().to_ascii_lowercase();
        let operation = operation(&endpoint, &mut schemas);
        let methods = paths.entry(path).or_insert_with(|| json!({}));
        methods[method] = operation;
    }
    let tags = TAGS.map(|(name, description)| json!({"name": name, "description": description}));
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Hangar",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "token": [] }],
        "tags": tags,
        "paths": paths,
        "components": {
            "securitySchemes": { "token": {
                "type": "http",
                "scheme": "bearer",
                "description": "A token of `hangar tokens create` or `hangar auth token`; \
                    `FlyV1 fm2_...` is taken as well.",
            } },
            "headers": { "RequestId": {
                "description": "Tells this request from others, in the log too.",
                "schema": { "type": "string" },
            } },
        },
    });
    document["components"]["schemas"] = schemas.put_into(&mut document["paths"]);
    document
}
