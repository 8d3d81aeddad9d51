//! Formations: a small world of Machines, clients that do as they please, and faults.

mod scaling;

use std::collections::{BTreeMap, BTreeSet};

use hangar_api::Timestamp;
use hangar_api::formation::{Formation, GroupUpdate, PoolUpdate};
use hangar_api::id::{AppName, HostId, InstanceId, MachineId, Region, SlotId};
use hangar_api::machine::{Guest, MachineConfig, MachineSpec, MachineState, Mount, Observed};
use hangar_api::net::{HostPart, NetworkId};
use hangar_deploy::FleetMachine;
use hangar_deploy::formation::{
    Decision, Folded, FormationError, Look, adopt, change, fold, members, next, wishes,
};
use proptest::prelude::*;

use crate::sim::host::blank;
use crate::sim::{config, group, image};

const REGIONS: [&str; 4] = ["ams", "gru", "iad", "ord"];
/// More steps than any repair of these worlds takes.
const MANY_STEPS: usize = 400;

struct One {
    spec: MachineSpec,
    seen: Observed,
    lost: bool,
    /// Steps until it is up.
    rising: u32,
}

struct World {
    machines: BTreeMap<MachineId, One>,
    formation: Option<Formation>,
    open: BTreeSet<Region>,
    now: i64,
    ids: u64,
    removed: BTreeSet<MachineId>,
}

fn region(name: &str) -> Region {
    Region::new(name).unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn managed(of: &str) -> MachineConfig {
    let mut config = config("v1", of == "web");
    let metadata = &mut config.metadata;
    metadata.insert("fly_process_group".to_owned(), of.to_owned());
    metadata.insert("fly_platform_version".to_owned(), "v2".to_owned());
    config.guest = Some(Guest::default());
    config
}

impl World {
    fn new() -> Self {
        Self {
            machines: BTreeMap::new(),
            formation: None,
            open: REGIONS.map(region).into(),
            now: 1_000_000,
            ids: 0,
            removed: BTreeSet::new(),
        }
    }

    fn with(regions: &[(&str, u32)]) -> Self {
        let mut world = Self::new();
        for (name, count) in regions {
            for _ in 0..*count {
                world.add(managed("worker"), region(name));
            }
        }
        world.formation = Some(world.effective());
        world
    }

    fn add(&mut self, config: MachineConfig, region: Region) -> MachineId {
        self.ids += 1;
        let id = MachineId::new(format!("{:014x}", self.ids)).unwrap();
        let spec = MachineSpec {
            id: id.clone(),
            name: format!("m{}", self.ids),
            app: AppName::new("app").unwrap(),
            network: NetworkId(1),
            slot: SlotId::new(format!("{region}-a")).unwrap(),
            host: HostId::new("h").unwrap(),
            host_part: HostPart(1),
            region,
            generation: 1,
            instance_id: InstanceId::new(format!("{:026}", self.ids)).unwrap(),
            config,
            image_ref: image("v1"),
            secrets_version: 0,
            cordoned: false,
            created_at: at(self.now),
            updated_at: at(self.now),
        };
        let mut seen = blank(&spec, at(self.now));
        seen.state = MachineState::Started;
        let one = One {
            spec,
            seen,
            lost: false,
            rising: 0,
        };
        self.machines.insert(id.clone(), one);
        id
    }

    fn view(&self) -> Vec<FleetMachine<'_>> {
        self.machines
            .values()
            .map(|one| FleetMachine {
                is_lost: one.lost,
                ..FleetMachine::new(&one.spec, Some(&one.seen), &[], None)
            })
            .collect()
    }

    fn effective(&self) -> Formation {
        if let Some(formation) = &self.formation {
            return formation.clone();
        }
        let groups = members(self.view().into_iter());
        adopt(groups.get(&group("worker")).map_or(&[][..], Vec::as_slice))
    }

    fn decide(&self) -> Decision {
        let formation = self.effective();
        let groups = members(self.view().into_iter());
        next(Look {
            formation: &formation,
            members: groups.get(&group("worker")).map_or(&[][..], Vec::as_slice),
            open: &self.open,
            now: at(self.now),
        })
    }

    fn is_up(&self, id: &MachineId) -> bool {
        let one = &self.machines[id];
        let rests = one.seen.state == MachineState::Stopped && one.seen.reason.is_none();
        !one.lost && (one.seen.state == MachineState::Started || rests)
    }

    fn ups(&self) -> usize {
        self.machines.keys().filter(|id| self.is_up(id)).count()
    }

    /// Does the next step; returns it.
    fn step(&mut self) -> Decision {
        for one in self.machines.values_mut().filter(|one| one.rising > 0) {
            one.rising -= 1;
            if one.rising == 0 {
                one.seen.state = MachineState::Started;
            }
        }
        let decision = self.decide();
        match decision.clone() {
            Decision::Rest { .. } => {}
            Decision::Keep(formation) => self.formation = Some(*formation),
            Decision::Create {
                region,
                like,
                formation,
                ..
            } => {
                let config = like.map_or(managed("worker"), |id| {
                    self.machines[&id].spec.config.clone()
                });
                let id = self.add(config, region);
                let one = self.machines.get_mut(&id).unwrap();
                one.rising = 3;
                one.seen.state = MachineState::Starting;
                self.formation = Some(*formation);
            }
            Decision::Destroy { machine } => {
                assert!(self.effective().retiring.contains(&machine));
                self.machines.remove(&machine).unwrap();
                self.removed.insert(machine);
            }
            Decision::Start { machine, formation } => {
                let one = self.machines.get_mut(&machine).unwrap();
                one.seen.state = MachineState::Started;
                one.seen.reason = None;
                self.formation = Some(*formation);
            }
        }
        decision
    }

    /// Goes on until nothing is left to do; the clock moves only where everything waits for it.
    fn run(&mut self) -> Vec<String> {
        for _ in 0..MANY_STEPS {
            if let Decision::Rest { wake_at, trouble } = self.step() {
                if self.machines.values().any(|one| one.rising > 0) {
                    continue;
                }
                match wake_at {
                    Some(at) => self.now = at.as_second(),
                    None => return trouble,
                }
            }
        }
        panic!("it never comes to rest: {:?}", self.effective());
    }

    fn client(&mut self, deed: Deed) {
        let pick = |world: &Self, index: usize| {
            let count = world.machines.len();
            (count > 0).then(|| world.machines.keys().nth(index % count).cloned().unwrap())
        };
        match deed {
            Deed::Create(index) => {
                let place = region(REGIONS[index % REGIONS.len()]);
                let config = managed("worker");
                let before = self.effective();
                let id = self.add(config.clone(), place.clone());
                self.wish(before, &id, &place, None, Some(&config));
            }
            Deed::Destroy(index) => {
                let Some(id) = pick(self, index) else { return };
                let before = self.effective();
                let one = self.machines.remove(&id).unwrap();
                self.wish(before, &id, &one.spec.region, Some(&one.spec.config), None);
            }
            Deed::Move(index) => {
                let Some(id) = pick(self, index) else { return };
                let before = self.effective();
                let old = self.machines[&id].spec.clone();
                let to = if old.config.process_group() == "worker" {
                    "web"
                } else {
                    "worker"
                };
                let new = managed(to);
                self.machines.get_mut(&id).unwrap().spec.config = new.clone();
                self.wish(before, &id, &old.region, Some(&old.config), Some(&new));
            }
            Deed::Stop(index) => {
                let Some(id) = pick(self, index) else { return };
                let seen = &mut self.machines.get_mut(&id).unwrap().seen;
                seen.state = MachineState::Stopped;
                seen.reason = None;
            }
        }
    }

    fn wish(
        &mut self,
        mut before: Formation,
        id: &MachineId,
        region: &Region,
        old: Option<&MachineConfig>,
        new: Option<&MachineConfig>,
    ) {
        for wish in wishes(region, old, new) {
            if wish.group == group("worker") {
                // What is over is adopted again.
                if fold(&mut before, id, &wish) == Folded::Over {
                    before = Formation::default();
                }
            }
        }
        self.formation = Some(before);
    }

    fn put(&mut self, update: &GroupUpdate) -> Result<(), FormationError> {
        let old = self.effective();
        let new = {
            let groups = members(self.view().into_iter());
            let members = groups.get(&group("worker")).map_or(&[][..], Vec::as_slice);
            change(&group("worker"), &old, update, members, &region("iad"))?
        };
        self.formation = Some(new);
        Ok(())
    }

    fn counts(&self) -> BTreeMap<String, u32> {
        let mut counts = BTreeMap::new();
        for one in self.machines.values() {
            if one.spec.config.process_group() == "worker" {
                *counts.entry(one.spec.region.to_string()).or_insert(0) += 1;
            }
        }
        counts
    }
}

#[derive(Clone, Copy, Debug)]
enum Deed {
    Create(usize),
    Destroy(usize),
    Move(usize),
    Stop(usize),
}

fn counts(of: &[(&str, u32)]) -> BTreeMap<String, u32> {
    of.iter().map(|(r, n)| ((*r).to_owned(), *n)).collect()
}

fn to_count(count: u32) -> GroupUpdate {
    GroupUpdate {
        count: Some(count),
        ..GroupUpdate::default()
    }
}

#[test]
fn a_count_is_spread_over_the_pool() {
    let mut world = World::with(&[("iad", 1)]);
    let update = GroupUpdate {
        regions: Some(PoolUpdate::Spread(vec![
            region("iad"),
            region("gru"),
            region("ord"),
        ])),
        ..to_count(6)
    };
    world.put(&update).unwrap();
    world.run();
    assert_eq!(
        world.counts(),
        counts(&[("gru", 2), ("iad", 2), ("ord", 2)])
    );
    assert!(world.removed.is_empty());
}

#[test]
fn a_region_that_is_taken_out_gives_its_machines_to_the_others_and_keeps_them_until_those_run() {
    let mut world = World::with(&[("gru", 2), ("iad", 2)]);
    let update = GroupUpdate {
        remove_regions: vec![region("gru")],
        ..GroupUpdate::default()
    };
    world.put(&update).unwrap();
    let mut fewest = world.ups();
    for _ in 0..60 {
        world.step();
        fewest = fewest.min(world.ups());
    }
    assert_eq!(world.counts(), counts(&[("iad", 4)]));
    assert_eq!(fewest, 4, "never fewer than before");
}

#[test]
fn a_lost_slot_is_left_for_another_region_and_then_for_a_backup() {
    let mut world = World::with(&[("gru", 1), ("iad", 1)]);
    let update = GroupUpdate {
        backup_regions: Some(vec![region("ams")]),
        ..GroupUpdate::default()
    };
    world.put(&update).unwrap();
    for name in ["gru", "iad"] {
        world.open.remove(&region(name));
        for one in world.machines.values_mut() {
            one.lost |= one.spec.region == region(name);
        }
        world.run();
    }
    assert_eq!(world.counts(), counts(&[("ams", 2)]));
    let pool: Vec<Region> = world.effective().regions.into_keys().collect();
    assert_eq!(
        pool,
        [region("gru"), region("iad")],
        "the pool is a person's"
    );
}

#[test]
fn without_any_slot_it_waits_and_says_so() {
    let mut world = World::with(&[("iad", 1)]);
    world.open.clear();
    world.machines.values_mut().next().unwrap().lost = true;
    let trouble = world.run();
    assert!(trouble[0].contains("0 of 1 Machines"), "{trouble:?}");
    assert!(trouble[0].contains("hangar slots back"), "{trouble:?}");
    assert_eq!(world.machines.len(), 1, "and removes nothing");
}

#[test]
fn one_with_a_standby_is_left_to_it() {
    let mut world = World::with(&[("iad", 1)]);
    let first = world.machines.keys().next().unwrap().clone();
    let mut standby = managed("worker");
    standby.standbys = vec![first.to_string()];
    let standby = world.add(standby, region("gru"));
    world.machines.get_mut(&first).unwrap().lost = true;
    assert!(matches!(world.decide(), Decision::Rest { .. }));
    // And with the standby gone, too, it is replaced.
    world.machines.remove(&standby);
    world.run();
    assert!(!world.machines.contains_key(&first));
    assert_eq!(world.ups(), 1);
}

#[test]
fn a_standby_holds_no_seat_and_goes_with_the_last() {
    let mut world = World::with(&[("iad", 1)]);
    let first = world.machines.keys().next().unwrap().clone();
    let mut standby = managed("worker");
    standby.standbys = vec![first.to_string()];
    let standby = world.add(standby, region("iad"));
    world.put(&to_count(1)).unwrap();
    world.run();
    assert_eq!(world.machines.len(), 2, "one and its standby");
    world.put(&to_count(0)).unwrap();
    world.run();
    assert!(world.machines.is_empty() && world.removed.contains(&standby));
}

#[test]
fn one_that_failed_is_started_again_ever_more_slowly() {
    let mut world = World::with(&[("iad", 1)]);
    let id = world.machines.keys().next().unwrap().clone();
    let mut waits = Vec::new();
    for _ in 0..12 {
        let seen = &mut world.machines.get_mut(&id).unwrap().seen;
        seen.state = MachineState::Stopped;
        seen.reason = Some("machine has reached its max restart count of 10".to_owned());
        let from = world.now;
        while !world.is_up(&id) {
            if let Decision::Rest { wake_at, trouble } = world.step() {
                assert!(trouble[0].contains("max restart count"), "{trouble:?}");
                world.now = wake_at.unwrap().as_second();
            }
        }
        waits.push(world.now - from);
    }
    assert_eq!(waits[..4], [15, 30, 60, 120]);
    assert_eq!(waits[11], 3600);
    assert_eq!(world.machines.len(), 1, "it stays the same Machine");
}

#[test]
fn the_last_one_that_goes_leaves_its_size_and_its_region() {
    let mut world = World::with(&[("gru", 1), ("iad", 1)]);
    world.client(Deed::Destroy(0));
    world.client(Deed::Destroy(0));
    let formation = world.effective();
    assert_eq!(formation.count(), 0);
    assert_eq!(formation.regions, BTreeMap::from([(region("iad"), 0)]));
    assert_eq!(formation.guest, Some(Guest::default()));
    assert!(matches!(world.decide(), Decision::Rest { .. }));
    world.put(&to_count(2)).unwrap();
    world.run();
    assert_eq!(world.counts(), counts(&[("iad", 2)]));
}

#[test]
fn volumes_stay_where_they_are() {
    let mut world = World::with(&[("gru", 1), ("iad", 1)]);
    for one in world.machines.values_mut() {
        one.spec.config.mounts.push(Mount::default());
    }
    let without = GroupUpdate {
        remove_regions: vec![region("gru")],
        ..GroupUpdate::default()
    };
    let error = world.put(&without).unwrap_err();
    assert!(error.to_string().contains("volumes fork"), "{error}");
    let with = GroupUpdate {
        add_regions: vec![region("ord")],
        ..GroupUpdate::default()
    };
    world.put(&with).unwrap();
    world.run();
    assert_eq!(world.counts(), counts(&[("gru", 1), ("iad", 1)]));
    assert!(world.effective().regions.contains_key(&region("ord")));
}

#[test]
fn what_cannot_be_is_refused_in_words() {
    let mut world = World::with(&[("iad", 2)]);
    let all = GroupUpdate {
        remove_regions: vec![region("iad")],
        ..GroupUpdate::default()
    };
    let narrow = GroupUpdate {
        max_per_region: Some(1),
        ..GroupUpdate::default()
    };
    let both = GroupUpdate {
        regions: Some(PoolUpdate::Spread(vec![region("iad")])),
        add_regions: vec![region("gru")],
        ..GroupUpdate::default()
    };
    let sums = GroupUpdate {
        regions: Some(PoolUpdate::Exact([(region("iad"), 2)].into())),
        ..to_count(3)
    };
    let cases = [
        (all, "at least one region"),
        (narrow, "do not fit"),
        (both, "either the whole pool"),
        (sums, "a count of 3"),
        (to_count(10_001), "too many"),
    ];
    for (update, text) in cases {
        let before = world.effective();
        let error = world.put(&update).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
        assert_eq!(world.effective(), before);
    }
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        (0_usize..8).prop_map(Deed::Create),
        (0_usize..8).prop_map(Deed::Destroy),
        (0_usize..8).prop_map(Deed::Move),
        (0_usize..8).prop_map(Deed::Stop),
    ]
}

fn update() -> impl Strategy<Value = GroupUpdate> {
    let some_regions = || proptest::sample::subsequence(REGIONS.map(region).to_vec(), 1..=4);
    let pool = prop_oneof![
        Just(None),
        some_regions().prop_map(|list| Some(PoolUpdate::Spread(list))),
        (some_regions(), 0_u32..4).prop_map(|(list, n)| {
            Some(PoolUpdate::Exact(
                list.into_iter().map(|r| (r, n)).collect(),
            ))
        }),
    ];
    (
        proptest::option::of(0_u32..9),
        pool,
        proptest::option::of(0_u32..4),
        proptest::option::of(some_regions()),
    )
        .prop_map(
            |(count, regions, max_per_region, backup_regions)| GroupUpdate {
                count: count.filter(|_| !matches!(regions, Some(PoolUpdate::Exact(_)))),
                regions,
                max_per_region,
                backup_regions,
                ..GroupUpdate::default()
            },
        )
}

#[derive(Clone, Debug)]
enum Happening {
    Client(Deed),
    Put(Box<GroupUpdate>),
    Lost(usize),
    Vanished(usize),
    GaveUp(usize),
    Steps(usize),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        deed().prop_map(Happening::Client),
        update().prop_map(|update| Happening::Put(Box::new(update))),
        (0_usize..8).prop_map(Happening::Lost),
        (0_usize..8).prop_map(Happening::Vanished),
        (0_usize..8).prop_map(Happening::GaveUp),
        (0_usize..6).prop_map(Happening::Steps),
    ]
}

proptest! {
    /// A client that scales, clones, moves and destroys by itself is never fought.
    #[test]
    fn a_client_is_never_fought(deeds in proptest::collection::vec(deed(), 0..30)) {
        let mut world = World::with(&[("iad", 2), ("gru", 1)]);
        for deed in deeds {
            world.client(deed);
            loop {
                match world.step() {
                    Decision::Rest { trouble, .. } => {
                        prop_assert!(trouble.is_empty(), "{trouble:?}");
                        break;
                    }
                    Decision::Keep(_) => {}
                    step => return Err(TestCaseError::fail(format!("fought with {step:?}"))),
                }
            }
            let sum: u32 = world.counts().values().sum();
            prop_assert_eq!(world.effective().count(), sum);
        }
    }

    /// Whatever happens, in the end there are as many as there should be, and nobody was removed
    /// while fewer than that were up.
    #[test]
    fn whatever_happens_it_comes_to_rest_with_what_it_should_have(
        happenings in proptest::collection::vec(happening(), 0..24),
    ) {
        let mut world = World::with(&[("iad", 2), ("gru", 1)]);
        for happening in happenings {
            let pick = |world: &World, index: usize| {
                let count = world.machines.len();
                (count > 0).then(|| world.machines.keys().nth(index % count).cloned().unwrap())
            };
            match happening {
                Happening::Client(deed) => world.client(deed),
                Happening::Put(update) => drop(world.put(&update)),
                Happening::Lost(index) => {
                    if let Some(id) = pick(&world, index) {
                        world.machines.get_mut(&id).unwrap().lost = true;
                    }
                }
                Happening::Vanished(index) => {
                    if let Some(id) = pick(&world, index) {
                        world.machines.remove(&id);
                    }
                }
                Happening::GaveUp(index) => {
                    if let Some(id) = pick(&world, index) {
                        let seen = &mut world.machines.get_mut(&id).unwrap().seen;
                        seen.state = MachineState::Stopped;
                        seen.reason = Some("broken".to_owned());
                    }
                }
                Happening::Steps(count) => {
                    for _ in 0..count {
                        let before = world.ups();
                        let wanted = usize::try_from(world.effective().count()).unwrap();
                        if matches!(world.step(), Decision::Destroy { .. }) {
                            prop_assert!(world.ups() >= wanted.min(before));
                        }
                    }
                }
            }
        }
        let wanted = world.effective().count();
        world.run();
        let formation = world.effective();
        let sum: u32 = world.counts().values().sum();
        prop_assert!(formation.retiring.is_empty());
        prop_assert_eq!(formation.count(), sum);
        prop_assert!(sum >= wanted, "{} of {}", sum, wanted);
        let lost = world.machines.values().any(|one| one.lost && one.spec.config.process_group() == "worker");
        prop_assert!(!lost);
        prop_assert!(matches!(world.decide(), Decision::Rest { .. }), "at rest for good");
    }

    /// A change ends in what was asked for.
    #[test]
    fn a_change_ends_in_what_was_asked_for(update in update()) {
        let mut world = World::with(&[("iad", 2), ("gru", 1)]);
        let before = world.effective();
        if world.put(&update).is_err() {
            prop_assert_eq!(world.effective(), before);
            return Ok(());
        }
        let formation = world.effective();
        if let Some(count) = update.count {
            prop_assert_eq!(formation.count(), count);
        }
        if let Some(max) = formation.max_per_region {
            // A region that had more may keep it.
            let had = |region: &Region| before.regions.get(region).copied().unwrap_or(0);
            prop_assert!(formation.regions.iter().all(|(region, n)| *n <= max.max(had(region))));
        }
        match &update.regions {
            Some(PoolUpdate::Exact(exact)) => prop_assert_eq!(&formation.regions, exact),
            Some(PoolUpdate::Spread(list)) => {
                let pool: Vec<&Region> = formation.regions.keys().collect();
                prop_assert_eq!(pool, list.iter().collect::<Vec<_>>());
            }
            None => prop_assert!(formation.regions.keys().eq(before.regions.keys())),
        }
        world.run();
        let mut wanted = counts(&[]);
        for (region, n) in &formation.regions {
            if *n > 0 {
                wanted.insert(region.to_string(), *n);
            }
        }
        prop_assert_eq!(world.counts(), wanted);
    }
}
