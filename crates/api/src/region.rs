//! The regions that a fly.toml from Fly may name (proxy-network-runtime.md 15b).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::Region;
use crate::id::{HostId, SlotId};
use crate::net::HostPart;

/// Code and city of every region that stands for itself without a flag (D17).
pub const REGIONS: [(&str, &str); 18] = [
    ("ams", "Amsterdam, Netherlands"),
    ("arn", "Stockholm, Sweden"),
    ("bom", "Mumbai, India"),
    ("cdg", "Paris, France"),
    ("dfw", "Dallas, Texas (US)"),
    ("ewr", "Secaucus, NJ (US)"),
    ("fra", "Frankfurt, Germany"),
    ("gru", "Sao Paulo, Brazil"),
    ("iad", "Ashburn, Virginia (US)"),
    ("jnb", "Johannesburg, South Africa"),
    ("lax", "Los Angeles, California (US)"),
    ("lhr", "London, United Kingdom"),
    ("nrt", "Tokyo, Japan"),
    ("ord", "Chicago, Illinois (US)"),
    ("sin", "Singapore, Singapore"),
    ("sjc", "San Jose, California (US)"),
    ("syd", "Sydney, Australia"),
    ("yyz", "Toronto, Canada"),
];

/// Code, latitude, longitude and part of the world of the same regions.
const PLACES: [(&str, f64, f64, &str); 18] = [
    ("ams", 52.374, 4.89, "europe"),
    ("arn", 59.651, 17.919, "europe"),
    ("bom", 19.09, 72.868, "asia_pacific"),
    ("cdg", 48.86, 2.341, "europe"),
    ("dfw", 32.779, -96.807, "north_america"),
    ("ewr", 40.789, -74.057, "north_america"),
    ("fra", 50.111, 8.682, "europe"),
    ("gru", -23.549, -46.639, "south_america"),
    ("iad", 39.022, -77.461, "north_america"),
    ("jnb", -26.204, 28.044, "africa"),
    ("lax", 33.942, -118.408, "north_america"),
    ("lhr", 51.517, -0.165, "europe"),
    ("nrt", 35.621, 139.749, "asia_pacific"),
    ("ord", 41.892, -87.613, "north_america"),
    ("sin", 1.3, 103.8, "asia_pacific"),
    ("sjc", 37.352, -121.954, "north_america"),
    ("syd", -33.866, 151.192, "asia_pacific"),
    ("yyz", 43.645, -79.387, "north_america"),
];

/// A place that Machines are put on: one machine carries several (D17).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Slot {
    /// Its name.
    pub id: SlotId,
    /// The host that carries it.
    pub host: HostId,
    /// Its region, the `FLY_REGION` of its Machines.
    pub region: Region,
    /// Its zone: two slots of one region differ in it.
    pub zone: String,
    /// The host part of its Machines' addresses.
    pub host_part: HostPart,
    /// Nothing is placed on a lost slot.
    #[serde(default)]
    pub lost: bool,
}

/// A region as `GET /v1/platform/regions` lists it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RegionInfo {
    /// Its code.
    pub code: Region,
    /// Its city, or the code again for a region of the operator's own.
    pub name: String,
    /// Degrees to the north; 0 for a region of the operator's own.
    #[serde(default)]
    pub latitude: f64,
    /// Degrees to the east; 0 for a region of the operator's own.
    #[serde(default)]
    pub longitude: f64,
    /// The part of the world, such as `europe`; "" for a region of the operator's own.
    #[serde(default)]
    pub geo_region: String,
    /// Always false here: Hangar has no plans to pay for.
    #[serde(default)]
    pub requires_paid_plan: bool,
    /// Whether WireGuard gateways are offered: no.
    #[serde(default)]
    pub gateway_available: bool,
    /// Whether it is to be left: no.
    #[serde(default)]
    pub deprecated: bool,
    /// Whether managed Postgres is offered: no.
    #[serde(default)]
    pub mpg_available: bool,
}

/// Answer of `GET /v1/platform/regions`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Regions {
    /// The region that is meant where none is named.
    pub nearest: Region,
    /// All of them, by code.
    pub regions: Vec<RegionInfo>,
}

// === impl RegionInfo ===

impl RegionInfo {
    /// Returns what is known of a region.
    #[must_use]
    pub fn of(code: Region) -> Self {
        let place = PLACES.iter().find(|place| place.0 == code.as_str());
        let (_, latitude, longitude, geo_region) = place.copied().unwrap_or(("", 0.0, 0.0, ""));
        Self {
            name: city(code.as_str()).to_owned(),
            code,
            latitude,
            longitude,
            geo_region: geo_region.to_owned(),
            requires_paid_plan: false,
            gateway_available: false,
            deprecated: false,
            mpg_available: false,
        }
    }
}

/// Returns the city of a region's code, or the code itself.
#[must_use]
pub fn city(code: &str) -> &str {
    REGIONS
        .iter()
        .find(|(known, _)| *known == code)
        .map_or(code, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_region_has_its_place() {
        for ((code, name), place) in REGIONS.into_iter().zip(PLACES) {
            assert_eq!(code, place.0);
            let info = RegionInfo::of(Region::new(code).unwrap());
            assert_eq!(info.name, name);
            assert!(info.latitude != 0.0 && info.longitude != 0.0 && !info.geo_region.is_empty());
        }
        let own = RegionInfo::of(Region::new("cellar").unwrap());
        assert_eq!((own.name.as_str(), own.geo_region.as_str()), ("cellar", ""));
    }
}
