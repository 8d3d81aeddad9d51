//! `/v1/apps/{app}/releases`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use hangar_api::release::Release;
use hangar_store::tables::Releases;

use super::extract::{AppPath, LastPart, Params};
use crate::core::Core;
use crate::error::Problem;

/// Releases that one answer gives, as Fly does.
const LISTED: usize = 25;
/// Most of them.
const MAX_LISTED: usize = 100;

pub(super) async fn list(
    State(core): State<Arc<Core>>,
    AppPath(app): AppPath,
    params: Params,
) -> Result<Json<Vec<Release>>, Problem> {
    core.app(&app)?;
    let limit = params.parsed::<usize>("limit")?.unwrap_or(LISTED);
    let snapshot = core.cache.snapshot();
    let mut releases: Vec<Release> = snapshot
        .under::<Releases, _>(&app)
        .map(|record| record.value.clone())
        .collect();
    releases.reverse();
    releases.truncate(limit.min(MAX_LISTED));
    Ok(Json(releases))
}

pub(super) async fn show(
    State(core): State<Arc<Core>>,
    AppPath(app): AppPath,
    LastPart(version): LastPart,
) -> Result<Json<Release>, Problem> {
    core.app(&app)?;
    let number = version
        .strip_prefix('v')
        .unwrap_or(&version)
        .parse::<u64>()
        .ok();
    let found = number.and_then(|number| core.cache.get::<Releases>(&(app.clone(), number)));
    match found {
        Some(record) => Ok(Json(record.value.clone())),
        None => Err(Problem::NotFound(format!(
            "app {app} has no release {}; see `hangar releases`",
            number.map_or_else(|| format!("{version:?}"), |number| format!("v{number}"))
        ))),
    }
}
