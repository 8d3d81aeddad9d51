//! The way there: decide what is to be done, create the Machines of new groups, then take the
//! existing ones over to the release, the first of each list alone.

use std::collections::BTreeSet;

use hangar_api::id::{GroupName, MachineId};
use hangar_api::machine::{MachineConfig, MachineState};

use super::{Condition, Level, Planner, Step, after};
use crate::desired::Kind;
use crate::fleet::FleetMachine;
use crate::judge::{Judgement, Watch};
use crate::merge;
use crate::preview::Diff;
use crate::progress::{Failure, Former, Launch, LaunchPhase, Retire, Stage, Target, TargetPhase};

/// Most Machines that a deployment creates at a time.
const MAX_CREATING: usize = 32;
/// Most groups that are updated side by side (4.10).
const MAX_GROUPS: usize = 16;
/// Most stopped Machines of a group that are updated at a time (4.10).
const MAX_COLD: usize = 30;

impl Planner<'_> {
    /// Decides, once, which Machines are updated, created and removed.
    pub(super) fn begin(&mut self) {
        let diff = Diff::of(self.desired, self.fleet, self.options);
        for (group, machines) in &diff.update {
            for id in machines {
                if let Some(machine) = self.fleet.active(id) {
                    let target = self.target(machine, group.clone());
                    self.progress.targets.insert(id.clone(), target);
                }
            }
        }
        for (group, standbys) in &diff.create {
            let launch = |standby: &bool| Launch {
                phase: LaunchPhase::Planned,
                standby: *standby,
                machine: None,
                since: None,
            };
            let launches = standbys.iter().map(launch).collect();
            self.progress.launches.insert(group.clone(), launches);
            let what = crate::preview::new_machines(standbys);
            let text = format!("No machines in group {group}, launching {what}");
            self.say(Level::Info, text, None, Some(group));
        }
        let removed = diff.remove.values().flatten();
        self.progress
            .retiring
            .extend(removed.map(|id| (id.clone(), Retire::Planned)));
        self.progress.stage = Stage::Creating;
    }

    fn target(&mut self, machine: &FleetMachine<'_>, group: GroupName) -> Target {
        let run = machine.runs();
        Target {
            group,
            former: self.progress.remember(former(machine)),
            phase: TargetPhase::Pending,
            warm: run && machine.state != MachineState::Failed,
            run,
            was_healthy: machine.is_healthy(),
            since: None,
            sick_since: None,
        }
    }

    /// Creates the Machines of groups that have none and waits until they serve.
    pub(super) fn create(&mut self) {
        let seen = self.fleet.launched(self.desired);
        let keys: Vec<(GroupName, usize)> = self.launch_keys();
        let mut under_way = 0;
        let mut open = false;
        for (group, index) in keys {
            let ordinal = u32::try_from(index).unwrap_or(u32::MAX);
            let machine = seen.get(&(group.clone(), ordinal)).copied();
            if self.launch(&group, index, machine.as_ref(), &mut under_way) {
                open = true;
            }
            if self.progress.stage != Stage::Creating {
                return;
            }
        }
        if !open {
            self.progress.stage = Stage::Updating;
        }
    }

    pub(super) fn launch_keys(&self) -> Vec<(GroupName, usize)> {
        let groups = self.progress.launches.iter();
        groups
            .flat_map(|(group, list)| (0..list.len()).map(move |i| (group.clone(), i)))
            .collect()
    }

    /// Takes one new Machine a step further. Returns whether it is still on its way.
    fn launch(
        &mut self,
        group: &GroupName,
        index: usize,
        machine: Option<&FleetMachine<'_>>,
        under_way: &mut usize,
    ) -> bool {
        let mut launch = self.progress.launches[group][index].clone();
        if launch.phase == LaunchPhase::Passed {
            return false;
        }
        *under_way += 1;
        let Some(machine) = machine else {
            let patience = self.options.wait_timeout_secs;
            let late = launch.since.is_some_and(|s| self.now >= after(s, patience));
            if launch.machine.is_some() || late {
                self.fail(Failure {
                    machine: launch.machine,
                    group: Some(group.clone()),
                    reason: "a new Machine was destroyed while it was being deployed".to_owned(),
                });
            } else if *under_way <= MAX_CREATING || launch.phase == LaunchPhase::Asked {
                self.ask_to_create(group, index, launch);
            }
            return true;
        };
        let id = &machine.spec.id;
        launch.machine = Some(id.clone());
        // A launch that the store has but this memory does not, was asked for now at the latest.
        launch.phase = LaunchPhase::Asked;
        let since = *launch.since.get_or_insert(self.now);
        let watch = Watch {
            since,
            run: !launch.standby,
            health: true,
            smoke: true,
        };
        match self.watch(machine, &watch) {
            _ if !machine.state.is_active() => self.fail(Failure {
                machine: Some(id.clone()),
                group: Some(group.clone()),
                reason: "it was destroyed while it was being deployed".to_owned(),
            }),
            Judgement::Wait(..) => {}
            Judgement::Pass => {
                launch.phase = LaunchPhase::Passed;
                let kind = if launch.standby { "Standby " } else { "" };
                let text = format!("{kind}Machine {id} [{group}] is {}", machine.state);
                self.say(Level::Info, text, Some(id), Some(group));
            }
            Judgement::NeedsStart => self.ask_to_start(machine, since),
            Judgement::Fail(reason) => self.fail(Failure {
                machine: Some(id.clone()),
                group: Some(group.clone()),
                reason,
            }),
        }
        let open = launch.phase != LaunchPhase::Passed;
        self.put_launch(group, index, launch);
        open
    }

    fn put_launch(&mut self, group: &GroupName, index: usize, launch: Launch) {
        let slot = self.progress.launches.get_mut(group);
        if let Some(slot) = slot.and_then(|list| list.get_mut(index)) {
            *slot = launch;
        }
    }

    /// Asks for a new Machine; a standby only once the Machine it stands by has an id.
    fn ask_to_create(&mut self, group: &GroupName, index: usize, mut launch: Launch) {
        let Some(spec) = self.desired.groups.get(group) else {
            return;
        };
        let mut config =
            merge::for_new(spec, group, self.options.guest.clone(), self.desired.mark());
        if launch.standby {
            let first = self.progress.launches[group][0].machine.clone();
            let Some(first) = first else { return };
            merge::stand_by(&mut config, &first);
        }
        let ordinal = u32::try_from(index).unwrap_or(u32::MAX);
        self.ready.push(Step::Create {
            launch_key: self.desired.launch_key(group, ordinal),
            group: group.clone(),
            region: self.desired.region.clone(),
            config: Box::new(config),
            image_ref: self.desired.image_ref.clone(),
            secrets_version: self.desired.secrets_version,
            skip_launch: launch.standby,
        });
        launch.phase = LaunchPhase::Asked;
        launch.since.get_or_insert(self.now);
        self.put_launch(group, index, launch);
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
        let deadline = after(since, self.options.wait_timeout_secs);
        self.wait(&id, Condition::Started, deadline);
    }

    /// Takes existing Machines over to the release, within the limits of the strategy.
    pub(super) fn update(&mut self) {
        self.look_at_targets();
        if self.progress.stage != Stage::Updating {
            return;
        }
        let mut active = 0;
        let mut open = false;
        for (group, warm, cold) in self.lists() {
            if warm.is_done() && cold.is_done() {
                continue;
            }
            open = true;
            let begun = warm.under_way > 0 || cold.under_way > 0;
            active += 1;
            if active > MAX_GROUPS && !begun {
                continue;
            }
            for list in [warm, cold] {
                for id in list.next() {
                    self.ask_to_update(&id, &group);
                }
            }
        }
        if !open {
            self.progress.stage = Stage::Retiring;
        }
    }

    /// Judges every Machine whose update was asked for, and looks again at those that have
    /// passed while their group is not done.
    fn look_at_targets(&mut self) {
        let ids: Vec<MachineId> = self.progress.targets.keys().cloned().collect();
        let open = |t: &&Target| matches!(t.phase, TargetPhase::Pending | TargetPhase::Asked);
        let groups: BTreeSet<GroupName> = self
            .progress
            .targets
            .values()
            .filter(open)
            .map(|t| t.group.clone())
            .collect();
        for id in ids {
            let mut target = self.progress.targets[&id].clone();
            if target.phase == TargetPhase::Passed && target.run && groups.contains(&target.group) {
                if let Err(failure) = self.look_at_passed(&id, &mut target) {
                    return self.fail(failure);
                }
                self.progress.targets.insert(id, target);
                continue;
            }
            if !open(&&target) {
                continue;
            }
            let Some(machine) = self.fleet.active(&id).copied() else {
                target.phase = TargetPhase::Gone;
                let text = format!("Machine {id} was destroyed by somebody else");
                self.say(Level::Warning, text, Some(&id), Some(&target.group));
                self.progress.targets.insert(id, target);
                continue;
            };
            if target.phase == TargetPhase::Pending || !machine.is_at(&self.desired.release) {
                continue;
            }
            if let Err(failure) = self.look_at_updated(&machine, &mut target) {
                self.progress.targets.insert(id, target);
                self.fail(failure);
                return;
            }
            self.progress.targets.insert(id, target);
        }
    }

    /// A Machine that falls ill after it has passed holds its group up; one that crashes, or stays
    /// ill, fails the deployment.
    fn look_at_passed(&mut self, id: &MachineId, target: &mut Target) -> Result<(), Failure> {
        let Some(machine) = self.fleet.active(id).copied() else {
            return Ok(());
        };
        let sick = machine.state == MachineState::Started && !machine.is_healthy();
        let mut reason = crate::judge::relapse(&machine);
        if sick {
            let since = *target.sick_since.get_or_insert(self.now);
            let deadline = after(since, self.options.wait_timeout_secs);
            self.wait(id, Condition::Healthy, deadline);
            if self.now >= deadline {
                let text = "its checks passed at first and then failed again";
                reason = reason.or_else(|| Some(text.to_owned()));
            }
        } else {
            target.sick_since = None;
        }
        match reason {
            Some(reason) if !self.options.detach => Err(Failure {
                machine: Some(id.clone()),
                group: Some(target.group.clone()),
                reason,
            }),
            _ => Ok(()),
        }
    }

    fn look_at_updated(
        &mut self,
        machine: &FleetMachine<'_>,
        target: &mut Target,
    ) -> Result<(), Failure> {
        let (id, since) = (&machine.spec.id, target.since.unwrap_or(self.now));
        let watch = Watch {
            since,
            run: target.run,
            health: true,
            smoke: true,
        };
        match self.watch(machine, &watch) {
            Judgement::Wait(..) => {}
            Judgement::Pass => {
                target.phase = TargetPhase::Passed;
                let healthy = target.run && machine.spec.config.has_checks();
                let how = if healthy {
                    "healthy"
                } else {
                    machine.state.as_str()
                };
                let text = format!("Machine {id} [{}] is updated and {how}", target.group);
                self.say(Level::Info, text, Some(id), Some(&target.group));
            }
            Judgement::NeedsStart => self.ask_to_start(machine, since),
            Judgement::Fail(reason) => {
                return Err(Failure {
                    machine: Some(id.clone()),
                    group: Some(target.group.clone()),
                    reason,
                });
            }
        }
        Ok(())
    }

    /// Returns each group's warm and cold list.
    fn lists(&self) -> Vec<(GroupName, List, List)> {
        let mut groups: std::collections::BTreeMap<GroupName, (List, List)> =
            std::collections::BTreeMap::new();
        for (id, target) in &self.progress.targets {
            let (warm, cold) = groups.entry(target.group.clone()).or_default();
            let list = if target.warm { warm } else { cold };
            list.total += 1;
            match target.phase {
                TargetPhase::Pending => list.pending.push(id.clone()),
                TargetPhase::Asked => {
                    list.under_way += 1;
                    // The update may have been lost with whoever was to carry it out.
                    let lost = self.fleet.active(id);
                    if lost.is_some_and(|m| !m.is_at(&self.desired.release)) {
                        list.again.push(id.clone());
                    }
                }
                TargetPhase::Gone => list.gone += 1,
                _ => {
                    list.passed += 1;
                    list.sick += usize::from(target.sick_since.is_some());
                }
            }
        }
        let limit = |total| pool(self.options.max_unavailable, total);
        for (warm, cold) in groups.values_mut() {
            warm.pool = limit(warm.total);
            cold.pool = cold.total.min(MAX_COLD);
        }
        let flat = groups.into_iter();
        flat.map(|(group, (warm, cold))| (group, warm, cold))
            .collect()
    }

    /// Returns the configuration that the release gives to a Machine.
    pub(super) fn taken_over(&self, old: &MachineConfig, group: &GroupName) -> MachineConfig {
        match (self.desired.kind, self.desired.groups.get(group)) {
            (Kind::Full, Some(spec)) => merge::onto(old, spec, group, self.desired.mark()),
            _ => merge::restarted(old, self.desired.mark()),
        }
    }

    fn ask_to_update(&mut self, id: &MachineId, group: &GroupName) {
        let Some(machine) = self.fleet.active(id).copied() else {
            return;
        };
        let mut target = self.target(&machine, group.clone());
        let before = &self.progress.targets[id];
        target.warm = before.warm;
        if before.phase == TargetPhase::Pending {
            let text = format!("Updating Machine {id} [{group}]");
            self.say(Level::Info, text, Some(id), Some(group));
        }
        target.phase = TargetPhase::Asked;
        target.since = Some(self.now);
        let old = machine.spec;
        let config = self.taken_over(&old.config, group);
        let image_ref = match self.desired.kind {
            Kind::Full => self.desired.image_ref.clone(),
            Kind::RestartOnly => old.image_ref.clone(),
        };
        self.ready.push(Step::Update {
            machine: id.clone(),
            expected: old.instance_id.clone(),
            config: Box::new(config),
            image_ref,
            secrets_version: self.desired.secrets_version,
            skip_launch: !target.run,
        });
        self.progress.targets.insert(id.clone(), target);
    }
}

/// The Machines of one group that were started, or those that were not, when it began.
#[derive(Default)]
struct List {
    total: usize,
    pool: usize,
    pending: Vec<MachineId>,
    again: Vec<MachineId>,
    under_way: usize,
    passed: usize,
    /// Destroyed by somebody else: done, and proof of nothing.
    gone: usize,
    sick: usize,
}

impl List {
    fn is_done(&self) -> bool {
        self.passed + self.gone == self.total
    }

    /// Returns the Machines to update now: the first alone, then as many as the pool has room
    /// for, and those whose update was lost.
    fn next(&self) -> Vec<MachineId> {
        let room = if self.passed == 0 { 1 } else { self.pool };
        let free = room.saturating_sub(self.under_way + self.sick);
        let fresh = self.pending.iter().take(free);
        self.again.iter().chain(fresh).cloned().collect()
    }
}

/// Returns how many of so many Machines may be away at a time: a number from 1 on is taken as it
/// is, a share below is rounded up (4.10).
pub(crate) fn pool(max_unavailable: f64, total: usize) -> usize {
    if max_unavailable >= 1.0 {
        let mut whole = 1;
        while whole < total && f64_of(whole + 1) <= max_unavailable {
            whole += 1;
        }
        return whole;
    }
    let wanted = max_unavailable * f64_of(total);
    let mut whole = 1;
    while whole < total && f64_of(whole) < wanted {
        whole += 1;
    }
    whole
}

fn f64_of(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::MAX, f64::from)
}

fn former(machine: &FleetMachine<'_>) -> Former {
    Former {
        config: machine.spec.config.clone(),
        image_ref: machine.spec.image_ref.clone(),
        secrets_version: machine.spec.secrets_version,
    }
}
