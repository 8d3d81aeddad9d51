//! A person's change of a formation: a new count, a new pool.

use std::collections::{BTreeMap, BTreeSet};

use hangar_api::formation::{Formation, GroupUpdate, PoolUpdate};
use hangar_api::id::{GroupName, MachineId, Region};
use hangar_api::machine::MachineState;

use super::Member;
use crate::scale::MAX_COUNT;

/// Why a formation cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormationError {
    /// A pool of nothing.
    #[error("group {0} needs at least one region; scale it to 0 with `hangar scale count {0}=0`")]
    NoRegion(GroupName),
    /// A count and the counts of regions that add up to something else.
    #[error("group {group}: a count of {count} was asked for, and regions with {sum} together")]
    TwoCounts {
        /// The group.
        group: GroupName,
        /// The one.
        count: u32,
        /// The other.
        sum: u64,
    },
    /// A list and additions to it.
    #[error("group {0}: give either the whole pool, or regions to add and to remove")]
    TwoPools(GroupName),
    /// More than a group may have.
    #[error("a count of {0} is too many: at most {MAX_COUNT} Machines a group")]
    TooMany(u64),
    /// The pool does not hold so many.
    #[error(
        "{count} Machines of group {group} do not fit: {regions} regions with at most {max} each; add a region, or raise --max-per-region"
    )]
    NoRoom {
        /// The group.
        group: GroupName,
        /// How many there should be.
        count: u32,
        /// Regions of the pool.
        regions: usize,
        /// Most in each.
        max: u32,
    },
    /// Volumes do not move.
    #[error(
        "group {group} has Machines with volumes in {region}, and a volume cannot move: fork it with `hangar volumes fork`, or destroy the Machines first"
    )]
    Volumes {
        /// The group.
        group: GroupName,
        /// The region that was to go.
        region: Region,
    },
    /// What the change was decided from is no more.
    #[error(
        "group {group} has been changed meanwhile: it should have {now} now, and had {before} when this was decided; look at it again"
    )]
    Moved {
        /// The group.
        group: GroupName,
        /// What it should have, in words.
        now: String,
        /// What it should have had.
        before: String,
    },
    /// Only standbys are named one by one.
    #[error("machine {machine} is no standby of group {group}")]
    NoStandby {
        /// The group.
        group: GroupName,
        /// The Machine.
        machine: MachineId,
    },
}

/// Returns the formation of a group after a change. `old` is its formation now, every wish folded
/// in; a pool that was empty begins in `home`. As few Machines as can be are moved, and those that
/// do not work go first.
pub fn change(
    group: &GroupName,
    old: &Formation,
    update: &GroupUpdate,
    members: &[Member<'_>],
    home: &Region,
) -> Result<Formation, FormationError> {
    check_same(group, old, update)?;
    let mut new = old.clone();
    if let Some(max) = update.max_per_region {
        new.max_per_region = (max > 0).then_some(max);
    }
    if let Some(backup) = &update.backup_regions {
        new.backup_regions = each_once(backup);
    }
    if let Some(guest) = &update.guest {
        new.guest = Some(guest.clone());
    }
    let before: BTreeSet<Region> = old.regions.keys().cloned().collect();
    new.regions = counts(group, old, update, home)?;
    let pool: BTreeSet<Region> = new.regions.keys().cloned().collect();
    let has_volumes = |m: &&Member<'_>| !m.machine.spec.config.mounts.is_empty();
    let with_volumes: Vec<&Member<'_>> = members.iter().filter(has_volumes).collect();
    let total = update.count.unwrap_or_else(|| match &update.regions {
        Some(PoolUpdate::Exact(_)) => new.count(),
        _ => old.count(),
    });
    if total > MAX_COUNT {
        return Err(FormationError::TooMany(u64::from(total)));
    }
    let exact = matches!(update.regions, Some(PoolUpdate::Exact(_)));
    check_room(group, old, &new, total, exact)?;
    if !exact {
        reach(&mut new.regions, total, new.max_per_region);
        if pool != before && with_volumes.is_empty() {
            level(&mut new.regions);
        }
    }
    let stranded = with_volumes.iter().find(|m| {
        let region = m.region();
        before.contains(&region) && !pool.contains(&region) && total > 0
    });
    if let Some(member) = stranded {
        return Err(FormationError::Volumes {
            group: group.clone(),
            region: member.region(),
        });
    }
    new.retiring = retiring(&new, members);
    new.retiring.extend(standbys(group, update, members)?);
    if new.count() == 0 && update.guest.is_none() {
        // What the group was, for when it is scaled up again.
        let seat = members.iter().find(|m| !m.is_standby);
        let guest = seat.and_then(|m| m.machine.spec.config.guest.clone());
        new.guest = guest.or(new.guest);
    }
    Ok(new)
}

/// Refuses a change that was decided from something else than what is.
fn check_same(
    group: &GroupName,
    old: &Formation,
    update: &GroupUpdate,
) -> Result<(), FormationError> {
    match &update.if_regions {
        Some(before) if *before != old.regions => Err(FormationError::Moved {
            group: group.clone(),
            now: in_words(&old.regions),
            before: in_words(before),
        }),
        _ => Ok(()),
    }
}

fn in_words(regions: &BTreeMap<Region, u32>) -> String {
    let each = regions
        .iter()
        .map(|(region, count)| format!("{region}: {count}"));
    let each: Vec<String> = each.collect();
    if each.is_empty() {
        "nothing".to_owned()
    } else {
        each.join(", ")
    }
}

/// Returns the standbys that a change names.
fn standbys(
    group: &GroupName,
    update: &GroupUpdate,
    members: &[Member<'_>],
) -> Result<BTreeSet<MachineId>, FormationError> {
    let is_standby = |id: &&MachineId| members.iter().any(|m| m.is_standby && m.id() == *id);
    match update.retire_standbys.iter().find(|id| !is_standby(id)) {
        None => Ok(update.retire_standbys.clone()),
        Some(machine) => Err(FormationError::NoStandby {
            group: group.clone(),
            machine: machine.clone(),
        }),
    }
}

/// Returns the new pool, with the counts that are known of its regions.
fn counts(
    group: &GroupName,
    old: &Formation,
    update: &GroupUpdate,
    home: &Region,
) -> Result<BTreeMap<Region, u32>, FormationError> {
    let changes = !update.add_regions.is_empty() || !update.remove_regions.is_empty();
    if update.regions.is_some() && changes {
        return Err(FormationError::TwoPools(group.clone()));
    }
    let mut regions = match &update.regions {
        Some(PoolUpdate::Exact(counts)) => {
            let sum: u64 = counts.values().map(|n| u64::from(*n)).sum();
            if sum > u64::from(MAX_COUNT) {
                return Err(FormationError::TooMany(sum));
            }
            if let Some(count) = update.count.filter(|count| u64::from(*count) != sum) {
                let group = group.clone();
                return Err(FormationError::TwoCounts { group, count, sum });
            }
            counts.clone()
        }
        Some(PoolUpdate::Spread(list)) => {
            let count = |r: &Region| old.regions.get(r).copied().unwrap_or(0);
            list.iter().map(|r| (r.clone(), count(r))).collect()
        }
        None => old.regions.clone(),
    };
    if regions.is_empty() && update.regions.is_none() && update.add_regions.is_empty() {
        regions.insert(home.clone(), 0);
    }
    for region in &update.add_regions {
        regions.entry(region.clone()).or_insert(0);
    }
    for region in &update.remove_regions {
        regions.remove(region);
    }
    if regions.is_empty() {
        return Err(FormationError::NoRegion(group.clone()));
    }
    Ok(regions)
}

fn check_room(
    group: &GroupName,
    old: &Formation,
    new: &Formation,
    total: u32,
    exact: bool,
) -> Result<(), FormationError> {
    let Some(max) = new.max_per_region else {
        return Ok(());
    };
    let regions = new.regions.len();
    let room = u64::from(max) * u64::try_from(regions).unwrap_or(u64::MAX);
    // A region that has more already may keep it.
    let had = |region: &Region| old.regions.get(region).copied().unwrap_or(0);
    let fits = match exact {
        true => new
            .regions
            .iter()
            .all(|(region, n)| *n <= max.max(had(region))),
        false => u64::from(total) <= room,
    };
    if fits {
        return Ok(());
    }
    Err(FormationError::NoRoom {
        group: group.clone(),
        count: total,
        regions,
        max,
    })
}

/// Brings the counts to a sum: what is more goes where there are fewest, what is less comes from
/// where there are most.
fn reach(regions: &mut BTreeMap<Region, u32>, total: u32, max: Option<u32>) {
    let max = max.unwrap_or(u32::MAX);
    for count in regions.values_mut() {
        *count = (*count).min(max);
    }
    let mut sum: u64 = regions.values().map(|n| u64::from(*n)).sum();
    while sum < u64::from(total) {
        let Some(least) = regions.values_mut().min() else {
            return;
        };
        *least += 1;
        sum += 1;
    }
    while sum > u64::from(total) {
        // Of several the last, so that the first regions of a pool are the last to be left.
        let Some(most) = regions.values_mut().max() else {
            return;
        };
        *most -= 1;
        sum -= 1;
    }
}

/// Spreads the counts evenly.
fn level(regions: &mut BTreeMap<Region, u32>) {
    loop {
        let most = regions.iter().max_by_key(|(_, n)| **n);
        let least = regions.iter().min_by_key(|(_, n)| **n);
        let (Some((most, high)), Some((least, low))) = (most, least) else {
            return;
        };
        if high - low <= 1 {
            return;
        }
        let (most, least) = (most.clone(), least.clone());
        *regions.entry(most).or_default() -= 1;
        *regions.entry(least).or_default() += 1;
    }
}

/// Returns who is to go: in each region those beyond its count, the ones that do not work first,
/// then the youngest. Those that were to go already stay in their place in the line.
fn retiring(new: &Formation, members: &[Member<'_>]) -> BTreeSet<MachineId> {
    let mut regions: BTreeMap<Region, Vec<&Member<'_>>> = BTreeMap::new();
    for member in members.iter().filter(|m| !m.is_standby) {
        regions.entry(member.region()).or_default().push(member);
    }
    let mut out = BTreeSet::new();
    if new.count() == 0 {
        // Nobody is left to stand by.
        let standbys = members.iter().filter(|m| m.is_standby);
        out.extend(standbys.map(|m| m.id().clone()));
    }
    for (region, mut here) in regions {
        here.sort_by_key(|m| std::cmp::Reverse(worth(m, new)));
        let kept = new.regions.get(&region).copied().unwrap_or(0);
        let kept = usize::try_from(kept).unwrap_or(usize::MAX);
        out.extend(here.into_iter().skip(kept).map(|m| m.id().clone()));
    }
    out
}

/// How much a Machine is to be kept: whether it was not to go, is where it can be counted on, is
/// up, takes requests, runs, and how long it has been there.
fn worth(member: &Member<'_>, formation: &Formation) -> impl Ord + use<> {
    let machine = &member.machine;
    (
        !machine.is_lost,
        member.is_up(),
        !formation.retiring.contains(member.id()),
        !machine.spec.cordoned,
        machine.state == MachineState::Started,
        std::cmp::Reverse(machine.spec.created_at),
        std::cmp::Reverse(member.id().clone()),
    )
}

fn each_once(regions: &[Region]) -> Vec<Region> {
    let mut out: Vec<Region> = Vec::new();
    for region in regions {
        if !out.contains(region) {
            out.push(region.clone());
        }
    }
    out
}
