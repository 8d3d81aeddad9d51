//! Volumes of an app of Fly's: which are to be made here, and whose data goes where.
//!
//! Pure. Volumes are made before anything is deployed, so that the first deploy takes them. They
//! are counted by region and name, and one that is larger than asked for will do: a volume may
//! have been extended since.

use std::collections::{BTreeMap, BTreeSet};

use hangar_api::machine::{Machine, MachineConfig, Mount};
use hangar_api::volume::{CreateVolume, Volume};
use serde_json::Value;

use super::{Place, Plan, region};
use crate::migrate::value::{number, text};

/// States in which Fly lists volumes that are as good as gone.
const GONE: [&str; 5] = [
    "destroyed",
    "pending_destroy",
    "scheduling_destroy",
    "fork_cleanup",
    "waiting_for_detach",
];

/// A volume of Fly's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Disk {
    /// Its id there.
    pub(crate) id: String,
    pub(crate) name: String,
    /// Where it goes here.
    pub(crate) region: String,
    pub(crate) size_gb: u64,
    pub(crate) retention: Option<u32>,
    pub(crate) scheduled_snapshots: Option<bool>,
    /// The Machine there that has it.
    pub(crate) attached: Option<String>,
}

/// A volume whose data is to be copied by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Copy {
    /// The Machine there.
    pub(crate) from: String,
    /// Where the volume is seen there.
    pub(crate) path: String,
    pub(crate) group: String,
    pub(crate) place: Place,
    pub(crate) size_gb: u64,
}

/// A copy with the Machine here that it goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pair<'a> {
    pub(crate) copy: &'a Copy,
    pub(crate) to: String,
    /// Where the volume is seen here.
    pub(crate) path: String,
}

/// Reads a volume of `fly volumes list --json`; none for one that is going.
pub(super) fn read(volume: &Value, regions: &BTreeMap<String, String>) -> Option<Disk> {
    let part = |key: &str| text(&volume[key]).filter(|text| !text.is_empty());
    if part("state").is_some_and(|state| GONE.contains(&state.as_str())) {
        return None;
    }
    let retention = number(&volume["snapshot_retention"]);
    Some(Disk {
        id: part("id")?,
        name: part("name")?,
        region: region(&part("region").unwrap_or_default(), regions),
        size_gb: number(&volume["size_gb"]).unwrap_or(1).max(1),
        retention: retention.and_then(|days| u32::try_from(days).ok()),
        scheduled_snapshots: volume["auto_backup_enabled"].as_bool(),
        attached: part("attached_machine_id"),
    })
}

/// Returns the name of the volume of a Machine there, and what is to be said when it and its
/// group's `[[mounts]]` do not fit together. `mounted` is the volume's name in the configuration.
pub(super) fn of_machine(
    config: &MachineConfig,
    mounted: Option<&str>,
    disks: &[Disk],
) -> (Option<String>, Option<&'static str>) {
    match (config.mounts.first(), mounted) {
        (None, None) => (None, None),
        (None, Some(_)) => (
            None,
            Some("has no volume, although its group has [[mounts]]: it is made without one"),
        ),
        (Some(_), None) => (
            None,
            Some("has a volume, but its group has no [[mounts]]: it is made without it"),
        ),
        (Some(mount), Some(mounted)) => {
            let known = disks.iter().find(|disk| disk.id == mount.volume);
            let name = known.map(|disk| disk.name.as_str());
            let written = Some(mount.name.as_str()).filter(|name| !name.is_empty());
            (Some(name.or(written).unwrap_or(mounted).to_owned()), None)
        }
    }
}

/// Notes a volume of a Machine there as one whose data is to be copied, and as one to be made where
/// it was not listed.
pub(super) fn keep(plan: &mut Plan, mount: &Mount, machine: String, group: &str, place: &Place) {
    let disk = of_mount(mount, &machine, place, &plan.volumes);
    plan.copies.push(Copy {
        from: machine,
        path: mount.path.clone(),
        group: group.to_owned(),
        place: place.clone(),
        size_gb: disk.size_gb,
    });
    if !plan.volumes.iter().any(|known| known.id == disk.id) {
        plan.volumes.push(disk);
    }
}

/// Returns the volume of a Machine there: as it was listed, else as its mount describes it.
fn of_mount(mount: &Mount, machine: &str, place: &Place, disks: &[Disk]) -> Disk {
    let known = disks.iter().find(|disk| disk.id == mount.volume);
    known.cloned().unwrap_or_else(|| Disk {
        id: mount.volume.clone(),
        name: place.volume.clone().unwrap_or_default(),
        region: place.region.clone(),
        size_gb: mount.size_gb.unwrap_or(1).max(1),
        retention: None,
        scheduled_snapshots: None,
        attached: Some(machine.to_owned()),
    })
}

/// What is not here yet of the volumes there, and what is here beside them.
#[derive(Debug, Default)]
pub(crate) struct Compared<'a> {
    pub(crate) missing: Vec<&'a Disk>,
    pub(crate) more: Vec<&'a Volume>,
}

/// Compares the volumes there with those here.
pub(crate) fn compare<'a>(wanted: &'a [Disk], there: &'a [Volume]) -> Compared<'a> {
    let mut more: Vec<&Volume> = there
        .iter()
        .filter(|volume| !volume.state.is_gone())
        .collect();
    // The largest first, so that a small one does not take a large one's place.
    more.sort_by_key(|volume| std::cmp::Reverse(volume.size_gb));
    let mut missing: Vec<&Disk> = wanted.iter().collect();
    missing.sort_by_key(|disk| std::cmp::Reverse(disk.size_gb));
    missing.retain(|disk| {
        let fits = |volume: &&Volume| {
            volume.name == disk.name
                && volume.region.as_str() == disk.region
                && volume.size_gb >= disk.size_gb
        };
        match more.iter().position(fits) {
            Some(index) => {
                more.remove(index);
                false
            }
            None => true,
        }
    });
    Compared { missing, more }
}

/// Returns for each copy a Machine here of its own, the larger volumes first.
pub(crate) fn pairs<'a>(
    copies: &'a [Copy],
    machines: &[Machine],
    place_of: impl Fn(&Machine) -> Place,
) -> Vec<Pair<'a>> {
    let size = |machine: &Machine| machine.config.mounts.first().and_then(|m| m.size_gb);
    let mut machines: Vec<&Machine> = machines.iter().collect();
    machines.sort_by_key(|machine| std::cmp::Reverse(size(machine)));
    let mut copies: Vec<&Copy> = copies.iter().collect();
    copies.sort_by_key(|copy| std::cmp::Reverse(copy.size_gb));
    let mut taken = BTreeSet::new();
    let pair = |copy: &'a Copy| {
        let fits = |machine: &&Machine| {
            !taken.contains(&machine.id)
                && machine.config.group_or_app().as_str() == copy.group
                && place_of(machine) == copy.place
        };
        let to = machines.iter().copied().find(|machine| fits(machine))?;
        taken.insert(to.id.clone());
        Some(Pair {
            copy,
            to: to.id.to_string(),
            path: to.config.mounts.first()?.path.clone(),
        })
    };
    copies.into_iter().filter_map(pair).collect()
}

/// Returns what is to be said of a volume in a plan.
pub(super) fn describe(disk: &Disk, owner: Option<&str>) -> String {
    let owner = owner.map_or_else(
        || "attached to no Machine".to_owned(),
        |group| format!("for a \"{group}\" machine"),
    );
    format!(
        " * create volume {} ({} GB) in {}, empty, {owner}",
        disk.name, disk.size_gb, disk.region
    )
}

// === impl Disk ===

impl Disk {
    /// Returns what is asked of the server.
    pub(crate) fn request(&self) -> CreateVolume {
        CreateVolume {
            name: self.name.clone(),
            region: Some(self.region.clone()),
            size_gb: Some(self.size_gb),
            // Kept apart as far as the region has zones.
            require_unique_zone: Some(false),
            snapshot_retention: self.retention,
            auto_backup_enabled: self.scheduled_snapshots,
            ..CreateVolume::default()
        }
    }
}

// === impl Pair ===

impl Pair<'_> {
    /// Returns the command that copies the data, in a shell that has both programs.
    pub(crate) fn command(&self, app_there: &str, app_here: &str) -> String {
        let Copy { from, path, .. } = self.copy;
        format!(
            "fly ssh console -a {app_there} --machine {from} -C \"tar -C {path} -cf - .\" | hangar ssh console -a {app_here} --machine {} -C \"tar -C {} -xf -\"",
            self.to, self.path
        )
    }
}
