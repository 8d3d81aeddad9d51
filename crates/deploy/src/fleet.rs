//! The app's Machines as the planner sees them: borrowed records and what can be read off them.
//!
//! The server builds an [`ObservedFleet`] after all steps of the last wave were answered; the
//! planner only reads it.

use std::collections::BTreeMap;

use hangar_api::formation::Formation;
use hangar_api::id::{GroupName, MachineId, Region, ReleaseId};
use hangar_api::machine::config::RELEASE_ID;
use hangar_api::machine::state::is_done;
use hangar_api::machine::{MachineSpec, MachineState, Observed, Op, OpKind};

use crate::desired::{Desired, LaunchKey};
use crate::mounts::FreeVolume;

/// All Machines of the app, destroyed ones left out or included.
#[derive(Clone, Debug, Default)]
pub struct ObservedFleet<'a> {
    /// By id.
    pub machines: BTreeMap<MachineId, FleetMachine<'a>>,
    /// The app's volumes that no Machine has.
    pub free_volumes: Vec<FreeVolume>,
    /// What groups should have, where somebody has said so.
    pub formations: BTreeMap<GroupName, Formation>,
}

/// One Machine: what it should be, what is asked of it, what it does.
#[derive(Clone, Copy, Debug)]
pub struct FleetMachine<'a> {
    /// What it should be.
    pub spec: &'a MachineSpec,
    /// What clients see (`api_state`).
    pub state: MachineState,
    /// What its host sees.
    pub observed: Option<&'a Observed>,
    /// Its op queue, done ones left out or included.
    pub pending: &'a [Op],
    /// The key it was created with, when a deployment created it.
    pub launch_key: Option<&'a LaunchKey>,
    /// Its slot is marked lost: nobody may count on it.
    pub is_lost: bool,
    /// The proxy has taken its spec into account as it is.
    pub is_published: bool,
}

// === impl ObservedFleet ===

impl<'a> ObservedFleet<'a> {
    /// Returns the Machines that deployments look at: managed, and neither gone nor going.
    pub fn managed(&self) -> impl Iterator<Item = &FleetMachine<'a>> {
        self.machines
            .values()
            .filter(|m| m.state.is_active() && m.spec.config.is_managed())
    }

    /// Returns where a new Machine of a group goes: where its formation has most, else where the
    /// release puts new Machines.
    pub(crate) fn home(&self, desired: &Desired, group: &GroupName) -> Region {
        let pool = self.formations.get(group).map(|f| f.regions.iter());
        let most = pool.and_then(|pool| pool.rev().max_by_key(|(_, n)| **n));
        most.map_or_else(|| desired.region.clone(), |(region, _)| region.clone())
    }

    /// Returns a Machine that is neither gone nor going.
    #[must_use]
    pub fn active(&self, id: &MachineId) -> Option<&FleetMachine<'a>> {
        self.machines.get(id).filter(|m| m.state.is_active())
    }

    /// Returns the Machines made by this deployment, by group and ordinal, whatever their state.
    pub(crate) fn launched(
        &self,
        desired: &Desired,
    ) -> BTreeMap<(GroupName, u32), FleetMachine<'a>> {
        let of_ours = |m: &FleetMachine<'a>| {
            let key = m.launch_key?;
            (key.deployment == desired.deployment).then(|| ((key.group.clone(), key.ordinal), *m))
        };
        self.machines.values().filter_map(of_ours).collect()
    }
}

// === impl FleetMachine ===

impl<'a> FleetMachine<'a> {
    /// Returns the view of a record.
    #[must_use]
    pub fn new(
        spec: &'a MachineSpec,
        observed: Option<&'a Observed>,
        pending: &'a [Op],
        launch_key: Option<&'a LaunchKey>,
    ) -> Self {
        let state = hangar_api::machine::state::api_state(spec, pending, observed);
        Self {
            spec,
            state,
            observed,
            pending,
            launch_key,
            is_lost: false,
            is_published: true,
        }
    }

    /// Returns its group, or the default where it names none.
    pub(crate) fn group(&self, default: &GroupName) -> GroupName {
        GroupName::new(self.spec.config.process_group())
            .ok()
            .filter(|g| !g.as_str().is_empty())
            .unwrap_or_else(|| default.clone())
    }

    /// Returns whether its spec is that of the release.
    pub(crate) fn is_at(&self, release: &ReleaseId) -> bool {
        let id = self.spec.config.metadata.get(RELEASE_ID);
        id.is_some_and(|id| id == release.as_str())
    }

    /// Returns the ops that its host has not done.
    pub(crate) fn undone(&self) -> impl Iterator<Item = &'a Op> {
        let observed = self.observed;
        self.pending.iter().filter(move |op| !is_done(op, observed))
    }

    /// Returns whether its destruction is asked for or under way.
    pub(crate) fn is_going(&self) -> bool {
        let asked = |op: &Op| matches!(op.kind, OpKind::Destroy);
        self.state == MachineState::Destroying || self.undone().any(asked)
    }

    /// Returns whether it runs or is to run (4.7): started, on its way up, or failed to come up.
    pub(crate) fn runs(&self) -> bool {
        match self.state {
            MachineState::Started
            | MachineState::Starting
            | MachineState::Restarting
            | MachineState::Failed => true,
            // One that somebody has just made is on its way up, too.
            MachineState::Created => self
                .undone()
                .any(|op| matches!(op.kind, OpKind::Create { skip_launch: false })),
            MachineState::Replacing => {
                let skips = |op: &Op| {
                    matches!(
                        op.kind,
                        OpKind::Update {
                            skip_launch: true,
                            ..
                        }
                    )
                };
                let ran = self.observed.is_some_and(|o| {
                    matches!(
                        o.state,
                        MachineState::Started | MachineState::Starting | MachineState::Replacing
                    )
                });
                ran && !self.undone().any(skips)
            }
            _ => false,
        }
    }

    /// Returns whether its host has taken the spec's generation and has nothing left to do.
    pub(crate) fn is_settled(&self) -> bool {
        let taken = self
            .observed
            .is_some_and(|o| o.generation >= self.spec.generation);
        taken && self.undone().next().is_none()
    }

    /// Returns whether it is started and every check of its configuration passes.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.state == MachineState::Started && self.first_unhealthy().is_none()
    }

    /// Returns a check that does not pass, with what it says.
    pub(crate) fn first_unhealthy(&self) -> Option<(String, String)> {
        let config = &self.spec.config;
        let of_services = config.service_checks().into_iter().map(|(name, ..)| name);
        let mut names = of_services.chain(config.checks.keys().cloned());
        names.find_map(|name| {
            let results = self.observed.map_or(&[][..], |o| &o.checks);
            let Some(result) = results.iter().find(|c| c.name == name) else {
                return Some((name, "no result yet".to_owned()));
            };
            let passes = result.status == hangar_api::check::Health::Passing;
            (!passes).then(|| (name, result.output.clone()))
        })
    }
}
