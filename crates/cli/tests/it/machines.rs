//! Single Machines: what is asked of them, how they end, and who runs them again.

use serde_json::Value;

use crate::world::{World, fly_toml, service};

/// Deploys one group of one Machine and returns its id.
fn one(world: &World, app: &str, command: &str, rest: &str) -> String {
    let groups = format!("[processes]\napp = \"{command}\"\n");
    let folder = world.app(app, &fly_toml(app, &format!("{groups}{rest}")));
    world.ok(&["deploy", &folder, "--ha=false", "--smoke-checks=false"]);
    world.only(app, "app")
}

fn state(world: &World, app: &str, id: &str) -> String {
    world.machine(app, id)["state"].as_str().unwrap().to_owned()
}

fn events(world: &World, app: &str, id: &str) -> Vec<String> {
    let machine = world.machine(app, id);
    let events = machine["events"].as_array().unwrap();
    events
        .iter()
        .map(|event| event["type"].as_str().unwrap().to_owned())
        .collect()
}

/// Returns how often a Machine has said a line.
fn said(world: &World, app: &str, line: &str) -> usize {
    let log = world.logs(app);
    log.lines()
        .filter(|l| l.ends_with(&format!("] {line}")))
        .count()
}

#[test]
fn a_machine_is_stopped_started_restarted_and_destroyed() {
    let Some(world) = World::start() else { return };
    let id = one(&world, "life", "serve", &service(&["app"]));
    let app = ["-a", "life"];
    let on = |words: &[&str]| world.ok(&[words, &app].concat());
    on(&["machine", "stop", &id]);
    assert_eq!(state(&world, "life", &id), "stopped");
    on(&["machine", "start", &id]);
    assert_eq!(state(&world, "life", &id), "started");
    on(&["machine", "restart", &id]);
    assert_eq!(state(&world, "life", &id), "started");
    let happened = events(&world, "life", &id);
    for kind in ["launch", "start", "exit", "stop", "restart"] {
        assert!(happened.iter().any(|k| k == kind), "{kind}: {happened:?}");
    }
    let refused = world.fails(1, &["machine", "destroy", &id, "-a", "life"]);
    assert!(refused.contains("--force"), "{refused}");
    assert_eq!(state(&world, "life", &id), "started");
    on(&["machine", "destroy", "--force", &id]);
    assert_eq!(world.machines("life"), Vec::<Value>::new());
    let unknown = world.fails(3, &["machine", "stop", "00000000000000", "-a", "life"]);
    assert!(unknown.contains("00000000000000"), "{unknown}");
}

#[test]
fn a_command_in_a_machine_ends_with_its_own_code_and_output() {
    let Some(world) = World::start() else { return };
    let id = one(&world, "exec", "serve", &service(&["app"]));
    for code in [0, 1, 42] {
        let ran = world.exec("exec", &id, &["exit", &code.to_string()]);
        assert_eq!(ran.code, code);
        assert_eq!(ran.stdout, format!("exiting with {code}\n"));
    }
    let missing = world.hangar(&["machine", "exec", "-a", "exec", &id, "/no/such"]);
    assert_ne!(missing.code, 0);
    assert!(missing.stderr.contains("/no/such"), "{missing:?}");
    world.ok(&["machine", "stop", &id, "-a", "exec"]);
    let stopped = world.exec("exec", &id, &["exit", "0"]);
    assert_ne!(stopped.code, 0);
    assert!(
        stopped.stderr.contains("not started") || stopped.stderr.contains("stopped"),
        "{stopped:?}"
    );
}

#[test]
fn restart_policies_decide_what_runs_again() {
    let Some(world) = World::start() else { return };
    let toml = fly_toml(
        "policy",
        "[processes]\nnever = \"exit 5 10\"\nfailing = \"exit 6 10\"\nfine = \"exit 0 10\"\nalways = \"exit 0 10\"\n\
         [[restart]]\npolicy = \"never\"\nprocesses = [\"never\"]\n\
         [[restart]]\npolicy = \"on-failure\"\nretries = 2\nprocesses = [\"failing\", \"fine\"]\n\
         [[restart]]\npolicy = \"always\"\nretries = 3\nprocesses = [\"always\"]\n",
    );
    let folder = world.app("policy", &toml);
    world.ok(&["deploy", &folder, "--ha=false", "--smoke-checks=false"]);
    for (group, code, runs) in [
        ("never", 5, 1),
        ("failing", 6, 3),
        ("fine", 0, 1),
        ("always", 0, 2),
    ] {
        let id = world.only("policy", group);
        let exits = world.eventually(group, |world| {
            let machine = world.machine("policy", &id);
            let events = machine["events"].as_array().unwrap().clone();
            let exits: Vec<Value> = events.into_iter().filter(|e| e["type"] == "exit").collect();
            let done = group == "always" || machine["state"] == "stopped";
            (done && exits.len() >= runs).then_some(exits)
        });
        if group != "always" {
            assert_eq!(exits.len(), runs, "{group}: {exits:?}");
        }
        for exit in exits {
            assert_eq!(exit["request"]["exit_event"]["exit_code"], code, "{group}");
        }
    }
}

#[test]
fn a_job_that_ended_well_is_run_again_by_nobody() {
    let Some(mut world) = World::start() else {
        return;
    };
    let groups = "[processes]\njob = \"exit 0 10\"\nweb = \"serve\"\n\
                  [[restart]]\npolicy = \"on-failure\"\nprocesses = [\"job\"]\n";
    let toml = fly_toml("job", &format!("{groups}{}", service(&["web"])));
    let folder = world.app("job", &toml);
    world.ok(&["deploy", &folder, "--ha=false", "--smoke-checks=false"]);
    let id = world.only("job", "job");
    world.eventually("the job ends", |world| {
        (state(world, "job", &id) == "stopped").then_some(())
    });
    assert_eq!(said(&world, "job", "exiting with 0"), 1);
    world.stop_server();
    world.start_server();
    world.kill_server();
    world.start_server();
    world.ok(&["apps", "restart", "job"]);
    world.ok(&["scale", "count", "web=2", "-a", "job", "--yes"]);
    world.ok(&["secrets", "set", "A=1", "-a", "job"]);
    assert_eq!(state(&world, "job", &id), "stopped");
    assert_eq!(said(&world, "job", "exiting with 0"), 1);
    // Who asks for it by name gets it.
    world.ok(&["machine", "start", &id, "-a", "job"]);
    world.eventually("it has run again", |world| {
        (said(world, "job", "exiting with 0") == 2).then_some(())
    });
}

#[test]
fn an_update_changes_what_it_names_and_nothing_else() {
    let Some(world) = World::start() else { return };
    let id = one(
        &world,
        "update",
        "serve",
        &format!("[env]\nKEPT = \"1\"\n{}", service(&["app"])),
    );
    let before = world.machine("update", &id);
    world.ok(&[
        "machine",
        "update",
        &id,
        "-a",
        "update",
        "--yes",
        "--env",
        "ADDED=2",
        "--metadata",
        "team=blue",
        "--vm-memory",
        "512",
    ]);
    let after = world.machine("update", &id);
    assert_eq!(after["config"]["env"]["ADDED"], "2");
    assert_eq!(after["config"]["env"]["KEPT"], "1");
    assert_eq!(after["config"]["metadata"]["team"], "blue");
    assert_eq!(after["config"]["guest"]["memory_mb"], 512);
    assert_eq!(after["config"]["services"], before["config"]["services"]);
    assert_ne!(after["instance_id"], before["instance_id"]);
    let env = world.get("update", "/env").body;
    assert!(
        env.contains("ADDED=2") && env.contains("FLY_VM_MEMORY_MB=512"),
        "{env}"
    );
    world.ok(&[
        "machine",
        "update",
        &id,
        "-a",
        "update",
        "--yes",
        "--command",
        "lines 3 1",
        "--skip-health-checks",
    ]);
    world.eventually("the new command runs", |world| {
        (said(world, "update", "line 2") == 1).then_some(())
    });
}

#[test]
fn a_program_that_takes_more_memory_than_it_has_is_told_about() {
    let Some(world) = World::start() else { return };
    let rest = "[[vm]]\nmemory = \"256mb\"\n[[restart]]\npolicy = \"never\"\n";
    let id = one(&world, "hungry", "eat 400", rest);
    let exit = world.eventually("it is killed", |world| {
        let machine = world.machine("hungry", &id);
        let events = machine["events"].as_array()?.clone();
        events.into_iter().find(|event| event["type"] == "exit")
    });
    assert_eq!(exit["request"]["exit_event"]["oom_killed"], true, "{exit}");
    assert!(
        world.logs("hungry").contains("OOM killed"),
        "{}",
        world.logs("hungry")
    );
}

#[test]
fn a_stop_sends_the_signal_that_the_app_has_chosen() {
    let Some(world) = World::start() else { return };
    // It ends a program that does nothing about it.
    let toml = fly_toml("deaf", "").replace(
        "[build]",
        "kill_signal = \"SIGUSR1\"\nkill_timeout = \"1s\"\n[build]",
    );
    let folder = world.app("deaf", &toml);
    world.ok(&["deploy", &folder, "--ha=false", "--smoke-checks=false"]);
    let id = world.only("deaf", "app");
    world.ok(&["machine", "stop", &id, "-a", "deaf"]);
    let machine = world.machine("deaf", &id);
    let exit = machine["events"]
        .as_array()
        .unwrap()
        .iter()
        .find(|e| e["type"] == "exit")
        .unwrap()
        .clone();
    assert_eq!(
        exit["request"]["exit_event"]["requested_stop"], true,
        "{exit}"
    );
    assert_eq!(exit["request"]["exit_event"]["guest_signal"], 10, "{exit}");
}
