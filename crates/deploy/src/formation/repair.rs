//! What is to be done so that a group has what its formation says: one step at a time.
//!
//! Drift is what nobody asked for: a slot that is lost, a Machine that vanished, one that failed
//! beyond its restart policy. A Machine that somebody stopped is no drift.

use std::collections::{BTreeMap, BTreeSet};

use hangar_api::Timestamp;
use hangar_api::formation::{Formation, Retry};
use hangar_api::id::{MachineId, Region};
use jiff::SignedDuration;

use super::Member;

/// A Machine that failed is tried again after this, then after twice as long, and so on.
const FIRST_RETRY: SignedDuration = SignedDuration::from_secs(15);
/// The longest time between two tries.
const LAST_RETRY: SignedDuration = SignedDuration::from_hours(1);

/// What a decision is made from.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a> {
    /// What should be, every wish folded in.
    pub formation: &'a Formation,
    /// What is.
    pub members: &'a [Member<'a>],
    /// The regions in which a slot can be had.
    pub open: &'a BTreeSet<Region>,
    /// The time.
    pub now: Timestamp,
}

/// The next step.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Nothing is to be done.
    Rest {
        /// When it is to be looked at again.
        wake_at: Option<Timestamp>,
        /// Why it does not have what it should have.
        trouble: Vec<String>,
    },
    /// The formation is to be written; nothing else.
    Keep(Box<Formation>),
    /// A Machine is missing.
    Create {
        /// Where it goes.
        region: Region,
        /// The Machine that it is a copy of; the release tells where there is none.
        like: Option<MachineId>,
        /// Only prepare it: the one in whose place it comes rested.
        skip_launch: bool,
        /// To be written with it.
        formation: Box<Formation>,
    },
    /// A Machine is to go.
    Destroy {
        /// Which.
        machine: MachineId,
    },
    /// A Machine that failed is to be tried again.
    Start {
        /// Which.
        machine: MachineId,
        /// To be written with it.
        formation: Box<Formation>,
    },
}

/// Returns the next step of a group.
#[must_use]
pub fn next(look: Look<'_>) -> Decision {
    let work = Work::of(look);
    if let Some(formation) = work.settled() {
        return Decision::Keep(Box::new(formation));
    }
    let retries = work.retry();
    if let Some(step) = retries.step {
        return step;
    }
    let mut trouble = retries.trouble;
    match work.fill() {
        Filled::Step(step) => return step,
        Filled::Blocked(line) => trouble.push(line),
        Filled::Whole => {}
    }
    if let Some(machine) = work.to_go() {
        return Decision::Destroy { machine };
    }
    trouble.extend(work.waiting());
    Decision::Rest {
        wake_at: retries.wake_at,
        trouble,
    }
}

/// A look, sorted out.
struct Work<'a> {
    look: Look<'a>,
    /// Those that count: neither broken nor retiring.
    present: Vec<Member<'a>>,
    /// Those that nobody may count on and that are not retiring yet.
    broken: Vec<Member<'a>>,
    /// Those that are to go.
    retiring: Vec<Member<'a>>,
}

/// What becomes of those that failed.
#[derive(Default)]
struct Retries {
    step: Option<Decision>,
    wake_at: Option<Timestamp>,
    trouble: Vec<String>,
}

/// What becomes of empty seats.
enum Filled {
    Whole,
    Step(Decision),
    Blocked(String),
}

// === impl Work ===

impl<'a> Work<'a> {
    fn of(look: Look<'a>) -> Self {
        let retires = |m: &&Member<'a>| look.formation.retiring.contains(m.id());
        let all = look.members.iter().copied();
        let (retiring, rest): (Vec<_>, Vec<_>) = all.partition(|m| retires(&m));
        let seats = rest.into_iter().filter(|m| !m.is_standby);
        let (broken, present) = seats.partition(|m| m.is_broken());
        Self {
            look,
            present,
            broken,
            retiring,
        }
    }

    fn wanted(&self) -> usize {
        usize::try_from(self.look.formation.count()).unwrap_or(usize::MAX)
    }

    fn by_region(&self) -> BTreeMap<Region, u32> {
        let mut counts = BTreeMap::new();
        for member in &self.present {
            *counts.entry(member.region()).or_insert(0) += 1;
        }
        counts
    }

    /// Returns the formation without what is over, and as the group is where that is no drift.
    fn settled(&self) -> Option<Formation> {
        let old = self.look.formation;
        let mut new = old.clone();
        let active: BTreeSet<&MachineId> = self.look.members.iter().map(Member::id).collect();
        new.retiring.retain(|id| active.contains(id));
        new.retries.retain(|id, retry| {
            let member = self.present.iter().find(|m| m.id() == id);
            member.is_some_and(|m| m.has_given_up() || self.look.now < retry.at)
        });
        let have = self.by_region();
        let in_pool = have.keys().all(|region| old.regions.contains_key(region));
        let sum = self.present.len();
        // More than there should be is nobody's to remove. And which region has how many is only
        // a matter of what is missing.
        if sum > self.wanted() || (sum == self.wanted() && in_pool && self.broken.is_empty()) {
            for count in new.regions.values_mut() {
                *count = 0;
            }
            new.regions.extend(have);
        }
        if self.broken_are_too_many() {
            new.retiring
                .extend(self.broken.iter().map(|m| m.id().clone()));
        }
        (new != *old).then_some(new)
    }

    /// Returns whether the group has what it should have without those that are lost.
    fn broken_are_too_many(&self) -> bool {
        !self.broken.is_empty() && self.present.len() >= self.wanted()
    }

    fn retry(&self) -> Retries {
        let mut retries = Retries::default();
        let formation = self.look.formation;
        for member in self.present.iter().filter(|m| m.has_given_up()) {
            let id = member.id();
            let now = self.look.now;
            let Some(retry) = formation.retries.get(id) else {
                let mut new = formation.clone();
                let first = Retry {
                    times: 0,
                    at: after(now, 0),
                };
                new.retries.insert(id.clone(), first);
                retries.step = Some(Decision::Keep(Box::new(new)));
                return retries;
            };
            if now >= retry.at {
                let mut new = formation.clone();
                let times = retry.times.saturating_add(1);
                let at = after(now, times);
                new.retries.insert(id.clone(), Retry { times, at });
                retries.step = Some(Decision::Start {
                    machine: id.clone(),
                    formation: Box::new(new),
                });
                return retries;
            }
            let reason = member.machine.observed.and_then(|o| o.reason.clone());
            retries.trouble.push(format!(
                "Machine {id} failed{}; it is started again at {}",
                reason.map_or(String::new(), |r| format!(" ({r})")),
                at_second(retry.at)
            ));
            let soonest = retries.wake_at.map_or(retry.at, |at| at.min(retry.at));
            retries.wake_at = Some(soonest);
        }
        retries
    }

    fn fill(&self) -> Filled {
        if self.present.len() >= self.wanted() {
            return Filled::Whole;
        }
        let Some(region) = self.where_to() else {
            let pool: Vec<&str> = self
                .look
                .formation
                .regions
                .keys()
                .map(Region::as_str)
                .collect();
            return Filled::Blocked(format!(
                "{} of {} Machines: no slot can be had in {}; bring one back with `hangar slots back`, or add a region with `hangar regions add`",
                self.present.len(),
                self.wanted(),
                pool.join(", ")
            ));
        };
        let near = |m: &&Member<'a>| m.region() == region;
        let replaced = self
            .broken
            .iter()
            .find(near)
            .or_else(|| self.broken.first());
        let like = replaced.or_else(|| self.template());
        let mut formation = self.look.formation.clone();
        formation.retiring.extend(replaced.map(|m| m.id().clone()));
        Filled::Step(Decision::Create {
            region,
            like: like.map(|m| m.id().clone()),
            skip_launch: replaced.is_some_and(Member::rests),
            formation: Box::new(formation),
        })
    }

    /// Returns where the next Machine goes: where most are missing, else where fewest are, else
    /// to a backup region.
    fn where_to(&self) -> Option<Region> {
        let formation = self.look.formation;
        let have = self.by_region();
        let now = |region: &Region| have.get(region).copied().unwrap_or(0);
        let max = formation.max_per_region.unwrap_or(u32::MAX);
        // Where a client made more than that, as many may be again.
        let most = |region: &Region| formation.regions.get(region).copied().unwrap_or(0).max(max);
        let open =
            |region: &&Region| self.look.open.contains(*region) && now(region) < most(region);
        let pool = formation.regions.iter().filter(|(r, _)| open(r));
        let best = pool.min_by_key(|(region, wanted)| {
            let missing = i64::from(**wanted) - i64::from(now(region));
            (-missing, now(region))
        });
        let backup = || formation.backup_regions.iter().find(open);
        best.map(|(region, _)| region).or_else(backup).cloned()
    }

    /// Returns the Machine that a new one is a copy of: the newest release's, one that is up
    /// first.
    fn template(&self) -> Option<&Member<'a>> {
        let version = |m: &Member<'_>| {
            let metadata = &m.machine.spec.config.metadata;
            let version = metadata.get(hangar_api::machine::config::RELEASE_VERSION);
            version.and_then(|v| v.parse::<u64>().ok()).unwrap_or(0)
        };
        let all = self.present.iter().chain(&self.retiring);
        let seats = all.filter(|m| !m.is_standby);
        seats.max_by_key(|m| (version(m), m.is_up(), std::cmp::Reverse(m.id().clone())))
    }

    /// Returns a Machine that can go now: one that does nothing, or one without which as many are
    /// up as there should be.
    fn to_go(&self) -> Option<MachineId> {
        let up = |members: &[Member<'_>]| {
            let seats = members.iter().filter(|m| !m.is_standby);
            seats.filter(|m| m.is_up()).count()
        };
        let all_up = up(&self.present) + up(&self.retiring);
        let can_go = |m: &&Member<'a>| {
            if !m.is_standby && (m.machine.is_lost || m.is_up()) {
                let without = all_up - usize::from(m.is_up());
                without >= self.wanted()
            } else {
                true
            }
        };
        self.retiring.iter().find(can_go).map(|m| m.id().clone())
    }

    /// Says which Machines stay until others are up.
    fn waiting(&self) -> Vec<String> {
        let line = |m: &Member<'a>| {
            let slow: Vec<&str> = self
                .present
                .iter()
                .filter(|m| !m.is_up())
                .map(|m| m.id().as_str())
                .collect();
            format!(
                "Machine {} stays until {} up",
                m.id(),
                match slow.as_slice() {
                    [] => "the others are".to_owned(),
                    [one] => format!("{one} is"),
                    [one, rest @ ..] => format!("{one} and {} more are", rest.len()),
                }
            )
        };
        self.retiring.iter().map(line).collect()
    }
}

fn at_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

fn after(now: Timestamp, times: u32) -> Timestamp {
    let factor = 1_i32.checked_shl(times.min(20)).unwrap_or(i32::MAX);
    let rest = FIRST_RETRY.saturating_mul(factor).min(LAST_RETRY);
    now.checked_add(rest).unwrap_or(Timestamp::MAX)
}
