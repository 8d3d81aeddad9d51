//! Which volumes the new Machines of a `scale count` get (process-groups-and-deploy.md 5.1).
//!
//! Pure. Called with the plan's actions, by whoever carries them out.

use std::collections::{BTreeMap, BTreeSet};

use hangar_api::id::{GroupName, Region, VolumeId};
use hangar_api::machine::Mount;
use hangar_api::volume::{Snapshot, SnapshotStatus, Volume};

use super::{ScaleAction, ScaleMachine};

/// The size of a new volume where nothing says another, in GB.
const DEFAULT_SIZE_GB: u64 = 1;

/// Whether new Machines take volumes that nobody has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// Those of their name and region, the oldest first.
    Unattached,
    /// None: each gets a new one.
    Nothing,
}

/// The volume of one new Machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disk {
    /// One that nobody has.
    Unattached(VolumeId),
    /// A new one.
    New {
        /// Its name.
        name: String,
        /// Its size in GB.
        size_gb: u64,
    },
}

/// Returns for each action the volume that its new Machine gets; none where its group has no mount,
/// or nothing is created. `volumes` are the app's, the oldest first. None is given twice.
#[must_use]
pub fn disks(actions: &[ScaleAction], volumes: &[Volume], reuse: Reuse) -> Vec<Option<Disk>> {
    let mut taken: BTreeSet<&VolumeId> = BTreeSet::new();
    let mut disk = |action: &ScaleAction| {
        let ScaleAction::Create { region, config, .. } = action else {
            return None;
        };
        let mount = config.mounts.first()?;
        let name = name_of(mount, volumes);
        let free = volumes.iter().find(|volume| {
            reuse == Reuse::Unattached
                && volume.attached_machine_id.is_none()
                && volume.state.is_usable()
                && volume.name == name
                && volume.region == *region
                && !taken.contains(&volume.id)
        });
        if let Some(volume) = free {
            taken.insert(&volume.id);
            return Some(Disk::Unattached(volume.id.clone()));
        }
        let named = volumes.iter().filter(|volume| volume.name == name);
        let largest = named.map(|volume| volume.size_gb).max();
        let size_gb = mount.size_gb.filter(|size| *size > 0).or(largest);
        Some(Disk::New {
            name,
            size_gb: size_gb.unwrap_or(DEFAULT_SIZE_GB),
        })
    };
    actions.iter().map(&mut disk).collect()
}

/// Returns the name of a mount's volume: its own, or that of the volume it names.
fn name_of(mount: &Mount, volumes: &[Volume]) -> String {
    if !mount.name.is_empty() {
        return mount.name.clone();
    }
    let mut known = volumes.iter();
    let named = known.find(|volume| volume.id.as_str() == mount.volume);
    named.map_or_else(|| mount.volume.clone(), |volume| volume.name.clone())
}

/// Returns the volumes whose snapshots `--from-snapshot last` looks at for a group: those of its
/// Machines, in their order.
pub fn sources<'a>(
    machines: &'a [ScaleMachine],
    group: &'a GroupName,
) -> impl Iterator<Item = VolumeId> + 'a {
    let of_group = machines
        .iter()
        .filter(move |machine| machine.config.process_group() == group.as_str());
    let mounts = of_group.filter_map(|machine| machine.config.mounts.first());
    mounts.filter_map(|mount| VolumeId::new(mount.volume.as_str()).ok())
}

/// Returns the newest snapshot that can be restored.
#[must_use]
pub fn newest(snapshots: &[Snapshot]) -> Option<&Snapshot> {
    let made = snapshots
        .iter()
        .filter(|snapshot| snapshot.status == SnapshotStatus::Created);
    made.max_by_key(|snapshot| snapshot.created_at)
}

/// Returns the volumes of a plan in flyctl's words, one line for each group and region.
#[must_use]
pub fn describe(actions: &[ScaleAction], disks: &[Option<Disk>]) -> Vec<String> {
    let mut sums: BTreeMap<(&GroupName, &Region), (usize, usize)> = BTreeMap::new();
    for (action, disk) in actions.iter().zip(disks) {
        if let (ScaleAction::Create { group, region, .. }, Some(disk)) = (action, disk) {
            let (old, new) = sums.entry((group, region)).or_default();
            match disk {
                Disk::Unattached(_) => *old += 1,
                Disk::New { .. } => *new += 1,
            }
        }
    }
    let line = |((group, region), (old, new)): ((&GroupName, &Region), (usize, usize))| {
        let place = format!("group '{group}' in region '{region}'");
        match (old, new) {
            (0, new) => format!("{new:+4} volumes  for {place}"),
            (old, 0) => format!("{old:>4} unattached volumes to be assigned to {place}"),
            (old, new) => {
                format!("{new:+4} volumes and {old} unattached volumes assigned to {place}")
            }
        }
    };
    sums.into_iter().map(line).collect()
}
