//! `GET /v1/apps/{app}/logs`: lines of an app's Machines, one JSON object a line.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::StreamExt as _;
use hangar_api::Timestamp;
use hangar_api::id::{GroupName, MachineId, Region};
use hangar_api::logs::LogQuery;

use super::extract::{AppPath, Params};
use crate::core::Core;
use crate::error::Problem;

/// Lines that are given before those to come, when nothing is said.
const TAIL: usize = 100;
/// Most of them.
const MAX_TAIL: usize = 10_000;

pub(super) async fn read(
    State(core): State<Arc<Core>>,
    AppPath(app): AppPath,
    params: Params,
) -> Result<Response, Problem> {
    // What an app of the same name has said that was destroyed is not this one's.
    let begun = core.app(&app)?.value.created_at;
    let since = params.parsed::<Timestamp>("since")?;
    let query = LogQuery {
        app,
        group: params.parsed::<GroupName>("group")?,
        machine: params.parsed::<MachineId>("machine")?,
        region: params.parsed::<Region>("region")?,
        tail: params
            .parsed::<usize>("tail")?
            .unwrap_or(TAIL)
            .min(MAX_TAIL),
        follow: params.flag("follow"),
        since: Some(since.map_or(begun, |since| since.max(begun))),
    };
    let lines = core.calls.logs(query).await?;
    let stop = core.stop.clone();
    let rows =
        lines
            .take_until(stop.cancelled_owned())
            .map(|line| -> Result<Bytes, serde_json::Error> {
                let mut row = serde_json::to_vec(&line)?;
                row.push(b'\n');
                Ok(row.into())
            });
    let kind = (header::CONTENT_TYPE, "application/x-ndjson");
    Ok(([kind], Body::from_stream(rows)).into_response())
}
