//! `hangar scale`: counts, sizes, and what is said before and after.

use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::strategies::{has_told, toml};
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

/// Returns what the server keeps for a group.
fn formation(world: &World, app: &str, group: &str) -> Value {
    let path = format!("/v1/apps/{app}/formation");
    let answer = world.api("GET", &path, Some(&world.token()));
    let all: Value = serde_json::from_str(&answer.body).unwrap();
    all["groups"][group].clone()
}

/// Starts a command and goes on.
fn begin(world: &World, words: &[&str]) -> Child {
    let mut command = world.command(env!("CARGO_BIN_EXE_hangar"));
    command.args(words).stderr(Stdio::piped());
    command.spawn().unwrap()
}

#[test]
fn the_server_places_what_is_asked_for_and_keeps_it_so() {
    let Some(world) = World::start() else { return };
    deployed(&world, "place", "");
    let scale = |words: &[&str]| {
        let all = [&["scale", "count", "-a", "place", "--yes"], words].concat();
        world.ok(&all).stderr
    };
    // Two groups at once.
    let told = scale(&[
        "web=4",
        "worker=2",
        "-r",
        "iad,gru",
        "--max-per-region",
        "2",
    ]);
    for line in [
        "App 'place' is going to be scaled according to this plan:",
        "  +1 machines for group 'web' on region 'iad' of size 'shared-cpu-1x'",
        "  +2 machines for group 'web' on region 'gru' of size 'shared-cpu-1x'",
        "  +1 machines for group 'worker' on region 'iad' of size 'shared-cpu-1x'",
        "Executing scale plan",
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
    assert_eq!(told.matches("  Created ").count(), 4, "{told}");
    let two = |a: usize, b: usize| vec![("gru".to_owned(), a), ("iad".to_owned(), b)];
    assert_eq!(regions(&world, "place", "web"), two(2, 2));
    let twice = [("iad".to_owned(), 2)];
    assert_eq!(regions(&world, "place", "worker"), twice);
    let kept = formation(&world, "place", "web");
    assert_eq!(kept["regions"], json!({"gru": 2, "iad": 2}));
    assert_eq!(kept["max_per_region"], 2);

    // All or none: there is no room for a fifth, and so worker stays too.
    let five = [
        "scale", "count", "-a", "place", "--yes", "web=5", "worker=3",
    ];
    let full = world.fails(2, &five);
    assert!(full.contains("do not fit"), "{full}");
    let mars = [&five[..5], &["web=3", "worker=3", "-r", "iad,mars"]].concat();
    let said = world.fails(1, &mars);
    assert!(said.contains("region mars is not offered here"), "{said}");
    assert_eq!(regions(&world, "place", "web"), two(2, 2));
    assert_eq!(regions(&world, "place", "worker"), twice);

    // The limit is kept until it is taken away.
    scale(&["web=5", "--max-per-region", "-1"]);
    assert_eq!(
        formation(&world, "place", "web")["max_per_region"],
        json!(null)
    );
    assert_eq!(world.of_group("place", "web").len(), 5);
    let told = scale(&["web=1", "worker=0"]);
    assert_eq!(told.matches("  Destroyed ").count(), 6, "{told}");
    assert_eq!(world.of_group("place", "web").len(), 1);
    assert!(world.of_group("place", "worker").is_empty());
}

#[test]
fn a_group_that_comes_back_from_0_is_as_large_as_it_was() {
    let Some(world) = World::start() else { return };
    deployed(&world, "back", "");
    let worker = world.only("back", "worker");
    let size = ["machine", "update", &worker, "-a", "back", "--vm-size"];
    world.ok(&[&size[..], &["shared-cpu-2x", "-y"]].concat());
    world.ok(&["scale", "count", "worker=0", "-a", "back", "-y"]);
    assert!(world.of_group("back", "worker").is_empty());
    let told = world.ok(&["scale", "count", "worker=+2", "-a", "back", "-y"]);
    let line = "  +2 machines for group 'worker' on region 'iad' of size 'shared-cpu-2x'";
    assert!(told.stderr.contains(line), "{told:?}");
    let machines = world.of_group("back", "worker");
    assert_eq!(machines.len(), 2);
    for machine in machines {
        assert_eq!(machine["config"]["guest"]["cpus"], 2, "{machine}");
    }
}

#[test]
fn a_client_that_is_interrupted_or_killed_leaves_it_to_the_server() {
    let Some(mut world) = World::start() else {
        return;
    };
    deployed(&world, "gone", "");
    let web = world.only("gone", "web");
    let lease = format!("/v1/apps/gone/machines/{web}/lease?ttl=300");
    for (count, signal) in [(3, Signal::INT), (5, Signal::KILL)] {
        // Somebody leases a Machine of the group: the server waits for them, and so does the client.
        let held = world.api("POST", &lease, Some(&world.token()));
        assert_eq!(held.status, 201, "{held:?}");
        let words = format!("web={count}");
        let mut child = begin(&world, &["scale", "count", &words, "-a", "gone", "-y"]);
        world.eventually("the server has it", |world| {
            (formation(world, "gone", "web")["count"] == count).then_some(())
        });
        kill_process(Pid::from_child(&child), signal).unwrap();
        let status = world.eventually("the client is gone", |_| child.try_wait().unwrap());
        assert!(!status.success());
        if signal == Signal::KILL {
            world.kill_server();
            world.start_server();
        }
        let expected = usize::try_from(count).unwrap();
        assert!(world.of_group("gone", "web").len() < expected);
        world.ok(&["machine", "leases", "clear", &web, "-a", "gone"]);
        world.eventually("the server goes on", |world| {
            (world.of_group("gone", "web").len() == expected).then_some(())
        });
    }
}

#[test]
fn during_a_deploy_counts_are_refused_before_anything_is_said() {
    let Some(world) = World::start() else { return };
    let folder = world.app("busy", &toml("busy", "1", "rolling", ""));
    world.ok(&["deploy", &folder, "--ha=false"]);
    let slow = toml("busy", "2", "rolling", "DELAY_MS = \"60000\"");
    world.app("busy", &slow);
    let mut child = begin(&world, &["deploy", &folder]);
    world.eventually("the deploy is under way", |world| {
        has_told(world, "busy", "Updating Machine").then_some(())
    });
    let said = world.fails(1, &["scale", "count", "3", "-a", "busy", "-y"]);
    assert!(said.contains("app busy is being deployed"), "{said}");
    assert!(!said.contains("is going to be scaled"), "{said}");
    assert_eq!(world.machines("busy").len(), 1);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    world.eventually("the deploy is undone", |_| child.try_wait().unwrap());
    world.ok(&["scale", "count", "3", "-a", "busy", "-y"]);
    assert_eq!(world.machines("busy").len(), 3);
}
