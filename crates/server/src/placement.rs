//! Where a new Machine is put: a region expression and the slots in, one slot out. Pure (D11).
//!
//! Slots are all that placement sees (D17). CPUs may be overcommitted, so a slot that is not lost
//! always has room; what is spread is the number of Machines, the group's own first.

use std::collections::BTreeMap;

use hangar_api::id::SlotId;
use hangar_api::placement::RegionPlacement;
use hangar_api::region::Slot;

/// What already stands on a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Load {
    /// Machines of the same app and group.
    pub(crate) group: usize,
    /// All Machines.
    pub(crate) all: usize,
}

/// Why a Machine cannot be placed, in words a person can act on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unplaceable {
    /// No slot stands for any of the regions.
    #[error("region {wanted:?} is not offered here; use one of {known}, or any")]
    Unknown {
        /// What was asked for.
        wanted: String,
        /// What there is, comma separated.
        known: String,
    },
    /// All slots of the regions are lost.
    #[error("every slot of region {wanted} is marked lost; use another region")]
    Lost {
        /// What was asked for.
        wanted: String,
    },
    /// Every zone of the region has such a volume already.
    #[error(
        "every zone of region {region} has a volume of this name already; say that they may share \
         a zone (--require-unique-zone=false), or use another region"
    )]
    NoZone {
        /// The region.
        region: String,
    },
}

/// Whether volumes of one kind may share a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Apart {
    /// They must not, where the region has several zones.
    Required,
    /// They do only where there is no other way.
    Preferred,
}

/// Regions that a word stands for (machines-api.md 4.1); `any` is handled apart.
const ALIASES: [(&str, &[&str]); 6] = [
    ("apac", &["bom", "nrt", "sin", "syd"]),
    ("eu", &["ams", "arn", "cdg", "fra", "lhr"]),
    ("na", &["dfw", "ewr", "iad", "lax", "ord", "sjc", "yyz"]),
    ("sa", &["gru"]),
    ("us", &["dfw", "ewr", "iad", "lax", "ord", "sjc"]),
    ("usa", &["dfw", "ewr", "iad", "lax", "ord", "sjc"]),
];

/// Returns the slot for a new Machine.
///
/// `expression` is a region, an alias, or a comma-separated list in order of preference; absent
/// means the first slot's region. Among the slots of the first preference that has any left, the
/// one with the fewest Machines of the group wins, then the one with the fewest at all.
pub(crate) fn place<'a>(
    expression: Option<&str>,
    slots: &'a [Slot],
    loads: &BTreeMap<SlotId, Load>,
) -> Result<&'a Slot, Unplaceable> {
    let first = slots.first().map_or("", |slot| slot.region.as_str());
    let wanted = expression
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .unwrap_or(first);
    let mut offered = false;
    for preference in wanted.split(',').map(str::trim) {
        let fitting = || slots.iter().filter(|slot| stands_for(slot, preference));
        offered |= fitting().next().is_some();
        let best = fitting()
            .filter(|slot| !slot.lost)
            .min_by_key(|slot| loads.get(&slot.id).copied().unwrap_or_default());
        if let Some(slot) = best {
            return Ok(slot);
        }
    }
    if offered {
        return Err(Unplaceable::Lost {
            wanted: wanted.to_owned(),
        });
    }
    let mut known: Vec<&str> = slots.iter().map(|slot| slot.region.as_str()).collect();
    known.sort_unstable();
    known.dedup();
    Err(Unplaceable::Unknown {
        wanted: wanted.chars().take(80).collect(),
        known: known.join(", "),
    })
}

/// Returns the slot for a new volume: as for a Machine, and apart from the others that `loads`
/// counts as its group. A region of one zone cannot keep anything apart, and is not asked to.
pub(crate) fn place_volume<'a>(
    expression: Option<&str>,
    slots: &'a [Slot],
    loads: &BTreeMap<SlotId, Load>,
    apart: Apart,
) -> Result<&'a Slot, Unplaceable> {
    let slot = place(expression, slots, loads)?;
    let shared = loads.get(&slot.id).is_some_and(|load| load.group > 0);
    let mut others = slots
        .iter()
        .filter(|other| other.region == slot.region && other.zone != slot.zone);
    if apart == Apart::Required && shared && others.any(|other| !other.lost) {
        return Err(Unplaceable::NoZone {
            region: slot.region.to_string(),
        });
    }
    Ok(slot)
}

/// Returns the regions in which so many new Machines of one group would be put, in order of
/// preference, with how many and on how many slots. A count of 0 asks how many each region takes:
/// `most`, since CPUs may be overcommitted.
pub(crate) fn simulate(
    expression: Option<&str>,
    slots: &[Slot],
    mut loads: BTreeMap<SlotId, Load>,
    count: usize,
    most: usize,
) -> Result<Vec<RegionPlacement>, Unplaceable> {
    place(expression, slots, &loads)?;
    let mut used: BTreeMap<&SlotId, usize> = BTreeMap::new();
    for _ in 0..count {
        let slot = place(expression, slots, &loads)?;
        let load = loads.entry(slot.id.clone()).or_default();
        load.group += 1;
        load.all += 1;
        *used.entry(&slot.id).or_default() += 1;
    }
    let mut regions: Vec<RegionPlacement> = Vec::new();
    let preferences = expression.unwrap_or("any").split(',').map(str::trim);
    let in_order = preferences.flat_map(|p| slots.iter().filter(move |slot| stands_for(slot, p)));
    let mut seen = std::collections::BTreeSet::new();
    for slot in in_order.filter(|slot| !slot.lost) {
        let taken = used.get(&slot.id).copied().unwrap_or(0);
        if (count > 0 && taken == 0) || !seen.insert(&slot.id) {
            continue;
        }
        match regions.iter_mut().find(|row| row.region == slot.region) {
            Some(row) => {
                row.count += taken;
                row.concurrency += 1;
            }
            None => regions.push(RegionPlacement {
                region: slot.region.clone(),
                count: if count == 0 { most } else { taken },
                concurrency: 1,
            }),
        }
    }
    Ok(regions)
}

/// Returns whether a region is among those that an expression stands for; absent stands for all.
pub(crate) fn is_in(region: &str, expression: Option<&str>) -> bool {
    let expression = expression.map(str::trim).filter(|text| !text.is_empty());
    expression.is_none_or(|text| {
        text.split(',')
            .any(|preference| names(region, preference.trim()))
    })
}

fn stands_for(slot: &Slot, preference: &str) -> bool {
    names(slot.region.as_str(), preference)
}

fn names(region: &str, preference: &str) -> bool {
    preference == "any"
        || preference == region
        || ALIASES
            .iter()
            .any(|(alias, regions)| *alias == preference && regions.contains(&region))
}

#[cfg(test)]
mod tests {
    use hangar_api::id::{HostId, Region};
    use hangar_api::net::HostPart;
    use proptest::prelude::*;

    use super::*;

    fn slots(regions: &[(&str, bool)]) -> Vec<Slot> {
        let mut part = 0;
        regions
            .iter()
            .map(|(region, lost)| {
                part += 1;
                Slot {
                    id: SlotId::new(format!("{region}-{part}")).unwrap(),
                    host: HostId::new("here").unwrap(),
                    region: Region::new(*region).unwrap(),
                    zone: format!("z{part}"),
                    host_part: HostPart(part),
                    lost: *lost,
                }
            })
            .collect()
    }

    #[test]
    fn without_a_region_the_first_slots_region_is_taken() {
        let slots = slots(&[("iad", false), ("gru", false)]);
        let place = place(None, &slots, &BTreeMap::new()).unwrap();
        assert_eq!(place.region.as_str(), "iad");
    }

    #[test]
    fn a_preference_list_is_followed_in_order_and_aliases_are_known() {
        let slots = slots(&[
            ("iad", false),
            ("gru", false),
            ("fra", true),
            ("ams", false),
        ]);
        let region = |expression| {
            place(Some(expression), &slots, &BTreeMap::new())
                .map(|slot| slot.region.as_str().to_owned())
        };
        assert_eq!(region("gru,iad").unwrap(), "gru");
        assert_eq!(region("fra,iad").unwrap(), "iad");
        assert_eq!(region("eu").unwrap(), "ams");
        assert_eq!(region("any").unwrap(), "iad");
        assert!(matches!(region("fra"), Err(Unplaceable::Lost { .. })));
        let error = region("mars").unwrap_err();
        assert!(error.to_string().contains("ams, fra, gru, iad"), "{error}");
    }

    #[test]
    fn a_groups_machines_are_spread_over_the_slots_of_a_region() {
        let slots = slots(&[("iad", false), ("iad", false), ("gru", false)]);
        let mut loads = BTreeMap::new();
        let mut used = Vec::new();
        for _ in 0..4 {
            let slot = place(Some("iad"), &slots, &loads).unwrap();
            loads
                .entry(slot.id.clone())
                .or_insert(Load::default())
                .group += 1;
            used.push(slot.zone.clone());
        }
        assert_eq!(used, ["z1", "z2", "z1", "z2"]);
    }

    #[test]
    fn volumes_of_a_name_are_kept_apart_where_a_region_has_zones() {
        let slots = slots(&[("iad", false), ("iad", false), ("gru", false)]);
        let mut loads: BTreeMap<SlotId, Load> = BTreeMap::new();
        let mut add = |region, apart| {
            let slot = place_volume(Some(region), &slots, &loads, apart)?.clone();
            loads.entry(slot.id).or_default().group += 1;
            Ok::<_, Unplaceable>(slot.zone)
        };
        let zones = [(); 2].map(|()| add("iad", Apart::Required).unwrap());
        assert_eq!(zones, ["z1", "z2"]);
        let error = add("iad", Apart::Required).unwrap_err();
        assert!(
            error.to_string().contains("--require-unique-zone=false"),
            "{error}"
        );
        assert_eq!(add("iad", Apart::Preferred).unwrap(), "z1");
        // One zone cannot keep anything apart.
        assert!(
            [(); 3]
                .map(|()| add("gru", Apart::Required))
                .iter()
                .all(Result::is_ok)
        );
        assert!(is_in("iad", Some("gru, us")) && !is_in("iad", Some("gru")) && is_in("iad", None));
    }

    proptest! {
        #[test]
        fn a_placed_machine_is_where_it_was_asked_to_be_and_never_on_a_lost_slot(
            lost in proptest::collection::vec(any::<bool>(), 1..8),
            groups in proptest::collection::vec(0_usize..5, 8),
            expression in "(iad|gru|ams|mars|any|us|eu)(,(iad|gru|ams|mars))?",
        ) {
            let names = ["iad", "gru", "ams"];
            let regions: Vec<(&str, bool)> = lost
                .iter()
                .enumerate()
                .map(|(at, lost)| (names[at % 3], *lost))
                .collect();
            let slots = slots(&regions);
            let loads: BTreeMap<SlotId, Load> = slots
                .iter()
                .zip(&groups)
                .map(|(slot, group)| (slot.id.clone(), Load { group: *group, all: *group }))
                .collect();
            match place(Some(&expression), &slots, &loads) {
                Ok(slot) => {
                    prop_assert!(!slot.lost);
                    prop_assert!(expression.split(',').any(|one| stands_for(slot, one)));
                    let least = slots
                        .iter()
                        .filter(|other| other.region == slot.region && !other.lost)
                        .map(|other| loads[&other.id])
                        .min();
                    prop_assert_eq!(Some(loads[&slot.id]), least);
                }
                Err(_) => prop_assert!(
                    !slots.iter().any(|slot| !slot.lost
                        && expression.split(',').any(|one| stands_for(slot, one)))
                ),
            }
        }
    }
}
