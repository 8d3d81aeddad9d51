//! What is asked for beside the path: in the query, in a JSON body, or in both.
//!
//! Clients put the same options in either place, so each endpoint has one struct for them
//! ([`hangar_api::options`]), and the body's word counts where both have one.

use axum::extract::{FromRequest, Query, Request};
use axum::http::Method;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::extract::body_of;
use super::{MAX_BODY, MAX_WITH_FILES};
use crate::error::Problem;

/// The options of an endpoint, from query and body.
#[derive(Debug)]
pub(crate) struct Options<T>(pub(crate) T);

/// The same where the body holds a configuration, whose files may be larger than all the rest.
#[derive(Debug)]
pub(crate) struct WithFiles<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Options<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        read(request, state, MAX_BODY).await.map(Self)
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for WithFiles<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        read(request, state, MAX_WITH_FILES).await.map(Self)
    }
}

async fn read<S: Send + Sync, T: DeserializeOwned>(
    request: Request,
    state: &S,
    most: usize,
) -> Result<T, Problem> {
    let pairs = Query::<Vec<(String, String)>>::try_from_uri(request.uri());
    let Query(pairs) = pairs.map_err(|error| invalid("the query", &error))?;
    let only_asks = request.method() == Method::GET;
    let bytes = body_of(request, state, most).await?;
    let mut options = of_query(pairs);
    match of_body(&bytes) {
        Ok(body) => {
            if bytes.len().saturating_sub(files_of(&body)) > MAX_BODY {
                return Err(Problem::TooLarge(MAX_BODY));
            }
            options.extend(body.into_iter().filter(|(_, value)| !value.is_null()));
        }
        // Some clients give every request a body; one of a question means nothing.
        Err(_) if only_asks => {}
        Err(problem) => return Err(problem),
    }
    serde_json::from_value(Value::Object(options)).map_err(|error| invalid("a parameter", &error))
}

/// Returns how many bytes of a body are files of a configuration.
fn files_of(body: &Map<String, Value>) -> usize {
    let files = body
        .get("config")
        .and_then(|config| config["files"].as_array());
    let texts = files
        .into_iter()
        .flatten()
        .filter_map(|file| file["raw_value"].as_str());
    texts.map(str::len).sum()
}

fn invalid(what: &str, error: &impl std::fmt::Display) -> Problem {
    Problem::Invalid(format!("invalid_argument: {what} is not valid: {error}"))
}

/// Returns the names of a query; one that stands there several times becomes a list.
fn of_query(pairs: Vec<(String, String)>) -> Map<String, Value> {
    let mut options = Map::new();
    for (name, value) in pairs {
        let value = Value::String(value);
        match options.get_mut(&name) {
            None => {
                options.insert(name, value);
            }
            Some(Value::Array(list)) => list.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }
    options
}

fn of_body(bytes: &[u8]) -> Result<Map<String, Value>, Problem> {
    let text = bytes.trim_ascii();
    if text.is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_slice(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(Value::Null) => Ok(Map::new()),
        Ok(_) => Err(invalid("the request body", &"it must be a JSON object")),
        Err(error) => Err(invalid("the request body", &error)),
    }
}

/// Returns how many rows a page has, within what is allowed; `None` gives all.
pub(crate) fn page_size(limit: Option<usize>, most: usize) -> Result<Option<usize>, Problem> {
    match limit {
        Some(0) => Err(Problem::Invalid(format!(
            "invalid_argument: limit is 1 to {most}"
        ))),
        // The limit is advisory: more than a page may have gives a page.
        other => Ok(other.map(|limit| limit.min(most))),
    }
}

/// Returns the row that a cursor stands for, or the refusal of one that nobody was given.
pub(crate) fn cursor<T>(
    given: Option<&str>,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, Problem> {
    let given = given.filter(|text| !text.is_empty());
    let known = given.map(|text| {
        read(text).ok_or_else(|| {
            let start: String = text.chars().take(40).collect();
            Problem::Invalid(format!(
                "invalid_argument: the cursor {start:?} is not one that was given; begin without one"
            ))
        })
    });
    known.transpose()
}
