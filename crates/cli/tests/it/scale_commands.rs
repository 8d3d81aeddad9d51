//! `hangar scale`: counts, sizes, and what is said before and after.

use serde_json::json;

use crate::world::{IMAGE, World, fly_toml, service};

fn deployed(world: &World, app: &str, rest: &str) -> String {
    let groups = "[processes]\nweb = \"serve\"\nworker = \"lines 1 0\"\n";
    let toml = fly_toml(app, &format!("{groups}{}{rest}", service(&["web"])));
    let folder = world.app(app, &toml);
    world.ok(&["deploy", &folder, "--ha=false", "--smoke-checks=false"]);
    folder
}

/// Returns how many Machines of a group each region has.
fn regions(world: &World, app: &str, group: &str) -> Vec<(String, usize)> {
    let mut all: Vec<String> = world
        .of_group(app, group)
        .iter()
        .map(|m| m["region"].as_str().unwrap().to_owned())
        .collect();
    all.sort();
    let mut counted: Vec<(String, usize)> = Vec::new();
    for region in all {
        match counted.last_mut() {
            Some((last, count)) if *last == region => *count += 1,
            _ => counted.push((region, 1)),
        }
    }
    counted
}

#[test]
fn counts_are_planned_shown_asked_for_and_carried_out() {
    let Some(world) = World::start() else { return };
    deployed(&world, "count", "");
    let scale = |words: &[&str]| world.ok(&[&["scale", "count", "-a", "count"], words].concat());
    // Nobody is there to say yes, and nothing was done.
    let asked = world.fails(2, &["scale", "count", "web=2", "-a", "count"]);
    for line in [
        "App 'count' is going to be scaled according to this plan:",
        "  +1 machines for group 'web' on region 'iad' of size 'shared-cpu-1x'",
        "Scale app count?",
    ] {
        assert!(asked.contains(line), "{line}: {asked}");
    }
    assert_eq!(world.of_group("count", "web").len(), 1);
    let leases = world.ok(&["machine", "leases", "view", "-a", "count"]);
    assert_eq!(leases.stdout, "No leases found\n");

    let words = ["web=2", "worker=+1", "--yes", "--env", "NEW=1"];
    let told = scale(&words).stderr;
    assert!(
        told.contains("Executing scale plan") && told.contains("  Created "),
        "{told}"
    );
    let machines = world.of_group("count", "web");
    let new: Vec<_> = machines
        .iter()
        .map(|m| m["config"]["env"]["NEW"].clone())
        .collect();
    assert!(
        new.contains(&json!("1")) && new.contains(&json!(null)),
        "{new:?}"
    );
    assert_eq!(world.of_group("count", "worker").len(), 2);
    let same = scale(&["web=2", "--yes"]).stderr;
    assert!(
        same.contains("App already scaled to desired state"),
        "{same}"
    );

    // Round robin over the regions named; what is elsewhere does not count.
    scale(&["5", "-g", "web", "-r", "iad,gru,ams", "--yes"]);
    let spread = [("ams", 1), ("gru", 1), ("iad", 3)];
    let expected = spread.map(|(r, n)| (r.to_owned(), n));
    assert_eq!(regions(&world, "count", "web"), expected);
    let most = ["web=5", "-r", "iad,gru", "--max-per-region", "2", "--yes"];
    let full = world.fails(2, &[&["scale", "count", "-a", "count"], &most[..]].concat());
    assert!(full.contains("do not fit"), "{full}");
    scale(&["web=4", "-r", "iad,gru", "--max-per-region", "2", "--yes"]);
    let expected = [("ams", 1), ("gru", 2), ("iad", 2)].map(|(r, n)| (r.to_owned(), n));
    assert_eq!(regions(&world, "count", "web"), expected);
    let told = scale(&["-2", "--process-group", "web", "--yes"]).stderr;
    assert!(told.contains("  Destroyed "), "{told}");
    assert_eq!(world.of_group("count", "web").len(), 3);

    // A bare number is for the group app, and this app has none.
    let unknown = world.fails(2, &["scale", "count", "3", "-a", "count"]);
    assert!(
        unknown.contains("unknown process groups [app] but valid names are [web worker]"),
        "{unknown}"
    );
    let shown = world.ok(&["scale", "show", "-a", "count"]).stdout;
    assert!(shown.contains("VM Resources for app: count"), "{shown}");
}

#[test]
fn a_group_that_has_none_gets_machines_of_the_release_and_the_size_asked_for() {
    let Some(world) = World::start() else { return };
    let folder = world.app("size", &fly_toml("size", &service(&[])));
    world.ok(&["deploy", &folder, "--ha=false", "--smoke-checks=false"]);
    let scale = |words: &[&str]| world.ok(&[&["scale", "count", "-a", "size"], words].concat());
    scale(&["0", "--yes"]);
    assert!(world.machines("size").is_empty());
    scale(&[
        "1",
        "--yes",
        "--vm-size",
        "shared-cpu-2x",
        "--vm-memory",
        "1gb",
    ]);
    let config = world.machines("size")[0]["config"].clone();
    assert_eq!(
        config["guest"],
        json!({"cpu_kind": "shared", "cpus": 2, "memory_mb": 1024})
    );
    assert_eq!(config["services"][0]["internal_port"], 8080);
    let wrong = ["scale", "count", "2", "-a", "size", "--vm-size", "huge"];
    let said = world.fails(2, &wrong);
    assert!(said.contains("unknown size"), "{said}");
}

#[test]
fn the_size_of_a_group_is_changed_within_what_is_offered() {
    let Some(world) = World::start() else { return };
    let vm = "[[vm]]\nsize = \"shared-cpu-1x\"\nprocesses = [\"worker\"]\n";
    let folder = deployed(&world, "grow", vm);
    world.ok(&["scale", "count", "web=2", "-a", "grow", "--yes"]);
    let which = world.fails(2, &["scale", "vm", "shared-cpu-2x", "-a", "grow"]);
    assert!(
        which.contains("'--process-group <name>'") && which.contains("['web', 'worker']"),
        "{which}"
    );
    let ran = world.ok(&["scale", "vm", "shared-cpu-2x", "-g", "web", "-a", "grow"]);
    assert_eq!(
        ran.stdout,
        "Scaled VM Type for 'web' to 'shared-cpu-2x'\n      CPU Cores: 2\n         Memory: 512 MB\n"
    );
    for machine in world.of_group("grow", "web") {
        assert_eq!(machine["config"]["guest"]["memory_mb"], 512);
        assert_eq!(machine["state"], "started");
    }
    assert!(
        world
            .get("grow", "/env")
            .body
            .contains("FLY_VM_MEMORY_MB=512")
    );
    let ran = world.ok(&["scale", "memory", "1gb", "--group", "web", "-a", "grow"]);
    assert!(ran.stdout.contains("Memory: 1 GB"), "{}", ran.stdout);
    let words = ["scale", "vm", "shared-cpu-4x", "-g", "web", "-a", "grow"];
    let ran = world.ok(&[&words[..], &["--vm-memory", "2048"]].concat());
    assert!(ran.stdout.contains("Memory: 2 GB"), "{}", ran.stdout);
    for (words, code, why) in [
        (&["vm", "huge", "-g", "web"][..], 2, "unknown size"),
        (&["memory", "100", "-g", "web"], 2, "multiple of 256"),
        (&["memory", "64gb", "-g", "web"], 2, "too high"),
        (&["memory", "much", "-g", "web"], 2, "invalid size"),
        (
            &["memory", "512", "-g", "none"],
            1,
            "No active machines in process group 'none'",
        ),
    ] {
        let said = world.fails(code, &[&["scale"], words, &["-a", "grow"]].concat());
        assert!(said.contains(why), "{words:?}: {said}");
    }
    // No release is made, and a deploy of a group without [[vm]] keeps the size; of one with, it
    // takes it back, which is said.
    assert_eq!(
        world
            .json(&["releases", "-a", "grow"])
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let words = [
        "scale",
        "vm",
        "shared-cpu-2x",
        "-g",
        "worker",
        "-c",
        &folder,
    ];
    let warned = world.ok(&words).stderr;
    assert!(
        warned.contains("[[vm]] section with different settings"),
        "{warned}"
    );
    world.ok(&["deploy", &folder, "--ha=false", "--smoke-checks=false"]);
    let guest = |group: &str| world.of_group("grow", group)[0]["config"]["guest"].clone();
    assert_eq!(guest("web")["cpus"], 4);
    assert_eq!(guest("worker")["cpus"], 1);
}

#[test]
fn what_can_be_had_is_listed() {
    let Some(world) = World::start() else { return };
    world.ok(&["apps", "create", "sizes"]);
    let listed = world.ok(&["platform", "vm-sizes"]).stdout;
    for row in ["shared-cpu-8x", "performance-16x", "CPU CORES", "256 MB"] {
        assert!(listed.contains(row), "{row}: {listed}");
    }
    // What is listed can be had.
    let all = world.json(&["platform", "vm-sizes"]);
    assert_eq!(all.as_array().unwrap().len(), 14);
    let biggest = all[4]["name"].as_str().unwrap();
    let made = world.ok(&[
        "machine",
        "create",
        "-a",
        "sizes",
        IMAGE,
        "serve",
        "--vm-size",
        biggest,
    ]);
    assert!(made.stdout.contains("successfully created"), "{made:?}");
}
