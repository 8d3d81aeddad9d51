//! The bluegreen strategy: a green Machine beside every existing (blue) one, out of the proxy until
//! all are healthy; then all are let in together, and the blue ones are removed (4.10).
//!
//! Until the green ones are in, nothing blue is touched: turning back is removing the green ones.

use std::collections::BTreeMap;

use hangar_api::id::{GroupName, MachineId};
use hangar_api::machine::{MachineConfig, MachineState};

use super::launch::{New, Way};
use super::{Condition, Level, Planner, Step, deadline};
use crate::desired::{GREEN, Kind};
use crate::fleet::FleetMachine;
use crate::merge;
use crate::progress::{Failure, Green, Launch, LaunchPhase, Retire, Stage};

impl Planner<'_> {
    /// Brings a green Machine up beside each blue one and waits until all are healthy.
    pub(super) fn double(&mut self) {
        if self.progress.targets.is_empty() {
            self.progress.stage = Stage::Retiring;
            return;
        }
        if self.progress.greens.is_empty() {
            self.plan_greens();
        }
        let keys = self.green_keys();
        let pool = keys.len().div_ceil(3).min(self.max_concurrent());
        let mut under_way = 0;
        let mut open = false;
        for (group, index) in &keys {
            let mut green = self.progress.greens[group][*index].clone();
            let new = New {
                group,
                ordinal: ordinal(*index),
                kind: "Green ",
                run: green.run,
                tested: false,
            };
            let way = self.follow(new, &mut green.launch);
            if self.progress.stage != Stage::Doubling {
                return;
            }
            open |= way != Way::Passed;
            let asked = green.launch.phase == LaunchPhase::Asked;
            under_way += usize::from(way == Way::Unsettled || asked && way == Way::Missing);
            if way == Way::Missing && (asked || under_way < pool) {
                let is_new = self.ask_for_green(new, &mut green) && !asked;
                under_way += usize::from(is_new);
            }
            self.put_green(group, *index, green);
        }
        if !open && self.all_still_healthy() {
            if !self.progress.greens.is_empty() {
                self.say(Level::Info, "Marking green machines as ready", None, None);
            }
            self.progress.stage = Stage::Switching;
        }
    }

    /// Lets the green Machines into the proxy, all at once, and waits until it has taken them.
    pub(super) fn switch(&mut self) {
        let mut open = false;
        for (group, index) in self.green_keys() {
            let green = &self.progress.greens[&group][index];
            let Some(id) = green.launch.machine.clone() else {
                continue;
            };
            let keeps_out = self.was_cordoned(&green.blue);
            let Some(machine) = self.fleet.active(&id).copied() else {
                return self.fail(Failure {
                    machine: Some(id),
                    group: Some(group),
                    reason: "it was destroyed just before it was to take requests".to_owned(),
                });
            };
            if machine.spec.cordoned && !keeps_out {
                open = true;
                self.ready.push(Step::Uncordon { machine: id });
            } else if !machine.is_published {
                open = true;
                let until = deadline(self.now, self.options.wait_timeout_secs);
                self.wait(&id, Condition::Published, until);
            }
        }
        if open {
            return;
        }
        let blue: Vec<MachineId> = self.progress.targets.keys().cloned().collect();
        for id in blue {
            self.progress.retiring.entry(id).or_insert(Retire::Planned);
        }
        if !self.progress.retiring.is_empty() {
            self.say(Level::Info, "Destroying all blue machines", None, None);
        }
        self.progress.stage = Stage::Retiring;
    }

    /// Decides, once, which green Machines there are, and which of them run: those whose blue one
    /// does, and in a group with checks of which nobody runs, the first, to show that it can.
    fn plan_greens(&mut self) {
        let mut greens: BTreeMap<GroupName, Vec<Green>> = BTreeMap::new();
        for (id, target) in &self.progress.targets {
            let green = Green {
                launch: Launch::planned(false),
                blue: id.clone(),
                run: target.run,
                relapsed: false,
            };
            greens.entry(target.group.clone()).or_default().push(green);
        }
        for (group, list) in &mut greens {
            let checked = match self.desired.kind {
                Kind::Full => self.desired.groups.get(group).map(|spec| &spec.config),
                Kind::RestartOnly => list
                    .first()
                    .and_then(|green| self.fleet.active(&green.blue))
                    .map(|machine| &machine.spec.config),
            };
            let checked = checked.is_some_and(MachineConfig::has_checks);
            if checked
                && !list.iter().any(|green| green.run)
                && let Some(first) = list.first_mut()
            {
                first.run = true;
            }
        }
        self.say(Level::Info, "Creating green machines", None, None);
        self.progress.greens = greens;
    }

    fn green_keys(&self) -> Vec<(GroupName, usize)> {
        let groups = self.progress.greens.iter();
        groups
            .flat_map(|(group, list)| (0..list.len()).map(move |i| (group.clone(), i)))
            .collect()
    }

    fn put_green(&mut self, group: &GroupName, index: usize, green: Green) {
        let list = self.progress.greens.get_mut(group);
        if let Some(slot) = list.and_then(|list| list.get_mut(index)) {
            *slot = green;
        }
    }

    fn was_cordoned(&self, blue: &MachineId) -> bool {
        self.fleet
            .machines
            .get(blue)
            .is_some_and(|m| m.spec.cordoned)
    }

    /// Asks for a green Machine; a standby only once the green Machines that it is to watch have
    /// ids. Returns whether it was asked for.
    fn ask_for_green(&mut self, new: New<'_>, green: &mut Green) -> bool {
        let Some(blue) = self.fleet.active(&green.blue).copied() else {
            let text = format!("Machine {} was destroyed by somebody else", green.blue);
            self.say(Level::Warning, text, Some(&green.blue), Some(new.group));
            green.launch.phase = LaunchPhase::Passed;
            return false;
        };
        let mut config = self.taken_over(&blue.spec.config, new.group);
        let Some(standbys) = self.green_standbys(&config.standbys) else {
            return false;
        };
        if !standbys.is_empty() {
            let name = merge::STANDBY_FOR.to_owned();
            config.env.insert(name, standbys.join(","));
        }
        config.standbys = standbys;
        let launch_key = self.desired.launch_key(new.group, new.ordinal);
        let begun = self.progress.begun_at.unwrap_or(self.now).as_second();
        merge::as_green(&mut config, &begun.to_string(), &launch_key);
        self.ready.push(Step::Create {
            launch_key,
            group: new.group.clone(),
            region: blue.spec.region.clone(),
            config: Box::new(config),
            image_ref: match self.desired.kind {
                Kind::Full => self.desired.image_ref.clone(),
                Kind::RestartOnly => blue.spec.image_ref.clone(),
            },
            secrets_version: self.desired.secrets_version,
            skip_launch: !green.run,
            cordoned: true,
        });
        self.asked(&mut green.launch);
        true
    }

    /// Returns the green Machines that stand for blue ones that are watched; those of nobody's are
    /// kept. `None` while one of them has no id yet.
    fn green_standbys(&self, watched: &[String]) -> Option<Vec<String>> {
        let mut out = Vec::new();
        for id in watched {
            let greens = self.progress.greens.values().flatten();
            let mut of_blue = greens.filter(|green| green.blue.as_str() == id.as_str());
            match of_blue.next() {
                None => out.push(id.clone()),
                Some(green) => match &green.launch.machine {
                    Some(machine) => out.push(machine.to_string()),
                    // A standby of a standby would wait for itself.
                    None if self.is_standby(&green.blue) => {}
                    None if green.launch.phase == LaunchPhase::Passed => {}
                    None => return None,
                },
            }
        }
        Some(out)
    }

    fn is_standby(&self, id: &MachineId) -> bool {
        let machine = self.fleet.active(id);
        machine.is_some_and(|m| !m.spec.config.standbys.is_empty())
    }

    /// Looks once more at all green Machines: one that has fallen ill since it passed has one more
    /// wait to get well.
    fn all_still_healthy(&mut self) -> bool {
        let mut healthy = true;
        for (group, index) in self.green_keys() {
            let mut green = self.progress.greens[&group][index].clone();
            let id = green.launch.machine.clone();
            let machine = id.as_ref().and_then(|id| self.fleet.active(id)).copied();
            let Some(machine) = machine.filter(|_| green.run) else {
                continue;
            };
            let failed = |reason: String| Failure {
                machine: id.clone(),
                group: Some(group.clone()),
                reason,
            };
            if let Some(reason) = crate::judge::relapse(&machine) {
                self.fail(failed(reason));
                return false;
            }
            if is_ill(&machine) && !self.options.detach {
                if green.relapsed {
                    let text = "its checks passed at first and then failed again";
                    self.fail(failed(text.to_owned()));
                    return false;
                }
                healthy = false;
                green.relapsed = true;
                green.launch.phase = LaunchPhase::Asked;
                green.launch.since = Some(self.now);
                let until = deadline(self.now, self.options.wait_timeout_secs);
                self.wait(&machine.spec.id, Condition::Healthy, until);
                self.put_green(&group, index, green);
            }
        }
        healthy
    }
}

fn is_ill(machine: &FleetMachine<'_>) -> bool {
    machine.state == MachineState::Started && machine.first_unhealthy().is_some()
}

fn ordinal(index: usize) -> u32 {
    GREEN.saturating_add(u32::try_from(index).unwrap_or(u32::MAX))
}
