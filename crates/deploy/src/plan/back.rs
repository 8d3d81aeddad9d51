//! The way back: former versions of all that was updated, and the new Machines gone.

use std::collections::BTreeMap;

use hangar_api::id::{GroupName, MachineId};

use super::{Level, Planner, Step};
use crate::fleet::FleetMachine;
use crate::judge::{Judgement, Watch};
use crate::merge;
use crate::plan::forward::pool;
use hangar_api::machine::MachineState;

use crate::progress::{Failure, LaunchPhase, Retire, Stage, Target, TargetPhase};

impl Planner<'_> {
    /// Puts former versions back and removes what was created.
    pub(super) fn roll_back(&mut self) {
        // Groups that were to go stay; what was created goes.
        self.progress
            .retiring
            .retain(|_, phase| *phase != Retire::Planned);
        for machine in self.made.values().filter(|m| m.state.is_active()) {
            let id = machine.spec.id.clone();
            self.progress.retiring.entry(id).or_insert(Retire::Planned);
        }
        self.await_ends();
        let restored = self.restore();
        let removed = self.retire_all();
        if restored && removed {
            self.progress.stage = self.end_of_rollback();
        }
    }

    fn end_of_rollback(&mut self) -> Stage {
        if self.progress.trouble.is_empty() {
            self.say(Level::Info, "The fleet is as it was before", None, None);
            return Stage::RolledBack;
        }
        let trouble = self.progress.trouble.join("; ");
        self.say(Level::Error, trouble.clone(), None, None);
        if let Some(failure) = &mut self.progress.failure {
            let reason = &failure.reason;
            failure.reason = format!("{reason}; while putting things back: {trouble}");
        }
        Stage::Failed
    }

    /// Lets what was begun come to its end, and leaves the rest.
    pub(super) fn halt(&mut self) {
        let mut open = false;
        let targets: Vec<(MachineId, Target)> = self
            .progress
            .targets
            .iter()
            .filter(|(_, t)| t.phase == TargetPhase::Asked)
            .map(|(id, t)| (id.clone(), t.clone()))
            .collect();
        for (id, target) in targets {
            let machine = self.fleet.active(&id).copied();
            let Some(machine) = machine.filter(|m| m.is_at(&self.desired.release)) else {
                continue;
            };
            let watch = watch_of(&target, self.now, true);
            open |= matches!(self.watch(&machine, &watch), Judgement::Wait(..));
        }
        let made = self.made.clone();
        for ((group, ordinal), machine) in made.iter().filter(|(_, m)| m.state.is_active()) {
            let launches = self.progress.launches.get(group);
            let index = usize::try_from(*ordinal).unwrap_or(usize::MAX);
            let Some(launch) = launches.and_then(|l| l.get(index)).cloned() else {
                continue;
            };
            if launch.phase == LaunchPhase::Passed {
                continue;
            }
            let watch = Watch {
                since: launch.since.unwrap_or(self.now),
                run: !launch.standby && !launch.rests,
                health: true,
                smoke: true,
            };
            // A Machine that was never seen before has no time of its own: it is not waited for.
            if launch.since.is_some() {
                open |= matches!(self.watch(machine, &watch), Judgement::Wait(..));
            }
        }
        let removed = self.remove_extras();
        if !open && removed && self.end_replacements() {
            self.progress.stage = Stage::Failed;
        }
    }

    /// Of a Machine that was to be replaced and the one made in its place, one goes: the new one
    /// stays only where it has come up. Returns whether that is over.
    fn end_replacements(&mut self) -> bool {
        let mut going = Vec::new();
        for (group, index) in self.launch_keys() {
            let launch = &self.progress.launches[&group][index];
            let Some(old) = launch.replaces.clone() else {
                continue;
            };
            let ordinal = u32::try_from(index).unwrap_or(u32::MAX);
            let Some(new) = self.made(&group, ordinal) else {
                continue;
            };
            let is_up = if launch.rests {
                new.state.is_active() && new.state != MachineState::Failed
            } else {
                new.is_healthy()
            };
            let id = new.spec.id.clone();
            let begun = |id| {
                let phase = self.progress.retiring.get(id);
                phase.is_some_and(|phase| *phase != Retire::Planned)
            };
            // What is decided stays so, also when the Machine changes on its way out.
            let old_goes = begun(&old) || is_up && !begun(&id);
            going.push(if old_goes { old } else { id });
        }
        for id in &going {
            let entry = self.progress.retiring.entry(id.clone());
            entry.or_insert(Retire::Planned);
        }
        self.retire_these(going)
    }

    /// Removes what was made only to get to the end, also where the rest is left as it is: two
    /// fleets side by side are nobody's wish.
    fn remove_extras(&mut self) -> bool {
        let machines = self.fleet.machines.values();
        let of_ours = machines.filter(|machine| {
            let key = machine.launch_key;
            let ours = key.is_some_and(|k| k.deployment == self.desired.deployment && k.is_extra());
            ours && machine.state != MachineState::Destroyed
        });
        let ids: Vec<MachineId> = of_ours.map(|machine| machine.spec.id.clone()).collect();
        for id in &ids {
            let entry = self.progress.retiring.entry(id.clone());
            entry.or_insert(Retire::Planned);
        }
        self.retire_these(ids)
    }

    /// Puts former versions back, a pool of each group at a time; returns whether all are back.
    fn restore(&mut self) -> bool {
        let mut waiting: Vec<(bool, MachineId)> = Vec::new();
        let ids: Vec<MachineId> = self.progress.targets.keys().cloned().collect();
        for id in ids {
            let mut target = self.progress.targets[&id].clone();
            match target.phase {
                TargetPhase::Pending | TargetPhase::Restored | TargetPhase::Gone => continue,
                TargetPhase::Asked | TargetPhase::Passed | TargetPhase::Restoring => {}
            }
            let Some(machine) = self.fleet.active(&id).copied() else {
                target.phase = TargetPhase::Gone;
                self.progress.targets.insert(id, target);
                continue;
            };
            if machine.is_at(&self.desired.release) {
                // Those that have not passed go first: the fleet counts on nobody of them.
                let missed = target.phase == TargetPhase::Passed && machine.is_healthy();
                waiting.push((missed, id));
                continue;
            }
            if target.phase == TargetPhase::Restoring {
                self.look_at_restored(&machine, &mut target);
            } else if target.phase == TargetPhase::Asked {
                // Its update was never carried out.
                target.phase = TargetPhase::Restored;
            }
            self.progress.targets.insert(id, target);
        }
        waiting.sort();
        let mut rooms = self.rooms();
        for (missed, id) in waiting {
            let target = &self.progress.targets[&id];
            let is_new = target.phase == TargetPhase::Passed;
            let room = rooms.get_mut(&target.group).filter(|_| target.warm);
            match room {
                Some(room) if missed && *room == 0 => continue,
                Some(room) if is_new => *room = room.saturating_sub(1),
                _ => {}
            }
            self.ask_to_restore(&id);
        }
        let targets = self.progress.targets.values();
        targets.into_iter().all(|t| {
            matches!(
                t.phase,
                TargetPhase::Pending | TargetPhase::Restored | TargetPhase::Gone
            )
        })
    }

    /// Returns how many more healthy Machines of each group may be taken away.
    fn rooms(&self) -> BTreeMap<GroupName, usize> {
        let mut counts: BTreeMap<&GroupName, (usize, usize)> = BTreeMap::new();
        for target in self.progress.targets.values().filter(|t| t.warm) {
            let (total, away) = counts.entry(&target.group).or_default();
            *total += 1;
            let is_away = matches!(target.phase, TargetPhase::Restoring | TargetPhase::Asked);
            *away += usize::from(is_away);
        }
        let room = |(group, (total, away)): (&GroupName, (usize, usize))| {
            let room = pool(self.options.max_unavailable, total).saturating_sub(away);
            (group.clone(), room)
        };
        counts.into_iter().map(room).collect()
    }

    fn ask_to_restore(&mut self, id: &MachineId) {
        let Some(machine) = self.fleet.active(id).copied() else {
            return;
        };
        let mut target = self.progress.targets[id].clone();
        let Some(former) = self.progress.formers.get(target.former).cloned() else {
            return;
        };
        if target.phase != TargetPhase::Restoring {
            let text = format!("Putting Machine {id} [{}] back", target.group);
            self.say(Level::Info, text, Some(id), Some(&target.group));
        }
        target.phase = TargetPhase::Restoring;
        target.since = Some(self.now);
        let taken_over = self.taken_over(&former.config, &target.group);
        let config = merge::back(&former.config, &machine.spec.config, &taken_over);
        self.ready.push(Step::Update {
            machine: id.clone(),
            expected: machine.spec.instance_id.clone(),
            config: Box::new(config),
            image_ref: former.image_ref,
            secrets_version: former.secrets_version,
            skip_launch: !target.run,
        });
        self.progress.targets.insert(id.clone(), target);
    }

    fn look_at_restored(&mut self, machine: &FleetMachine<'_>, target: &mut Target) {
        let id = &machine.spec.id;
        let watch = watch_of(target, self.now, false);
        match self.watch(machine, &watch) {
            Judgement::Wait(..) => {}
            Judgement::Pass => {
                target.phase = TargetPhase::Restored;
                let text = format!("Machine {id} [{}] is as before", target.group);
                self.say(Level::Info, text, Some(id), Some(&target.group));
            }
            Judgement::NeedsStart => self.ask_to_start(machine, watch.since),
            Judgement::Fail(reason) => {
                target.phase = TargetPhase::Restored;
                let failure = Failure {
                    machine: Some(id.clone()),
                    group: Some(target.group.clone()),
                    reason,
                };
                // A Machine that was broken before may be broken again: that is how it was.
                if target.was_healthy {
                    self.progress.add_trouble(failure.to_string());
                } else {
                    self.say(Level::Warning, failure.to_string(), Some(id), None);
                }
            }
        }
    }
}

fn watch_of(target: &Target, now: hangar_api::Timestamp, forward: bool) -> Watch {
    Watch {
        since: target.since.unwrap_or(now),
        run: target.run,
        health: forward || target.was_healthy,
        smoke: forward,
    }
}
