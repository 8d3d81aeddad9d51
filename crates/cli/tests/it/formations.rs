//! Formations from outside: the per-process commands, what the server repairs by itself, and what
//! becomes of a group at each change of `[processes]`.

use serde_json::{Value, json};

use crate::world::{API, World, fly_toml, request, service};

const GROUPS: &str = "[processes]\nweb = \"serve\"\nworker = \"lines 1 0\"\n";

/// Deploys web and worker, one Machine each.
fn two_groups(world: &World, app: &str) -> String {
    let toml = fly_toml(app, &format!("{GROUPS}{}", service(&["web"])));
    let folder = world.app(app, &toml);
    world.ok(&["deploy", &folder, "--ha=false", "--smoke-checks=false"]);
    folder
}

/// Writes another fly.toml and deploys it.
fn redeploy(world: &World, app: &str, groups: &str) -> String {
    let folder = world.app(app, &fly_toml(app, groups));
    let args = [
        "deploy",
        &folder,
        "--ha=false",
        "--smoke-checks=false",
        "-y",
    ];
    world.ok(&args).stderr
}

fn text(machine: &Value, key: &str) -> String {
    machine[key].as_str().unwrap().to_owned()
}

fn is_there(machine: &Value) -> bool {
    !["destroying", "destroyed"].contains(&machine["state"].as_str().unwrap())
}

/// Returns a group's Machines that are neither gone nor going, as `region state`, sorted.
fn places(world: &World, app: &str, group: &str) -> Vec<String> {
    let here = world.of_group(app, group).into_iter().filter(is_there);
    let mut all: Vec<String> = here
        .map(|m| format!("{} {}", text(&m, "region"), text(&m, "state")))
        .collect();
    all.sort();
    all
}

fn comes_to(world: &World, app: &str, group: &str, wanted: &[&str]) {
    world.eventually(&format!("{group} comes to {wanted:?}"), |world| {
        (places(world, app, group) == wanted).then_some(())
    });
}

#[test]
fn a_pool_of_regions_is_set_grown_and_shrunk_group_by_group() {
    let Some(world) = World::start() else { return };
    two_groups(&world, "pool");
    let listed = |world: &World| world.ok(&["regions", "list", "-a", "pool"]).stdout;
    assert_eq!(
        listed(&world),
        "Regions [web]: iad\nRegions [worker]: iad\n"
    );

    world.ok(&["scale", "count", "worker=2", "-a", "pool", "-y"]);
    let ran = world.ok(&[
        "regions", "set", "gru", "iad", "--group", "worker", "-a", "pool", "-y",
    ]);
    assert_eq!(ran.stdout, "Region Pool: \ngru\niad\nBackup Region: \n");
    for line in [
        "App 'pool' is going to be scaled according to this plan:",
        "  +1 machines for group 'worker' on region 'gru' of size 'shared-cpu-1x'",
        "  -1 machines for group 'worker' on region 'iad' of size 'shared-cpu-1x'",
        "Executing scale plan",
        "  Created ",
        "  Destroyed ",
    ] {
        assert!(ran.stderr.contains(line), "{ran:?}");
    }
    comes_to(&world, "pool", "worker", &["gru started", "iad started"]);
    assert_eq!(
        places(&world, "pool", "web"),
        ["iad started"],
        "its own group only"
    );

    let ran = world.ok(&[
        "regions", "remove", "iad", "-g", "worker", "-a", "pool", "-y", "--json",
    ]);
    let shown: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(shown, json!({"Regions": ["gru"], "BackupRegions": []}));
    comes_to(&world, "pool", "worker", &["gru started", "gru started"]);

    // Without a group all of them; and where nothing moves, nobody is asked.
    let ran = world.ok(&["regions", "backup", "ams", "-a", "pool"]);
    assert!(
        ran.stdout
            .contains("Region Pool [web]: \niad\nBackup Region [web]: \nams\n"),
        "{ran:?}"
    );
    let json = world.json(&["regions", "list", "-a", "pool"]);
    assert_eq!(
        json,
        json!({"ProcessGroupRegions": [
            {"Name": "web", "Regions": ["iad"], "BackupRegions": ["ams"]},
            {"Name": "worker", "Regions": ["gru"], "BackupRegions": ["ams"]},
        ]})
    );
    world.ok(&["regions", "backup", "none", "-a", "pool"]);
    assert_eq!(
        listed(&world),
        "Regions [web]: iad\nRegions [worker]: gru\n"
    );
}

#[test]
fn regions_that_cannot_be_are_refused_in_words() {
    let Some(world) = World::start() else { return };
    two_groups(&world, "pool");
    let said = world.fails(2, &["regions", "set", "gru", "-g", "worker", "-a", "pool"]);
    assert!(said.contains("say yes with --yes"), "{said}");
    let said = world.fails(1, &["regions", "add", "mars", "-a", "pool", "-y"]);
    assert!(said.contains("region mars is not offered here"), "{said}");
    let said = world.fails(
        2,
        &["regions", "add", "iad", "-g", "wroker", "-a", "pool", "-y"],
    );
    assert!(
        said.contains("no process group wroker; it has web, worker"),
        "{said}"
    );
    let said = world.fails(
        1,
        &[
            "regions", "remove", "iad", "-g", "worker", "-a", "pool", "-y",
        ],
    );
    assert!(said.contains("at least one region"), "{said}");
}

#[test]
fn what_nobody_asked_for_is_repaired_and_what_somebody_asked_for_is_not() {
    let Some(mut world) = World::start() else {
        return;
    };
    two_groups(&world, "drift");
    world.ok(&["scale", "count", "web=2", "-a", "drift", "-y"]);
    let before = world.of_group("drift", "web");
    let slot = text(&before[0], "slot");
    world.ok(&["slots", "lost", &slot]);
    world.eventually("web is whole without the lost slot", |world| {
        let web: Vec<Value> = world
            .of_group("drift", "web")
            .into_iter()
            .filter(is_there)
            .collect();
        let good = |m: &Value| m["state"] == "started" && m["slot"] != slot.as_str();
        (web.len() == 2 && web.iter().all(good)).then_some(())
    });
    assert_eq!(
        places(&world, "drift", "web"),
        ["iad started", "iad started"]
    );
    world.ok(&["slots", "back", &slot]);

    // A client that clones, stops and destroys by itself, and a server that starts anew.
    let mut workers = world
        .of_group("drift", "worker")
        .into_iter()
        .filter(is_there);
    let worker = text(&workers.next_back().unwrap(), "id");
    world.ok(&[
        "machine", "clone", &worker, "--region", "gru", "-a", "drift",
    ]);
    world.ok(&["machine", "stop", &worker, "-a", "drift"]);
    world.kill_server();
    world.start_server();
    let mut web = world.of_group("drift", "web").into_iter().filter(is_there);
    let gone = text(&web.next_back().unwrap(), "id");
    world.ok(&["machine", "destroy", &gone, "--force", "-a", "drift"]);
    let regions = world.ok(&["regions", "list", "-a", "drift"]).stdout;
    assert_eq!(regions, "Regions [web]: iad\nRegions [worker]: gru, iad\n");
    let status = world.ok(&["status", "-a", "drift"]).stdout;
    let line = |group: &str| {
        let start = format!(" {group} ");
        let line = status.lines().find(|l| l.starts_with(&start)).unwrap();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("web"), "web 1 shared-cpu-1x 256 MB iad");
    assert_eq!(line("worker"), "worker 2 shared-cpu-1x 256 MB gru,iad");
    assert_eq!(
        places(&world, "drift", "worker"),
        ["gru started", "iad stopped"]
    );
}

#[test]
fn a_machine_that_failed_beyond_its_restart_policy_is_started_again_later() {
    let Some(world) = World::start() else { return };
    let toml = "[processes]\nweb = \"serve\"\njob = \"exit 3\"\n\n[[restart]]\npolicy = \"on-failure\"\nretries = 1\nprocesses = [\"job\"]\n";
    let folder = world.app("again", &fly_toml("again", toml));
    let args = [
        "deploy",
        &folder,
        "--ha=false",
        "--smoke-checks=false",
        "--strategy",
        "immediate",
    ];
    world.hangar(&args);
    let job = world.only("again", "job");
    let starts = |world: &World| {
        let machine = world.machine("again", &job);
        let events = machine["events"].as_array().unwrap().clone();
        events
            .iter()
            .filter(|e| e["type"] == "start" && e["source"] == "flyd")
            .count()
    };
    let down = |world: &World| {
        let machine = world.machine("again", &job);
        let why = machine["reason"].as_str().unwrap_or_default().to_owned();
        (machine["state"] == "stopped" && why.contains("max restart count")).then_some(())
    };
    world.eventually("it has failed beyond its policy", down);
    let tried = starts(&world);
    world.eventually("status says so", |world| {
        let status = world.ok(&["status", "-a", "again"]).stdout;
        let says = format!("job: Machine {job} failed (machine has reached its max restart count");
        (status.contains(&says) && status.contains("it is started again at")).then_some(())
    });
    world.eventually("it is tried again", |world| {
        (starts(world) > tried).then_some(())
    });

    // Once somebody stops it, it is down on purpose.
    world.eventually("it has failed again", down);
    world.ok(&["machine", "stop", &job, "-a", "again"]);
    let status = world.ok(&["status", "-a", "again"]).stdout;
    assert!(!status.contains("started again"), "{status}");
}

#[test]
fn a_group_at_0_keeps_its_size_and_stays_at_0_through_deploys() {
    let Some(world) = World::start() else { return };
    let folder = two_groups(&world, "zero");
    world.ok(&["scale", "count", "worker=0", "-a", "zero", "-y"]);
    let deploy = ["deploy", &folder, "--smoke-checks=false"];
    let ran = world.ok(&[&deploy[..], &["--dry-run"]].concat());
    assert!(
        ran.stdout
            .contains("leave \"worker\" without machines: it is scaled to 0"),
        "{ran:?}"
    );
    let ran = world.ok(&deploy);
    assert!(
        ran.stderr.contains("hangar scale count worker=1"),
        "{ran:?}"
    );
    assert!(places(&world, "zero", "worker").is_empty());

    let ran = world.ok(&["scale", "vm", "shared-cpu-2x", "-g", "worker", "-a", "zero"]);
    assert!(
        ran.stdout
            .contains("Scaled VM Type for 'worker' to 'shared-cpu-2x'"),
        "{ran:?}"
    );
    let status = world.ok(&["status", "-a", "zero"]).stdout;
    assert!(status.contains("shared-cpu-2x 512 MB"), "{status}");
    world.ok(&["regions", "set", "gru", "-g", "worker", "-a", "zero", "-y"]);
    assert!(places(&world, "zero", "worker").is_empty());
    let body = json!({"groups": {"worker": {"count": 2}}});
    let head = format!(
        "authorization: Bearer {}\r\ncontent-type: application/json\r\n",
        world.token()
    );
    let path = "/v1/apps/zero/formation";
    let send = || {
        request(
            API,
            "PUT",
            path,
            "localhost",
            &head,
            body.to_string().as_bytes(),
        )
    };
    let answer = world.inside(send).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    comes_to(&world, "zero", "worker", &["gru started", "gru started"]);
    let sizes = world
        .of_group("zero", "worker")
        .into_iter()
        .filter(is_there);
    for machine in sizes {
        assert_eq!(machine["config"]["guest"]["cpus"], 2, "{machine}");
    }
    world.ok(&deploy);
    assert_eq!(
        places(&world, "zero", "worker"),
        ["gru started", "gru started"]
    );
}

#[test]
fn the_pools_of_groups_that_are_gone_steer_nothing() {
    let Some(world) = World::start() else { return };
    let listed = |world: &World| world.ok(&["regions", "list", "-a", "old"]).stdout;
    // No [processes]: one group, `app`.
    redeploy(&world, "old", &service(&[]));
    assert_eq!(listed(&world), "Regions [app]: iad\n");
    world.ok(&["regions", "set", "gru", "-a", "old", "-y"]);

    // [processes] is added.
    redeploy(&world, "old", GROUPS);
    assert_eq!(
        listed(&world),
        "Regions [web]: iad\nRegions [worker]: iad\n"
    );
    assert!(places(&world, "old", "app").is_empty());
    world.ok(&[
        "regions", "set", "ams", "gru", "-g", "worker", "-a", "old", "-y",
    ]);
    world.ok(&[
        "scale", "count", "worker=2", "-r", "ams,gru", "-a", "old", "-y",
    ]);

    // A group is renamed.
    redeploy(&world, "old", &GROUPS.replace("worker", "jobs"));
    assert_eq!(listed(&world), "Regions [jobs]: iad\nRegions [web]: iad\n");
    assert_eq!(places(&world, "old", "jobs"), ["iad started"]);
    assert!(places(&world, "old", "worker").is_empty());

    // And brought back.
    redeploy(&world, "old", GROUPS);
    assert_eq!(places(&world, "old", "worker"), ["iad started"]);
    world.ok(&["regions", "set", "ams", "-g", "web", "-a", "old", "-y"]);

    // The whole section is deleted: what the pools were steers nobody.
    redeploy(&world, "old", &service(&[]));
    assert_eq!(listed(&world), "Regions [app]: iad\n");
    assert_eq!(places(&world, "old", "app"), ["iad started"]);
    world.ok(&["scale", "count", "2", "-a", "old", "-y"]);
    comes_to(&world, "old", "app", &["iad started", "iad started"]);
    assert_eq!(
        world.machines("old").into_iter().filter(is_there).count(),
        2
    );
}
