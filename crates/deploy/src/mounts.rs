//! The volumes of a deploy (process-groups-and-deploy.md 4.3, 4.5): which a first deploy makes,
//! which Machines have to be replaced to get or lose one, and what cannot be done.
//!
//! Pure. A volume is claimed when its Machine is created, in one transaction with it; here it is
//! only counted whether there will be one.

use std::collections::BTreeMap;

use hangar_api::deployment::DeployOptions;
use hangar_api::id::{GroupName, MachineId, Region};
use hangar_api::machine::MachineConfig;
use hangar_api::release::GroupSpec;

use crate::desired::{Desired, Kind};
use crate::fleet::{FleetMachine, ObservedFleet};
use crate::preview::Diff;

/// The size in GB of a volume that a first deploy makes where nobody says another (4.3).
const FIRST_SIZE_GB: u64 = 1;

/// A volume that no Machine has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreeVolume {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub region: Region,
}

/// A volume that a first deploy makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewVolume {
    /// The group it is for.
    pub group: GroupName,
    /// Its name.
    pub name: String,
    /// Where.
    pub region: Region,
    /// Its size in GB.
    pub size_gb: u64,
    /// Days that its snapshots are kept.
    pub snapshot_retention: Option<u32>,
    /// Whether a snapshot is made every day.
    pub scheduled_snapshots: Option<bool>,
}

/// Returns the volumes to be made before a deployment begins: on an app without Machines, one for
/// each mount of each group, where none of its name is free in the region of new Machines: one
/// that is elsewhere is of no use to them.
#[must_use]
pub fn new_volumes(
    desired: &Desired,
    fleet: &ObservedFleet<'_>,
    options: &DeployOptions,
) -> Vec<NewVolume> {
    let is_first = fleet.managed().next().is_none() && desired.kind == Kind::Full;
    if !is_first || options.update_only {
        return Vec::new();
    }
    let mut free = Counts::of(&fleet.free_volumes);
    let mut volumes = Vec::new();
    for (group, spec) in desired.chosen(options) {
        if fleet.formations.get(group).is_some_and(|f| f.count() == 0) {
            continue;
        }
        for mount in &spec.config.mounts {
            if free.take(&mount.name, &desired.region) {
                continue;
            }
            let asked = spec.volumes.iter().find(|v| v.name == mount.name);
            let size = asked
                .and_then(|v| v.size_gb)
                .or(options.volume_initial_size_gb);
            volumes.push(NewVolume {
                group: group.clone(),
                name: mount.name.clone(),
                region: fleet.home(desired, group),
                size_gb: size.unwrap_or(FIRST_SIZE_GB),
                snapshot_retention: asked.and_then(|v| v.snapshot_retention),
                scheduled_snapshots: asked.and_then(|v| v.scheduled_snapshots),
            });
        }
    }
    volumes
}

/// Returns whether a Machine has to be made anew, because a volume is added or taken away.
pub(crate) fn needs_another(machine: &MachineConfig, spec: &GroupSpec) -> bool {
    machine.mounts.is_empty() != spec.config.mounts.is_empty()
}

/// Returns the Machines that a deployment would part from their volumes.
#[must_use]
pub fn parted<'a>(
    groups: &BTreeMap<GroupName, GroupSpec>,
    machines: impl Iterator<Item = (&'a MachineId, &'a MachineConfig)>,
) -> Vec<(MachineId, String)> {
    let mut parted = Vec::new();
    for (id, config) in machines {
        let group = GroupName::new(config.process_group()).ok();
        let group = group.filter(|g| !g.as_str().is_empty());
        let group = group.unwrap_or_else(|| crate::desired::default_group(groups));
        let spec = groups.get(&group);
        let Some(mount) = config.mounts.first() else {
            continue;
        };
        if spec.is_some_and(|s| s.config.mounts.is_empty()) {
            parted.push((id.clone(), mount.volume.clone()));
        }
    }
    parted
}

/// Returns why the volumes of a deployment do not work out.
pub(crate) fn refuse(
    desired: &Desired,
    fleet: &ObservedFleet<'_>,
    options: &DeployOptions,
    diff: &Diff,
) -> Option<String> {
    if desired.kind == Kind::RestartOnly {
        return None;
    }
    let mut free = Counts::of(&fleet.free_volumes);
    for (group, spec) in desired.chosen(options) {
        let ids = |list: &BTreeMap<GroupName, Vec<MachineId>>| -> Vec<FleetMachine<'_>> {
            let ids = list.get(group).into_iter().flatten();
            ids.filter_map(|id| fleet.active(id).copied()).collect()
        };
        let kept = ids(&diff.update);
        if let Some(reason) = kept.iter().find_map(|m| renamed(group, m, spec)) {
            return Some(reason);
        }
        let replaced = ids(&diff.replace);
        let reason = cannot_part(group, &replaced, spec, options)
            .or_else(|| not_enough(group, &replaced, spec, &mut free));
        if reason.is_some() {
            return reason;
        }
    }
    // What a first deploy lacks is made.
    fleet.managed().next()?;
    for group in diff.create.keys() {
        let Some(spec) = desired.groups.get(group) else {
            continue;
        };
        let region = fleet.home(desired, group);
        for mount in &spec.config.mounts {
            if !free.take(&mount.name, &region) {
                let name = &mount.name;
                return Some(format!(
                    "creating a new machine in group '{group}' requires an unattached '{name}' \
                     volume in region '{region}'. Create it with `hangar volumes create {name} -r {region}`"
                ));
            }
        }
    }
    None
}

/// A Machine keeps its volume, and only that one.
fn renamed(group: &GroupName, machine: &FleetMachine<'_>, spec: &GroupSpec) -> Option<String> {
    let (has, wants) = (
        machine.spec.config.mounts.first()?,
        spec.config.mounts.first()?,
    );
    if has.name.is_empty() || wants.name.is_empty() || has.name == wants.name {
        return None;
    }
    Some(format!(
        "machine {} [{group}] has volume '{}' mounted, and fly.toml expects one named '{}': a deploy can't update the attached \
         volume. Put the name back, or destroy the machine with `hangar machine destroy` and deploy again",
        machine.spec.id, has.name, wants.name
    ))
}

/// A Machine loses its volume only when somebody has said so.
fn cannot_part(
    group: &GroupName,
    replaced: &[FleetMachine<'_>],
    spec: &GroupSpec,
    options: &DeployOptions,
) -> Option<String> {
    let loses =
        |m: &&FleetMachine<'_>| spec.config.mounts.is_empty() && !m.spec.config.mounts.is_empty();
    let machine = replaced.iter().find(loses)?;
    if options.detach_volumes {
        return None;
    }
    let volume = machine.spec.config.mounts.first()?;
    Some(format!(
        "machine {} [{group}] has volume '{}' mounted and fly.toml has no [[mounts]] for its group: the deploy would replace \
         the machine by one without the volume, which is kept. Say yes with --yes, or put [[mounts]] back",
        machine.spec.id, volume.name
    ))
}

/// Every Machine that is to get a volume needs a free one where it is.
fn not_enough(
    group: &GroupName,
    replaced: &[FleetMachine<'_>],
    spec: &GroupSpec,
    free: &mut Counts,
) -> Option<String> {
    let mount = spec.config.mounts.first()?;
    let mut missing: BTreeMap<Region, usize> = BTreeMap::new();
    for machine in replaced.iter().filter(|m| m.spec.config.mounts.is_empty()) {
        if !free.take(&mount.name, &machine.spec.region) {
            *missing.entry(machine.spec.region.clone()).or_default() += 1;
        }
    }
    if missing.is_empty() {
        return None;
    }
    let name = &mount.name;
    let places: Vec<String> = missing.iter().map(|(r, n)| format!("{r}={n}")).collect();
    Some(format!(
        "Process group '{group}' needs volumes with name '{name}' to fulfill mounts defined in fly.toml; Run `hangar volumes create {name} -r REGION -n COUNT` for the following regions and counts: {}",
        places.join(" ")
    ))
}

/// Free volumes by name and region.
struct Counts(BTreeMap<(String, Region), usize>);

impl Counts {
    fn of(volumes: &[FreeVolume]) -> Self {
        let mut counts: BTreeMap<(String, Region), usize> = BTreeMap::new();
        for volume in volumes {
            let key = (volume.name.clone(), volume.region.clone());
            *counts.entry(key).or_default() += 1;
        }
        Self(counts)
    }

    /// Takes one, if there is one.
    fn take(&mut self, name: &str, region: &Region) -> bool {
        match self.0.get_mut(&(name.to_owned(), region.clone())) {
            Some(count) if *count > 0 => {
                *count -= 1;
                true
            }
            _ => false,
        }
    }
}
