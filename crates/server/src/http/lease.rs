//! `/v1/apps/{app}/machines/{machine}/lease` (machines-api.md 10).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use hangar_api::lease::{Lease, LeaseRequest};
use serde_json::{Value, json};

use super::extract::{MachinePath, Writer};
use super::options::Options;
use crate::core::Core;
use crate::error::Problem;
use crate::lease;
use crate::unit::Unit;

pub(super) async fn show(
    State(core): State<Arc<Core>>,
    MachinePath { app, id }: MachinePath,
) -> Result<Json<Value>, Problem> {
    let unit = Unit::find(&core, &app, &id)?;
    let lease = unit.lease(core.env.now()).ok_or(Problem::LeaseNotFound)?;
    Ok(Json(envelope(lease)))
}

pub(super) async fn take(
    State(core): State<Arc<Core>>,
    MachinePath { app, id }: MachinePath,
    Writer(holder): Writer,
    Options(request): Options<LeaseRequest>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let lease = lease::take(&core, &app, &id, &holder, &request).await?;
    Ok((StatusCode::CREATED, Json(envelope(&lease))))
}

pub(super) async fn release(
    State(core): State<Arc<Core>>,
    MachinePath { app, id }: MachinePath,
    Writer(holder): Writer,
) -> Result<Json<Value>, Problem> {
    if holder.nonce.is_none() {
        return Err(Problem::Invalid(
            "invalid_argument: the header fly-machine-lease-nonce is required".to_owned(),
        ));
    }
    lease::release(&core, &app, &id, &holder).await?;
    Ok(Json(json!({"status": "success", "data": {"ok": true}})))
}

fn envelope(lease: &Lease) -> Value {
    json!({"status": "success", "data": lease})
}
