//! `/v1/apps/{app}/volumes` (machines-api.md 2.3).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use hangar_api::id::SnapshotId;
use hangar_api::volume::{
    CreateVolume, ExtendVolume, Snapshot, UpdateVolume, Volume, VolumeExtended,
};
use serde_json::{Value, json};

use super::extract::{AppPath, LastPart, Lenient, VolumePath};
use crate::core::Core;
use crate::error::Problem;
use crate::volumes::{self, snapshots};

pub(super) async fn list(
    State(core): State<Arc<Core>>,
    AppPath(app): AppPath,
) -> Result<Json<Vec<Volume>>, Problem> {
    core.app(&app)?;
    let all = volumes::list(&core.cache.snapshot(), &app);
    // Not measured: that is for one at a time.
    let shown = all.iter().map(|record| volumes::view(&record.value, None));
    Ok(Json(shown.collect()))
}

pub(super) async fn create(
    State(core): State<Arc<Core>>,
    AppPath(app): AppPath,
    Lenient(input): Lenient<CreateVolume>,
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
    Lenient(input): Lenient<UpdateVolume>,
) -> Result<Json<Volume>, Problem> {
    let record = volumes::update(&core, &app, &id, input).await?;
    Ok(Json(volumes::view(&record, None)))
}

pub(super) async fn extend(
    State(core): State<Arc<Core>>,
    VolumePath { app, id }: VolumePath,
    Lenient(input): Lenient<ExtendVolume>,
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
