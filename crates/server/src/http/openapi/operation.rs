//! One endpoint in the document.

use std::collections::BTreeSet;

use axum::http::{Method, StatusCode};
use hangar_api::id::{AppName, MachineId, OrgSlug, SnapshotId, VolumeId};
use serde_json::{Map, Value, json};

use super::super::described::{Asked, Must, SchemaOf, schema_of};
use super::super::guard::Need;
use super::super::table::Endpoint;
use super::schemas::Schemas;

/// Returns what the document says of an endpoint.
pub(super) fn operation(endpoint: &Endpoint, schemas: &mut Schemas) -> Value {
    let doc = &endpoint.doc;
    let mut operation = json!({
        "operationId": doc.id,
        "summary": doc.summary,
        "tags": [endpoint.tag],
        "parameters": parameters(endpoint, schemas),
        "responses": responses(endpoint, schemas),
    });
    if !doc.more.is_empty() {
        operation["description"] = doc.more.into();
    }
    let events: Vec<Value> = doc.carries.iter().map(|of| schemas.written(*of)).collect();
    if !events.is_empty() {
        operation["x-events"] = events.into();
    }
    if endpoint.need == Need::Open {
        operation["security"] = json!([]);
    }
    if let Some(body) = body(endpoint, schemas) {
        operation["requestBody"] = body;
    }
    operation
}

fn body(endpoint: &Endpoint, schemas: &mut Schemas) -> Option<Value> {
    let content = |kind: &str, schema: Value, must: Must| json!({ "required": must == Must::Must, "content": { kind: { "schema": schema } } });
    if !endpoint.doc.upload.is_empty() {
        let bytes = json!({ "type": "string", "format": "binary" });
        return Some(content(endpoint.doc.upload, bytes, Must::Must));
    }
    let (of, must) = match (endpoint.sketch.body, endpoint.sketch.options) {
        (Some((of, must)), _) => (of, must),
        // A body of these means nothing, or is not sent by most clients.
        (None, _) if [Method::GET, Method::DELETE].contains(&endpoint.method) => return None,
        (None, of) => (of?, Must::May),
    };
    Some(content("application/json", schemas.read(of), must))
}

fn parameters(endpoint: &Endpoint, schemas: &mut Schemas) -> Vec<Value> {
    let mut all = Vec::new();
    for part in endpoint.path.split('/') {
        let name = part
            .strip_prefix('{')
            .and_then(|part| part.strip_suffix('}'));
        if let Some(name) = name {
            let name = name.trim_start_matches('*');
            all.push(json!({
                "name": name,
                "in": "path",
                "required": true,
                "schema": part_of_path(name, schemas),
            }));
        }
    }
    all.extend(
        endpoint
            .doc
            .query
            .iter()
            .map(|asked| by_hand(asked, "query")),
    );
    all.extend(
        endpoint
            .doc
            .headers
            .iter()
            .map(|asked| by_hand(asked, "header")),
    );
    if let Some(options) = endpoint.sketch.options {
        let options = schemas.options(options);
        all.extend(
            options
                .into_iter()
                .filter_map(|(name, schema)| in_query(endpoint, &name, schema)),
        );
    }
    if endpoint.sketch.lease {
        all.push(by_hand(
            &(
                "fly-machine-lease-nonce",
                "text",
                "The nonce of the Machine's lease, where there is one.",
            ),
            "header",
        ));
    }
    all
}

/// Returns an option as a parameter of the query. One that is an object stands in a body alone.
fn in_query(endpoint: &Endpoint, name: &str, mut schema: Value) -> Option<Value> {
    let in_body_too = ![Method::GET, Method::DELETE].contains(&endpoint.method);
    if in_body_too && !is_plain(&schema) {
        return None;
    }
    let description = schema
        .as_object_mut()
        .and_then(|fields| fields.remove("description"));
    Some(json!({
        "name": name,
        "in": "query",
        "required": false,
        "description": description.unwrap_or_default(),
        "schema": schema,
    }))
}

/// Returns whether a schema is of something that stands in a query as it is.
fn is_plain(schema: &Value) -> bool {
    let plain = |kind: &Value| {
        ["string", "integer", "boolean"]
            .iter()
            .any(|plain| kind == plain)
    };
    match &schema["type"] {
        Value::Array(kinds) => kinds.iter().all(plain),
        kind => plain(kind),
    }
}

fn by_hand((name, kind, description): &Asked, place: &str) -> Value {
    let (kind, required) = match kind.strip_suffix('!') {
        Some(kind) => (kind, true),
        None => (*kind, false),
    };
    let schema = match kind {
        "integer" => json!({ "type": "integer", "minimum": 0 }),
        "boolean" => json!({ "type": "boolean" }),
        "date-time" => json!({ "type": "string", "format": "date-time" }),
        _ => json!({ "type": "string" }),
    };
    json!({
        "name": name,
        "in": place,
        "required": required,
        "description": description,
        "schema": schema,
    })
}

fn part_of_path(name: &str, schemas: &mut Schemas) -> Value {
    let of: SchemaOf = match name {
        "app" => schema_of::<AppName>,
        "machine" => schema_of::<MachineId>,
        "volume" => schema_of::<VolumeId>,
        "snapshot" => schema_of::<SnapshotId>,
        "slug" => schema_of::<OrgSlug>,
        _ => return json!({ "type": "string", "minLength": 1 }),
    };
    schemas.read(of)
}

fn responses(endpoint: &Endpoint, schemas: &mut Schemas) -> Value {
    let doc = &endpoint.doc;
    let mut all = Map::new();
    if doc.status > 0 {
        all.insert(doc.status.to_string(), success(endpoint, schemas));
    }
    if let Some((status, of)) = doc.or {
        let schema = schemas.written(of);
        let content = json!({ "application/json": { "schema": schema } });
        all.insert(status.to_string(), answer(status, Some(content), doc.tells));
    }
    let error = json!({ "application/json": {
        "schema": { "$ref": "#/components/schemas/ErrorBody" },
    } });
    for status in errors(endpoint) {
        all.insert(status.to_string(), answer(status, Some(error.clone()), &[]));
    }
    Value::Object(all)
}

fn success(endpoint: &Endpoint, schemas: &mut Schemas) -> Value {
    let doc = &endpoint.doc;
    let content = match doc.answer.or(endpoint.sketch.answer) {
        _ if endpoint.sketch.events => {
            Some(json!({ "text/event-stream": { "schema": { "type": "string" } } }))
        }
        Some(of) => Some(json!({ doc.media: { "schema": schemas.written(of) } })),
        None if doc.media != "application/json" => {
            Some(json!({ doc.media: { "schema": { "type": "string" } } }))
        }
        None => None,
    };
    answer(doc.status, content, doc.tells)
}

fn answer(status: u16, content: Option<Value>, tells: &[(&str, &str)]) -> Value {
    let mut headers = json!({ "fly-request-id": { "$ref": "#/components/headers/RequestId" } });
    for (name, description) in tells {
        headers[*name] = json!({ "description": description, "schema": { "type": "string" } });
    }
    let reason = StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason());
    let mut answer = json!({ "description": reason.unwrap_or_default(), "headers": headers });
    if let Some(content) = content {
        answer["content"] = content;
    }
    answer
}

/// Returns the statuses of the errors that an endpoint can answer: what its need, its body and its
/// method bring with them, and what its row says.
fn errors(endpoint: &Endpoint) -> BTreeSet<u16> {
    let mut all: BTreeSet<u16> = endpoint.doc.fails.iter().copied().collect();
    let sketch = &endpoint.sketch;
    match endpoint.need {
        Need::Open => {}
        Need::Token | Need::Listed | Need::Body => all.extend([401, 429]),
        Need::Platform(_) => all.extend([401, 403, 429]),
        Need::Org(_)
        | Need::Tokens(_)
        | Need::App(_)
        | Need::Deploy
        | Need::MachineList
        | Need::Machine(_)
        | Need::Exec
        | Need::Volume(_) => all.extend([401, 403, 404, 429]),
    }
    let refused = endpoint.doc.status == 0;
    if refused {
        all.insert(501);
    }
    // A part of the path that is no text.
    if endpoint.path.contains('{') && endpoint.need != Need::Open {
        all.insert(400);
    }
    if sketch.options.is_some() || sketch.body.is_some() {
        all.extend([400, 413]);
    }
    if !endpoint.doc.query.is_empty() || sketch.upgrade {
        all.insert(400);
    }
    let writes = endpoint.method != Method::GET && endpoint.need != Need::Open;
    if writes && !refused {
        all.extend([409, 500, 503]);
    }
    all
}
