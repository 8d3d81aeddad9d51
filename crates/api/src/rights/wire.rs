//! Caveats as JSON: `{"type":"Organization","body":{"id":1,"mask":"r"}}`, as Fly's clients write
//! and read them (`caveat_set.go`).

use std::collections::BTreeMap;

use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

use super::{Action, AllowedCommand, Caveat, Masks};

/// The number of Hangar's own caveat of process groups, from the range for everybody.
pub(crate) const GROUPS: u64 = (1 << 48) + 0x4861;

#[derive(Serialize, Deserialize)]
struct Wire {
    r#type: String,
    #[serde(default)]
    body: Value,
}

/// Name and number of each kind, and older names that mean the same.
const KINDS: [(u64, &str); 24] = [
    (0, "Organization"),
    (0, "DeprecatedOrganization"),
    (2, "Volumes"),
    (3, "Apps"),
    (3, "DeprecatedApps"),
    (4, "ValidityWindow"),
    (5, "FeatureSet"),
    (6, "Mutations"),
    (7, "Machines"),
    (10, "IsUser"),
    (13, "IfPresent"),
    (14, "MachineFeatureSet"),
    (15, "FromMachineSource"),
    (16, "Clusters"),
    (22, "IsMember"),
    (22, "NoAdminFeatures"),
    (26, "Action"),
    (27, "Commands"),
    (28, "AppFeatureSet"),
    (29, "StorageObjects"),
    (30, "AllowedRoles"),
    (31, "FlySrc"),
    (11, "3P"),
    (12, "BindToParentToken"),
];

/// Returns the caveats of a JSON text: a list of them, or one alone. A kind that is not known is
/// refused here, since nobody adds on purpose what permits nothing.
pub fn caveats_from_json(text: &str) -> Result<Vec<Caveat>, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let list = match value {
        Value::Array(list) => list,
        one => vec![one],
    };
    list.into_iter()
        .map(|one| {
            let shown = one.to_string();
            match serde_json::from_value(one).map_err(|error| error.to_string())? {
                Caveat::Unknown(_) => Err(format!("no such kind of caveat: {shown}")),
                known => Ok(known),
            }
        })
        .collect()
}

// === impl Caveat ===

impl Caveat {
    /// Returns the kind's number (`caveat.go`).
    #[must_use]
    pub fn kind(&self) -> u64 {
        match self {
            Self::Organization { .. } => 0,
            Self::Volumes(_) => 2,
            Self::Apps(_) => 3,
            Self::ValidityWindow { .. } => 4,
            Self::FeatureSet(_) => 5,
            Self::Mutations(_) => 6,
            Self::Machines(_) => 7,
            Self::IsUser(_) => 10,
            Self::IfPresent { .. } => 13,
            Self::MachineFeatureSet(_) => 14,
            Self::FromMachine(_) => 15,
            Self::Clusters(_) => 16,
            Self::IsMember => 22,
            Self::Action(_) => 26,
            Self::Commands(_) => 27,
            Self::AppFeatureSet(_) => 28,
            Self::StorageObjects(_) => 29,
            Self::AllowedRoles(_) => 30,
            Self::FlySrc { .. } => 31,
            Self::Groups(_) => GROUPS,
            Self::Unknown(kind) => *kind,
        }
    }

    fn body(&self) -> Result<Value, serde_json::Error> {
        Ok(match self {
            Self::Organization { id, mask } => json!({"id": id, "mask": mask}),
            Self::Volumes(set) => json!({"volumes": set}),
            Self::Apps(set) => json!({"apps": by_text(set)}),
            Self::ValidityWindow {
                not_before,
                not_after,
            } => json!({"not_before": not_before, "not_after": not_after}),
            Self::FeatureSet(set) | Self::MachineFeatureSet(set) | Self::AppFeatureSet(set) => {
                json!({"features": set})
            }
            Self::Mutations(names) => json!({"mutations": names}),
            Self::Machines(set) => json!({"machines": set}),
            Self::IsUser(id) => json!({"uint64": id}),
            Self::IfPresent { ifs, otherwise } => {
                json!({"ifs": serde_json::to_value(ifs)?, "else": otherwise})
            }
            Self::FromMachine(id) => json!({"id": id}),
            Self::Clusters(set) => json!({"clusters": set}),
            Self::IsMember => json!({}),
            Self::Action(mask) => json!(mask),
            Self::Commands(commands) => json!(commands),
            Self::StorageObjects(set) => json!({"storage_objects": set}),
            Self::AllowedRoles(roles) => json!(roles),
            Self::FlySrc {
                organization,
                app,
                instance,
            } => json!({"organization": organization, "app": app, "instance": instance}),
            Self::Groups(set) => json!({"groups": set}),
            Self::Unknown(_) => Value::Null,
        })
    }
}

fn by_text(set: &Masks<u64>) -> BTreeMap<String, Action> {
    set.iter()
        .map(|(id, mask)| (id.to_string(), *mask))
        .collect()
}

impl Serialize for Caveat {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let kind = self.kind();
        let name = KINDS.iter().find(|(number, _)| *number == kind);
        let wire = Wire {
            r#type: name.map_or_else(|| kind.to_string(), |(_, name)| (*name).to_owned()),
            body: self.body().map_err(S::Error::custom)?,
        };
        wire.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Caveat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Wire { r#type, body } = Wire::deserialize(deserializer)?;
        let named = KINDS.iter().find(|(_, name)| *name == r#type);
        let kind = match named {
            Some((number, _)) => *number,
            None => r#type.parse().unwrap_or(u64::MAX),
        };
        read(kind, body).map_err(|error| D::Error::custom(format!("caveat {}: {error}", r#type)))
    }
}

#[derive(Deserialize)]
struct OrganizationBody {
    id: u64,
    mask: Action,
}

#[derive(Deserialize)]
struct WindowBody {
    #[serde(default)]
    not_before: i64,
    not_after: i64,
}

#[derive(Deserialize)]
struct IfPresentBody {
    #[serde(default)]
    ifs: Vec<Caveat>,
    #[serde(rename = "else")]
    otherwise: Action,
}

#[derive(Deserialize)]
struct SourceBody {
    #[serde(default)]
    organization: String,
    #[serde(default)]
    app: String,
    #[serde(default)]
    instance: String,
}

fn read(kind: u64, mut body: Value) -> Result<Caveat, serde_json::Error> {
    let mut inner = |name: &str| body.get_mut(name).map(Value::take).unwrap_or_default();
    Ok(match kind {
        0 => {
            let OrganizationBody { id, mask } = serde_json::from_value(body)?;
            Caveat::Organization { id, mask }
        }
        2 => Caveat::Volumes(list(inner("volumes"))?),
        3 => Caveat::Apps(list(inner("apps"))?),
        4 => {
            let WindowBody {
                not_before,
                not_after,
            } = serde_json::from_value(body)?;
            Caveat::ValidityWindow {
                not_before,
                not_after,
            }
        }
        5 => Caveat::FeatureSet(list(inner("features"))?),
        6 => Caveat::Mutations(list(inner("mutations"))?),
        7 => Caveat::Machines(list(inner("machines"))?),
        10 => Caveat::IsUser(serde_json::from_value(inner("uint64"))?),
        13 => {
            let IfPresentBody { ifs, otherwise } = serde_json::from_value(body)?;
            Caveat::IfPresent { ifs, otherwise }
        }
        14 => Caveat::MachineFeatureSet(list(inner("features"))?),
        15 => Caveat::FromMachine(serde_json::from_value(inner("id"))?),
        16 => Caveat::Clusters(list(inner("clusters"))?),
        22 => Caveat::IsMember,
        26 => Caveat::Action(serde_json::from_value(body)?),
        27 => Caveat::Commands(serde_json::from_value::<Vec<AllowedCommand>>(body)?),
        28 => Caveat::AppFeatureSet(list(inner("features"))?),
        29 => Caveat::StorageObjects(list(inner("storage_objects"))?),
        30 => Caveat::AllowedRoles(serde_json::from_value(body)?),
        31 => {
            let SourceBody {
                organization,
                app,
                instance,
            } = serde_json::from_value(body)?;
            Caveat::FlySrc {
                organization,
                app,
                instance,
            }
        }
        GROUPS => Caveat::Groups(list(inner("groups"))?),
        unknown => Caveat::Unknown(unknown),
    })
}

/// Reads a list or a set; Go writes an empty one as null.
fn list<T: DeserializeOwned + Default>(value: Value) -> Result<T, serde_json::Error> {
    serde_json::from_value::<Option<T>>(value).map(Option::unwrap_or_default)
}

/// The same, for a field.
pub(super) fn list_or_null<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Option::<Vec<String>>::deserialize(from).map(Option::unwrap_or_default)
}
