//! What a deployment would do to each Machine, and what of its configuration becomes different.
//!
//! Pure, as the planner. Called by the server for a dry run; the planner itself does not need it.

use hangar_api::deployment::{DeployOptions, Strategy};
use hangar_api::id::{GroupName, Region};
use hangar_api::machine::MachineConfig;
use hangar_api::machine::config::{CLIENT_VERSION, RELEASE_ID, RELEASE_VERSION};
use hangar_api::preview::{FieldChange, GroupPreview, MachinePreview, PreviewAction};
use serde_json::Value;

use crate::desired::{Desired, Kind};
use crate::fleet::{FleetMachine, ObservedFleet};
use crate::merge;
use crate::preview::Diff;

/// What stands for an image that the deploy is yet to build.
const UNBUILT: &str = "(built by the deploy)";
/// Why a Machine is made anew that gets or loses a volume.
const VOLUME_CHANGES: &str = "a volume is added or taken away, which needs another Machine";
/// Most fields named of one Machine.
const MAX_CHANGES: usize = 200;
/// Longest text of a value; the rest is cut.
const MAX_VALUE: usize = 200;

/// Returns the fields in which two configurations differ, in their order; what only says which
/// release and which client made it is left out.
#[must_use]
pub fn changes(from: &MachineConfig, to: &MachineConfig) -> Vec<FieldChange> {
    let value = |config: &MachineConfig| {
        let mut config = config.clone();
        for key in [RELEASE_ID, RELEASE_VERSION, CLIENT_VERSION] {
            config.metadata.remove(key);
        }
        // How it was written is no difference.
        config.plain().unwrap_or_default()
    };
    let mut found = Vec::new();
    compare("", Some(&value(from)), Some(&value(to)), &mut found);
    found.truncate(MAX_CHANGES);
    found
}

fn compare(at: &str, from: Option<&Value>, to: Option<&Value>, found: &mut Vec<FieldChange>) {
    if from == to {
        return;
    }
    // A table that is not there is an empty one; an item of a list comes and goes as a whole.
    let empty = Value::Object(serde_json::Map::new());
    let (old, new) = if at.ends_with(']') {
        (from, to)
    } else {
        let or_empty = |one: Option<&Value>, other: Option<&Value>| {
            one.is_none() && other.is_some_and(Value::is_object)
        };
        (
            from.or(or_empty(from, to).then_some(&empty)),
            to.or(or_empty(to, from).then_some(&empty)),
        )
    };
    match (old, new) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let at = if at.is_empty() {
                    key.clone()
                } else {
                    format!("{at}.{key}")
                };
                compare(&at, old.get(key), new.get(key), found);
            }
        }
        // A list of words, such as a command, reads best as a whole.
        (Some(Value::Array(old)), Some(Value::Array(new)))
            if old.iter().chain(new).any(Value::is_object) =>
        {
            for index in 0..old.len().max(new.len()) {
                compare(
                    &format!("{at}[{index}]"),
                    old.get(index),
                    new.get(index),
                    found,
                );
            }
        }
        _ => found.push(FieldChange {
            field: at.to_owned(),
            from: from.map(shortened),
            to: to.map(shortened),
        }),
    }
}

/// Returns a value that can be shown: long texts, such as files, are cut.
fn shortened(value: &Value) -> Value {
    match value {
        Value::String(text) if text.chars().count() > MAX_VALUE => {
            let head: String = text.chars().take(MAX_VALUE).collect();
            Value::String(format!("{head}… ({} bytes)", text.len()))
        }
        Value::Array(items) => items.iter().map(shortened).collect(),
        Value::Object(map) => {
            let pairs = map
                .iter()
                .map(|(key, value)| (key.clone(), shortened(value)));
            Value::Object(pairs.collect())
        }
        other => other.clone(),
    }
}

/// Returns what a deployment would do, by group.
#[must_use]
pub fn group_previews(
    desired: &Desired,
    fleet: &ObservedFleet<'_>,
    options: &DeployOptions,
) -> Vec<GroupPreview> {
    let diff = Diff::of(desired, fleet, options);
    let mut names: Vec<&GroupName> = diff.update.keys().chain(diff.create.keys()).collect();
    names.extend(diff.replace.keys().chain(diff.remove.keys()));
    names.sort();
    names.dedup();
    let mut groups = Vec::new();
    for group in names {
        let mut machines = Vec::new();
        let of = |ids: Option<&Vec<_>>| -> Vec<&FleetMachine<'_>> {
            let ids = ids.into_iter().flatten();
            ids.filter_map(|id| fleet.machines.get(id)).collect()
        };
        for machine in of(diff.update.get(group)) {
            machines.push(existing(desired, machine, group, options));
        }
        for machine in of(diff.replace.get(group)) {
            machines.push(replaced(desired, machine, group, options));
        }
        for machine in of(diff.remove.get(group)) {
            machines.push(MachinePreview {
                machine: Some(machine.spec.id.clone()),
                region: machine.spec.region.clone(),
                action: PreviewAction::Destroy,
                why: format!("process group {group} is not in fly.toml any more"),
                changes: Vec::new(),
            });
        }
        for standby in diff.create.get(group).into_iter().flatten() {
            let region = fleet.home(desired, group);
            machines.push(created(desired, group, region, *standby));
        }
        groups.push(GroupPreview {
            group: group.clone(),
            machines,
        });
    }
    groups
}

fn created(desired: &Desired, group: &GroupName, region: Region, standby: bool) -> MachinePreview {
    let why = if standby {
        "a standby for the first: it starts when that one's host is lost"
    } else {
        "the group has no Machines yet"
    };
    let config = desired.groups.get(group).map(|spec| &spec.config);
    let image = config.map(|config| image_of(desired, &config.image));
    MachinePreview {
        machine: None,
        region,
        action: PreviewAction::Create,
        why: why.to_owned(),
        changes: image
            .into_iter()
            .map(|image| field("image", None, image))
            .collect(),
    }
}

fn existing(
    desired: &Desired,
    machine: &FleetMachine<'_>,
    group: &GroupName,
    options: &DeployOptions,
) -> MachinePreview {
    let spec = machine.spec;
    let mut found = match (desired.kind, desired.groups.get(group)) {
        (Kind::Full, Some(wanted)) => {
            let next = merge::onto(&spec.config, wanted, group, desired.mark());
            let mut found = changes(&spec.config, &next);
            // It only tells the program what `standbys` says too, and goes with any update.
            let told = format!("env.{}", merge::STANDBY_FOR);
            found.retain(|change| change.field != told);
            found
        }
        _ => Vec::new(),
    };
    if desired.kind == Kind::Full {
        image_change(desired, machine, &mut found);
    }
    if desired.secrets_version > spec.secrets_version {
        found.push(field(
            "secrets",
            Some(format!("version {}", spec.secrets_version)),
            format!("version {}", desired.secrets_version),
        ));
    }
    let (action, why) = verdict(desired, &found, options);
    MachinePreview {
        machine: Some(spec.id.clone()),
        region: spec.region.clone(),
        action,
        why,
        changes: found,
    }
}

/// Returns what becomes of a Machine that another one takes the place of.
fn replaced(
    desired: &Desired,
    machine: &FleetMachine<'_>,
    group: &GroupName,
    options: &DeployOptions,
) -> MachinePreview {
    let shown = existing(desired, machine, group, options);
    let why = if machine.is_lost {
        format!("slot {} is lost", machine.spec.slot)
    } else {
        VOLUME_CHANGES.to_owned()
    };
    MachinePreview {
        action: PreviewAction::Replace,
        why,
        ..shown
    }
}

fn field(name: &str, from: Option<String>, to: String) -> FieldChange {
    FieldChange {
        field: name.to_owned(),
        from: from.map(Value::String),
        to: Some(Value::String(to)),
    }
}

fn image_of(desired: &Desired, name: &str) -> String {
    if desired.image_ref.digest.is_empty() {
        UNBUILT.to_owned()
    } else {
        name.to_owned()
    }
}

/// Two names of one image are no change; one that is yet to be built may be.
fn image_change(desired: &Desired, machine: &FleetMachine<'_>, found: &mut Vec<FieldChange>) {
    let now = &machine.spec.image_ref.digest;
    let then = &desired.image_ref.digest;
    if !then.is_empty() && now == then {
        found.retain(|change| change.field != "image");
    }
    if then.is_empty() {
        found.retain(|change| change.field != "image");
        let name = machine.spec.config.image.clone();
        found.insert(0, field("image", Some(name), UNBUILT.to_owned()));
    }
}

/// Returns what happens to a Machine that has these changes (4.7), and why.
fn verdict(
    desired: &Desired,
    found: &[FieldChange],
    options: &DeployOptions,
) -> (PreviewAction, String) {
    let names: Vec<&str> = found.iter().map(|change| change.field.as_str()).collect();
    let mounts = |change: &&FieldChange| {
        let whole = change.field == "mounts" || change.field.starts_with("mounts[");
        let inner = change.field.contains("].");
        whole && !inner && change.from.is_none() != change.to.is_none()
    };
    if desired.kind == Kind::Full && found.iter().any(|change| mounts(&change)) {
        return (PreviewAction::Replace, VOLUME_CHANGES.to_owned());
    }
    if found.is_empty() {
        return (PreviewAction::Keep, "it is as fly.toml says".to_owned());
    }
    if desired.kind == Kind::Full && options.strategy == Strategy::Bluegreen {
        return (
            PreviewAction::Replace,
            format!("strategy bluegreen makes new Machines: {}", summary(&names)),
        );
    }
    (
        PreviewAction::Change,
        format!("in place: {}", summary(&names)),
    )
}

/// Returns the first parts of field names, each once.
fn summary(fields: &[&str]) -> String {
    let mut parts: Vec<&str> = fields
        .iter()
        .map(|field| field.split(['.', '[']).next().unwrap_or(field))
        .collect();
    parts.dedup();
    parts.join(", ")
}
