//! `/v1/apps/{app}/machines/{machine}/metadata` (machines-api.md 9): changed without a new
//! version, and not gated by leases.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use hangar_api::Timestamp;
use hangar_api::machine::MachineSpec;
use hangar_api::options::{MergeMetadata, SetMetadata};
use serde_json::{Value, json};

use super::extract::{LastPart, MachinePath};
use super::options::Options;
use crate::core::Core;
use crate::error::Problem;
use crate::machines;
use crate::unit::Unit;

/// Most keys of one Machine.
const MAX_KEYS: usize = 256;
/// Most bytes of a key or a value.
const MAX_LEN: usize = 4096;

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
    Options(body): Options<MergeMetadata>,
) -> Result<StatusCode, Problem> {
    apply(&core, path, &body).await
}

pub(super) async fn set(
    State(core): State<Arc<Core>>,
    path: MachinePath,
    LastPart(key): LastPart,
    Options(body): Options<SetMetadata>,
) -> Result<StatusCode, Problem> {
    apply(&core, path, &of_one(key, body)).await
}

pub(super) async fn unset(
    State(core): State<Arc<Core>>,
    path: MachinePath,
    LastPart(key): LastPart,
    Options(guards): Options<SetMetadata>,
) -> Result<StatusCode, Problem> {
    let gone = SetMetadata {
        value: None,
        ..guards
    };
    apply(&core, path, &of_one(key, gone)).await
}

fn of_one(key: String, one: SetMetadata) -> MergeMetadata {
    MergeMetadata {
        metadata: BTreeMap::from([(key, one.value)]),
        machine_version: one.machine_version,
        updated_at: one.updated_at,
    }
}

async fn apply(
    core: &Core,
    MachinePath { app, id }: MachinePath,
    merge: &MergeMetadata,
) -> Result<StatusCode, Problem> {
    machines::amend(core, &app, &id, None, |spec| merged(spec, merge)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Refuses a change that was thought out on what is not so any more.
fn guarded(spec: &MachineSpec, merge: &MergeMetadata) -> Result<(), Problem> {
    let version = merge.machine_version.as_deref().unwrap_or_default();
    if !version.is_empty() && version != spec.instance_id.as_str() {
        return Err(Problem::Precondition(format!(
            "machine version is {} now, not {version}",
            spec.instance_id
        )));
    }
    // Clients that write whole seconds cannot tell what happened within one.
    let changed = |known: &Timestamp| match known.subsec_nanosecond() {
        0 => spec.updated_at.as_second() > known.as_second(),
        _ => spec.updated_at > *known,
    };
    if merge.updated_at.as_ref().is_some_and(changed) {
        return Err(Problem::Precondition(format!(
            "the machine was changed at {}; read it again",
            spec.updated_at
        )));
    }
    Ok(())
}

fn merged(spec: &mut MachineSpec, merge: &MergeMetadata) -> Result<(), Problem> {
    guarded(spec, merge)?;
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
