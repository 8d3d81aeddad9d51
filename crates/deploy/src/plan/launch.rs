//! New Machines on their way: created, then watched until they have passed their gates.
//!
//! Used for the first Machines of groups that have none, for canaries and for green Machines.

use hangar_api::deployment::Strategy;
use hangar_api::id::GroupName;

use super::{Level, Planner, Step, deadline};
use crate::fleet::FleetMachine;
use crate::judge::{Judgement, Watch};
use crate::merge;
use crate::progress::{Failure, Launch, LaunchPhase, Stage};

/// Most Machines that a deployment creates at a time.
const MAX_CREATING: usize = 32;

/// A new Machine: what tells it, and what is expected of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct New<'a> {
    pub(super) group: &'a GroupName,
    pub(super) ordinal: u32,
    /// What it is called in what is told, before "Machine".
    pub(super) kind: &'static str,
    /// It is to run.
    pub(super) run: bool,
    /// Its group's test Machines have to pass, too.
    pub(super) tested: bool,
}

/// Where a new Machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// It is not there: it is to be created.
    Missing,
    /// Its host has not done yet what was asked.
    Unsettled,
    /// Its gates are open.
    Open,
    /// It has passed.
    Passed,
}

impl Planner<'_> {
    /// Creates the Machines of groups that have none and waits until they serve.
    pub(super) fn create(&mut self) {
        let keys: Vec<(GroupName, usize)> = self.launch_keys();
        let mut under_way = 0;
        let mut open = false;
        for (group, index) in &keys {
            let mut launch = self.progress.launches[group][*index].clone();
            let new = New {
                group,
                ordinal: u32::try_from(*index).unwrap_or(u32::MAX),
                kind: if launch.standby { "Standby " } else { "" },
                run: !launch.standby && !launch.rests,
                tested: false,
            };
            let way = self.follow(new, &mut launch);
            if self.progress.stage != Stage::Creating {
                return;
            }
            under_way += usize::from(way != Way::Passed);
            open |= way != Way::Passed;
            if way == Way::Missing
                && (under_way <= MAX_CREATING || launch.phase == LaunchPhase::Asked)
            {
                self.ask_to_create(new, &mut launch);
            }
            self.put_launch(group, *index, launch);
        }
        if open {
            return;
        }
        if !keys.is_empty() {
            self.say(Level::Info, "Finished launching new machines", None, None);
        }
        self.progress.stage = match self.options.strategy {
            Strategy::Bluegreen => Stage::Doubling,
            _ => Stage::Updating,
        };
    }

    pub(super) fn launch_keys(&self) -> Vec<(GroupName, usize)> {
        let groups = self.progress.launches.iter();
        groups
            .flat_map(|(group, list)| (0..list.len()).map(move |i| (group.clone(), i)))
            .collect()
    }

    /// Takes one new Machine a step further, and says where it is.
    pub(super) fn follow(&mut self, new: New<'_>, launch: &mut Launch) -> Way {
        if launch.phase == LaunchPhase::Passed {
            return Way::Passed;
        }
        let group = new.group;
        let Some(machine) = self.made(group, new.ordinal) else {
            let patience = self.options.wait_timeout_secs;
            let late = launch
                .since
                .is_some_and(|s| self.now >= deadline(s, patience));
            if launch.machine.is_some() || late {
                self.fail(Failure {
                    machine: launch.machine.clone(),
                    group: Some(group.clone()),
                    reason: "a new Machine was destroyed while it was being deployed".to_owned(),
                });
                return Way::Open;
            }
            return Way::Missing;
        };
        launch.machine = Some(machine.spec.id.clone());
        // A launch that the store has but this memory does not, was asked for now at the latest.
        launch.phase = LaunchPhase::Asked;
        let since = *launch.since.get_or_insert(self.now);
        match self.look_at_new(new, &machine, since) {
            Ok(true) => {
                launch.phase = LaunchPhase::Passed;
                let id = &machine.spec.id;
                let text = format!("{}Machine {id} [{group}] is {}", new.kind, machine.state);
                self.say(Level::Info, text, Some(id), Some(group));
                Way::Passed
            }
            Ok(false) if machine.is_settled() => Way::Open,
            Ok(false) => Way::Unsettled,
            Err(failure) if self.options.strategy == Strategy::Immediate => {
                self.progress.add_trouble(failure.to_string());
                launch.phase = LaunchPhase::Passed;
                Way::Passed
            }
            Err(failure) => {
                self.fail(failure);
                Way::Open
            }
        }
    }

    /// Returns whether a new Machine has passed its gates.
    fn look_at_new(
        &mut self,
        new: New<'_>,
        machine: &FleetMachine<'_>,
        since: hangar_api::Timestamp,
    ) -> Result<bool, Failure> {
        let failed = |reason: String| Failure {
            machine: Some(machine.spec.id.clone()),
            group: Some(new.group.clone()),
            reason,
        };
        if !machine.state.is_active() {
            let reason = "it was destroyed while it was being deployed";
            return Err(failed(reason.to_owned()));
        }
        let watch = Watch {
            since,
            run: new.run,
            health: true,
            smoke: true,
        };
        match self.watch(machine, &watch) {
            Judgement::Wait(..) => Ok(false),
            Judgement::Pass if new.tested => self.tests_pass(machine, new.group),
            Judgement::Pass => Ok(true),
            Judgement::NeedsStart => {
                self.ask_to_start(machine, since);
                Ok(false)
            }
            Judgement::Fail(reason) => Err(failed(reason)),
        }
    }

    fn put_launch(&mut self, group: &GroupName, index: usize, launch: Launch) {
        let slot = self.progress.launches.get_mut(group);
        if let Some(slot) = slot.and_then(|list| list.get_mut(index)) {
            *slot = launch;
        }
    }

    /// Asks for a new Machine; a standby only once the Machine it stands by has an id.
    fn ask_to_create(&mut self, new: New<'_>, launch: &mut Launch) {
        let group = new.group;
        let Some(spec) = self.desired.groups.get(group) else {
            return;
        };
        let mut config =
            merge::for_new(spec, group, self.options.guest.clone(), self.desired.mark());
        let mut region = self.fleet.home(self.desired, group);
        let replaced = launch
            .replaces
            .as_ref()
            .and_then(|id| self.fleet.machines.get(id));
        if let Some(old) = replaced {
            config = self.taken_over(&old.spec.config, group);
            region.clone_from(&old.spec.region);
        } else if launch.standby {
            let first = self.progress.launches[group][0].machine.clone();
            let Some(first) = first else { return };
            merge::stand_by(&mut config, &first);
            if launch.phase == LaunchPhase::Planned {
                let text = format!("Creating a standby machine for {first}");
                self.say(Level::Info, text, Some(&first), Some(group));
            }
        } else if new.ordinal > 0 && launch.phase == LaunchPhase::Planned {
            let text = "Creating a second machine for high availability and zero downtime \
                        deployments.";
            self.say(Level::Info, text, None, Some(group));
        }
        self.ready.push(Step::Create {
            launch_key: self.desired.launch_key(group, new.ordinal),
            group: group.clone(),
            region,
            config: Box::new(config),
            image_ref: self.desired.image_ref.clone(),
            secrets_version: self.desired.secrets_version,
            skip_launch: launch.standby || launch.rests,
            cordoned: false,
        });
        self.asked(launch);
    }

    /// Notes that a new Machine is asked for.
    pub(super) fn asked(&self, launch: &mut Launch) {
        launch.phase = LaunchPhase::Asked;
        launch.since.get_or_insert(self.now);
    }

    pub(super) fn ask_to_start(
        &mut self,
        machine: &FleetMachine<'_>,
        since: hangar_api::Timestamp,
    ) {
        let id = machine.spec.id.clone();
        self.ready.push(Step::Start {
            machine: id.clone(),
            expected: machine.spec.instance_id.clone(),
        });
        let until = deadline(since, self.options.wait_timeout_secs);
        self.wait(&id, super::Condition::Started, until);
    }
}
