//! The versions that a Machine had: what `versions` lists and what `?version=` shows.
//!
//! An update writes the version that gives way in its own transaction. Amendments (metadata, cordon)
//! make no version, and show in the one that they were made to.

use std::sync::Arc;

use hangar_api::id::InstanceId;
use hangar_api::machine::{Machine, MachineSpec, MachineState, MachineVersion};
use hangar_store::tables::{VersionRecord, Versions};
use hangar_store::{Record, Snapshot, Txn};

use crate::core::Core;
use crate::error::Problem;
use crate::unit::Unit;

/// Versions of a Machine that are kept beside the one it has.
const KEPT: u64 = 10;

/// Bytes of a configuration from which on its version is written by itself: beside a new one of
/// that size it would not fit into one transaction.
const LARGE: usize = 256 * 1024;

/// Keeps a version that gives way and lets go of the oldest. Returns the writes for the transaction
/// of the update; a large one is written at once, and of no account should the update fail.
pub(crate) async fn keep(core: &Core, old: &MachineSpec) -> Result<Txn, Problem> {
    let key = |generation| (old.app.clone(), old.id.clone(), generation);
    let record = VersionRecord {
        instance_id: old.instance_id.clone(),
        config: serde_json::to_string(&old.config)
            .map_err(|error| Problem::Internal(format!("write a configuration: {error}")))?,
        image_ref: old.image_ref.clone(),
        updated_at: old.updated_at,
    };
    let large = record.config.len() > LARGE;
    let mut txn = Txn::new().put::<Versions>(&key(old.generation), &record);
    if large {
        core.cache.commit(txn).await?;
        txn = Txn::new();
    }
    Ok(match old.generation.checked_sub(KEPT) {
        Some(oldest) => txn.delete::<Versions>(&key(oldest)),
        None => txn,
    })
}

/// Returns the records of a Machine's former versions, the oldest first.
pub(crate) fn all<'a>(
    snapshot: &'a Snapshot,
    unit: &Unit,
) -> impl Iterator<Item = &'a Arc<Record<Versions>>> {
    let spec = unit.spec();
    let first = spec.generation.saturating_sub(KEPT);
    let keys = (first..spec.generation).map(|it| (spec.app.clone(), spec.id.clone(), it));
    keys.filter_map(|key| snapshot.get::<Versions>(&key))
}

/// Returns a Machine's versions, the newest first.
pub(crate) fn list(snapshot: &Snapshot, unit: &Unit) -> Result<Vec<MachineVersion>, Problem> {
    let mut versions = Vec::new();
    for record in all(snapshot, unit) {
        versions.push(MachineVersion {
            version: record.value.instance_id.clone(),
            user_config: config_of(&record.value)?,
        });
    }
    versions.push(MachineVersion {
        version: unit.spec().instance_id.clone(),
        user_config: unit.spec().config.clone(),
    });
    versions.reverse();
    Ok(versions)
}

/// Returns a Machine as it was in one of its versions: `replaced`, unless it has that one now.
pub(crate) fn view(
    snapshot: &Snapshot,
    unit: &Unit,
    version: &InstanceId,
) -> Result<Machine, Problem> {
    let now = unit.view();
    if now.instance_id == *version {
        return Ok(now);
    }
    let mut former = all(snapshot, unit);
    let record = former.find(|record| record.value.instance_id == *version);
    let record = &record
        .ok_or_else(|| Problem::NotFound("machine version not found".to_owned()))?
        .value;
    Ok(Machine {
        state: MachineState::Replaced,
        instance_id: version.clone(),
        version: Some(version.clone()),
        config: config_of(record)?,
        image_ref: record.image_ref.clone(),
        updated_at: record.updated_at,
        checks: Vec::new(),
        reason: None,
        next_run: None,
        ..now
    })
}

fn config_of(record: &VersionRecord) -> Result<hangar_api::machine::MachineConfig, Problem> {
    serde_json::from_str(&record.config)
        .map_err(|error| Problem::Internal(format!("read a former configuration: {error}")))
}
