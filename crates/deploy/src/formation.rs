//! Formations: how many Machines a group should have and where, kept by the server
//! (process-groups-and-deploy.md 8.1).
//!
//! Pure. A Machine that counts holds a *seat*. Whatever a client does to a Machine is a [`Wish`]
//! that moves its group's formation along ([`fold`]); a person changes it as a whole ([`change()`]);
//! [`next`] says what is to be done about what nobody asked for.
//!
//! ```text
//! clients' creates and destroys ─► wishes ─► fold ─┐
//! PUT formation ───────────────────────► change ───┼─► formation ─► next ─► one step, or rest
//! a group without a formation ─────────► adopt ────┘
//! ```
//!
//! Two promises hold whatever happens: only Machines that a formation lists as retiring are ever
//! removed, and a client's own creates and destroys leave nothing to be done.

mod change;
mod repair;
mod seed;

use std::collections::{BTreeMap, BTreeSet};

use hangar_api::formation::{Formation, Wish};
use hangar_api::id::{GroupName, MachineId, Region};
use hangar_api::machine::config::{GROUP_TEST, RestartPolicy};
use hangar_api::machine::{MachineConfig, MachineState};

use crate::fleet::FleetMachine;

pub use change::{FormationError, change};
pub use repair::{Decision, Look, next};
pub use seed::{Seed, seed};

/// A Machine of a group that holds a seat, or stands by one that does.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// The Machine; neither gone nor going.
    pub machine: FleetMachine<'a>,
    /// A standby watches it, and can stand in for it.
    pub is_covered: bool,
    /// It is a standby itself: it is of the group, and holds no seat.
    pub is_standby: bool,
}

/// Returns the group in which a Machine of this configuration counts. A standby does not, nor one
/// that goes by itself, nor one that deployments do not look at.
#[must_use]
pub fn seat_of(config: &MachineConfig) -> Option<GroupName> {
    let group = group_of(config)?;
    config.standbys.is_empty().then_some(group)
}

/// Returns the group that a Machine of this configuration is of, a standby included.
fn group_of(config: &MachineConfig) -> Option<GroupName> {
    let is_of_a_group =
        config.is_managed() && !config.auto_destroy && config.process_group() != GROUP_TEST;
    is_of_a_group.then(|| config.group_or_app())
}

/// Returns what has become of a Machine's seat, as wishes: `before` and `after` are its
/// configuration before and after what a client did, absent where there was none or will be none.
#[must_use]
pub fn wishes(
    region: &Region,
    before: Option<&MachineConfig>,
    after: Option<&MachineConfig>,
) -> Vec<Wish> {
    let seat = |config: Option<&MachineConfig>| config.and_then(seat_of);
    let (left, taken) = (seat(before), seat(after));
    if left == taken {
        return Vec::new();
    }
    let wish = |group: Option<GroupName>, more, config: Option<&MachineConfig>| {
        Some(Wish {
            group: group?,
            region: region.clone(),
            more,
            moved: !more && after.is_some(),
            guest: config.and_then(|config| config.guest.clone()),
        })
    };
    let wishes = [wish(left, false, before), wish(taken, true, after)];
    wishes.into_iter().flatten().collect()
}

/// Returns the Machines of an app that hold seats or stand by, by group.
#[must_use]
pub fn members<'a>(
    machines: impl Iterator<Item = FleetMachine<'a>>,
) -> BTreeMap<GroupName, Vec<Member<'a>>> {
    let active: Vec<FleetMachine<'a>> = machines.filter(|m| m.state.is_active()).collect();
    let covered = covered(&active);
    let mut groups: BTreeMap<GroupName, Vec<Member<'a>>> = BTreeMap::new();
    for machine in active {
        if let Some(group) = group_of(&machine.spec.config) {
            groups.entry(group).or_default().push(Member {
                is_covered: covered.contains(machine.spec.id.as_str()),
                is_standby: !machine.spec.config.standbys.is_empty(),
                machine,
            });
        }
    }
    groups
}

/// Returns the ids of the Machines that have a standby which could run.
fn covered<'a>(machines: &[FleetMachine<'a>]) -> BTreeSet<&'a str> {
    let able = machines
        .iter()
        .filter(|m| !m.is_lost && m.state != MachineState::Failed);
    able.flat_map(|m| m.spec.config.standbys.iter().map(String::as_str))
        .collect()
}

/// Returns the formation of a group that has none yet: what it has.
#[must_use]
pub fn adopt(members: &[Member<'_>]) -> Formation {
    let mut formation = Formation::default();
    for member in members.iter().filter(|m| !m.is_standby) {
        *formation.regions.entry(member.region()).or_default() += 1;
    }
    let first = members.iter().find(|m| !m.is_standby);
    formation.guest = first.and_then(|m| m.machine.spec.config.guest.clone());
    formation
}

/// What becomes of a formation when a wish is folded in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Folded {
    /// It goes on.
    Kept,
    /// It is over: the group has lost its last Machine to another group.
    Over,
}

/// Moves a formation along with what was done to one Machine.
pub fn fold(formation: &mut Formation, machine: &MachineId, wish: &Wish) -> Folded {
    if wish.more {
        *formation.regions.entry(wish.region.clone()).or_default() += 1;
        return Folded::Kept;
    }
    formation.retries.remove(machine);
    if formation.retiring.remove(machine) {
        // It was to go anyway.
        return Folded::Kept;
    }
    let counted = |n: &u32| *n > 0;
    let region = if formation.regions.get(&wish.region).is_some_and(counted) {
        wish.region.clone()
    } else {
        // It was in a backup region: the fullest one of the pool is the one that it stood for.
        let fullest = formation.regions.iter().max_by_key(|(_, n)| **n);
        match fullest {
            Some((region, n)) if *n > 0 => region.clone(),
            _ => return Folded::Kept,
        }
    };
    if let Some(count) = formation.regions.get_mut(&region) {
        *count -= 1;
    }
    if formation.count() == 0 {
        // What the group was, for when it is scaled up again.
        formation.guest = wish.guest.clone().or(formation.guest.take());
        if wish.moved {
            return Folded::Over;
        }
    } else if formation.regions.get(&region) == Some(&0) {
        formation.regions.remove(&region);
    }
    Folded::Kept
}

/// Folds wishes about one Machine into the formations of their groups; one that is over goes.
/// Groups that have none are left out: they have what they have.
pub fn fold_all(
    formations: &mut BTreeMap<GroupName, Formation>,
    machine: &MachineId,
    wishes: &[Wish],
) {
    for wish in wishes {
        let folded = formations.get_mut(&wish.group);
        let folded = folded.map(|formation| fold(formation, machine, wish));
        if folded == Some(Folded::Over) {
            formations.remove(&wish.group);
        }
    }
}

// === impl Member ===

impl Member<'_> {
    pub(crate) fn id(&self) -> &MachineId {
        &self.machine.spec.id
    }

    pub(crate) fn region(&self) -> Region {
        self.machine.spec.region.clone()
    }

    /// Returns whether nobody may count on it, and nobody stands in for it.
    pub(crate) fn is_broken(&self) -> bool {
        self.machine.is_lost && !self.is_covered
    }

    /// Returns whether it does what it should: runs and passes its checks, or rests because
    /// somebody had it stopped.
    pub(crate) fn is_up(&self) -> bool {
        if self.machine.is_lost {
            return false;
        }
        match self.machine.state {
            MachineState::Started => self.machine.is_healthy(),
            MachineState::Stopped | MachineState::Suspended | MachineState::Created => {
                self.machine.is_settled() && !self.has_given_up()
            }
            _ => false,
        }
    }

    /// Returns whether it is down on purpose.
    pub(crate) fn rests(&self) -> bool {
        let down = matches!(
            self.machine.state,
            MachineState::Stopped | MachineState::Suspended | MachineState::Created
        );
        down && !self.machine.runs() && !self.has_given_up()
    }

    /// Returns whether it failed beyond its restart policy and waits for nobody.
    pub(crate) fn has_given_up(&self) -> bool {
        let config = &self.machine.spec.config;
        if self.machine.undone().next().is_some() || config.other.contains_key("schedule") {
            return false;
        }
        match self.machine.state {
            MachineState::Failed => true,
            MachineState::Stopped => {
                let reason = self.machine.observed.and_then(|o| o.reason.as_ref());
                reason.is_some() && config.restart_policy() != RestartPolicy::No
            }
            _ => false,
        }
    }
}
