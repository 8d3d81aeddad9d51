use super::*;

const MACHINES: &str = r#"[
 {"id": "1", "state": "started", "region": "iad", "config": {"image": "x", "guest": {"cpu_kind": "shared", "cpus": 1, "memory_mb": 512},
  "env": {"MODE": "a", "HAND": "b", "FLY_PROCESS_GROUP": "web"}, "metadata": {"fly_platform_version": "v2", "fly_process_group": "web"}}},
 {"id": "2", "state": "stopped", "region": "iad", "config": {"image": "x", "guest": {"cpu_kind": "shared", "cpus": 1, "memory_mb": 512},
  "metadata": {"fly_platform_version": "v2", "fly_process_group": "web"}}},
 {"id": "3", "state": "started", "region": "syd", "config": {"image": "x", "guest": {"cpu_kind": "performance", "cpus": 2, "memory_mb": 4096},
  "schedule": "daily", "metadata": {"fly_platform_version": "v2", "fly_process_group": "worker"}}},
 {"id": "4", "state": "stopped", "region": "iad", "config": {"image": "x", "standbys": ["3"],
  "metadata": {"fly_platform_version": "v2", "fly_process_group": "worker"}}},
 {"id": "5", "state": "destroyed", "region": "iad", "config": {"metadata": {"fly_platform_version": "v2", "fly_process_group": "web"}}},
 {"id": "6", "state": "started", "region": "iad", "config": {"metadata": {"mine": "yes"}}},
 {"id": "7", "state": "started", "region": "iad", "config": {"metadata": {"fly_platform_version": "v2", "fly_process_group": "gone"}}}
]"#;

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

#[test]
fn machines_are_counted_by_group_region_and_size() {
    let (groups, env) = (set(&["web", "worker", "cron"]), set(&["MODE"]));
    let regions = BTreeMap::from([("syd".to_owned(), "ams".to_owned())]);
    let plan = plan(&Source {
        machines: MACHINES,
        volumes: Some(r#"[{"id": "vol_1", "name": "data", "size_gb": 3, "region": "syd", "attached_machine_id": "3"}]"#),
        secrets: Some(r#"[{"name": "B", "digest": "x"}, {"Name": "A"}]"#),
        groups: &groups,
        env: &env,
        regions: &regions,
    })
    .unwrap();
    assert_eq!(
        describe(&plan).join("\n"),
        " * process group \"cron\": no Machines
 * create 2 \"web\" machines in iad of size shared-cpu-1x with 512 MB
 * create 1 \"worker\" machine in ams of size performance-2x with 4096 MB
 * create 1 \"worker\" standby machine in iad of size shared-cpu-1x with 256 MB
 * by hand: volume vol_1 data (3 GB, ams), of Machine 3: what is in it is not copied
 * by hand, Fly does not give their values: secrets A, B"
    );
    let notes: Vec<String> = plan.notes.iter().map(ToString::to_string).collect();
    assert!(
        notes[0].contains("Machine 1: has variables") && notes[0].ends_with("HAND"),
        "{notes:?}"
    );
    assert!(notes[1].contains("Machine 3: has a schedule"), "{notes:?}");
    assert!(
        notes[2].contains("Machine 6: is not part of Fly Launch"),
        "{notes:?}"
    );
    assert!(
        notes[3].contains("Machine 7: is of process group gone"),
        "{notes:?}"
    );
    assert_eq!(notes.len(), 4);
}

#[test]
fn what_fly_did_not_print_is_refused() {
    let groups = set(&["app"]);
    let of = |machines: &str| {
        plan(&Source {
            machines,
            volumes: None,
            secrets: None,
            groups: &groups,
            env: &BTreeSet::new(),
            regions: &BTreeMap::new(),
        })
    };
    for text in ["ID  STATE", "{}", "3"] {
        assert!(
            of(text).unwrap_err().0.contains("fly machines list --json"),
            "{text}"
        );
    }
    assert!(of("null").unwrap().groups["app"].is_empty());
}

fn place() -> impl proptest::strategy::Strategy<Value = Place> {
    use proptest::prelude::*;
    ("[ab]", 1_u32..3, any::<bool>()).prop_map(|(region, cpus, standby)| Place {
        region,
        cpu_kind: "shared".to_owned(),
        cpus,
        memory_mb: 256,
        standby,
    })
}

proptest::proptest! {
    /// Step by step any fleet becomes the one that is wanted, nothing is taken away too early, and
    /// then there is no step.
    #[test]
    fn steps_lead_to_what_is_wanted(
        wanted in proptest::collection::vec(place(), 0..6),
        there in proptest::collection::vec(place(), 0..6),
    ) {
        let mut observed: Vec<(String, Place)> =
            there.into_iter().enumerate().map(|(n, p)| (format!("old{n}"), p)).collect();
        let mut steps = 0;
        while let Some(step) = next(&wanted, &observed) {
            match step {
                Step::Create(place) => observed.push((format!("new{steps}"), place)),
                Step::Destroy(id) => {
                    proptest::prop_assert!(observed.len() > wanted.len());
                    observed.retain(|(other, _)| *other != id);
                }
            }
            steps += 1;
            proptest::prop_assert!(steps <= 12);
        }
        let mut places: Vec<Place> = observed.into_iter().map(|(_, place)| place).collect();
        let mut wanted = wanted;
        places.sort();
        wanted.sort();
        proptest::prop_assert_eq!(places, wanted);
    }
}
