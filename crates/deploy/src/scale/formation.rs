//! `scale count` as a change of formations: the server places the Machines.
//!
//! Pure. Volumes are the client's to choose, and so are Machines that go by themselves: a plan with
//! those is carried out by the client.

use std::collections::{BTreeMap, BTreeSet};

use hangar_api::formation::{GroupFormation, GroupUpdate, PoolUpdate};
use hangar_api::id::{GroupName, Region};

use super::{Count, ScaleAction, ScaleMachine, ScaleOptions, is_of};
use crate::formation::seat_of;

/// Groups to scale, and what is known of them.
#[derive(Clone, Copy, Debug)]
pub struct Scaling<'a> {
    /// What was asked for.
    pub counts: &'a BTreeMap<GroupName, Count>,
    /// What [`super::plan_count`] made of it.
    pub actions: &'a [ScaleAction],
    /// The Machines that it was made from.
    pub machines: &'a [ScaleMachine],
    /// What the groups should have so far; one that is absent has nothing.
    pub formations: &'a BTreeMap<GroupName, GroupFormation>,
    /// Where Machines go.
    pub options: &'a ScaleOptions,
    /// A limit that is to be kept for later; 0 takes it away, absent leaves it.
    pub max_per_region: Option<u32>,
}

/// Returns the Machines that count for `scale count`: those that are to go already do not.
#[must_use]
pub fn counted(
    mut machines: Vec<ScaleMachine>,
    formations: &BTreeMap<GroupName, GroupFormation>,
) -> Vec<ScaleMachine> {
    let retiring: BTreeSet<_> = formations.values().flat_map(|f| &f.retiring).collect();
    machines.retain(|machine| !retiring.contains(&machine.id));
    machines
}

/// Returns where each group's Machines may be: its pool, and where they are besides.
#[must_use]
pub fn pools(
    machines: &[ScaleMachine],
    formations: &BTreeMap<GroupName, GroupFormation>,
) -> BTreeMap<GroupName, Vec<Region>> {
    let pool = |(group, formation): (&GroupName, &GroupFormation)| {
        let here = machines.iter().filter(|m| is_of(m, group));
        let pool: BTreeSet<&Region> = formation.regions.keys().collect();
        let mut beside: BTreeSet<&Region> = here.map(|m| &m.region).collect();
        beside.retain(|region| !pool.contains(region));
        let all = pool.into_iter().chain(beside).cloned();
        (group.clone(), all.collect())
    };
    formations.iter().map(pool).collect()
}

// === impl Scaling ===

impl Scaling<'_> {
    /// Returns whether formations can say all of it.
    #[must_use]
    pub fn is_for_the_server(&self) -> bool {
        let mut of_groups = self
            .machines
            .iter()
            .filter(|m| self.counts.keys().any(|group| is_of(m, group)));
        let mut made = self.actions.iter().filter_map(|action| match action {
            ScaleAction::Create { config, .. } => Some(config),
            ScaleAction::Destroy { .. } => None,
        });
        made.all(|config| config.mounts.is_empty())
            && of_groups.all(|m| m.config.mounts.is_empty() && !m.config.auto_destroy)
    }

    /// Returns the change of each group that is to have something else than it should have so far.
    #[must_use]
    pub fn updates(&self) -> BTreeMap<GroupName, GroupUpdate> {
        let each = self.counts.keys().filter_map(|group| {
            let update = self.update(group)?;
            Some((group.clone(), update))
        });
        each.collect()
    }

    fn update(&self, group: &GroupName) -> Option<GroupUpdate> {
        let formation = self.formations.get(group);
        let before = formation.map(|f| f.regions.clone()).unwrap_or_default();
        let regions = self.regions(group, &before);
        let total: u64 = regions.values().map(|n| u64::from(*n)).sum();
        let of_group = self.actions.iter().filter(|action| action.group() == group);
        let actions: Vec<&ScaleAction> = of_group.collect();
        let limit = self.max_per_region.map(|max| (max > 0).then_some(max));
        let same_limit = limit.is_none_or(|max| max == formation.and_then(|f| f.max_per_region));
        let same_count = formation.is_some_and(|f| u64::from(f.count) == total);
        if actions.is_empty() && same_count && same_limit {
            return None;
        }
        let made = actions.iter().find_map(|action| match action {
            ScaleAction::Create { config, .. } => config.guest.clone(),
            ScaleAction::Destroy { .. } => None,
        });
        let has_none = !self.machines.iter().any(|m| is_of(m, group));
        Some(GroupUpdate {
            regions: Some(PoolUpdate::Exact(regions)),
            max_per_region: self.max_per_region,
            guest: made.filter(|_| has_none),
            retire_standbys: actions
                .iter()
                .filter_map(|action| match action {
                    ScaleAction::Destroy { machine, .. } => self.machine(machine),
                    ScaleAction::Create { .. } => None,
                })
                .filter(|m| m.is_standby())
                .map(|m| m.id.clone())
                .collect(),
            if_regions: Some(before),
            ..GroupUpdate::default()
        })
    }

    /// Returns how many Machines of a group each region is to have. A region stays in the pool with
    /// none, unless it was named: then what was asked for is to leave it.
    fn regions(&self, group: &GroupName, before: &BTreeMap<Region, u32>) -> BTreeMap<Region, u32> {
        let mut regions: BTreeMap<Region, u32> = before.keys().map(|r| (r.clone(), 0)).collect();
        let is_seat = |m: &&ScaleMachine| seat_of(&m.config).as_ref() == Some(group);
        for seat in self.machines.iter().filter(is_seat) {
            *regions.entry(seat.region.clone()).or_default() += 1;
        }
        for action in self.actions.iter().filter(|action| action.group() == group) {
            match action {
                ScaleAction::Create { region, .. } => {
                    *regions.entry(region.clone()).or_default() += 1;
                }
                ScaleAction::Destroy {
                    region, machine, ..
                } => {
                    let seat = self.machine(machine).filter(is_seat);
                    if let Some(count) = seat.and_then(|_| regions.get_mut(region)) {
                        *count = count.saturating_sub(1);
                    }
                }
            }
        }
        if regions.is_empty() {
            regions.insert(self.options.primary_region.clone(), 0);
        }
        let named = &self.options.regions;
        if regions.values().any(|n| *n > 0) {
            regions.retain(|region, n| *n > 0 || !named.contains(region));
        }
        regions
    }

    fn machine(&self, id: &hangar_api::id::MachineId) -> Option<&ScaleMachine> {
        self.machines.iter().find(|m| m.id == *id)
    }
}

// === impl ScaleAction ===

impl ScaleAction {
    fn group(&self) -> &GroupName {
        match self {
            Self::Create { group, .. } | Self::Destroy { group, .. } => group,
        }
    }
}
