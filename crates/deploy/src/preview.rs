//! What a deployment would do, as a list and in words.
//!
//! [`Diff`] is what the planner records when it begins; [`preview`] is what `deploy --dry-run`
//! prints, with flyctl's lines where it has any.

use std::collections::{BTreeMap, BTreeSet};

use hangar_api::deployment::{DeployFilters, DeployOptions, Strategy};
use hangar_api::id::{GroupName, MachineId};
use hangar_api::machine::MachineConfig;
use hangar_api::machine::config::PLATFORM_VERSION;

use crate::desired::{Desired, Kind};
use crate::fleet::{FleetMachine, ObservedFleet};
use crate::mounts;
use crate::plan::{command_line, pool, release_command};

/// What is to be done to which group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Diff {
    /// Machines to update, by their group in the release.
    pub(crate) update: BTreeMap<GroupName, Vec<MachineId>>,
    /// Machines on lost slots, to be made anew elsewhere, and those that get or lose a volume.
    pub(crate) replace: BTreeMap<GroupName, Vec<MachineId>>,
    /// New Machines of groups that have none; true for a standby.
    pub(crate) create: BTreeMap<GroupName, Vec<bool>>,
    /// Groups that somebody scaled to 0, which they stay at.
    pub(crate) empty: Vec<GroupName>,
    /// Machines of groups that are gone.
    pub(crate) remove: BTreeMap<GroupName, Vec<MachineId>>,
    /// The filters that have left a Machine out.
    filters: BTreeSet<&'static str>,
    /// Machines that they were asked about.
    total: usize,
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
            diff.total += 1;
            if let Some(filter) = left_out_by(&options.filters, machine, &group) {
                diff.filters.insert(filter);
                continue;
            }
            let stays = desired.kind == Kind::RestartOnly || desired.groups.contains_key(&group);
            // Green Machines are made anew as it is, and a restart changes no place.
            let spec = desired.groups.get(&group);
            let another = spec.is_some_and(|s| mounts::needs_another(&machine.spec.config, s));
            let replaced = (machine.is_lost || another)
                && desired.kind == Kind::Full
                && options.strategy != Strategy::Bluegreen;
            let list = match (stays, replaced) {
                (true, true) => &mut diff.replace,
                (true, false) => &mut diff.update,
                (false, _) => &mut diff.remove,
            };
            list.entry(group).or_default().push(machine.spec.id.clone());
        }
        if desired.kind == Kind::RestartOnly {
            return diff;
        }
        for (group, spec) in desired.chosen(options) {
            let has_some = diff.update.contains_key(group) || diff.replace.contains_key(group);
            if !options.update_only && !has_some {
                let mut machines = first_machines(&spec.config, options.ha);
                if let Some(formation) = fleet.formations.get(group) {
                    // What is still missing then comes when the deployment has ended.
                    let wanted = usize::try_from(formation.count()).unwrap_or(usize::MAX);
                    machines.truncate(wanted.saturating_add(usize::from(machines.contains(&true))));
                    if wanted == 0 {
                        diff.empty.push(group.clone());
                        continue;
                    }
                }
                diff.create.insert(group.clone(), machines);
            }
        }
        diff
    }

    /// Returns the lines that say which groups come and go (4.6); none when all stay.
    pub(crate) fn group_changes(&self, is_first: bool) -> Vec<String> {
        let mut lines = self.heading(is_first);
        lines.extend(removals(self));
        lines.extend(creations(self));
        lines
    }

    fn heading(&self, is_first: bool) -> Vec<String> {
        let heading = match (self.create.is_empty() && self.remove.is_empty(), is_first) {
            (true, _) => return Vec::new(),
            (false, true) => "This deployment will:",
            (false, false) => "Process groups have changed. This will:",
        };
        vec![heading.to_owned()]
    }

    /// Returns the line that says which filters have left Machines out.
    pub(crate) fn filtered(&self) -> Option<String> {
        if self.filters.is_empty() {
            return None;
        }
        let names: Vec<&str> = self.filters.iter().copied().collect();
        let s = plural(names.len());
        let lists = self.update.values().chain(self.remove.values());
        let lists = lists.chain(self.replace.values());
        let left: usize = lists.map(Vec::len).sum();
        Some(format!(
            "{} filter{s} applied, deploying to {left}/{} machines",
            names.join("/"),
            self.total
        ))
    }
}

/// Returns the first filter that leaves a Machine out (4.4).
fn left_out_by(
    filters: &DeployFilters,
    machine: &FleetMachine<'_>,
    group: &GroupName,
) -> Option<&'static str> {
    let (id, region) = (&machine.spec.id, &machine.spec.region);
    let misses = |only: bool, empty: bool| !only && !empty;
    if misses(
        filters.only_regions.contains(region),
        filters.only_regions.is_empty(),
    ) {
        return Some("--regions");
    }
    if filters.exclude_regions.contains(region) {
        return Some("--exclude-regions");
    }
    if misses(
        filters.only_machines.contains(id),
        filters.only_machines.is_empty(),
    ) {
        return Some("--only-machines");
    }
    if filters.exclude_machines.contains(id) {
        return Some("--exclude-machines");
    }
    if misses(
        filters.process_groups.contains(group),
        filters.process_groups.is_empty(),
    ) {
        return Some("--process-groups");
    }
    None
}

/// Returns why a deployment cannot begin, in words for whoever asked for it: nothing is made and
/// nothing is touched then.
#[must_use]
pub fn refuse(
    desired: &Desired,
    fleet: &ObservedFleet<'_>,
    options: &DeployOptions,
) -> Option<String> {
    if desired.kind == Kind::Full {
        let wanted = options.filters.process_groups.iter();
        for group in wanted {
            if !desired.groups.contains_key(group) {
                let known: Vec<&str> = desired.groups.keys().map(GroupName::as_str).collect();
                return Some(format!(
                    "--process-groups: there is no process group {group}; there are {}",
                    known.join(", ")
                ));
            }
        }
    }
    let diff = Diff::of(desired, fleet, options);
    let mut lost = diff.replace.values().flatten();
    let stuck = lost.find_map(|id| {
        fleet
            .active(id)
            .filter(|m| m.is_lost && !m.spec.config.mounts.is_empty())
    });
    if let Some(machine) = stuck {
        return Some(format!(
            "machine {} requires manual intervention: its volume is on slot {}, which is marked \
             lost; bring the slot back, or leave the machine out with --exclude-machines",
            machine.spec.id, machine.spec.slot
        ));
    }
    let reason = refuse_strategy(desired, fleet, options);
    reason.or_else(|| mounts::refuse(desired, fleet, options, &diff))
}

/// Returns why the strategy cannot be used.
fn refuse_strategy(
    desired: &Desired,
    fleet: &ObservedFleet<'_>,
    options: &DeployOptions,
) -> Option<String> {
    match options.strategy {
        Strategy::Rolling | Strategy::Immediate => None,
        Strategy::Canary if desired.kind == Kind::RestartOnly => None,
        Strategy::Canary => {
            let mut chosen = desired.chosen(options);
            chosen
                .any(|(_, spec)| !spec.config.mounts.is_empty())
                .then(|| {
                    "error canary deployment strategy is not supported when using mounted volumes"
                        .to_owned()
                })
        }
        Strategy::Bluegreen => refuse_bluegreen(desired, fleet, options),
    }
}

fn refuse_bluegreen(
    desired: &Desired,
    fleet: &ObservedFleet<'_>,
    options: &DeployOptions,
) -> Option<String> {
    let diff = Diff::of(desired, fleet, options);
    let mut checked = false;
    for (group, machines) in &diff.update {
        let spec = desired.groups.get(group).map(|spec| &spec.config);
        for machine in machines.iter().filter_map(|id| fleet.active(id)) {
            let own = &machine.spec.config;
            let config = match desired.kind {
                Kind::Full => spec.unwrap_or(own),
                Kind::RestartOnly => own,
            };
            if !config.mounts.is_empty() || !own.mounts.is_empty() {
                return Some(format!(
                    "bluegreen deployment strategy is not supported when using mounted volumes: \
                     Machine {} of group {group} has one, and a volume is attached to one Machine \
                     at a time; use rolling",
                    machine.spec.id
                ));
            }
            checked |= config.has_checks();
        }
    }
    if !diff.update.is_empty() && !checked {
        return Some(
            "app not in valid state for bluegreen deployments: You need to define at least 1 \
             check in order to use blue-green deployments"
                .to_owned(),
        );
    }
    if fleet.managed().next().is_none() {
        return refuse_unmanaged(desired, fleet, options);
    }
    None
}

/// Machines of a group that nobody manages would stay beside the new ones, for ever (4.4).
fn refuse_unmanaged(
    desired: &Desired,
    fleet: &ObservedFleet<'_>,
    options: &DeployOptions,
) -> Option<String> {
    let default = desired.default_group();
    let machines = fleet.machines.values().filter(|machine| {
        let config = &machine.spec.config;
        let group = machine.group(&default);
        machine.state.is_active()
            && machine.launch_key.is_none()
            && !config.metadata.contains_key(PLATFORM_VERSION)
            && desired.groups.contains_key(&group)
            && left_out_by(&options.filters, machine, &group).is_none()
    });
    let named: Vec<String> = machines
        .map(|machine| format!("{} ({})", machine.spec.id, machine.group(&default)))
        .collect();
    if named.is_empty() {
        return None;
    }
    Some(format!(
        "bluegreen: these Machines are of a group of the app and are not managed by deploys: {}; \
         give them the metadata fly_platform_version=v2 and fly_process_group=GROUP, or destroy \
         them",
        named.join(", ")
    ))
}

/// Returns the Machines that a group without any gets (4.6); true for a standby.
fn first_machines(config: &MachineConfig, ha: bool) -> Vec<bool> {
    match (ha && config.mounts.is_empty(), config.services.is_empty()) {
        (false, _) => vec![false],
        (true, false) => vec![false, false],
        (true, true) => vec![false, true],
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// Returns the lines for the Machines of groups that have none.
fn creations(diff: &Diff) -> Vec<String> {
    let mut lines = Vec::new();
    for (group, standbys) in &diff.create {
        let count = standbys.iter().filter(|s| !**s).count();
        let mut line = format!(" * create {count} \"{group}\" machine{}", plural(count));
        if count < standbys.len() {
            line.push_str(" and 1 standby machine for it");
        }
        lines.push(line);
    }
    lines
}

/// Returns the line for a group that stays without Machines.
pub(crate) fn left_empty(group: &GroupName) -> String {
    format!(" * leave \"{group}\" without machines: it is scaled to 0")
}

/// Returns the lines for the Machines of groups that are gone.
fn removals(diff: &Diff) -> Vec<String> {
    let removed = diff.remove.iter().map(|(group, machines)| {
        let total = machines.len();
        let s = plural(total);
        format!(" * destroy {total} \"{group}\" machine{s}")
    });
    removed.collect()
}

/// Returns the lines for Machines that are made anew, and why.
fn replacements(diff: &Diff, fleet: &ObservedFleet<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    for (group, machines) in &diff.replace {
        let is_lost = |id: &&MachineId| fleet.active(id).is_some_and(|m| m.is_lost);
        let lost = machines.iter().filter(is_lost).count();
        let counts = [
            (lost, " on lost slots"),
            (
                machines.len() - lost,
                ", whose volume is added or taken away",
            ),
        ];
        for (total, why) in counts.into_iter().filter(|(n, _)| *n > 0) {
            let s = plural(total);
            lines.push(format!(" * replace {total} \"{group}\" machine{s}{why}"));
        }
    }
    lines
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
    lines.extend(diff.filtered());
    if let Some(command) = release_command(desired, options) {
        let line = command_line(&command.config);
        lines.push(format!(" * run the release command: {line}"));
    }
    lines.extend(diff.heading(fleet.managed().next().is_none()));
    for volume in mounts::new_volumes(desired, fleet, options) {
        lines.push(format!(
            " * create a {} GB volume named '{}' for process group '{}'",
            volume.size_gb, volume.name, volume.group
        ));
    }
    lines.extend(creations(&diff));
    lines.extend(diff.empty.iter().map(left_empty));
    lines.extend(replacements(&diff, fleet));
    for (group, machines) in &diff.update {
        let total = machines.len();
        let runs = |id: &&MachineId| fleet.active(id).is_some_and(crate::FleetMachine::runs);
        let running = machines.iter().filter(runs).count();
        let how = match running {
            _ if options.strategy == Strategy::Bluegreen => {
                "a new one beside each, then the old ones are destroyed".to_owned()
            }
            _ if options.strategy == Strategy::Immediate => {
                format!(
                    "{} at a time, without waiting",
                    options.max_concurrent.max(1)
                )
            }
            0 => "it stays stopped".to_owned(),
            1 => "in place".to_owned(),
            _ => {
                let at_once = pool(options.max_unavailable, running);
                format!("the first alone, then {at_once} at a time")
            }
        };
        if options.strategy == Strategy::Canary && desired.kind == Kind::Full {
            lines.push(format!(" * try 1 \"{group}\" canary machine first"));
        }
        let verb = match desired.kind {
            _ if options.strategy == Strategy::Bluegreen => "replace",
            Kind::Full => "update",
            Kind::RestartOnly => "restart",
        };
        let s = plural(total);
        lines.push(format!(" * {verb} {total} \"{group}\" machine{s} ({how})"));
    }
    lines.extend(removals(&diff));
    lines
}
