//! `/v1/apps/{app}/ip_assignments` (machines-api.md 2.5).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use hangar_api::ip::{AssignIp, IpAssignment, IpAssignments};

use super::extract::{AppPath, LastPart};
use super::options::Options;
use crate::core::Core;
use crate::error::Problem;
use crate::ips;

pub(super) async fn list(
    State(core): State<Arc<Core>>,
    AppPath(app): AppPath,
) -> Result<Json<IpAssignments>, Problem> {
    core.app(&app)?;
    let ips = ips::list(&core, &core.cache.snapshot(), &app);
    Ok(Json(IpAssignments { ips }))
}

pub(super) async fn assign(
    State(core): State<Arc<Core>>,
    AppPath(app): AppPath,
    Options(input): Options<AssignIp>,
) -> Result<Json<IpAssignment>, Problem> {
    ips::assign(&core, &app, input).await.map(Json)
}

pub(super) async fn release(
    State(core): State<Arc<Core>>,
    AppPath(app): AppPath,
    LastPart(ip): LastPart,
) -> Result<StatusCode, Problem> {
    let ip = ip.parse().map_err(|_| {
        let ip: String = ip.chars().take(60).collect();
        Problem::Invalid(format!("invalid_argument: {ip:?} is no IP address"))
    })?;
    ips::release(&core, &app, ip).await?;
    Ok(StatusCode::NO_CONTENT)
}
