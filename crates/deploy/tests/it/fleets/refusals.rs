//! Why a deployment of a random fleet may be refused, told anew from the rules.

use std::collections::{BTreeMap, BTreeSet};

use hangar_api::deployment::Strategy;
use hangar_api::id::MachineId;

use super::{Case, GROUPS, REGIONS};
use crate::sim::{Sim, SimMachine};

/// Returns a part of each text that may be said; a deployment is refused when there is one.
pub(super) fn grounds(case: &Case, sim: &Sim, left: &BTreeSet<MachineId>) -> Vec<&'static str> {
    let mut grounds = Vec::new();
    let unwanted = |i: usize| case.filters.groups[i] && !case.groups[i].1;
    if (0..GROUPS.len()).any(unwanted) {
        grounds.push("no process group");
    }
    let wanted: Vec<usize> = (0..GROUPS.len())
        .filter(|i| case.groups[*i].1 && case.is_chosen(*i))
        .collect();
    let touched: Vec<(usize, &SimMachine)> = wanted
        .iter()
        .flat_map(|i| of_group(sim, left, *i).map(|m| (*i, m)))
        .collect();
    let with_disks = |(i, m): &(usize, &SimMachine)| has(m) || case.wants(*i).is_some();
    match case.strategy {
        Strategy::Bluegreen => {
            if touched.iter().any(with_disks) {
                grounds.push("not supported when using mounted volumes");
            }
            if !touched.is_empty() && !touched.iter().any(|(i, _)| case.groups[*i].0) {
                grounds.push("at least 1 check");
            }
        }
        Strategy::Canary if wanted.iter().any(|i| case.wants(*i).is_some()) => {
            grounds.push("not supported when using mounted volumes");
        }
        _ => {}
    }
    for (index, machine) in &touched {
        grounds.extend(of_machine(case, *index, machine));
    }
    if lacks(case, sim, &touched) {
        grounds.push("needs volumes with name");
        grounds.push("requires an unattached");
    }
    grounds
}

/// Returns the Machines of a group that no filter by Machine leaves out.
fn of_group<'a>(
    sim: &'a Sim,
    left: &'a BTreeSet<MachineId>,
    index: usize,
) -> impl Iterator<Item = &'a SimMachine> {
    let all = sim.alive(GROUPS[index]).into_iter();
    all.filter(move |m| !left.contains(&m.spec.id))
}

fn has(machine: &SimMachine) -> bool {
    !machine.spec.config.mounts.is_empty()
}

fn of_machine(case: &Case, index: usize, machine: &SimMachine) -> Option<&'static str> {
    let mount = machine.spec.config.mounts.first()?;
    let is_green = case.strategy == Strategy::Bluegreen;
    match case.wants(index) {
        _ if machine.lost && !is_green => Some("manual intervention"),
        Some(name) if name != mount.name => Some("can't update the attached volume"),
        None if !case.disks.detach && !is_green => Some("without the volume"),
        _ => None,
    }
}

/// Returns whether there are fewer free volumes somewhere than Machines that are to get one.
fn lacks(case: &Case, sim: &Sim, touched: &[(usize, &SimMachine)]) -> bool {
    let mut asked: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let is_green = case.strategy == Strategy::Bluegreen;
    for (index, machine) in touched.iter().filter(|(_, m)| !has(m) && !is_green) {
        if let Some(name) = case.wants(*index) {
            *asked
                .entry((name, machine.spec.region.as_str()))
                .or_default() += 1;
        }
    }
    let is_first = sim.machines.is_empty();
    for index in (0..GROUPS.len()).filter(|i| case.groups[*i].1 && case.is_chosen(*i)) {
        let is_new = touched.iter().all(|(i, _)| *i != index) && !case.filters.update_only;
        if let Some(name) = case.wants(index).filter(|_| is_new && !is_first) {
            *asked.entry((name, REGIONS[0])).or_default() += 1;
        }
    }
    asked.into_iter().any(|((name, region), count)| {
        let free = sim
            .volumes
            .iter()
            .filter(|v| v.attached.is_none() && v.name == name && v.region.as_str() == region);
        free.count() < count
    })
}
