//! `GET /api/v1/apps/{app}/logs`: pages of log lines as flyctl polls them (flyctl-wire.md 7).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use futures_util::StreamExt as _;
use hangar_api::Timestamp;
use hangar_api::fly::{FlyLogEntry, FlyLogEvent, FlyLogLine, FlyLogMeta, FlyLogs, FlyLogsMeta};
use hangar_api::id::{MachineId, Region};
use hangar_api::logs::{LogLine, LogQuery};

use super::extract::{AppPath, Params};
use crate::core::Core;
use crate::error::Problem;

/// Lines of the first page: what was said lately.
const FIRST_PAGE: usize = 100;
/// Most lines of a later page. A client that falls further behind misses the oldest.
const PAGE: usize = 10_000;

pub(super) async fn read(
    State(core): State<Arc<Core>>,
    AppPath(app): AppPath,
    params: Params,
) -> Result<Json<FlyLogs>, Problem> {
    // What an app of the same name has said that was destroyed is not this one's.
    let begun = core.app(&app)?.value.created_at;
    let after = params.parsed::<Timestamp>("next_token")?;
    let query = LogQuery {
        app,
        group: None,
        machine: params.parsed::<MachineId>("instance")?,
        region: params.parsed::<Region>("region")?,
        tail: if after.is_some() { PAGE } else { FIRST_PAGE },
        follow: false,
        since: Some(after.map_or(begun, |after| after.max(begun))),
    };
    let lines: Vec<LogLine> = core.calls.logs(query).await?.collect().await;
    // A line's time is where the next page begins: it holds later lines only.
    let next = lines.iter().map(|line| line.timestamp).max().or(after);
    let data = lines
        .into_iter()
        .zip(0..)
        .map(|(line, index)| entry(line, index));
    Ok(Json(FlyLogs {
        data: data.collect(),
        meta: FlyLogsMeta {
            next_token: next.map(|time| time.to_string()).unwrap_or_default(),
        },
    }))
}

fn entry(line: LogLine, index: usize) -> FlyLogEntry {
    let (instance, region) = (line.instance.to_string(), line.region.to_string());
    FlyLogEntry {
        id: format!("{}-{index}", line.timestamp.as_nanosecond()),
        kind: "log".to_owned(),
        attributes: FlyLogLine {
            timestamp: line.timestamp,
            message: line.message,
            level: line.level,
            instance: instance.clone(),
            region: region.clone(),
            meta: FlyLogMeta {
                instance,
                region,
                event: FlyLogEvent {
                    provider: line.provider,
                },
            },
        },
    }
}
