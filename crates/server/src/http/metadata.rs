//! `/v1/apps/{app}/machines/{machine}/metadata` (machines-api.md 9): changed without a new
//! version, and not gated by leases.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use hangar_api::machine::MachineSpec;
use serde::Deserialize;
use serde_json::{Value, json};

use super::extract::{LastPart, Lenient, MachinePath};
use crate::core::Core;
use crate::error::Problem;
use crate::machines;
use crate::unit::Unit;

/// Most keys of one Machine.
const MAX_KEYS: usize = 256;
/// Most bytes of a key or a value.
const MAX_LEN: usize = 4096;

/// Body of a merge.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Merge {
    #[serde(default)]
    metadata: BTreeMap<String, Option<String>>,
    #[serde(default)]
    machine_version: Option<String>,
}

/// Body of a single value.
#[derive(Debug, Default, Deserialize)]
pub(super) struct One {
    #[serde(default)]
    value: Option<String>,
}

pub(super) async fn all(
    State(core): State<Arc<Core>>,
    MachinePath { app, id }: MachinePath,
) -> Result<Json<BTreeMap<String, String>>, Problem> {
    let unit = Unit::find(&core, &app, &id)?;
    Ok(Json(unit.spec().config.metadata.clone()))
}

pub(super) async fn show(
    State(core): State<Arc<Core>>,
    MachinePath { app, id }: MachinePath,
    LastPart(key): LastPart,
) -> Result<Json<Value>, Problem> {
    let unit = Unit::find(&core, &app, &id)?;
    match unit.spec().config.metadata.get(&key) {
        Some(value) => Ok(Json(json!({"value": value}))),
        None => Err(Problem::NotFound("metadata key not found".to_owned())),
    }
}

pub(super) async fn merge(
    State(core): State<Arc<Core>>,
    path: MachinePath,
    Lenient(body): Lenient<Merge>,
) -> Result<StatusCode, Problem> {
    apply(&core, path, &body).await
}

pub(super) async fn set(
    State(core): State<Arc<Core>>,
    path: MachinePath,
    LastPart(key): LastPart,
    Lenient(body): Lenient<One>,
) -> Result<StatusCode, Problem> {
    let merge = Merge {
        metadata: BTreeMap::from([(key, body.value)]),
        machine_version: None,
    };
    apply(&core, path, &merge).await
}

pub(super) async fn unset(
    State(core): State<Arc<Core>>,
    path: MachinePath,
    LastPart(key): LastPart,
) -> Result<StatusCode, Problem> {
    let merge = Merge {
        metadata: BTreeMap::from([(key, None)]),
        machine_version: None,
    };
    apply(&core, path, &merge).await
}

async fn apply(
    core: &Core,
    MachinePath { app, id }: MachinePath,
    merge: &Merge,
) -> Result<StatusCode, Problem> {
    machines::amend(core, &app, &id, None, |spec| merged(spec, merge)).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn merged(spec: &mut MachineSpec, merge: &Merge) -> Result<(), Problem> {
    if let Some(version) = merge
        .machine_version
        .as_deref()
        .filter(|text| !text.is_empty())
        && version != spec.instance_id.as_str()
    {
        return Err(Problem::Precondition(format!(
            "machine version is {} now, not {version}",
            spec.instance_id
        )));
    }
    let metadata = &mut spec.config.metadata;
    for (key, value) in &merge.metadata {
        match value.as_deref().filter(|value| !value.is_empty()) {
            Some(value) if key.is_empty() || key.len() > MAX_LEN || value.len() > MAX_LEN => {
                return Err(Problem::Invalid(format!(
                    "invalid_argument: metadata keys and values have 1 to {MAX_LEN} bytes"
                )));
            }
            Some(value) => metadata.insert(key.clone(), value.to_owned()),
            None => metadata.remove(key),
        };
    }
    if metadata.len() > MAX_KEYS {
        return Err(Problem::Invalid(format!(
            "invalid_argument: a machine has at most {MAX_KEYS} metadata keys"
        )));
    }
    Ok(())
}
