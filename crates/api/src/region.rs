//! The regions that a fly.toml from Fly may name (proxy-network-runtime.md 15b).

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

/// A place that Machines are put on: one machine carries several (D17).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionInfo {
    /// Its code.
    pub code: Region,
    /// Its city, or the code again for a region of the operator's own.
    pub name: String,
    /// Always false here: Hangar has no plans to pay for.
    #[serde(default)]
    pub requires_paid_plan: bool,
    /// Whether WireGuard gateways are offered: no.
    #[serde(default)]
    pub gateway_available: bool,
}

/// Returns the city of a region's code, or the code itself.
#[must_use]
pub fn city(code: &str) -> &str {
    REGIONS
        .iter()
        .find(|(known, _)| *known == code)
        .map_or(code, |(_, name)| name)
}
