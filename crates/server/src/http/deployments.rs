//! `/v1/apps/{app}/deployments`: Hangar's own, beside Fly's paths.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use hangar_api::deployment::{CreateDeployment, Deployment};
use hangar_api::id::{AppName, DeploymentId};
use hangar_store::Record;
use hangar_store::tables::Deployments;

use super::extract::{AppPath, Asker, LastPart, Params, Strict, Writer};
use super::guard::Absent;
use crate::core::Core;
use crate::deployments::{self, Made};
use crate::error::Problem;
use crate::images;

/// Deployments that one answer gives.
const LISTED: usize = 25;

pub(super) async fn create(
    State(core): State<Arc<Core>>,
    AppPath(app): AppPath,
    Writer(holder): Writer,
    Asker(caller): Asker,
    absent: Option<Extension<Absent>>,
    Strict(request): Strict<CreateDeployment>,
) -> Result<Response, Problem> {
    images::require(&core, &caller, request.source.images())?;
    if absent.is_some() && !request.dry_run {
        return Err(Problem::AppNotFound(app.to_string()));
    }
    let made = deployments::create(&core, &app, &holder.user, request).await?;
    Ok(match made {
        Made::Begun(deployment) => (StatusCode::CREATED, Json(shown(&deployment))).into_response(),
        Made::Preview(preview) => Json(preview).into_response(),
    })
}

pub(super) async fn list(
    State(core): State<Arc<Core>>,
    AppPath(app): AppPath,
    params: Params,
) -> Result<Json<Vec<Deployment>>, Problem> {
    core.app(&app)?;
    let limit = params
        .parsed::<usize>("limit")?
        .unwrap_or(LISTED)
        .min(LISTED);
    let snapshot = core.cache.snapshot();
    let mut all: Vec<_> = snapshot.under::<Deployments, _>(&app).collect();
    all.reverse();
    let newest = all.into_iter().take(limit);
    Ok(Json(newest.map(|record| shown(&record.value)).collect()))
}

pub(super) async fn show(
    State(core): State<Arc<Core>>,
    AppPath(app): AppPath,
    LastPart(id): LastPart,
) -> Result<Json<Deployment>, Problem> {
    let record = find(&core, &app, &id)?;
    Ok(Json(shown(&record.value)))
}

pub(super) async fn cancel(
    State(core): State<Arc<Core>>,
    AppPath(app): AppPath,
    LastPart(id): LastPart,
    Writer(holder): Writer,
) -> Result<(StatusCode, Json<Deployment>), Problem> {
    let record = find(&core, &app, &id)?;
    deployments::cancel(&core, &app, &record, &holder.user).await?;
    Ok((StatusCode::ACCEPTED, Json(shown(&record.value))))
}

/// Returns a deployment without the planner's own memory, which may be long and tells nobody else
/// anything.
pub(super) fn shown(deployment: &Deployment) -> Deployment {
    Deployment {
        progress: serde_json::Value::Null,
        ..deployment.clone()
    }
}

/// Returns a deployment of an app.
pub(super) fn find(
    core: &Core,
    app: &AppName,
    id: &str,
) -> Result<Arc<Record<Deployments>>, Problem> {
    core.app(app)?;
    let missing = || Problem::NotFound(format!("app {app} has no deployment {id:?}"));
    let id = DeploymentId::new(id).map_err(|_| missing())?;
    core.cache
        .get::<Deployments>(&(app.clone(), id))
        .ok_or_else(missing)
}
