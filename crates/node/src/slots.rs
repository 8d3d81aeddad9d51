//! The slots of this host (D17): two for every region of Fly's list, or those that were named.
//!
//! A slot's part of the 6PN address is remembered in `slots.json`, so that a Machine keeps its
//! address whatever is named in between. A slot that is named no more is lost, not forgotten:
//! Machines may still be on it.

use std::collections::BTreeMap;
use std::path::Path;

use hangar_api::id::{HostId, Region, SlotId};
use hangar_api::net::HostPart;
use hangar_api::region::{REGIONS, Slot};
use serde::{Deserialize, Serialize};

use crate::NodeError;

/// Slots of one region without a flag.
const ZONES: [&str; 2] = ["a", "b"];

/// What is remembered of a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    region: Region,
    zone: String,
    host_part: u16,
}

/// Returns the slots of this host. `named` are `NAME=REGION`; none means the default.
pub(crate) fn slots(file: &Path, host: &HostId, named: &[String]) -> Result<Vec<Slot>, NodeError> {
    let wanted = if named.is_empty() {
        defaults()?
    } else {
        parse(named)?
    };
    let mut known = read(file)?;
    let before = known.clone();
    let slots = settle(host, &wanted, &mut known);
    // Only what is new is written: a server starts again on a full disk too.
    if known != before {
        write(file, &known)?;
    }
    Ok(slots)
}

/// A slot that is wanted: its name, region and zone.
type Wanted = (SlotId, Region, String);

fn defaults() -> Result<Vec<Wanted>, NodeError> {
    let all = ZONES
        .iter()
        .flat_map(|zone| REGIONS.iter().map(move |(code, _)| (zone, code)));
    all.map(|(zone, code)| wanted(&format!("{code}-{zone}"), code, zone))
        .collect()
}

fn parse(named: &[String]) -> Result<Vec<Wanted>, NodeError> {
    let mut list: Vec<Wanted> = Vec::new();
    for given in named {
        let bad = |reason: &str| NodeError::BadSlot {
            given: given.clone(),
            reason: reason.to_owned(),
        };
        let (name, region) = given
            .split_once('=')
            .ok_or_else(|| bad("write NAME=REGION, such as rack1=ams"))?;
        let slot = wanted(name, region, name)?;
        if list.iter().any(|other| other.0 == slot.0) {
            return Err(bad("this name is given twice"));
        }
        list.push(slot);
    }
    Ok(list)
}

fn wanted(name: &str, region: &str, zone: &str) -> Result<Wanted, NodeError> {
    let bad = |error: hangar_api::id::InvalidId| NodeError::BadSlot {
        given: format!("{name}={region}"),
        reason: error.to_string(),
    };
    Ok((
        SlotId::new(name).map_err(bad)?,
        Region::new(region).map_err(bad)?,
        zone.to_owned(),
    ))
}

/// Gives every wanted slot its host part, old or new, and marks the others lost.
fn settle(host: &HostId, wanted: &[Wanted], known: &mut BTreeMap<SlotId, Known>) -> Vec<Slot> {
    let mut next = known.values().map(|k| k.host_part).max().unwrap_or(0);
    let mut slots = Vec::new();
    for (id, region, zone) in wanted {
        let entry = known.entry(id.clone()).or_insert_with(|| {
            next = next.saturating_add(1);
            Known {
                region: region.clone(),
                zone: zone.clone(),
                host_part: next,
            }
        });
        entry.region.clone_from(region);
        entry.zone.clone_from(zone);
        slots.push(slot(host, id, entry, false));
    }
    let gone = known
        .iter()
        .filter(|(id, _)| !wanted.iter().any(|w| w.0 == **id));
    slots.extend(gone.map(|(id, entry)| slot(host, id, entry, true)));
    slots
}

fn slot(host: &HostId, id: &SlotId, known: &Known, lost: bool) -> Slot {
    Slot {
        id: id.clone(),
        host: host.clone(),
        region: known.region.clone(),
        zone: known.zone.clone(),
        host_part: HostPart(known.host_part),
        lost,
    }
}

fn read(file: &Path) -> Result<BTreeMap<SlotId, Known>, NodeError> {
    match std::fs::read(file) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| NodeError::DataDir {
            path: file.to_owned(),
            source: std::io::Error::other(error),
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(source) => Err(NodeError::DataDir {
            path: file.to_owned(),
            source,
        }),
    }
}

fn write(file: &Path, known: &BTreeMap<SlotId, Known>) -> Result<(), NodeError> {
    let failed = |source| NodeError::DataDir {
        path: file.to_owned(),
        source,
    };
    let bytes = serde_json::to_vec_pretty(known).map_err(|e| failed(std::io::Error::other(e)))?;
    let temporary = file.with_extension("tmp");
    let mut out = std::fs::File::create(&temporary).map_err(failed)?;
    std::io::Write::write_all(&mut out, &bytes)
        .and_then(|()| out.sync_all())
        .map_err(failed)?;
    std::fs::rename(&temporary, file).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> HostId {
        HostId::new("local").unwrap()
    }

    #[test]
    fn without_a_flag_two_slots_stand_for_every_region() {
        let folder = tempfile::tempdir().unwrap();
        let slots = slots(&folder.path().join("slots.json"), &host(), &[]).unwrap();
        assert_eq!(slots.len(), REGIONS.len() * 2);
        assert_eq!(
            slots.iter().filter(|s| s.region.as_str() == "iad").count(),
            2
        );
    }

    #[test]
    fn a_slot_keeps_its_address_and_is_lost_when_it_is_named_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("slots.json");
        let first = slots(&file, &host(), &["a=ams".into(), "b=gru".into()]).unwrap();
        let later = slots(&file, &host(), &["b=gru".into(), "c=ord".into()]).unwrap();
        let find =
            |list: &[Slot], id: &str| list.iter().find(|s| s.id.as_str() == id).cloned().unwrap();
        assert_eq!(find(&first, "b").host_part, find(&later, "b").host_part);
        assert_ne!(find(&later, "c").host_part, find(&first, "a").host_part);
        assert!(find(&later, "a").lost && !find(&later, "c").lost);
    }

    #[test]
    fn a_bad_flag_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for bad in ["rack1", "RACK=ams", "a=../x", "=ams"] {
            let error = slots(&folder.path().join("s.json"), &host(), &[bad.into()])
                .unwrap_err()
                .to_string();
            assert!(error.contains("--host"), "{error}");
        }
    }
}
