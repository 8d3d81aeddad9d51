//! `POST /graphql`: who calls, what is asked, and errors in a 200 (flyctl-wire.md 1.6).

use async_graphql::parser::types::ExecutableDocument;
use async_graphql::{PathSegment, Request, Response, ServerError, Variables};
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, header};
use axum::routing::post;
use axum::{Json, Router};
use hangar_server::desk::Desk;
use serde::Deserialize;

use crate::{Schema, absent, schema};

/// Most bytes of a request.
const MAX_BODY: usize = 1024 * 1024;

/// A request, as both of flyctl's clients write it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    query: String,
    #[serde(default)]
    variables: Option<serde_json::Value>,
    #[serde(default)]
    operation_name: Option<String>,
}

#[derive(Clone)]
struct Endpoint {
    desk: Desk,
    schema: Schema,
}

/// Returns the endpoint, to be served beside the Machines API. It sees to who calls by itself:
/// its refusals are GraphQL errors too, since clients drop the body of any other status.
pub fn router(desk: Desk) -> Router {
    let endpoint = Endpoint {
        schema: schema(desk.clone()),
        desk,
    };
    Router::new()
        .route("/graphql", post(answer))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(endpoint)
}

async fn answer(
    State(endpoint): State<Endpoint>,
    headers: HeaderMap,
    body: Bytes,
) -> Json<Response> {
    let header = headers.get(header::AUTHORIZATION);
    let caller = header
        .and_then(|value| value.to_str().ok())
        .and_then(|header| endpoint.desk.caller(header));
    let Some(caller) = caller else {
        return Json(error(
            "You must be authenticated to view this.",
            "UNAUTHORIZED",
        ));
    };
    let request = match read(&body) {
        Ok(request) => request,
        Err(refusal) => return Json(*refusal),
    };
    let response = endpoint.schema.execute(request.data(caller)).await;
    for error in &response.errors {
        tracing::debug!(error = %error.message, "graphql request refused");
    }
    Json(response)
}

/// Reads a request; what is not here is answered at once.
fn read(body: &[u8]) -> Result<Request, Box<Response>> {
    let asked: Asked = serde_json::from_slice(body).map_err(|problem| {
        let text = format!("the request body is not a GraphQL request: {problem}");
        Box::new(error(&text, "BAD_REQUEST"))
    })?;
    let document: ExecutableDocument = async_graphql::parser::parse_query(&asked.query)
        .map_err(|problem| Box::new(Response::from_errors(vec![problem.into()])))?;
    if let Some((field, reason)) = absent::first(&document) {
        let mut refusal = error(reason, "NOT_IMPLEMENTED");
        for error in &mut refusal.errors {
            error.path = vec![PathSegment::Field(field.to_owned())];
        }
        return Err(Box::new(refusal));
    }
    let mut request = Request::new(asked.query);
    request.set_parsed_query(document);
    if let Some(variables) = asked.variables {
        // Those that the query does not declare are sent by some clients, and mean nothing.
        request = request.variables(Variables::from_json(variables));
    }
    if let Some(name) = asked.operation_name.filter(|name| !name.is_empty()) {
        request = request.operation_name(name);
    }
    Ok(request)
}

fn error(text: &str, code: &str) -> Response {
    let mut error = ServerError::new(text, None);
    error.extensions.get_or_insert_default().set("code", code);
    Response::from_errors(vec![error])
}
