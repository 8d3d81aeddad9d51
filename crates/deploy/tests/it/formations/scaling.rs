//! `scale count` as a change of formations.

use hangar_api::formation::GroupFormation;
use hangar_api::id::GroupName;
use hangar_deploy::scale::formation::{Scaling, counted, pools};
use hangar_deploy::scale::{Count, ScaleMachine, ScaleOptions, plan_count};

use super::*;
use crate::scaling::release;

/// What is asked of `scale count`, for the group worker.
#[derive(Clone, Debug)]
struct Ask {
    count: Count,
    regions: Vec<Region>,
    /// `--max-per-region`.
    max: Option<u32>,
}

fn to(count: u32) -> Ask {
    Ask {
        count: Count::To(count),
        regions: Vec::new(),
        max: None,
    }
}

impl World {
    fn shown(&self) -> BTreeMap<GroupName, GroupFormation> {
        let formation = self.effective();
        let shown = GroupFormation {
            count: formation.count(),
            regions: formation.regions,
            backup_regions: formation.backup_regions,
            max_per_region: formation.max_per_region,
            guest: formation.guest,
            machines: Vec::new(),
            retiring: formation.retiring.into_iter().collect(),
            trouble: Vec::new(),
        };
        BTreeMap::from([(group("worker"), shown)])
    }

    fn standby(&mut self, of: &MachineId, place: &str) -> MachineId {
        let mut config = managed("worker");
        config.standbys = vec![of.to_string()];
        self.add(config, region(place))
    }

    /// Returns what the server is asked; `None` where it is asked nothing.
    fn asked(&self, ask: &Ask) -> Option<GroupUpdate> {
        let formations = self.shown();
        let all = self.machines.values();
        let views = counted(
            all.map(|one| ScaleMachine::from(&one.spec)).collect(),
            &formations,
        );
        let kept = formations.values().filter(|_| ask.max.is_none());
        let kept = kept.filter_map(|f| Some((group("worker"), f.max_per_region?)));
        let options = ScaleOptions {
            regions: ask.regions.clone(),
            pools: pools(&views, &formations),
            primary_region: region("iad"),
            max_per_region: ask.max,
            kept_limits: kept.collect(),
            kept_sizes: BTreeMap::new(),
            guest: None,
        };
        let counts = BTreeMap::from([(group("worker"), ask.count)]);
        let actions = plan_count(&counts, &release(), &views, &options).ok()?;
        let scaling = Scaling {
            counts: &counts,
            actions: &actions,
            machines: &views,
            formations: &formations,
            options: &options,
            max_per_region: ask.max.filter(|max| *max > 0),
        };
        assert!(scaling.is_for_the_server());
        scaling.updates().remove(&group("worker"))
    }

    fn scale(&mut self, ask: &Ask) {
        if let Some(update) = self.asked(ask) {
            self.put(&update).unwrap();
        }
        self.run();
    }
}

#[test]
fn a_region_that_was_named_leaves_the_pool_with_its_last_and_another_one_stays() {
    let mut world = World::with(&[("gru", 1), ("iad", 1)]);
    world.scale(&to(1));
    assert_eq!(world.counts(), counts(&[("gru", 1)]));
    assert!(world.effective().regions.contains_key(&region("iad")));
    let ask = Ask {
        regions: vec![region("iad"), region("ord")],
        ..to(0)
    };
    world.scale(&Ask {
        count: Count::To(1),
        ..ask.clone()
    });
    assert_eq!(world.counts(), counts(&[("gru", 1), ("iad", 1)]));
    world.scale(&ask);
    let pool: Vec<Region> = world.effective().regions.into_keys().collect();
    assert_eq!(pool, [region("gru")]);
    // The last of all leaves its region behind, for when there is to be one again.
    let named = Ask {
        regions: vec![region("gru")],
        ..to(0)
    };
    world.scale(&named);
    assert_eq!(world.effective().regions, [(region("gru"), 0)].into());
}

#[test]
fn a_standby_goes_before_one_that_runs() {
    let mut world = World::with(&[("iad", 1)]);
    let first = world.machines.keys().next().unwrap().clone();
    let standby = world.standby(&first, "iad");
    assert_eq!(world.asked(&to(2)), None, "a standby counts, as on Fly");
    world.scale(&to(1));
    assert!(world.removed.contains(&standby));
    assert_eq!(world.machines.keys().collect::<Vec<_>>(), [&first]);
    assert_eq!(world.effective().count(), 1);
}

#[test]
fn a_limit_is_kept_and_repairs_keep_to_it() {
    let mut world = World::with(&[("iad", 1)]);
    let ask = Ask {
        regions: vec![region("gru"), region("iad")],
        max: Some(2),
        ..to(3)
    };
    world.scale(&ask);
    assert_eq!(world.counts(), counts(&[("gru", 1), ("iad", 2)]));
    assert_eq!(world.effective().max_per_region, Some(2));
    world.scale(&to(4));
    assert_eq!(world.counts(), counts(&[("gru", 2), ("iad", 2)]));
    assert_eq!(world.asked(&to(5)), None, "there is no room for a fifth");
    // gru is lost: iad has as many as it may have.
    world.open.remove(&region("gru"));
    for one in world.machines.values_mut() {
        one.lost = one.spec.region == region("gru");
    }
    let trouble = world.run();
    assert!(trouble[0].contains("2 of 4 Machines"), "{trouble:?}");
    // One that a client makes beyond it stays.
    world.open.insert(region("gru"));
    world.run();
    world.client(Deed::Create(2));
    world.run();
    world.scale(&to(5));
    assert_eq!(world.counts(), counts(&[("gru", 2), ("iad", 3)]));
}

#[test]
fn what_was_decided_from_something_else_is_refused() {
    let mut world = World::with(&[("iad", 2)]);
    let update = world.asked(&to(1)).unwrap();
    world.client(Deed::Create(1));
    let error = world.put(&update).unwrap_err().to_string();
    assert!(error.contains("changed meanwhile"), "{error}");
    assert!(error.contains("gru: 1, iad: 2 now"), "{error}");
    let nobody = MachineId::new("00000000000001").unwrap();
    let update = GroupUpdate {
        retire_standbys: [nobody].into(),
        ..GroupUpdate::default()
    };
    let error = world.put(&update).unwrap_err().to_string();
    assert!(error.contains("is no standby of group worker"), "{error}");
}

#[test]
fn fewer_than_there_should_be_is_what_there_should_be() {
    let mut world = World::with(&[("iad", 3)]);
    let gone = world.machines.keys().next().unwrap().clone();
    world.machines.remove(&gone);
    // One has vanished and is not replaced yet: two is what there is, and what is asked for.
    world.scale(&to(2));
    assert_eq!(world.counts(), counts(&[("iad", 2)]));
}

#[test]
fn what_a_formation_has_no_word_for_is_the_clients() {
    let mut world = World::with(&[("iad", 1)]);
    for one in world.machines.values_mut() {
        one.spec.config.mounts.push(Mount::default());
    }
    let views: Vec<ScaleMachine> = world
        .machines
        .values()
        .map(|one| (&one.spec).into())
        .collect();
    let options = ScaleOptions {
        regions: Vec::new(),
        pools: BTreeMap::new(),
        primary_region: region("iad"),
        max_per_region: None,
        kept_limits: BTreeMap::new(),
        kept_sizes: BTreeMap::new(),
        guest: None,
    };
    let counts = BTreeMap::from([(group("worker"), Count::To(0))]);
    let actions = plan_count(&counts, &release(), &views, &options).unwrap();
    let scaling = Scaling {
        counts: &counts,
        actions: &actions,
        machines: &views,
        formations: &BTreeMap::new(),
        options: &options,
        max_per_region: None,
    };
    assert!(!scaling.is_for_the_server());
}

fn ask() -> impl Strategy<Value = Ask> {
    let regions = proptest::sample::subsequence(REGIONS.map(region).to_vec(), 0..=4);
    let count = prop_oneof![
        (0_u32..9).prop_map(Count::To),
        (-4_i64..5)
            .prop_filter("a change", |n| *n != 0)
            .prop_map(Count::By),
    ];
    (count, regions, proptest::option::of(1_u32..4)).prop_map(|(count, regions, max)| Ask {
        count,
        regions,
        max,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever was asked before, the Machines of the regions that were looked at are as many as
    /// was asked for, and a second time there is nothing to ask.
    #[test]
    fn the_server_ends_where_the_plan_does(
        asks in proptest::collection::vec(ask(), 1..5),
        standbys in proptest::collection::vec(0_usize..4, 0..3),
    ) {
        let mut world = World::with(&[("iad", 2), ("gru", 1)]);
        let first = world.machines.keys().next().unwrap().clone();
        for place in standbys {
            world.standby(&first, REGIONS[place]);
        }
        for ask in asks {
            let before = world.counts();
            let had: u32 = before.values().sum();
            let Some(update) = world.asked(&ask) else { continue };
            world.put(&update).unwrap();
            prop_assert!(world.run().is_empty());
            let after = world.counts();
            let of = |counts: &BTreeMap<String, u32>, inside: bool| -> u32 {
                let named = |r: &String| ask.regions.is_empty() || ask.regions.iter().any(|n| n.as_str() == r);
                counts.iter().filter(|(r, _)| named(r) == inside).map(|(_, n)| *n).sum()
            };
            let wanted = match ask.count {
                Count::To(n) => n,
                Count::By(by) => u32::try_from((i64::from(had) + by).max(0)).unwrap(),
            };
            prop_assert_eq!(of(&after, true), wanted, "{:?} of {:?}", ask, before);
            let seats = world.effective().count() > 0;
            prop_assert!(!seats || of(&after, false) == of(&before, false));
            if matches!(ask.count, Count::To(_)) {
                prop_assert_eq!(world.asked(&ask), None);
            }
        }
    }
}
