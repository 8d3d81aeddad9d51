//! `/v1/apps/{app}/volumes` (machines-api.md 2.3).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use hangar_api::id::{SnapshotId, VolumeId};
use hangar_api::options::{ListVolumes, MAX_PAGE};
use hangar_api::volume::{
    CreateVolume, ExtendVolume, Snapshot, UpdateVolume, Volume, VolumeExtended,
};
use hangar_store::tables::VolumeRecord;
use serde_json::{Value, json};

use super::extract::{AppPath, LastPart, VolumePath};
use super::machines::NEXT_CURSOR;
use super::options::{self, Options};
use crate::core::Core;
use crate::error::Problem;
use crate::volumes::{self, snapshots};

/// Fields that a summary leaves out.
pub(super) const NOT_IN_SUMMARY: [&str; 6] = [
    "blocks",
    "block_size",
    "blocks_free",
    "blocks_avail",
    "bytes_total",
    "bytes_used",
];

pub(super) async fn list(
    State(core): State<Arc<Core>>,
    AppPath(app): AppPath,
    Options(query): Options<ListVolumes>,
) -> Result<(HeaderMap, Json<Vec<Value>>), Problem> {
    core.app(&app)?;
    let size = options::page_size(query.limit, MAX_PAGE)?.unwrap_or(usize::MAX);
    let after = options::cursor(query.cursor.as_deref(), |text| VolumeId::new(text).ok())?;
    let all = volumes::list(&core.cache.snapshot(), &app);
    // One that has been forgotten since is no place to go on from.
    let begin = match after {
        None => 0,
        Some(id) => all
            .iter()
            .position(|record| record.value.id == id)
            .map_or_else(
                || {
                    Err(Problem::Invalid(
                        "invalid_argument: the volume of the cursor is gone; begin without one"
                            .to_owned(),
                    ))
                },
                |at| Ok(at + 1),
            )?,
    };
    let page: Vec<_> = all.iter().skip(begin).take(size).collect();
    let mut headers = HeaderMap::new();
    if let Some(last) = page.last().filter(|_| begin + page.len() < all.len()) {
        let cursor = last.value.id.as_str().parse();
        headers.extend(cursor.map(|cursor| (NEXT_CURSOR.parse().ok(), cursor)));
    }
    let rows = page.iter().map(|record| row(&record.value, query.summary));
    Ok((headers, Json(rows.collect::<Result<_, _>>()?)))
}

/// Returns a row of a list. It is not measured: that is for one at a time.
fn row(record: &VolumeRecord, summary: bool) -> Result<Value, Problem> {
    let mut row = serde_json::to_value(volumes::view(record, None))
        .map_err(|error| Problem::Internal(format!("write a volume as JSON: {error}")))?;
    if let (true, Some(fields)) = (summary, row.as_object_mut()) {
        for field in NOT_IN_SUMMARY {
            fields.remove(field);
        }
    }
    Ok(row)
}

pub(super) async fn create(
    State(core): State<Arc<Core>>,
    AppPath(app): AppPath,
    Options(input): Options<CreateVolume>,
) -> Result<Json<Volume>, Problem> {
    let record = volumes::create(&core, &app, input).await?;
    Ok(Json(volumes::view(&record, None)))
}

pub(super) async fn show(
    State(core): State<Arc<Core>>,
    VolumePath { app, id }: VolumePath,
) -> Result<Json<Volume>, Problem> {
    let record = volumes::find(&core, &app, &id)?;
    let usage = volumes::usage(&core, &record.value).await;
    Ok(Json(volumes::view(&record.value, usage)))
}

pub(super) async fn update(
    State(core): State<Arc<Core>>,
    VolumePath { app, id }: VolumePath,
    Options(input): Options<UpdateVolume>,
) -> Result<Json<Volume>, Problem> {
    let record = volumes::update(&core, &app, &id, input).await?;
    Ok(Json(volumes::view(&record, None)))
}

pub(super) async fn extend(
    State(core): State<Arc<Core>>,
    VolumePath { app, id }: VolumePath,
    Options(input): Options<ExtendVolume>,
) -> Result<Json<VolumeExtended>, Problem> {
    let record = volumes::extend(&core, &app, &id, input.size_gb).await?;
    Ok(Json(VolumeExtended {
        volume: volumes::view(&record, None),
        needs_restart: record.needs_restart && record.attached.is_some(),
    }))
}

pub(super) async fn destroy(
    State(core): State<Arc<Core>>,
    VolumePath { app, id }: VolumePath,
) -> Result<Json<Volume>, Problem> {
    let record = volumes::destroy(&core, &app, &id).await?;
    Ok(Json(volumes::view(&record, None)))
}

pub(super) async fn snapshots(
    State(core): State<Arc<Core>>,
    VolumePath { app, id }: VolumePath,
) -> Result<Json<Vec<Snapshot>>, Problem> {
    snapshots::list(&core, &app, &id).map(Json)
}

pub(super) async fn snapshot(
    State(core): State<Arc<Core>>,
    VolumePath { app, id }: VolumePath,
) -> Result<Json<Snapshot>, Problem> {
    let record = snapshots::create(&core, &app, &id).await?;
    Ok(Json(snapshots::view(&record)))
}

pub(super) async fn remove_snapshot(
    State(core): State<Arc<Core>>,
    VolumePath { app, id }: VolumePath,
    LastPart(snapshot): LastPart,
) -> Result<Json<Value>, Problem> {
    let missing = |_| Problem::NotFound("snapshot not found".to_owned());
    let snapshot = SnapshotId::new(snapshot).map_err(missing)?;
    snapshots::destroy(&core, &app, &id, &snapshot).await?;
    Ok(Json(json!({"ok": true})))
}
