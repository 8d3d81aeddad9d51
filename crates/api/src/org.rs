//! Organisations: they own apps, private networks and tokens (`/v1/orgs`, Hangar's own).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::id::{AppName, InstanceId, MachineId, OrgSlug, Region, VolumeId};
use crate::machine::{Guest, MachineState};
use crate::volume::Volume;

/// What an organisation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OrgKind {
    /// The one that is always there.
    Personal,
    /// Any other.
    Shared,
}

/// An organisation as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Org {
    /// A stable id.
    pub id: String,
    /// Its number: tokens carry it.
    pub internal_numeric_id: u64,
    /// Its slug.
    pub slug: OrgSlug,
    /// Display name.
    pub name: String,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: OrgKind,
    /// When it was made.
    #[schemars(with = "crate::schema::Time")]
    pub created_at: Timestamp,
    /// How many apps it has.
    pub app_count: usize,
}

/// Answer of `GET /v1/orgs`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrgList {
    /// Those that the caller may read, by slug.
    pub organizations: Vec<Org>,
}

/// Body of `POST /v1/orgs`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CreateOrg {
    /// Display name.
    #[serde(default)]
    pub name: Option<String>,
    /// The slug; made of the name when absent.
    #[serde(default)]
    pub slug: Option<String>,
}

/// Answer of `GET /v1/orgs/{slug}/machines`: what changed longest ago comes first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OrgMachines {
    /// The page.
    pub machines: Vec<OrgMachine>,
    /// Where the next page begins; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
    /// The last row's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_machine_id: Option<MachineId>,
    /// When the last row changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::schema::Time>")]
    pub last_updated_at: Option<Timestamp>,
    /// Regions that could not be asked: none here.
    #[serde(default)]
    pub error_regions: Vec<Region>,
}

/// A Machine in a few words.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OrgMachine {
    /// Its app.
    pub app_name: AppName,
    /// Its id.
    pub id: MachineId,
    /// Its name.
    pub name: String,
    /// The state.
    pub state: MachineState,
    /// The region.
    pub region: Region,
    /// The version.
    pub instance_id: InstanceId,
    /// The same, as newer clients read it.
    pub version: InstanceId,
    /// The 6PN address.
    pub private_ip: String,
    /// Size, image and metadata; absent in a summary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<OverviewConfig>,
    /// When it was created.
    #[schemars(with = "crate::schema::Time")]
    pub created_at: Timestamp,
    /// When it last changed.
    #[schemars(with = "crate::schema::Time")]
    pub updated_at: Timestamp,
}

/// What is shown of a configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OverviewConfig {
    /// Its size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<Guest>,
    /// Its image.
    pub image: String,
    /// Its metadata.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
}

/// Answer of `GET /v1/orgs/{slug}/volumes`: what was created longest ago comes first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OrgVolumes {
    /// The page.
    pub volumes: Vec<OrgVolume>,
    /// Where the next page begins; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
    /// The last row's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_volume_id: Option<VolumeId>,
    /// When the last row changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::schema::Time>")]
    pub last_updated_at: Option<Timestamp>,
}

/// A volume and its app.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OrgVolume {
    /// Its app.
    pub app_name: AppName,
    /// When it last changed, as far as that is written down: when it was created or destroyed.
    #[schemars(with = "crate::schema::Time")]
    pub updated_at: Timestamp,
    /// The rest.
    #[serde(flatten)]
    pub volume: Volume,
}
