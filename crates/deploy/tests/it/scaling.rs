//! `scale count`: who is created and destroyed where.

use std::collections::BTreeMap;

use hangar_api::Timestamp;
use hangar_api::id::{AppName, InstanceId, MachineId, Region};
use hangar_api::release::{GroupSpec, Release, ReleaseStatus};
use hangar_deploy::scale::{
    Count, ScaleAction, ScaleError, ScaleMachine, ScaleOptions, describe, parse_counts, plan_count,
};
use proptest::prelude::*;

use crate::sim::{config, group, image, release_id};

pub(crate) fn release() -> Release {
    let spec = |serves| GroupSpec {
        config: config("v2", serves),
        sets_guest: false,
        test_machines: Vec::new(),
        volumes: Vec::new(),
    };
    Release {
        id: release_id(2),
        app: AppName::new("app").unwrap(),
        version: 2,
        status: ReleaseStatus::Complete,
        description: String::new(),
        user: String::new(),
        created_at: Timestamp::UNIX_EPOCH,
        deployment: None,
        image_ref: image("v2"),
        secrets_version: 0,
        groups: [(group("web"), spec(true)), (group("worker"), spec(false))].into(),
        release_command: None,
        definition: serde_json::Value::Null,
    }
}

fn machine(number: usize, of: &str, region: &str) -> ScaleMachine {
    let mut config = config("v1", of == "web");
    let value = of.to_owned();
    config
        .metadata
        .insert("fly_process_group".to_owned(), value);
    config.standbys = vec!["x".to_owned()];
    ScaleMachine {
        id: MachineId::new(format!("{number:014x}")).unwrap(),
        instance: InstanceId::new(format!("{number:026}")).unwrap(),
        region: Region::new(region).unwrap(),
        config,
    }
}

fn fleet(regions: &[(&str, usize)]) -> Vec<ScaleMachine> {
    let spread = regions
        .iter()
        .flat_map(|(r, n)| std::iter::repeat_n(*r, *n));
    spread
        .enumerate()
        .map(|(i, r)| machine(i, "web", r))
        .collect()
}

/// Returns the change of each region that changes.
fn changes(
    have: &[(&str, usize)],
    total: u32,
    regions: &[&str],
    max: Option<u32>,
) -> Result<BTreeMap<String, i64>, ScaleError> {
    let options = ScaleOptions {
        pools: BTreeMap::new(),
        regions: regions.iter().map(|r| Region::new(*r).unwrap()).collect(),
        primary_region: Region::new("iad").unwrap(),
        max_per_region: max,
        guest: None,
        kept_limits: BTreeMap::new(),
        kept_sizes: BTreeMap::new(),
    };
    let counts = BTreeMap::from([(group("web"), Count::To(total))]);
    let actions = plan_count(&counts, &release(), &fleet(have), &options)?;
    let mut sums = BTreeMap::new();
    for action in actions {
        let (region, by) = match action {
            ScaleAction::Create { region, .. } => (region, 1),
            ScaleAction::Destroy { region, .. } => (region, -1),
        };
        *sums.entry(region.to_string()).or_insert(0) += by;
    }
    Ok(sums)
}

fn sums(pairs: &[(&str, i64)]) -> BTreeMap<String, i64> {
    pairs.iter().map(|(r, n)| ((*r).to_owned(), *n)).collect()
}

#[test]
fn counts_converge_as_flyctl_makes_them() {
    let both = ["scl", "iad"];
    let ones = [("iad", 1), ("scl", 1)];
    type Case<'a> = (
        &'a [(&'a str, usize)],
        u32,
        &'a [&'a str],
        &'a [(&'a str, i64)],
    );
    let cases: [Case<'_>; 7] = [
        (&[], 3, &both, &[("scl", 2), ("iad", 1)]),
        (&ones, 3, &both, &[("scl", 1)]),
        (&ones, 3, &[], &[("iad", 1)]),
        (&ones, 1, &both, &[("iad", -1)]),
        (&ones, 1, &["iad", "scl"], &[("scl", -1)]),
        (
            &[("iad", 3), ("scl", 5)],
            2,
            &both,
            &[("iad", -3), ("scl", -3)],
        ),
        (
            &[("iad", 3), ("scl", 5)],
            12,
            &both,
            &[("iad", 2), ("scl", 2)],
        ),
    ];
    for (have, total, regions, expected) in cases {
        assert_eq!(
            changes(have, total, regions, None).unwrap(),
            sums(expected),
            "{have:?} {total}"
        );
    }
}

#[test]
fn a_region_holds_no_more_than_asked() {
    assert!(matches!(
        changes(&[], 10, &["scl", "iad"], Some(1)),
        Err(ScaleError::NoRoom { .. })
    ));
    let have = [("iad", 2), ("scl", 1)];
    let got = changes(&have, 6, &["iad", "scl"], Some(3)).unwrap();
    assert_eq!(got, sums(&[("iad", 1), ("scl", 2)]));
    let four = ["a1", "b1", "c1", "d1"];
    let got = changes(&[("a1", 7), ("b1", 1)], 8, &four, Some(2)).unwrap();
    assert_eq!(got, sums(&[("a1", -5), ("b1", 1), ("c1", 2), ("d1", 2)]));
    let beside = [("a1", 7), ("b1", 1), ("z1", 10)];
    assert_eq!(changes(&beside, 8, &four, Some(2)).unwrap(), got);
    assert!(
        changes(&[], 5, &["iad", "iad"], Some(4)).is_err(),
        "a region twice counts once"
    );
}

#[test]
fn a_copy_is_the_first_machines_and_no_standby() {
    let counts = parse_counts(&["web=+1".to_owned(), "worker=1".to_owned()], None).unwrap();
    let options = ScaleOptions {
        pools: BTreeMap::new(),
        regions: vec![],
        primary_region: Region::new("iad").unwrap(),
        max_per_region: None,
        guest: None,
        kept_limits: BTreeMap::new(),
        kept_sizes: BTreeMap::new(),
    };
    let have = fleet(&[("gru", 1)]);
    let actions = plan_count(&counts, &release(), &have, &options).unwrap();
    let [
        ScaleAction::Create {
            config: copy,
            region,
            ..
        },
        ScaleAction::Create { config: fresh, .. },
    ] = &actions[..]
    else {
        panic!("{actions:?}")
    };
    assert_eq!(region.as_str(), "gru");
    assert!(copy.standbys.is_empty());
    assert_eq!(copy.env["VERSION"], "v1");
    assert_eq!(fresh.env["VERSION"], "v2");
    assert_eq!(fresh.process_group(), "worker");
    assert_eq!(
        describe(&actions, &have)[0],
        "  +1 machines for group 'web' on region 'gru' of size 'shared-cpu-1x'"
    );
}

#[test]
fn bad_counts_are_refused_in_flyctls_words() {
    let parse = |args: &[&str]| {
        let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
        parse_counts(&args, None)
    };
    assert_eq!(parse(&["3"]).unwrap()[&group("app")], Count::To(3));
    assert_eq!(parse(&["web=-2"]).unwrap()[&group("web")], Count::By(-2));
    for bad in [
        &["+0"][..],
        &["x"],
        &["1", "2"],
        &["a=b"],
        &["web=1", "web=2"],
        &["99999999999"],
        &["=1"],
    ] {
        // The group of an empty name is Fly's; it is refused when the app has none.
        assert!(parse(bad).is_err() || bad == ["=1"], "{bad:?}");
    }
    let counts = parse(&["3"]).unwrap();
    let options = ScaleOptions {
        pools: BTreeMap::new(),
        regions: vec![],
        primary_region: Region::new("iad").unwrap(),
        max_per_region: None,
        guest: None,
        kept_limits: BTreeMap::new(),
        kept_sizes: BTreeMap::new(),
    };
    let error = plan_count(&counts, &release(), &[], &options).unwrap_err();
    assert!(error.to_string().starts_with(
        "Attempting to scale unknown process groups [app] but valid names are [web worker]."
    ));
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_text_is_a_count_or_an_error(args in proptest::collection::vec("\\PC{0,12}", 0..4)) {
        let _ = parse_counts(&args, None);
    }

    #[test]
    fn the_asked_count_is_reached(a in 0_usize..20, b in 0_usize..20, total in 0_u32..50) {
        let changed = changes(&[("iad", a), ("gru", b)], total, &["iad", "gru"], None).unwrap();
        let sum: i64 = changed.values().sum();
        prop_assert_eq!(i64::try_from(a + b).unwrap() + sum, i64::from(total));
    }
}

#[test]
fn without_a_region_a_group_keeps_to_its_pool() {
    let counts = parse_counts(&["worker=2".to_owned()], None).unwrap();
    let machines = fleet(&[("ams", 2), ("iad", 1)]);
    let options = ScaleOptions {
        regions: Vec::new(),
        pools: [(group("worker"), vec![Region::new("gru").unwrap()])].into(),
        primary_region: Region::new("iad").unwrap(),
        max_per_region: None,
        guest: None,
        kept_limits: BTreeMap::new(),
        kept_sizes: BTreeMap::new(),
    };
    let actions = plan_count(&counts, &release(), &machines, &options).unwrap();
    let regions: Vec<String> = actions
        .iter()
        .map(|action| match action {
            ScaleAction::Create { region, .. } => region.to_string(),
            ScaleAction::Destroy { .. } => panic!("nothing goes"),
        })
        .collect();
    assert_eq!(regions, ["gru", "gru"]);
}
