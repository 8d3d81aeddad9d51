//! Where Machines would be put (`POST /v1/platform/placements`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::Region;
use crate::lenient;
use crate::machine::Guest;

/// Body of `POST /v1/platform/placements`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PlacementsRequest {
    /// The organisation.
    #[serde(deserialize_with = "lenient::text")]
    pub org_slug: Option<String>,
    /// A region, an alias, or a list in order of preference; absent means the first slot's region,
    /// then any.
    #[serde(deserialize_with = "lenient::text")]
    pub region: Option<String>,
    /// How many Machines; 0 or absent asks how many each region takes.
    #[serde(deserialize_with = "lenient::number")]
    pub count: Option<usize>,
    /// Their size.
    pub compute: Option<Guest>,
    /// A volume of each; volumes can be made in every region.
    #[serde(deserialize_with = "lenient::text")]
    pub volume_name: Option<String>,
    /// Its size in bytes.
    #[serde(deserialize_with = "lenient::number")]
    pub volume_size_bytes: Option<u64>,
    /// `region` and `spread`: `spread` 0 packs Machines, everything else spreads them.
    pub weights: Option<Value>,
}

/// Answer of `POST /v1/platform/placements`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Placements {
    /// The regions, in order of preference.
    pub regions: Vec<RegionPlacement>,
}

/// How many Machines a region would take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RegionPlacement {
    /// The region.
    pub region: Region,
    /// How many.
    pub count: usize,
    /// On how many slots of it.
    pub concurrency: usize,
}
