//! Single Machines: what is asked of them, how they end, and who runs them again.

use serde_json::{Value, json};

use crate::busybox::{AWAIT_GO, SHELL, shell_spec};
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

/// Returns what happened to a Machine, newest first, once each: kind, status and source.
fn story(world: &World, app: &str, id: &str) -> Vec<String> {
    let machine = world.machine(app, id);
    let events = machine["events"].as_array().unwrap();
    let times: Vec<i64> = events
        .iter()
        .map(|event| event["timestamp"].as_i64().unwrap())
        .collect();
    assert!(times.is_sorted_by(|a, b| a >= b), "{events:?}");
    let text = |event: &Value, key: &str| event[key].as_str().unwrap().to_owned();
    events
        .iter()
        .map(|event| {
            ["type", "status", "source"]
                .map(|key| text(event, key))
                .join(" ")
        })
        .collect()
}

/// Returns a Machine's events of a kind, newest first.
fn events_of(world: &World, app: &str, id: &str, kind: &str) -> Vec<Value> {
    let machine = world.machine(app, id);
    let mut events = machine["events"].as_array().unwrap().clone();
    events.retain(|event| event["type"] == kind);
    events
}

/// Waits until a Machine has been started so often and runs.
fn running(world: &World, app: &str, id: &str, starts: usize) {
    world.eventually("it runs again", |world| {
        let starts_now = events_of(world, app, id, "start");
        let count = starts_now
            .iter()
            .filter(|e| e["status"] == "started")
            .count();
        (count >= starts && state(world, app, id) == "started").then_some(())
    });
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
    // Newest first, as they happened; what a person did is told from what followed.
    assert_eq!(
        story(&world, "life", &id),
        [
            "start started flyd",
            "restart starting flyd",
            "exit stopped flyd",
            "restart stopping user",
            "start started flyd",
            "start starting user",
            "exit stopped flyd",
            "stop stopping user",
            "start started flyd",
            "launch created user",
        ]
    );
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
    let Some(world) = World::with_shell() else {
        return;
    };
    let end = |code: u8| format!("\"/bin/sh -c '{AWAIT_GO}; exit {code}'\"");
    let groups = format!(
        "[processes]\nnever = {}\nfailing = {}\nfine = {}\nalways = {}\n",
        end(5),
        end(6),
        end(0),
        end(0)
    );
    let rest = "[[restart]]\npolicy = \"never\"\nprocesses = [\"never\"]\n\
         [[restart]]\npolicy = \"on-failure\"\nretries = 2\nprocesses = [\"failing\", \"fine\"]\n\
         [[restart]]\npolicy = \"always\"\nretries = 1\nprocesses = [\"always\"]\n";
    world.deploy_shell("policy", SHELL, &format!("{groups}{rest}"));
    for (group, code, runs, told) in [
        (
            "never",
            5,
            1,
            "machine restart policy set to 'no', not restarting",
        ),
        (
            "failing",
            6,
            3,
            "machine has reached its max restart count of 2",
        ),
        (
            "fine",
            0,
            1,
            "machine exited with exit code 0, not restarting",
        ),
        ("always", 0, 3, ""),
    ] {
        let id = world.only("policy", group);
        for run in 1..=runs {
            running(&world, "policy", &id, run);
            world.go("policy", &id);
        }
        if group == "always" {
            running(&world, "policy", &id, runs + 1);
        } else {
            world.eventually(group, |world| {
                (state(world, "policy", &id) == "stopped").then_some(())
            });
        }
        let exits = events_of(&world, "policy", &id, "exit");
        assert_eq!(exits.len(), runs, "{group}: {exits:?}");
        for (at, exit) in exits.iter().enumerate() {
            let exit = &exit["request"]["exit_event"];
            assert_eq!(exit["exit_code"], code, "{group}: {exit}");
            // The newest is the last; only that one is not followed by another run.
            let again = at > 0 || group == "always";
            assert_eq!(exit["restarting"], again, "{group} {at}: {exit}");
        }
        let words = ["logs", "-a", "policy", "-n", "--machine", &id];
        let log = world.ok(&words).stdout;
        assert!(log.contains(told), "{group}: {log}");
    }
    // Why it does not run is said where one looks.
    let id = world.only("policy", "failing");
    let status = world.ok(&["machine", "status", &id, "-a", "policy"]).stdout;
    assert!(status.contains("max restart count of 2"), "{status}");
    // `always` does not mean that nobody can stop it.
    let id = world.only("policy", "always");
    world.ok(&["machine", "stop", &id, "-a", "policy"]);
    assert_eq!(state(&world, "policy", &id), "stopped");
}

#[test]
fn the_restart_policy_of_one_machine_can_be_changed() {
    let Some(world) = World::with_shell() else {
        return;
    };
    let program = format!("[processes]\napp = \"/bin/sh -c '{AWAIT_GO}; exit 3'\"\n");
    let id = world.shell_app("change", &program);
    let update = |policy: &str| {
        let words = ["machine", "update", &id, "-a", "change", "--yes"];
        world.ok(&[&words[..], &["--restart", policy]].concat());
        world.machine("change", &id)["config"]["restart"]["policy"].clone()
    };
    assert_eq!(update("no"), "no");
    world.go("change", &id);
    world.eventually("it stays down", |world| {
        (state(world, "change", &id) == "stopped").then_some(())
    });
    // An update of a Machine that does not run does not run it.
    assert_eq!(update("always"), "always");
    assert_eq!(state(&world, "change", &id), "stopped");
    let started = || {
        let starts = events_of(&world, "change", &id, "start");
        starts.iter().filter(|e| e["status"] == "started").count()
    };
    let before = started();
    world.ok(&["machine", "start", &id, "-a", "change"]);
    world.go("change", &id);
    running(&world, "change", &id, before + 2);
    assert_eq!(update("on-fail"), "on-failure");
    let words = ["machine", "update", &id, "-a", "change", "--yes"];
    let said = world.fails(2, &[&words[..], &["--restart", "sometimes"]].concat());
    assert!(said.contains("use no, always or on-failure"), "{said}");
}

#[test]
fn a_job_that_ended_well_is_run_again_by_nobody() {
    let Some(mut world) = World::start() else {
        return;
    };
    let groups = |env: &str| {
        let groups = "[processes]\njob = \"exit 0 10\"\nonce = \"exit 0 10\"\nweb = \"serve\"\n\
                      [[restart]]\npolicy = \"on-failure\"\nprocesses = [\"job\"]\n\
                      [[restart]]\npolicy = \"never\"\nprocesses = [\"once\"]\n";
        let env = format!("[env]\nVERSION = \"{env}\"\n");
        fly_toml("job", &format!("{env}{groups}{}", service(&["web"])))
    };
    let folder = world.app("job", &groups("1"));
    let deploy = |world: &World| {
        let words = ["deploy", &folder, "--ha=false", "--smoke-checks=false"];
        world.ok(&words);
    };
    deploy(&world);
    let ids = [world.only("job", "job"), world.only("job", "once")];
    let rest = |world: &World| ids.iter().all(|id| state(world, "job", id) == "stopped");
    world.eventually("the jobs end", |world| rest(world).then_some(()));
    let runs = |world: &World| {
        let lines = world.app_lines("job");
        lines.iter().filter(|l| *l == "exiting with 0").count()
    };
    assert_eq!(runs(&world), 2);
    world.stop_server();
    world.start_server();
    world.kill_server();
    world.start_server();
    world.ok(&["apps", "restart", "job"]);
    world.ok(&["scale", "count", "web=2", "-a", "job", "--yes"]);
    world.ok(&["secrets", "set", "A=1", "-a", "job"]);
    // Neither a deploy that changes nothing, nor one that changes the job, nor the way back:
    // what is stopped gets its new version and stays stopped.
    deploy(&world);
    world.app("job", &groups("2"));
    deploy(&world);
    let config = world.machine("job", &ids[0])["config"].clone();
    assert_eq!(config["env"]["VERSION"], "2");
    world.ok(&["releases", "rollback", "-a", "job"]);
    world.kill_server();
    world.start_server();
    assert_eq!(world.only("job", "job"), ids[0]);
    assert!(rest(&world), "{:?}", world.machines("job"));
    assert_eq!(runs(&world), 2);
    // Who asks for it by name gets it.
    world.ok(&["machine", "start", &ids[0], "-a", "job"]);
    world.eventually("it has run again", |world| (runs(world) == 3).then_some(()));
}

#[test]
fn a_job_that_ends_while_there_is_no_server_is_not_run_again() {
    let Some(mut world) = World::with_shell() else {
        return;
    };
    let program = format!(
        "[processes]\napp = \"/bin/sh -c 'echo begin; {AWAIT_GO}; sleep 1; echo end'\"\n\
         [[restart]]\npolicy = \"on-failure\"\n"
    );
    let id = world.shell_app("late", &program);
    world.go("late", &id);
    world.kill_server();
    world.eventually("it ends with nobody there", |world| {
        world.inits().is_empty().then_some(())
    });
    world.start_server();
    let exit = world.eventually("its end is known", |world| {
        let exits = events_of(world, "late", &id, "exit");
        exits.first().cloned()
    });
    let exit = &exit["request"]["exit_event"];
    assert_eq!(exit["exit_code"], 0, "{exit}");
    assert_ne!(exit["requested_stop"], true, "{exit}");
    world.stop_server();
    world.start_server();
    assert_eq!(state(&world, "late", &id), "stopped");
    assert_eq!(world.app_lines("late"), ["begin", "end"]);
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
fn an_update_of_image_and_size_takes_effect_and_a_wrong_one_says_so() {
    let Some(world) = World::with_shell() else {
        return;
    };
    let Some(mut spec) = shell_spec() else { return };
    spec.env.insert("IMAGE".to_owned(), "second".to_owned());
    world.import("second", &spec);
    let id = world.shell_app("swap", "");
    let update = ["machine", "update", &id, "-a", "swap", "--yes"];
    let with = |words: &[&str]| world.hangar(&[&update[..], words].concat());
    let ran = with(&["--image", "second", "--vm-size", "shared-cpu-2x"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let env = world.said("swap", &id, "env");
    assert!(
        env.contains("IMAGE=second\n") && env.contains("FLY_VM_MEMORY_MB=512\n"),
        "{env}"
    );
    let guest = world.machine("swap", &id)["config"]["guest"].clone();
    assert_eq!(
        (&guest["cpus"], &guest["memory_mb"]),
        (&json!(2), &json!(512))
    );

    // What cannot be is refused before anything is changed.
    let before = world.machine("swap", &id)["config"].clone();
    for (words, code, told) in [
        (&["--image", "127.0.0.1:1/no/such"][..], 1, "no/such"),
        (&["--vm-size", "huge"], 2, "unknown size"),
        (&["--vm-memory", "100"], 2, "multiple of 256 MB"),
        (&["--vm-cpus", "3"], 2, "invalid number of CPUs"),
        (&["--env", "NOVALUE"], 2, "NAME=VALUE"),
        (&["--command", "an 'open quote"], 2, "--command"),
    ] {
        let ran = with(words);
        assert_eq!(ran.code, code, "{words:?}: {ran:?}");
        assert!(ran.stderr.contains(told), "{words:?}: {ran:?}");
    }
    assert_eq!(world.machine("swap", &id)["config"], before);
    assert_eq!(state(&world, "swap", &id), "started");
    // A command that is not in the image is only known when it runs.
    let ran = with(&["--command", "/no/such --flag", "--restart", "no"]);
    assert_ne!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains("no such file: /no/such"), "{ran:?}");
    let status = world.ok(&["machine", "status", &id, "-a", "swap"]).stdout;
    assert!(status.contains("no such file: /no/such"), "{status}");
    // The empty command goes back to the image's.
    with(&["--command", ""]);
    world.ok(&["machine", "start", &id, "-a", "swap"]);
    assert!(world.said("swap", &id, "ps").contains("/bin/sleep 100000"));
}

#[test]
fn a_clone_is_like_its_source_and_may_be_told_to_differ() {
    let Some(world) = World::start() else { return };
    let groups = "[env]\nKEPT = \"1\"\n[processes]\nweb = \"serve\"\nother = \"lines 1 0\"\n";
    let toml = fly_toml("twins", &format!("{groups}{}", service(&["web"])));
    let folder = world.app("twins", &toml);
    world.ok(&["deploy", &folder, "--ha=false", "--smoke-checks=false"]);
    let id = world.only("twins", "web");
    let source = world.machine("twins", &id);
    let clone = |words: &[&str]| {
        let ran = world.ok(&[&["machine", "clone", &id, "-a", "twins"], words].concat());
        // Standard output is the new id and nothing else, for scripts.
        let made = ran.stdout.trim().to_owned();
        (world.machine("twins", &made), ran.stderr)
    };
    let (same, told) = clone(&[]);
    assert!(told.contains("start and pass its checks"), "{told}");
    assert_eq!(same["state"], "started");
    assert_eq!(same["checks"][0]["status"], "passing", "{same}");
    for key in ["env", "init", "services", "checks", "guest", "metadata"] {
        assert_eq!(same["config"][key], source["config"][key], "{key}");
    }
    assert_eq!(same["image_ref"]["digest"], source["image_ref"]["digest"]);
    assert_ne!(same["id"], source["id"]);
    assert_ne!(same["private_ip"], source["private_ip"]);

    let words = [
        "--detach",
        "--region",
        "gru",
        "--name",
        "twin",
        "--vm-memory",
        "512",
    ];
    let (differs, told) = clone(&words);
    assert!(!told.contains("Waiting"), "{told}");
    assert_eq!(
        (&differs["region"], &differs["name"]),
        (&json!("gru"), &json!("twin"))
    );
    assert_eq!(differs["config"]["guest"]["memory_mb"], 512);
    world.eventually("it comes up without anybody waiting", |world| {
        (world.started_groups("twins") == ["other", "web", "web", "web"]).then_some(())
    });
}

#[test]
fn machines_are_listed_and_shown_as_the_api_has_them() {
    let Some(world) = World::start() else { return };
    let id = one(&world, "shown", "serve", &service(&["app"]));
    let listed = world.machines("shown");
    assert_eq!(listed.len(), 1);
    let shown = world.machine("shown", &id);
    for key in [
        "id",
        "name",
        "state",
        "region",
        "image_ref",
        "instance_id",
        "private_ip",
        "created_at",
        "config",
    ] {
        assert!(!shown[key].is_null(), "{key}: {shown}");
        assert_eq!(listed[0][key], shown[key], "{key}");
    }
    let path = format!("/v1/apps/shown/machines/{id}");
    let answer = world.api("GET", &path, Some(&world.token()));
    let asked: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(asked["config"], shown["config"]);
    let quiet = world
        .ok(&["machine", "list", "-a", "shown", "--quiet"])
        .stdout;
    assert_eq!(quiet, format!("{id}\n"));
    // The app of a Machine need not be named.
    let text = world.ok(&["machine", "status", &id]).stdout;
    for part in ["Process Group = app", "State         = started"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let text = world
        .ok(&["machine", "status", &id, "--display-config"])
        .stdout;
    assert_eq!(
        serde_json::from_str::<Value>(&text).unwrap(),
        shown["config"]
    );
}

#[test]
fn what_is_asked_of_a_machine_that_is_not_there_is_told_and_done_to_nobody() {
    let Some(world) = World::start() else { return };
    let id = one(&world, "here", "serve", &service(&["app"]));
    world.ok(&["apps", "create", "empty"]);
    let before = world.machine("here", &id);
    let none = "00000000000000";
    for words in [
        &["start"][..],
        &["stop"],
        &["restart"],
        &["destroy", "--force"],
        &["status"],
        &["clone"],
        &["update", "--yes", "--env", "A=1"],
        &["exec", "/testapp", "env"],
    ] {
        let (verb, rest) = words.split_first().unwrap();
        // One that nobody has; one that another app has; and one without the app's name.
        for (target, app) in [
            (none, &["-a", "here"][..]),
            (&id, &["-a", "empty"]),
            (none, &[]),
        ] {
            let words = [&["machine", verb], app, &[target], rest].concat();
            let said = world.fails(3, &words);
            assert!(said.contains(target), "{words:?}: {said}");
        }
    }
    let said = world.fails(2, &["machine", "stop", "../etc", "-a", "here"]);
    assert!(said.contains("../etc"), "{said}");
    assert_eq!(world.machine("here", &id)["events"], before["events"]);
    assert_eq!(world.machine("here", &id)["config"], before["config"]);
    // Of several, what comes before the wrong one is done.
    let two = ["machine", "stop", "-a", "here", &id, none];
    let said = world.fails(3, &two);
    assert!(said.contains(none), "{said}");
    assert_eq!(state(&world, "here", &id), "stopped");
    // Asked twice is no error.
    world.ok(&["machine", "stop", &id, "-a", "here"]);
    world.ok(&["machine", "start", &id, "-a", "here"]);
    world.ok(&["machine", "start", &id, "-a", "here"]);
    assert_eq!(state(&world, "here", &id), "started");
    // One that is stopped needs no force.
    world.ok(&["machine", "stop", &id, "-a", "here"]);
    world.ok(&["machine", "destroy", &id, "-a", "here"]);
    let said = world.fails(1, &["machine", "start", &id, "-a", "here"]);
    assert!(said.contains("'destroyed'"), "{said}");
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
