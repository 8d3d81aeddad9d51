//! An app's Machines as the planner sees them.

use std::collections::BTreeMap;

use hangar_api::id::{AppName, DeploymentId, MachineId};
use hangar_deploy::{FleetMachine, LaunchKey, ObservedFleet};
use hangar_store::tables::{Claim, Claims};

use crate::core::Core;
use crate::unit::Unit;

/// First part of the keys of launch claims.
const LAUNCH: &str = "launch";

/// The Machines of an app as of one view, and which of them a deployment made.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) units: Vec<Unit>,
    keys: BTreeMap<MachineId, LaunchKey>,
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
        Self {
            keys: keys.collect(),
            units: Unit::all(&snapshot, app),
        }
    }

    /// Returns what the planner takes.
    pub(crate) fn view(&self) -> ObservedFleet<'_> {
        let machines = self.units.iter().map(|unit| {
            let machine = FleetMachine::new(
                unit.spec(),
                unit.observed(),
                unit.queue(),
                self.keys.get(unit.id()),
            );
            (unit.id().clone(), machine)
        });
        ObservedFleet {
            machines: machines.collect(),
        }
    }
}
