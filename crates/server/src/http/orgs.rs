//! `/v1/orgs`: Hangar's own, beside Fly's GraphQL.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use hangar_api::org::{CreateOrg, Org, OrgList};
use hangar_store::tables::Orgs;

use super::extract::{Asker, Lenient, SlugPath};
use crate::core::Core;
use crate::error::Problem;
use crate::orgs;

pub(super) async fn list(State(core): State<Arc<Core>>, Asker(caller): Asker) -> Json<OrgList> {
    Json(OrgList {
        organizations: orgs::list(&core, &caller),
    })
}

pub(super) async fn create(
    State(core): State<Arc<Core>>,
    Asker(caller): Asker,
    Lenient(input): Lenient<CreateOrg>,
) -> Result<(StatusCode, Json<Org>), Problem> {
    let org = orgs::create(&core, &caller, &input).await?;
    Ok((StatusCode::CREATED, Json(org)))
}

pub(super) async fn show(
    State(core): State<Arc<Core>>,
    SlugPath(slug): SlugPath,
) -> Result<Json<Org>, Problem> {
    let snapshot = core.cache.snapshot();
    let record = snapshot.get::<Orgs>(&slug);
    let record = record.ok_or_else(|| Problem::OrgNotFound(slug.to_string()))?;
    Ok(Json(orgs::view(&snapshot, record)))
}

pub(super) async fn destroy(
    State(core): State<Arc<Core>>,
    SlugPath(slug): SlugPath,
    Asker(caller): Asker,
) -> Result<StatusCode, Problem> {
    orgs::destroy(&core, &caller, &slug).await?;
    Ok(StatusCode::NO_CONTENT)
}
