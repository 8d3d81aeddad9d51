//! Carrying out one step of a formation.

use hangar_api::formation::Formation;
use hangar_api::id::{AppName, GroupName, MachineId};
use hangar_api::machine::OpKind;
use hangar_deploy::formation::{Decision, seed};
use hangar_store::Txn;
use hangar_store::tables::Formations;

use super::Scene;
use crate::core::Core;
use crate::deployments;
use crate::error::Problem;
use crate::lease::Holder;
use crate::machines::create::{NewMachine, prepare};
use crate::machines::ops;
use crate::unit::Unit;

/// Carries out a step; returns false when the world has moved meanwhile.
pub(super) async fn carry_out(
    core: &Core,
    scene: &Scene,
    group: &GroupName,
    decision: Decision,
) -> Result<bool, Problem> {
    let app = &scene.app;
    let txn = match decision {
        Decision::Rest { .. } => return Ok(true),
        Decision::Keep(formation) => Some(scene.kept(group, &formation)),
        Decision::Create {
            region,
            like,
            skip_launch,
            formation,
        } => {
            let new = scene.new_machine(group, like.as_ref(), &formation)?;
            let new = NewMachine {
                region: Some(region.to_string()),
                skip_launch,
                ..new
            };
            let prepared = prepare(core, app, &Holder::platform(), &new)?;
            tracing::info!(app = %app, group = %group, machine = %prepared.id, region = %region, "formation: a machine is created");
            Some(prepared.txn.and(scene.kept(group, &formation)))
        }
        Decision::Destroy { machine } => {
            tracing::info!(app = %app, group = %group, machine = %machine, "formation: a machine is destroyed");
            asked(core, app, &machine, OpKind::Destroy)?
        }
        Decision::Start { machine, formation } => {
            tracing::info!(app = %app, group = %group, machine = %machine, "formation: a machine that failed is started again");
            let asked = asked(core, app, &machine, OpKind::Start)?;
            asked.map(|txn| txn.and(scene.kept(group, &formation)))
        }
    };
    let Some(txn) = txn else {
        return Ok(false);
    };
    // Whoever began to deploy in between is left alone.
    let Some(alone) = deployments::none_begins(core, app) else {
        return Ok(false);
    };
    Ok(core.try_commit(alone.and(txn)).await?.is_some())
}

/// Returns the write that asks something of a Machine.
fn asked(
    core: &Core,
    app: &AppName,
    machine: &MachineId,
    kind: OpKind,
) -> Result<Option<Txn>, Problem> {
    let unit = Unit::find(core, app, machine)?;
    if !unit.state().is_active() {
        return Ok(None);
    }
    let holder = Holder::platform();
    let txn = holder.may_write(&unit, core.env.now())?;
    let queued = ops::appended(core, &unit, kind, holder.by())?;
    Ok(Some(txn.check_same(&unit.spec).and(queued)))
}

// === impl Scene ===

impl Scene {
    /// Returns the write of a formation, which must be as this scene has it.
    fn kept(&self, group: &GroupName, formation: &Formation) -> Txn {
        match self.records.get(group) {
            Some(record) if record.value == *formation => Txn::new().check_same(record),
            Some(record) => Txn::new().update(record, formation),
            None => {
                let key = (self.app.clone(), group.clone());
                Txn::new().create::<Formations>(&key, formation)
            }
        }
    }

    fn new_machine(
        &self,
        group: &GroupName,
        like: Option<&MachineId>,
        formation: &Formation,
    ) -> Result<NewMachine, Problem> {
        let like = like.and_then(|id| self.units.iter().find(|unit| unit.id() == id));
        let like = like.map(Unit::spec);
        let seed = seed(group, like, self.release(), formation.guest.as_ref());
        let seed = seed.ok_or_else(|| {
            Problem::Precondition(format!(
                "process group {group} has no machine to copy and is in no release; deploy first"
            ))
        })?;
        Ok(NewMachine {
            config: seed.config,
            image_ref: seed.image_ref,
            secrets_version: seed.secrets_version,
            region: None,
            name: None,
            skip_launch: false,
            cordoned: false,
            lease_ttl: None,
            launch_key: None,
        })
    }
}
