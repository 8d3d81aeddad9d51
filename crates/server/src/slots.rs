//! Slots that are marked lost (D17): nothing is placed on one, its standbys take over, and a deploy
//! replaces its Machines elsewhere.
//!
//! What the server was started with says which slots there are; the store says which are marked.

use hangar_api::id::SlotId;
use hangar_api::region::Slot;
use hangar_store::Txn;
use hangar_store::tables::Slots;

use crate::core::{Core, MAX_TRIES, too_contended};
use crate::error::Problem;

/// What is said of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Nobody may count on what is there.
    Lost,
    /// It is as it was.
    Back,
}

/// Returns all slots as they are now.
pub(crate) fn now(core: &Core) -> Vec<Slot> {
    let snapshot = core.cache.snapshot();
    let slots = core.slots.iter().map(|slot| Slot {
        lost: slot.lost || snapshot.get::<Slots>(&slot.id).is_some(),
        ..slot.clone()
    });
    slots.collect()
}

/// Marks a slot, and returns it. Marking it twice changes nothing.
pub(crate) async fn mark(core: &Core, name: &str, mark: Mark) -> Result<Slot, Problem> {
    let known = core.slots.iter().find(|slot| slot.id.as_str() == name);
    let Some(slot) = known else {
        let names: Vec<&str> = core.slots.iter().map(|s| s.id.as_str()).take(40).collect();
        return Err(Problem::NotFound(format!(
            "there is no slot {:?}; there are {}",
            name.chars().take(64).collect::<String>(),
            names.join(", ")
        )));
    };
    if slot.lost {
        return Err(Problem::Precondition(format!(
            "slot {name} is lost: the server was started without it; name it with --slot"
        )));
    }
    let marked = Slot {
        lost: mark == Mark::Lost,
        ..slot.clone()
    };
    for _ in 0..MAX_TRIES {
        let Some(txn) = written(core, &slot.id, &marked) else {
            return Ok(marked);
        };
        if core.try_commit(txn).await?.is_some() {
            tracing::warn!(slot = name, lost = marked.lost, "slot marked");
            return Ok(marked);
        }
    }
    Err(too_contended())
}

fn written(core: &Core, id: &SlotId, marked: &Slot) -> Option<Txn> {
    match (core.cache.get::<Slots>(id), marked.lost) {
        (Some(_), true) | (None, false) => None,
        (None, true) => Some(Txn::new().create::<Slots>(id, marked)),
        (Some(record), false) => Some(Txn::new().remove(&record)),
    }
}
