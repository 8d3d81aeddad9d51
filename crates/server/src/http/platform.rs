//! `/v1/platform` and the health of the server itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use hangar_api::edge::EdgeMap;
use hangar_api::placement::{Placements, PlacementsRequest};
use hangar_api::region::{RegionInfo, Regions, Slot};
use serde_json::{Value, json};

use super::extract::LastPart;
use super::options::Options;
use crate::core::Core;
use crate::error::Problem;
use crate::machines::create;
use crate::slots::{self, Mark};

pub(super) async fn health() -> Json<Value> {
    Json(json!({"ok": true}))
}

pub(super) async fn regions(State(core): State<Arc<Core>>) -> Result<Json<Regions>, Problem> {
    let codes: BTreeSet<_> = core.slots.iter().map(|slot| slot.region.clone()).collect();
    let first = core.slots.first();
    let nearest = first.ok_or_else(|| Problem::Internal("there is no slot".to_owned()))?;
    Ok(Json(Regions {
        nearest: nearest.region.clone(),
        regions: codes.into_iter().map(RegionInfo::of).collect(),
    }))
}

pub(super) async fn placements(
    State(core): State<Arc<Core>>,
    Options(asked): Options<PlacementsRequest>,
) -> Result<Json<Placements>, Problem> {
    create::placements(&core, &asked).map(Json)
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
