//! The canary strategy: one more Machine of each group has to pass all gates before any other is
//! touched, and is removed again (4.10).

use hangar_api::deployment::Strategy;
use hangar_api::id::{GroupName, MachineId};
use hangar_api::machine::Guest;

use super::launch::{New, Way};
use super::{Level, Planner, Step};
use crate::desired::{CANARY, Kind};
use crate::merge;
use crate::progress::{Launch, LaunchPhase, Retire, Stage};

impl Planner<'_> {
    /// Brings the canaries up, one a group, and removes them when all have passed.
    pub(super) fn try_canaries(&mut self) {
        let is_first = self.progress.targets.is_empty() && self.progress.retiring.is_empty();
        if self.options.strategy != Strategy::Canary
            || self.desired.kind == Kind::RestartOnly
            || is_first
        {
            self.progress.stage = Stage::Creating;
            return;
        }
        if self.progress.canaries.is_empty() {
            self.plan_canaries();
        }
        let groups: Vec<GroupName> = self.progress.canaries.keys().cloned().collect();
        let mut open = false;
        for group in &groups {
            let mut launch = self.progress.canaries[group].clone();
            let new = New {
                group,
                ordinal: CANARY,
                kind: "Canary ",
                run: true,
                tested: true,
            };
            let way = self.follow(new, &mut launch);
            if self.progress.stage != Stage::Trying {
                return;
            }
            open |= way != Way::Passed;
            if way == Way::Missing {
                self.ask_for_canary(group, &mut launch);
            }
            self.progress.canaries.insert(group.clone(), launch);
        }
        if !open && self.remove_canaries() {
            self.progress.stage = Stage::Creating;
        }
    }

    fn plan_canaries(&mut self) {
        let planned = |group: &GroupName| {
            self.progress.launches.contains_key(group)
                || self.progress.targets.values().any(|t| t.group == *group)
        };
        let groups = self.desired.chosen(self.options).map(|(group, _)| group);
        let groups: Vec<GroupName> = groups.filter(|group| planned(group)).cloned().collect();
        for group in groups {
            let text = format!("Creating canary machine for group {group}");
            self.say(Level::Info, text, None, Some(&group));
            let launch = Launch::planned(false);
            self.progress.canaries.insert(group, launch);
        }
    }

    fn ask_for_canary(&mut self, group: &GroupName, launch: &mut Launch) {
        let Some(spec) = self.desired.groups.get(group) else {
            // Its group is part of the release, or it would not have been planned.
            launch.phase = LaunchPhase::Passed;
            return;
        };
        let guest = self.guest_of(group).or_else(|| self.options.guest.clone());
        let mut config = merge::for_new(spec, group, guest, self.desired.mark());
        merge::as_canary(&mut config);
        self.ready.push(Step::Create {
            launch_key: self.desired.launch_key(group, CANARY),
            group: group.clone(),
            region: self.desired.region.clone(),
            config: Box::new(config),
            image_ref: self.desired.image_ref.clone(),
            secrets_version: self.desired.secrets_version,
            skip_launch: false,
            cordoned: false,
        });
        self.asked(launch);
    }

    /// Returns the size of a Machine that the group has.
    fn guest_of(&self, group: &GroupName) -> Option<Guest> {
        let targets = self.progress.targets.iter();
        let mut of_group = targets.filter(|(_, target)| target.group == *group);
        of_group.find_map(|(id, _)| self.fleet.active(id)?.spec.config.guest.clone())
    }

    fn remove_canaries(&mut self) -> bool {
        let machines = self.progress.canaries.values();
        let ids: Vec<MachineId> = machines.filter_map(|l| l.machine.clone()).collect();
        for id in &ids {
            let entry = self.progress.retiring.entry(id.clone());
            entry.or_insert(Retire::Planned);
        }
        self.retire_these(ids)
    }
}
