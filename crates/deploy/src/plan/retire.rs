//! The removal of Machines: out of the proxy, stopped by their own signal, then destroyed.
//!
//! Used for groups that are gone and for blue Machines, at the very end, for canaries, and for the
//! new Machines of a deployment that failed.

use hangar_api::deployment::Strategy;
use hangar_api::id::MachineId;
use hangar_api::machine::{MachineState, OpKind};

use super::{Condition, Level, Planner, Step, after};
use crate::fleet::FleetMachine;
use crate::progress::{Retire, Stage};

/// Beside its own stop time: what requests in flight may take to end.
const DRAIN_SECS: u64 = 45;
/// How long the end of a Machine is waited for when `--wait-timeout` is none.
const PATIENCE_SECS: u64 = 300;
/// The stop time of a Machine that does not say.
const DEFAULT_STOP_SECS: u64 = 5;

impl Planner<'_> {
    /// Removes the Machines of groups that are gone. There is no way back from here.
    pub(super) fn retire(&mut self) {
        self.await_ends();
        if !self.retire_all() {
            return;
        }
        if !self.progress.trouble.is_empty() {
            let left = self.progress.trouble.join("; ");
            self.say(Level::Warning, format!("Not removed: {left}"), None, None);
        }
        self.progress.stage = Stage::Complete;
    }

    /// Also waits for Machines of ours that are on their way out by themselves, as those are that
    /// run once: when it is over, nothing is left of it.
    pub(super) fn await_ends(&mut self) {
        let going = self.made.values().filter(|machine| {
            machine.spec.config.auto_destroy && machine.state == MachineState::Destroying
        });
        let ids: Vec<MachineId> = going.map(|machine| machine.spec.id.clone()).collect();
        for id in ids {
            let going = Retire::Destroying { since: self.now };
            self.progress.retiring.entry(id).or_insert(going);
        }
    }

    /// Takes every Machine that is to go one step further; returns whether all are gone.
    pub(super) fn retire_all(&mut self) -> bool {
        let ids: Vec<MachineId> = self.progress.retiring.keys().cloned().collect();
        self.retire_these(ids)
    }

    /// Takes these a step further; returns whether all of them are gone.
    pub(super) fn retire_these(&mut self, ids: Vec<MachineId>) -> bool {
        let mut done = true;
        for id in ids {
            let Some(before) = self.progress.retiring.get(&id).copied() else {
                continue;
            };
            if before == Retire::Done {
                continue;
            }
            let after = self.retire_one(&id, before);
            done &= after == Retire::Done;
            self.progress.retiring.insert(id, after);
        }
        done
    }

    fn retire_one(&mut self, id: &MachineId, phase: Retire) -> Retire {
        let machine = self.fleet.machines.get(id).copied();
        let Some(machine) = machine.filter(|m| m.state != MachineState::Destroyed) else {
            return Retire::Done;
        };
        match phase {
            Retire::Planned => self.begin_to_retire(&machine),
            Retire::Draining { since } => {
                let deadline = after(since, DRAIN_SECS + stop_secs(&machine));
                if !is_up(&machine) || self.now >= deadline {
                    return self.destroy(&machine);
                }
                self.ask_to_stop(&machine);
                self.wait(id, Condition::Stopped, deadline);
                phase
            }
            Retire::Destroying { since } => {
                let patience = self.patience();
                let deadline = after(since, patience);
                if self.now >= deadline {
                    let text = format!(
                        "Machine {id} is not gone after {patience} s; its host will go on trying"
                    );
                    self.say(Level::Warning, text, Some(id), None);
                    return Retire::Done;
                }
                if !machine.is_going() {
                    self.destroy(&machine);
                }
                self.wait(id, Condition::Destroyed, deadline);
                phase
            }
            Retire::Done => phase,
        }
    }

    fn begin_to_retire(&mut self, machine: &FleetMachine<'_>) -> Retire {
        let id = &machine.spec.id;
        let group = machine.spec.config.group_or_app();
        let text = format!("Destroying Machine {id} [{group}]");
        self.say(Level::Info, text, Some(id), Some(&group));
        // Nobody answers on a lost slot: there is nothing to wait for.
        if machine.is_lost || !is_up(machine) {
            return self.destroy(machine);
        }
        self.ask_to_stop(machine);
        let deadline = after(self.now, DRAIN_SECS + stop_secs(machine));
        self.wait(id, Condition::Stopped, deadline);
        Retire::Draining { since: self.now }
    }

    /// Takes it out of the proxy, so that no request starts it again, and stops it.
    fn ask_to_stop(&mut self, machine: &FleetMachine<'_>) {
        if !machine.spec.cordoned {
            self.ready.push(Step::Cordon {
                machine: machine.spec.id.clone(),
            });
        }
        let asked = machine
            .undone()
            .any(|op| matches!(op.kind, OpKind::Stop { .. } | OpKind::Destroy));
        if !asked && machine.state != MachineState::Stopping {
            self.ready.push(Step::Stop {
                machine: machine.spec.id.clone(),
                expected: machine.spec.instance_id.clone(),
                signal: self.signal().cloned(),
            });
        }
    }

    /// Returns what blue Machines are stopped with instead of their own signal.
    fn signal(&self) -> Option<&String> {
        let is_blue =
            self.options.strategy == Strategy::Bluegreen && self.progress.stage == Stage::Retiring;
        self.options.signal.as_ref().filter(|_| is_blue)
    }

    fn destroy(&mut self, machine: &FleetMachine<'_>) -> Retire {
        let id = &machine.spec.id;
        if !machine.is_going() {
            self.ready.push(Step::Destroy {
                machine: id.clone(),
                expected: machine.spec.instance_id.clone(),
            });
        }
        let deadline = after(self.now, self.patience());
        self.wait(id, Condition::Destroyed, deadline);
        Retire::Destroying { since: self.now }
    }

    /// Returns how long the end of a Machine is waited for, also where nothing else has a limit.
    fn patience(&self) -> u64 {
        match self.options.wait_timeout_secs {
            0 => PATIENCE_SECS,
            seconds => seconds,
        }
    }
}

/// Returns whether it runs, or may be about to.
fn is_up(machine: &FleetMachine<'_>) -> bool {
    !matches!(
        machine.state,
        MachineState::Created
            | MachineState::Stopped
            | MachineState::Suspended
            | MachineState::Failed
            | MachineState::Destroying
            | MachineState::Destroyed
    )
}

fn stop_secs(machine: &FleetMachine<'_>) -> u64 {
    let stop = machine.spec.config.stop_config.as_ref();
    let timeout = stop.and_then(|s| s.timeout);
    timeout.map_or(DEFAULT_STOP_SECS, |t| t.to_std().as_secs().min(300))
}
