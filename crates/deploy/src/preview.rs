//! What a deployment would do, as a list and in words.
//!
//! [`Diff`] is what the planner records when it begins; [`preview`] is what `deploy --dry-run`
//! prints, with flyctl's lines where it has any.

use std::collections::BTreeMap;

use hangar_api::deployment::DeployOptions;
use hangar_api::id::{GroupName, MachineId};
use hangar_api::machine::MachineConfig;

use crate::desired::{Desired, Kind};
use crate::fleet::ObservedFleet;
use crate::plan::pool;

/// What is to be done to which group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Diff {
    /// Machines to update, by their group in the release.
    pub(crate) update: BTreeMap<GroupName, Vec<MachineId>>,
    /// New Machines of groups that have none; true for a standby.
    pub(crate) create: BTreeMap<GroupName, Vec<bool>>,
    /// Machines of groups that are gone.
    pub(crate) remove: BTreeMap<GroupName, Vec<MachineId>>,
}

impl Diff {
    /// Compares what is with what is wanted (4.4, 4.6).
    pub(crate) fn of(
        desired: &Desired,
        fleet: &ObservedFleet<'_>,
        options: &DeployOptions,
    ) -> Self {
        let mut diff = Self::default();
        let default = match desired.kind {
            Kind::Full => desired.default_group(),
            Kind::RestartOnly => GroupName::app(),
        };
        for machine in fleet.managed() {
            let group = machine.group(&default);
            let stays = desired.kind == Kind::RestartOnly || desired.groups.contains_key(&group);
            let list = if stays {
                &mut diff.update
            } else {
                &mut diff.remove
            };
            list.entry(group).or_default().push(machine.spec.id.clone());
        }
        if desired.kind == Kind::RestartOnly {
            return diff;
        }
        for (group, spec) in &desired.groups {
            if !diff.update.contains_key(group) {
                let machines = first_machines(&spec.config, options.ha);
                diff.create.insert(group.clone(), machines);
            }
        }
        diff
    }
}

/// Returns the Machines that a group without any gets (4.6); true for a standby.
fn first_machines(config: &MachineConfig, ha: bool) -> Vec<bool> {
    let mounts = config.other.get("mounts").and_then(|m| m.as_array());
    let has_mounts = mounts.is_some_and(|m| !m.is_empty());
    match (ha && !has_mounts, config.services.is_empty()) {
        (false, _) => vec![false],
        (true, false) => vec![false, false],
        (true, true) => vec![false, true],
    }
}

/// Returns new Machines in words: "2 machines", "1 machine and 1 standby machine for it".
pub(crate) fn new_machines(standbys: &[bool]) -> String {
    let running = standbys.iter().filter(|s| !**s).count();
    let mut text = format!("{running} machine{}", plural(running));
    if running < standbys.len() {
        text.push_str(" and 1 standby machine for it");
    }
    text
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// Returns what a deployment would do, one line a step.
#[must_use]
pub fn preview(
    desired: &Desired,
    fleet: &ObservedFleet<'_>,
    options: &DeployOptions,
) -> Vec<String> {
    let diff = Diff::of(desired, fleet, options);
    let mut lines = Vec::new();
    if !diff.create.is_empty() || !diff.remove.is_empty() {
        let first = fleet.managed().next().is_none();
        lines.push(if first {
            "This deployment will:".to_owned()
        } else {
            "Process groups have changed. This will:".to_owned()
        });
    }
    for (group, standbys) in &diff.create {
        let count = standbys.iter().filter(|s| !**s).count();
        let mut line = format!(" * create {count} \"{group}\" machine{}", plural(count));
        if count < standbys.len() {
            line.push_str(" and 1 standby machine for it");
        }
        lines.push(line);
    }
    for (group, machines) in &diff.update {
        let total = machines.len();
        let runs = |id: &&MachineId| fleet.active(id).is_some_and(crate::FleetMachine::runs);
        let running = machines.iter().filter(runs).count();
        let how = match running {
            0 => "it stays stopped".to_owned(),
            1 => "in place".to_owned(),
            _ => {
                let at_once = pool(options.max_unavailable, running);
                format!("the first alone, then {at_once} at a time")
            }
        };
        let verb = match desired.kind {
            Kind::Full => "update",
            Kind::RestartOnly => "restart",
        };
        let s = plural(total);
        lines.push(format!(" * {verb} {total} \"{group}\" machine{s} ({how})"));
    }
    for (group, machines) in &diff.remove {
        let total = machines.len();
        let s = plural(total);
        lines.push(format!(" * destroy {total} \"{group}\" machine{s}"));
    }
    lines
}
