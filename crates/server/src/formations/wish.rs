//! What a client does to a Machine is a wish about its group: written in the same transaction, so
//! that nobody can take the deed for drift.
//!
//! A wish has a record of its own for each Machine: many Machines of one group are created at the
//! same time, and none of them waits for another.

use hangar_api::formation::Wish;
use hangar_api::machine::{MachineConfig, MachineSpec};
use hangar_deploy::formation::wishes;
use hangar_store::Txn;
use hangar_store::tables::Wishes;

use crate::core::Core;
use crate::unit::Unit;

/// A client made a Machine.
pub(crate) fn come(spec: &MachineSpec) -> Txn {
    let list = wishes(&spec.region, None, Some(&spec.config));
    if list.is_empty() {
        return Txn::new();
    }
    Txn::new().create::<Wishes>(&(spec.app.clone(), spec.id.clone()), &list)
}

/// A client gave a Machine another configuration.
pub(crate) fn changed(core: &Core, unit: &Unit, config: &MachineConfig) -> Txn {
    let spec = unit.spec();
    let list = wishes(&spec.region, Some(&spec.config), Some(config));
    added(core, unit, list)
}

/// A client has a Machine destroyed.
pub(crate) fn gone(core: &Core, unit: &Unit) -> Txn {
    let spec = unit.spec();
    let list = wishes(&spec.region, Some(&spec.config), None);
    added(core, unit, list)
}

fn added(core: &Core, unit: &Unit, list: Vec<Wish>) -> Txn {
    if list.is_empty() {
        return Txn::new();
    }
    let key = &unit.spec.key;
    match core.cache.get::<Wishes>(key) {
        Some(record) => {
            let all: Vec<Wish> = record.value.iter().cloned().chain(list).collect();
            Txn::new().update::<Wishes>(&record, &all)
        }
        None => Txn::new().create::<Wishes>(key, &list),
    }
}
