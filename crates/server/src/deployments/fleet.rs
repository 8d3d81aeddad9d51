//! An app's Machines as the planner sees them.

use std::collections::{BTreeMap, BTreeSet};

use hangar_api::formation::Formation;
use hangar_api::id::{AppName, DeploymentId, GroupName, MachineId};
use hangar_deploy::mounts::FreeVolume;
use hangar_deploy::{FleetMachine, LaunchKey, ObservedFleet};
use hangar_store::tables::{Claim, Claims};
use hangar_store::{Revision, Snapshot};

use crate::core::Core;
use crate::formations;
use crate::unit::Unit;
use crate::volumes;

/// First part of the keys of launch claims.
const LAUNCH: &str = "launch";

/// The Machines of an app as of one view, and which of them a deployment made.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) units: Vec<Unit>,
    keys: BTreeMap<MachineId, LaunchKey>,
    /// What the proxy has taken into account.
    applied: Revision,
    free_volumes: Vec<FreeVolume>,
    formations: BTreeMap<GroupName, Formation>,
}

// === impl Fleet ===

impl Fleet {
    /// Reads the fleet.
    pub(crate) fn observe(core: &Core, app: &AppName, deployment: &DeploymentId) -> Self {
        let snapshot = core.cache.snapshot();
        let launch = LAUNCH.to_owned();
        let claims = snapshot.under::<Claims, _>(&launch);
        let keys = claims.filter_map(|record| match &record.key {
            Claim::Launch(id, group, ordinal) if id == deployment => {
                let key = LaunchKey {
                    deployment: id.clone(),
                    group: group.clone(),
                    ordinal: *ordinal,
                };
                Some((record.value.machine.clone(), key))
            }
            _ => None,
        });
        let units = Unit::all(&snapshot, app);
        Self {
            keys: keys.collect(),
            applied: *core.applied.borrow(),
            free_volumes: free_volumes(&snapshot, app, &units),
            formations: formations::recorded(&snapshot, app),
            units,
        }
    }

    /// Returns what the planner takes.
    pub(crate) fn view(&self) -> ObservedFleet<'_> {
        let machines = self.units.iter().map(|unit| {
            let machine = view_of(unit, self.keys.get(unit.id()), self.applied);
            (unit.id().clone(), machine)
        });
        ObservedFleet {
            machines: machines.collect(),
            free_volumes: self.free_volumes.clone(),
            formations: self.formations.clone(),
        }
    }
}

/// Returns the app's volumes that a Machine could have: also those of Machines on their way out,
/// which are free in a moment; until then a step that takes one is refused, and made again.
fn free_volumes(snapshot: &Snapshot, app: &AppName, units: &[Unit]) -> Vec<FreeVolume> {
    let going: BTreeSet<&MachineId> = units
        .iter()
        .filter(|unit| !unit.state().is_active())
        .map(Unit::id)
        .collect();
    let all = volumes::list(snapshot, app).into_iter();
    let free = all.filter(|v| {
        let owner = v.value.attached.as_ref();
        v.value.state.is_usable() && owner.is_none_or(|owner| going.contains(owner))
    });
    let free = free.map(|v| FreeVolume {
        name: v.value.name.clone(),
        region: v.value.region.clone(),
    });
    free.collect()
}

/// Returns one Machine as the planner sees it.
pub(super) fn view_of<'a>(
    unit: &'a Unit,
    key: Option<&'a LaunchKey>,
    applied: Revision,
) -> FleetMachine<'a> {
    FleetMachine {
        is_lost: unit.is_lost,
        is_published: unit.spec.mod_revision <= applied,
        ..FleetMachine::new(unit.spec(), unit.observed(), unit.queue(), key)
    }
}
