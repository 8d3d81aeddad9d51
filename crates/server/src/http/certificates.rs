//! `/v1/apps/{app}/certificates` (machines-api.md 2.6). Private keys go in and never come out.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use hangar_api::certificate::{AddHostname, CertificateDetail, CertificateList, ImportCertificate};

use super::extract::{AppPath, LastPart, Lenient, Params};
use crate::certificates::{self, Part};
use crate::core::Core;
use crate::error::Problem;

type Detail = Json<CertificateDetail>;

pub(super) async fn list(
    State(core): State<Arc<Core>>,
    AppPath(app): AppPath,
    params: Params,
) -> Result<Json<CertificateList>, Problem> {
    let text = |name| params.get(name).unwrap_or_default();
    let limit = params.parsed("limit")?;
    certificates::list(&core, &app, text("filter"), text("cursor"), limit).map(Json)
}

pub(super) async fn add(
    State(core): State<Arc<Core>>,
    AppPath(app): AppPath,
    Lenient(body): Lenient<AddHostname>,
) -> Result<(StatusCode, Detail), Problem> {
    let added = certificates::add(&core, &app, body).await?;
    Ok((StatusCode::CREATED, Json(added)))
}

pub(super) async fn import(
    State(core): State<Arc<Core>>,
    AppPath(app): AppPath,
    Lenient(body): Lenient<ImportCertificate>,
) -> Result<(StatusCode, Detail), Problem> {
    let imported = certificates::import(&core, &app, body).await?;
    Ok((StatusCode::CREATED, Json(imported)))
}

pub(super) async fn show(
    State(core): State<Arc<Core>>,
    AppPath(app): AppPath,
    LastPart(host): LastPart,
) -> Result<Detail, Problem> {
    let host = certificates::named(&host)?;
    certificates::show(&core, &app, &host).map(Json)
}

pub(super) async fn check(
    State(core): State<Arc<Core>>,
    AppPath(app): AppPath,
    LastPart(host): LastPart,
) -> Result<Detail, Problem> {
    let host = certificates::named(&host)?;
    certificates::check(&core, &app, &host).await.map(Json)
}

pub(super) async fn remove(
    State(core): State<Arc<Core>>,
    AppPath(app): AppPath,
    LastPart(host): LastPart,
) -> Result<StatusCode, Problem> {
    let host = certificates::named(&host)?;
    certificates::remove(&core, &app, &host).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn remove_acme(
    State(core): State<Arc<Core>>,
    AppPath(app): AppPath,
    LastPart(host): LastPart,
) -> Result<Detail, Problem> {
    let host = certificates::named(&host)?;
    let left = certificates::remove_part(&core, &app, &host, Part::Acme);
    left.await.map(Json)
}

pub(super) async fn remove_custom(
    State(core): State<Arc<Core>>,
    AppPath(app): AppPath,
    LastPart(host): LastPart,
) -> Result<Detail, Problem> {
    let host = certificates::named(&host)?;
    let left = certificates::remove_part(&core, &app, &host, Part::Custom);
    left.await.map(Json)
}
