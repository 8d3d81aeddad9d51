//! A process group's formation: how many Machines it should have, where, and of which size
//! (process-groups-and-deploy.md 8.1, as its users meant it).
//!
//! The server keeps it and repairs what nobody asked for. Whoever creates or destroys a Machine
//! moves it, so that no client is ever fought.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::id::{GroupName, MachineId, Region};
use crate::machine::Guest;

/// What a group should have. A group without one has what it has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Formation {
    /// The region pool, with the Machines that each region should have. One with 0 is in the
    /// pool: Machines may come to it.
    pub regions: BTreeMap<Region, u32>,
    /// Where Machines go while no slot of the pool can be had, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backup_regions: Vec<Region>,
    /// Most Machines in one region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_per_region: Option<u32>,
    /// The size of a new Machine where the group has none to copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<Guest>,
    /// Machines that are to go once the others are up: chosen when the formation was changed, or
    /// replaced because their slot is lost. Nobody else is ever removed.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub retiring: BTreeSet<MachineId>,
    /// Machines that failed beyond their restart policy, and when each is tried again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub retries: BTreeMap<MachineId, Retry>,
    /// The newest release of when a person last asked for something: a later release without the
    /// group ends its formation.
    #[serde(default)]
    pub since_release: u64,
}

/// When a Machine that failed is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Retry {
    /// Tries so far.
    pub times: u32,
    /// The next, or the last once it runs.
    #[schemars(with = "crate::schema::Time")]
    pub at: Timestamp,
}

/// What a client did to a Machine, as its group's formation sees it. Written with the deed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Wish {
    /// The group.
    pub group: GroupName,
    /// The Machine's region.
    pub region: Region,
    /// Whether one more is wished for, or one fewer.
    pub more: bool,
    /// One fewer because the Machine is of another group now, or of none: a group that has lost
    /// its last one that way was not scaled to 0, and gets a new one with the next deploy.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub moved: bool,
    /// The Machine's size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<Guest>,
}

/// Body of `PUT /v1/apps/{app}/formation`: groups that are not named stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FormationUpdate {
    /// By group.
    #[serde(default)]
    pub groups: BTreeMap<GroupName, GroupUpdate>,
    /// Say what would be done, and do nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// What is to change of one group's formation; what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupUpdate {
    /// So many Machines, spread over the pool with as few moves as can be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// This pool: a list, over which the Machines are spread, or a map with the count of each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regions: Option<PoolUpdate>,
    /// These regions too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add_regions: Vec<Region>,
    /// Not these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove_regions: Vec<Region>,
    /// These backups; an empty list means none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_regions: Option<Vec<Region>>,
    /// At most so many in one region; 0 takes the limit away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_per_region: Option<u32>,
    /// The size of a new Machine where there is none to copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<Guest>,
    /// Standbys of the group that go: they hold no seat, so no count tells of them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub retire_standbys: BTreeSet<MachineId>,
    /// Refused where the group should have anything else than this before the change: whoever
    /// decided from what there was does not undo what came in between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_regions: Option<BTreeMap<Region, u32>>,
}

/// A new pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum PoolUpdate {
    /// Spread over these.
    Spread(Vec<Region>),
    /// So many in each.
    Exact(BTreeMap<Region, u32>),
}

/// A group's formation as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GroupFormation {
    /// Machines that there should be, standbys not counted.
    pub count: u32,
    /// The pool, with the count of each region.
    pub regions: BTreeMap<Region, u32>,
    /// See [`Formation::backup_regions`].
    #[serde(default)]
    pub backup_regions: Vec<Region>,
    /// See [`Formation::max_per_region`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_per_region: Option<u32>,
    /// See [`Formation::guest`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<Guest>,
    /// Its Machines that count.
    #[serde(default)]
    pub machines: Vec<MachineId>,
    /// See [`Formation::retiring`].
    #[serde(default)]
    pub retiring: Vec<MachineId>,
    /// Why it does not have what it should have, one line each.
    #[serde(default)]
    pub trouble: Vec<String>,
}

/// Answer of `/v1/apps/{app}/formation`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Formations {
    /// By group.
    pub groups: BTreeMap<GroupName, GroupFormation>,
    /// Whether the server is to look at it again before it changes anything, and why: a deploy, a
    /// client's lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<String>,
}

// === impl Formation ===

impl Formation {
    /// Returns how many Machines there should be.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.regions
            .values()
            .fold(0, |sum, n| sum.saturating_add(*n))
    }
}
