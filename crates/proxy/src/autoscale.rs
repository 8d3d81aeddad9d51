//! Which Machines nobody needs (proxy-network-runtime.md 5). Pure: values in, values out.
//!
//! Counted by process group and region. Of n Machines that can be used, as many are needed as are
//! at their soft limit, and one more; the last one may go only when nothing was sent to the group
//! since the look before. Where `min_machines_running` counts, in the app's primary region, so many
//! stay. A Machine in use is never chosen, nor one that came up since the look before, nor any
//! while requests wait. At most one goes in each region at a time.

use std::collections::BTreeMap;

use hangar_api::id::{GroupName, Region};
use hangar_api::machine::service::Autostop;

/// A Machine that is up, as the decision sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) group: GroupName,
    pub(crate) region: Region,
    /// It can take requests now: its checks pass.
    pub(crate) usable: bool,
    /// Something is in flight to it.
    pub(crate) in_use: bool,
    /// A service of it is at its soft limit, or above.
    pub(crate) over_soft: bool,
    /// It was up at the look before.
    pub(crate) settled: bool,
    /// Nothing was sent to it since the look before.
    pub(crate) rested: bool,
    /// Requests wait for a service of it.
    pub(crate) awaited: bool,
    /// What its services say.
    pub(crate) autostop: Autostop,
    /// How many of its group stay in its region.
    pub(crate) min: usize,
}

/// One that may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Excess {
    /// Which, by its place in the list.
    pub(crate) index: usize,
    /// Suspended rather than stopped.
    pub(crate) suspend: bool,
    /// How many of its group and region are up without it.
    pub(crate) left: usize,
}

/// Returns for each region that has too many who may go, the best choice first. Only one of a
/// region's may: each of them was judged by itself.
pub(crate) fn excess(members: &[Member]) -> Vec<Vec<Excess>> {
    let mut pools: BTreeMap<(&Region, &GroupName), Vec<usize>> = BTreeMap::new();
    for (index, member) in members.iter().enumerate() {
        let pool = pools.entry((&member.region, &member.group)).or_default();
        pool.push(index);
    }
    let mut regions: BTreeMap<&Region, Vec<Excess>> = BTreeMap::new();
    for ((region, _), pool) in pools {
        let mine = regions.entry(region).or_default();
        mine.extend(of_pool(members, &pool));
    }
    let mut found: Vec<_> = regions.into_values().collect();
    for region in &mut found {
        // What cannot be used first, then what rested longest; the last made of equals.
        region.sort_by_key(|excess| {
            let member = &members[excess.index];
            let keep = (member.usable, !member.rested);
            (keep, std::cmp::Reverse(excess.index))
        });
    }
    found.retain(|region| !region.is_empty());
    found
}

/// Returns those of one group in one region who may go.
fn of_pool(members: &[Member], pool: &[usize]) -> Vec<Excess> {
    let all = || pool.iter().map(|index| &members[*index]);
    if all().any(|member| member.awaited) {
        return Vec::new();
    }
    let usable = all().filter(|member| member.usable).count();
    let over = all().filter(|m| m.usable && m.over_soft).count();
    let min = all().map(|member| member.min).max().unwrap_or(0);
    let asleep = all().all(|member| member.rested && !member.in_use);
    let may_go = |index: &&usize| {
        let member = &members[**index];
        let left = usable - usize::from(member.usable);
        member.autostop != Autostop::Off
            && member.settled
            && !member.in_use
            && left >= min
            && (left > over || asleep)
    };
    let excess = pool.iter().filter(may_go).map(|index| Excess {
        index: *index,
        suspend: members[*index].autostop == Autostop::Suspend,
        left: pool.len() - 1,
    });
    excess.collect()
}

#[cfg(test)]
mod tests;
