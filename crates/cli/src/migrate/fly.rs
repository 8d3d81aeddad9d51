//! An app of Fly's as its own commands print it: what is to be made here, group by group.
//!
//! Pure. `hangar migrate fly` shows [`plan`]; with `--apply` it deploys once and then takes one
//! [`next`] after the other until there is none, which is why it can be stopped and gone on with.

pub(crate) mod disks;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use hangar_api::machine::config::PLATFORM_VERSION;
use hangar_api::machine::{Guest, MachineConfig, Schedule};
use serde_json::Value;

use self::disks::{Copy, Disk};
use super::value::{table, text};
use super::{Note, Unreadable};

/// Variables that the platform sets.
const OWN: [&str; 3] = ["FLY_PROCESS_GROUP", "PRIMARY_REGION", "FLY_STANDBY_FOR"];

/// What Fly's commands printed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    /// `fly machines list --json`.
    pub(crate) machines: &'a str,
    /// `fly volumes list --json`.
    pub(crate) volumes: Option<&'a str>,
    /// `fly secrets list --json`.
    pub(crate) secrets: Option<&'a str>,
    /// Groups of the configuration, which `fly config show` printed.
    pub(crate) groups: &'a BTreeSet<String>,
    /// The name of the volume that a group mounts.
    pub(crate) mounted: &'a BTreeMap<String, String>,
    /// Variables that the configuration sets.
    pub(crate) env: &'a BTreeSet<String>,
    /// Where Machines of a region go that there is not here.
    pub(crate) regions: &'a BTreeMap<String, String>,
}

/// A Machine that is to be, or is: all that tells it from its siblings.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) region: String,
    pub(crate) cpu_kind: String,
    pub(crate) cpus: u32,
    pub(crate) memory_mb: u64,
    pub(crate) standby: bool,
    /// The name of its volume.
    pub(crate) volume: Option<String>,
    pub(crate) schedule: Option<Schedule>,
}

/// What is to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The Machines of each group; none for a group that is scaled to zero.
    pub(crate) groups: BTreeMap<String, Vec<Place>>,
    /// Volumes, which are made empty.
    pub(crate) volumes: Vec<Disk>,
    /// Data of volumes that Machines have.
    pub(crate) copies: Vec<Copy>,
    /// Names of secrets.
    pub(crate) secrets: Vec<String>,
    /// What is not carried over.
    pub(crate) notes: Vec<Note>,
}

/// One step from what is to what should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Make one.
    Create(Place),
    /// Remove this one: there are enough without it.
    Destroy(String),
}

/// Reads what Fly's commands printed.
pub(crate) fn plan(source: &Source<'_>) -> Result<Plan, Unreadable> {
    let mut plan = Plan::default();
    for group in source.groups {
        plan.groups.insert(group.clone(), Vec::new());
    }
    for volume in list("volumes", source.volumes.unwrap_or("[]"))? {
        plan.volumes.extend(disks::read(&volume, source.regions));
    }
    for machine in list("machines", source.machines)? {
        read_machine(&machine, source, &mut plan);
    }
    for secret in list("secrets", source.secrets.unwrap_or("[]"))? {
        let name = text(&secret["name"]).or_else(|| text(&secret["Name"]));
        plan.secrets.extend(name);
    }
    plan.secrets.sort();
    plan.groups.values_mut().for_each(|places| places.sort());
    Ok(plan)
}

fn list(what: &str, json: &str) -> Result<Vec<Value>, Unreadable> {
    let value: Value = serde_json::from_str(json).map_err(|error| {
        Unreadable(format!(
            "the {what} are no JSON ({error}): print them with `fly {what} list --json`"
        ))
    })?;
    match value {
        Value::Array(items) => Ok(items),
        Value::Null => Ok(Vec::new()),
        _ => Err(Unreadable(format!(
            "the {what} are no list: print them with `fly {what} list --json`"
        ))),
    }
}

fn region(code: &str, regions: &BTreeMap<String, String>) -> String {
    regions
        .get(code)
        .cloned()
        .unwrap_or_else(|| code.to_owned())
}

fn read_machine(machine: &Value, source: &Source<'_>, plan: &mut Plan) {
    let id = text(&machine["id"]).unwrap_or_default();
    let state = text(&machine["state"]).unwrap_or_default();
    if ["destroyed", "destroying"].contains(&state.as_str()) {
        return;
    }
    let mut note = |text: String| {
        plan.notes.push(Note {
            at: format!("Machine {id}"),
            text,
        });
    };
    let config: MachineConfig = match serde_json::from_value(machine["config"].clone()) {
        Ok(config) => config,
        Err(error) => {
            return note(format!(
                "its configuration cannot be read, so it is not made: {error}"
            ));
        }
    };
    if !config.is_managed() {
        note(unmanaged(&config));
        return;
    }
    let group = config.group_or_app().to_string();
    if !source.groups.contains(&group) {
        note(format!(
            "is of process group {group}, which the configuration does not have: it is not made"
        ));
        return;
    }
    oddities(machine, &config, source)
        .into_iter()
        .for_each(note);
    let mounted = source.mounted.get(&group).map(String::as_str);
    let (volume, said) = disks::of_machine(&config, mounted, &plan.volumes);
    plan.notes.extend(said.map(|text| Note {
        at: format!("Machine {id}"),
        text: text.to_owned(),
    }));
    let schedule = config.schedule().ok().flatten();
    let guest = config.guest.unwrap_or_default();
    let place = Place {
        volume,
        schedule,
        region: region(
            &text(&machine["region"]).unwrap_or_default(),
            source.regions,
        ),
        cpu_kind: guest.cpu_kind,
        cpus: guest.cpus,
        memory_mb: guest.memory_mb,
        standby: !config.standbys.is_empty(),
    };
    if let (Some(mount), Some(_)) = (config.mounts.first(), &place.volume) {
        disks::keep(plan, mount, id, &group, &place);
    }
    plan.groups.entry(group).or_default().push(place);
}

/// Returns why a Machine that deploys leave alone is not made.
fn unmanaged(config: &MachineConfig) -> String {
    if config.metadata.contains_key(PLATFORM_VERSION) {
        return "is a helper of a deploy or console: it is not made".to_owned();
    }
    let how = match config.schedule() {
        Ok(Some(schedule)) => {
            format!(", with `hangar machine run IMAGE --schedule {schedule}`")
        }
        _ => String::new(),
    };
    format!("is not part of Fly Launch: it is not made; run one like it by hand{how}")
}

/// Returns what a Machine has of its own that is not carried over.
fn oddities(machine: &Value, config: &MachineConfig, source: &Source<'_>) -> Vec<String> {
    let mut found = Vec::new();
    let own: Vec<&str> = config
        .env
        .keys()
        .map(String::as_str)
        .filter(|name| !OWN.contains(name) && !source.env.contains(*name))
        .collect();
    if !own.is_empty() {
        found.push(format!(
            "has variables that the configuration does not set, as a deploy would take away: {}",
            own.join(", ")
        ));
    }
    for (key, what) in [
        ("rootfs", "a root file system of its own kind"),
        ("containers", "several containers"),
    ] {
        if config
            .other
            .get(key)
            .is_some_and(|value| !super::value::is_empty(value))
        {
            found.push(format!("has {what}, which is not carried over"));
        }
    }
    if table(&machine["config"])
        .get("guest")
        .is_some_and(|g| text(&g["gpu_kind"]).is_some())
    {
        found.push("has a GPU, and there are none here".to_owned());
    }
    found
}

// === impl Place ===

impl Place {
    /// Returns the size.
    pub(crate) fn guest(&self) -> Guest {
        Guest {
            cpu_kind: self.cpu_kind.clone(),
            cpus: self.cpus,
            memory_mb: self.memory_mb,
            ..Guest::default()
        }
    }
}

/// Returns the next step for a group, or `None` when it is as it should be. All that is missing is
/// made before anything is taken away.
pub(crate) fn next(wanted: &[Place], observed: &[(String, Place)]) -> Option<Step> {
    let mut left: Vec<&(String, Place)> = observed.iter().collect();
    for place in wanted {
        match left.iter().position(|(_, there)| there == place) {
            Some(index) => {
                left.remove(index);
            }
            // A standby watches one that runs, so that one comes first.
            None => {
                let runs = wanted.iter().find(|other| {
                    !other.standby && !observed.iter().any(|(_, there)| there == *other)
                });
                let first = if place.standby {
                    runs.unwrap_or(place)
                } else {
                    place
                };
                return Some(Step::Create(first.clone()));
            }
        }
    }
    left.first().map(|(id, _)| Step::Destroy(id.clone()))
}

/// Returns a plan in words.
pub(crate) fn describe(plan: &Plan) -> Vec<String> {
    let mut out = Vec::new();
    for (group, places) in &plan.groups {
        if places.is_empty() {
            out.push(format!(" * process group \"{group}\": no Machines"));
        }
        let mut counted: BTreeMap<&Place, usize> = BTreeMap::new();
        for place in places {
            *counted.entry(place).or_default() += 1;
        }
        for (place, count) in counted {
            let kind = if place.standby {
                "standby machine"
            } else {
                "machine"
            };
            let s = if count == 1 { "" } else { "s" };
            let volume = place.volume.as_ref();
            let volume = volume.map_or_else(String::new, |name| format!(" and volume {name}"));
            let schedule = place.schedule.map_or_else(String::new, |schedule| {
                format!(", {schedule}, begun by its first start")
            });
            out.push(format!(
                " * create {count} \"{group}\" {kind}{s} in {} of size {} with {} MB{volume}{schedule}",
                place.region,
                place.guest().size_name(),
                place.memory_mb
            ));
        }
    }
    out.extend(plan.volumes.iter().map(|disk| {
        let owner = disk.attached.as_ref();
        let copy = owner.and_then(|id| plan.copies.iter().find(|copy| copy.from == *id));
        disks::describe(disk, copy.map(|copy| copy.group.as_str()))
    }));
    if !plan.volumes.is_empty() {
        out.push(
            " * by hand: what is in the volumes is not copied; the commands for it come at the end"
                .to_owned(),
        );
    }
    if !plan.secrets.is_empty() {
        out.push(format!(
            " * by hand, Fly does not give their values: secrets {}",
            plan.secrets.join(", ")
        ));
    }
    out
}
