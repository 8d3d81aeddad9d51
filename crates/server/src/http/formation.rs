//! `/v1/apps/{app}/formation`: what each process group should have. Hangar's own.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use hangar_api::formation::{FormationUpdate, Formations};

use super::extract::{AppPath, Strict};
use crate::core::Core;
use crate::error::Problem;
use crate::formations;

pub(super) async fn show(
    State(core): State<Arc<Core>>,
    AppPath(app): AppPath,
) -> Result<Json<Formations>, Problem> {
    formations::view(&core, &app).map(Json)
}

pub(super) async fn update(
    State(core): State<Arc<Core>>,
    AppPath(app): AppPath,
    Strict(update): Strict<FormationUpdate>,
) -> Result<Json<Formations>, Problem> {
    formations::update(&core, &app, &update).await.map(Json)
}
