//! The way there: decide what is to be done, then take the existing Machines over to the release,
//! the first of each list alone, or all at once.

use std::collections::BTreeSet;

use hangar_api::deployment::Strategy;
use hangar_api::id::{GroupName, MachineId};
use hangar_api::machine::{MachineConfig, MachineState};

use super::{Condition, Level, Planner, Step, deadline};
use crate::desired::Kind;
use crate::fleet::FleetMachine;
use crate::judge::{Judgement, Watch};
use crate::merge;
use crate::preview::Diff;
use crate::progress::{Failure, Former, Launch, Retire, Stage, Target, TargetPhase};

/// Most groups that are updated side by side (4.10).
const MAX_GROUPS: usize = 16;
/// Most stopped Machines of a group that are updated at a time (4.10).
const MAX_COLD: usize = 30;

impl Planner<'_> {
    /// Decides, once, which Machines are updated, created and removed.
    pub(super) fn begin(&mut self) {
        let diff = Diff::of(self.desired, self.fleet, self.options);
        for line in diff.group_changes(self.fleet.managed().next().is_none()) {
            self.say(Level::Info, line, None, None);
        }
        for (group, machines) in &diff.update {
            for id in machines {
                if let Some(machine) = self.fleet.active(id) {
                    let target = self.target(machine, group.clone());
                    self.progress.targets.insert(id.clone(), target);
                }
            }
        }
        for (group, standbys) in &diff.create {
            let launches = standbys.iter().map(|s| Launch::planned(*s)).collect();
            self.progress.launches.insert(group.clone(), launches);
            let text = format!("No machines in group {group}, launching a new machine");
            self.say(Level::Info, text, None, Some(group));
        }
        for group in &diff.empty {
            let text = format!(
                "Group {group} is scaled to 0 and stays without Machines; `hangar scale count {group}=1` brings it back"
            );
            self.say(Level::Info, text, None, Some(group));
        }
        self.plan_replacements(&diff);
        let removed = diff.remove.values().flatten();
        self.progress
            .retiring
            .extend(removed.map(|id| (id.clone(), Retire::Planned)));
        if self.desired.kind == Kind::Full && self.has_only_unmanaged() {
            let text = "[WARNING] Your app doesn't have any Fly Launch machines, so we'll create \
                        one now. The machines that it has are left as they are";
            self.say(Level::Warning, text, None, None);
        }
        if let Some(line) = diff.filtered() {
            self.say(Level::Info, line, None, None);
        }
        self.say_of_strategy();
        self.progress.begun_at = Some(self.now);
        self.progress.stage = Stage::Releasing;
    }

    /// Returns whether the app has Machines, and none that deployments look at.
    fn has_only_unmanaged(&self) -> bool {
        let mut machines = self.fleet.machines.values();
        let some = machines.any(|m| m.state.is_active() && m.launch_key.is_none());
        some && self.fleet.managed().next().is_none()
    }

    /// What is on a lost slot is made anew elsewhere first, and removed at the very end.
    fn plan_replacements(&mut self, diff: &Diff) {
        for (group, ids) in &diff.replace {
            for id in ids {
                let Some(machine) = self.fleet.active(id) else {
                    continue;
                };
                let launch = Launch {
                    replaces: Some(id.clone()),
                    rests: !machine.runs(),
                    ..Launch::planned(false)
                };
                let slot = &machine.spec.slot;
                let text = if machine.is_lost {
                    format!(
                        "Machine {id} [{group}] is on slot {slot}, which is lost: it is replaced"
                    )
                } else if machine.spec.config.mounts.is_empty() {
                    format!("Machine {id} [{group}] is replaced by one with a volume")
                } else {
                    let volume = machine.spec.config.mounts.first();
                    let volume = volume.map_or("", |mount| mount.volume.as_str());
                    format!(
                        "Machine {id} [{group}] is replaced by one without volume {volume}, which is kept"
                    )
                };
                self.say(Level::Warning, text, Some(id), Some(group));
                let list = self.progress.launches.entry(group.clone());
                list.or_default().push(launch);
                self.progress.retiring.insert(id.clone(), Retire::Planned);
            }
        }
    }

    /// Says what the strategy does not promise.
    fn say_of_strategy(&mut self) {
        match self.options.strategy {
            Strategy::Immediate if !self.progress.targets.is_empty() => {
                let text = "Strategy immediate: Machines are updated without waiting for their \
                            checks, and what fails is not put back";
                self.say(Level::Warning, text, None, None);
            }
            Strategy::Bluegreen => {
                let ids: Vec<MachineId> = self.progress.targets.keys().cloned().collect();
                for id in ids {
                    let Some(machine) = self.fleet.active(&id) else {
                        continue;
                    };
                    let group = self.progress.targets[&id].group.clone();
                    if !self.taken_over(&machine.spec.config, &group).has_checks() {
                        let text = format!(
                            "Machine {id} doesn't have healthchecks setup. We won't check its \
                             health."
                        );
                        self.say(Level::Warning, text, Some(&id), Some(&group));
                    }
                }
            }
            _ => {}
        }
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
            again: None,
        }
    }

    /// Takes existing Machines over to the release, within the limits of the strategy.
    pub(super) fn update(&mut self) {
        self.look_at_targets();
        if self.progress.stage != Stage::Updating {
            return;
        }
        if self.options.strategy == Strategy::Immediate {
            return self.update_at_once();
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

    /// Updates all that are left, so many at a time, whatever becomes of the others.
    fn update_at_once(&mut self) {
        let lists = self.lists();
        let under_way: usize = lists
            .iter()
            .map(|(_, w, c)| w.under_way + c.under_way)
            .sum();
        let mut free = self.max_concurrent().saturating_sub(under_way);
        let mut open = false;
        for (group, warm, cold) in lists {
            for list in [warm, cold] {
                open |= !list.is_done();
                let fresh = list.pending.into_iter().take(free);
                let ids: Vec<MachineId> = list.again.into_iter().chain(fresh).collect();
                for id in &ids {
                    if self.progress.targets[id].phase == TargetPhase::Pending {
                        free = free.saturating_sub(1);
                    }
                    self.ask_to_update(id, &group);
                }
            }
        }
        if !open {
            self.end_at_once();
        }
    }

    fn end_at_once(&mut self) {
        if self.progress.trouble.is_empty() {
            self.progress.stage = Stage::Retiring;
            return;
        }
        let reason = self.progress.trouble.join("; ");
        self.fail(Failure {
            reason,
            ..Failure::default()
        });
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
            let is_watched = target.run && self.options.strategy != Strategy::Immediate;
            if target.phase == TargetPhase::Passed && is_watched && groups.contains(&target.group) {
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
            match self.look_at_updated(&machine, &mut target) {
                Err(failure) if self.tries_again(&machine, &mut target, &failure) => {}
                Err(failure) if self.options.strategy == Strategy::Immediate => {
                    self.progress.add_trouble(failure.to_string());
                    target.phase = TargetPhase::Passed;
                }
                Err(failure) => {
                    self.progress.targets.insert(id, target);
                    self.fail(failure);
                    return;
                }
                Ok(()) => {}
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
            let until = deadline(since, self.options.wait_timeout_secs);
            self.wait(id, Condition::Healthy, until);
            if self.now >= until {
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
            Judgement::Pass if target.run && !self.tests_pass(machine, &target.group)? => {}
            Judgement::Pass => {
                target.phase = TargetPhase::Passed;
                let immediate = self.options.strategy == Strategy::Immediate;
                let healthy = target.run && machine.spec.config.has_checks() && !immediate;
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
        let mut config = match (self.desired.kind, self.desired.groups.get(group)) {
            (Kind::Full, Some(spec)) => merge::onto(old, spec, group, self.desired.mark()),
            _ => merge::restarted(old, self.desired.mark()),
        };
        for watched in &mut config.standbys {
            let launches = self.progress.launches.values().flatten();
            let mut instead = launches.filter(|launch| {
                let replaced = launch.replaces.as_ref();
                replaced.is_some_and(|id| id.as_str() == watched.as_str())
            });
            if let Some(id) = instead.find_map(|launch| launch.machine.as_ref()) {
                *watched = id.to_string();
            }
        }
        config
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
