//! `/v1/platform` and the health of the server itself.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use hangar_api::edge::EdgeMap;
use hangar_api::region::{RegionInfo, Slot, city};
use serde_json::{Value, json};

use super::extract::LastPart;
use crate::core::Core;
use crate::error::Problem;
use crate::slots::{self, Mark};

pub(super) async fn health() -> Json<Value> {
    Json(json!({"ok": true}))
}

pub(super) async fn regions(State(core): State<Arc<Core>>) -> Json<Value> {
    let mut codes: Vec<_> = core.slots.iter().map(|slot| &slot.region).collect();
    codes.sort();
    codes.dedup();
    let regions: Vec<RegionInfo> = codes
        .into_iter()
        .map(|code| RegionInfo {
            code: code.clone(),
            name: city(code.as_str()).to_owned(),
            requires_paid_plan: false,
            gateway_available: false,
        })
        .collect();
    let nearest = core.slots.first().map(|slot| &slot.region);
    Json(json!({"nearest": nearest, "regions": regions}))
}

pub(super) async fn edge(State(core): State<Arc<Core>>) -> Json<EdgeMap> {
    Json(core.edge.borrow().clone())
}

pub(super) async fn slots(State(core): State<Arc<Core>>) -> Json<Value> {
    Json(json!({"slots": slots::now(&core)}))
}

pub(super) async fn lost(
    State(core): State<Arc<Core>>,
    LastPart(slot): LastPart,
) -> Result<Json<Slot>, Problem> {
    slots::mark(&core, &slot, Mark::Lost).await.map(Json)
}

pub(super) async fn back(
    State(core): State<Arc<Core>>,
    LastPart(slot): LastPart,
) -> Result<Json<Slot>, Problem> {
    slots::mark(&core, &slot, Mark::Back).await.map(Json)
}
