use super::*;

const MACHINES: &str = r#"[
 {"id": "1", "state": "started", "region": "iad", "config": {"image": "x", "guest": {"cpu_kind": "shared", "cpus": 1, "memory_mb": 512},
  "env": {"MODE": "a", "HAND": "b", "FLY_PROCESS_GROUP": "web"}, "metadata": {"fly_platform_version": "v2", "fly_process_group": "web"}}},
 {"id": "2", "state": "stopped", "region": "iad", "config": {"image": "x", "guest": {"cpu_kind": "shared", "cpus": 1, "memory_mb": 512},
  "metadata": {"fly_platform_version": "v2", "fly_process_group": "web"}}},
 {"id": "3", "state": "started", "region": "syd", "config": {"image": "x", "guest": {"cpu_kind": "performance", "cpus": 2, "memory_mb": 4096},
  "schedule": "daily", "mounts": [{"volume": "vol_1", "path": "/data"}], "metadata": {"fly_platform_version": "v2", "fly_process_group": "worker"}}},
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
        volumes: Some(r#"[{"id": "vol_1", "name": "data", "size_gb": 3, "region": "syd", "attached_machine_id": "3", "snapshot_retention": 9},
            {"id": "vol_2", "name": "old", "size_gb": 1, "region": "iad", "attached_machine_id": null},
            {"id": "vol_3", "name": "gone", "size_gb": 1, "region": "iad", "state": "pending_destroy"}]"#),
        secrets: Some(r#"[{"name": "B", "digest": "x"}, {"Name": "A"}]"#),
        groups: &groups,
        mounted: &BTreeMap::from([("worker".to_owned(), "data".to_owned())]),
        env: &env,
        regions: &regions,
    })
    .unwrap();
    assert_eq!(
        describe(&plan).join("\n"),
        " * process group \"cron\": no Machines
 * create 2 \"web\" machines in iad of size shared-cpu-1x with 512 MB
 * create 1 \"worker\" machine in ams of size performance-2x with 4096 MB and volume data, daily, begun by its first start
 * create 1 \"worker\" standby machine in iad of size shared-cpu-1x with 256 MB
 * create volume data (3 GB) in ams, empty, for a \"worker\" machine
 * create volume old (1 GB) in iad, empty, attached to no Machine
 * by hand: what is in the volumes is not copied; the commands for it come at the end
 * by hand, Fly does not give their values: secrets A, B"
    );
    let notes: Vec<String> = plan.notes.iter().map(ToString::to_string).collect();
    assert!(
        notes[0].contains("Machine 1: has variables") && notes[0].ends_with("HAND"),
        "{notes:?}"
    );
    assert!(
        notes[1].contains("Machine 4: has no volume, although"),
        "{notes:?}"
    );
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
            mounted: &BTreeMap::new(),
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
        volume: None,
        schedule: None,
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

fn disk(name: &str, region: &str, size_gb: u64) -> Disk {
    Disk {
        id: "vol_x".to_owned(),
        name: name.to_owned(),
        region: region.to_owned(),
        size_gb,
        retention: Some(9),
        scheduled_snapshots: Some(false),
        attached: None,
    }
}

fn volume(name: &str, region: &str, size_gb: u64) -> hangar_api::volume::Volume {
    serde_json::from_value(serde_json::json!({
        "id": "vol_0123456789abcdef", "name": name, "state": "created", "size_gb": size_gb,
        "region": region, "zone": "a", "encrypted": false, "created_at": "2026-01-01T00:00:00Z",
    }))
    .unwrap()
}

#[test]
fn volumes_are_counted_by_region_and_name_and_a_larger_one_will_do() {
    let wanted = [
        disk("data", "iad", 1),
        disk("data", "iad", 10),
        disk("logs", "iad", 1),
    ];
    let sizes = |there: &[hangar_api::volume::Volume]| {
        let missing = disks::compare(&wanted, there).missing.into_iter();
        missing
            .map(|d| (d.name.clone(), d.size_gb))
            .collect::<Vec<_>>()
    };
    let of = |name: &str, gb| (name.to_owned(), gb);
    assert_eq!(sizes(&[]).len(), 3);
    // One large one is not two, and a small one is no large one.
    let one = [volume("data", "iad", 10), volume("logs", "ams", 5)];
    assert_eq!(sizes(&one), [of("data", 1), of("logs", 1)]);
    let small = [volume("data", "iad", 2), volume("data", "iad", 3)];
    assert_eq!(sizes(&small), [of("data", 10), of("logs", 1)]);
    let all = [
        volume("logs", "iad", 1),
        volume("data", "iad", 12),
        volume("data", "iad", 4),
    ];
    assert_eq!(sizes(&all), []);
    let mut going = volume("logs", "iad", 1);
    going.state = hangar_api::volume::VolumeState::PendingDestroy;
    let with_one_going = [going, volume("data", "iad", 12), volume("data", "iad", 4)];
    assert_eq!(sizes(&with_one_going), [of("logs", 1)]);
    let beside = [volume("data", "iad", 1), volume("other", "iad", 1)];
    let more = disks::compare(&wanted, &beside).more;
    assert_eq!(more.len(), 1);
    assert_eq!(more[0].name, "other");
    let request = disk("data", "iad", 3).request();
    assert_eq!(request.size_gb, Some(3));
    assert_eq!(request.snapshot_retention, Some(9));
    assert_eq!(request.auto_backup_enabled, Some(false));
}

#[test]
fn each_copy_goes_to_a_machine_of_its_own_and_large_to_large() {
    let place = Place {
        region: "iad".to_owned(),
        cpu_kind: "shared".to_owned(),
        cpus: 1,
        memory_mb: 256,
        standby: false,
        volume: Some("data".to_owned()),
        schedule: None,
    };
    let copy = |from: &str, size_gb| Copy {
        from: from.to_owned(),
        path: "/data".to_owned(),
        group: "db".to_owned(),
        place: place.clone(),
        size_gb,
    };
    let machine = |id: &str, size_gb: u64| -> hangar_api::machine::Machine {
        serde_json::from_value(serde_json::json!({
            "id": id, "name": "x", "state": "started", "region": "iad",
            "instance_id": "01ARZ3NDEKTSV4RRFFQ69G5E00", "private_ip": "fdaa::1",
            "created_at": "2023-11-14T22:00:00Z", "updated_at": "2023-11-14T22:00:00Z",
            "config": {"image": "a", "metadata": {"fly_process_group": "db"},
                "mounts": [{"volume": "v", "path": "/here", "size_gb": size_gb}]},
            "image_ref": {"registry": "r", "repository": "a", "tag": "", "digest": ""},
        }))
        .unwrap()
    };
    let copies = [copy("small", 1), copy("large", 10), copy("third", 1)];
    let machines = [machine("00000000000001", 1), machine("00000000000002", 10)];
    let pairs = disks::pairs(&copies, &machines, |_| place.clone());
    let told: Vec<(&str, &str)> = pairs
        .iter()
        .map(|pair| (pair.copy.from.as_str(), pair.to.as_str()))
        .collect();
    assert_eq!(
        told,
        [("large", "00000000000002"), ("small", "00000000000001")]
    );
    assert_eq!(
        pairs[0].command("there", "here"),
        "fly ssh console -a there --machine large -C \"tar -C /data -cf - .\" | hangar ssh console -a here --machine 00000000000002 -C \"tar -C /here -xf -\""
    );
    assert!(disks::pairs(&copies, &[], |_| place.clone()).is_empty());
}
