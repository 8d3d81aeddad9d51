//! Deployments: plans, gates, putting back, claims, and the death of either side.

use serde_json::Value;

use crate::world::{World, fly_toml, group, service};

/// One group of one Machine, whose version and other environment are given.
fn web(app: &str, env: &str) -> String {
    fly_toml(app, &format!("[env]\n{env}\n{}", service(&[])))
}

fn statuses(world: &World, app: &str) -> Vec<String> {
    let releases = world.json(&["releases", "-a", app]);
    let status = |r: &Value| r["status"].as_str().unwrap().to_owned();
    releases.as_array().unwrap().iter().map(status).collect()
}

#[test]
fn a_dry_run_prints_the_plan_and_changes_nothing() {
    let Some(world) = World::start() else { return };
    let folder = world.app("dry", &web("dry", "VERSION = \"1\""));
    let plan = world.ok(&["deploy", &folder, "--dry-run"]);
    assert!(
        plan.stdout.contains("create 2 \"app\" machines"),
        "{plan:?}"
    );
    assert_eq!(world.json(&["apps", "list"]), serde_json::json!([]));

    world.ok(&["deploy", &folder, "--ha=false"]);
    let before = world.machines("dry");
    world.app("dry", &web("dry", "VERSION = \"2\""));
    let plan = world.ok(&["deploy", &folder, "--dry-run"]);
    assert!(plan.stdout.contains("update 1 \"app\" machine"), "{plan:?}");
    assert_eq!(world.machines("dry"), before);
    assert_eq!(statuses(&world, "dry"), ["complete"]);
    assert_eq!(world.ask("dry")["version"], "1");

    // What would be built or sent first is neither.
    let images = world.json(&["image", "list"]);
    let plan = world.ok(&["deploy", &folder, "--dry-run", "--image", "testapp.tar"]);
    assert!(plan.stdout.contains("update 1 \"app\" machine"), "{plan:?}");
    let built = world.app("built", "app = \"built\"\n");
    std::fs::write(world.path("built/Dockerfile"), "FROM nothing\n").unwrap();
    let plan = world.ok(&["deploy", &built, "--dry-run"]);
    assert!(plan.stdout.contains("create"), "{plan:?}");
    assert_eq!(world.json(&["image", "list"]), images);
}

#[test]
fn high_availability_is_two_machines_for_a_service_and_a_standby_for_none() {
    let Some(world) = World::start() else { return };
    let groups = "[processes]\nweb = \"serve\"\nworker = \"lines 1 0\"\n";
    let folder = world.app(
        "ha",
        &fly_toml("ha", &format!("{groups}{}", service(&["web"]))),
    );
    world.ok(&["deploy", &folder, "--smoke-checks=false"]);
    assert_eq!(world.started_groups("ha"), ["web", "web", "worker"]);
    let workers = world.of_group("ha", "worker");
    assert_eq!(workers.len(), 2);
    let standby = workers.iter().find(|m| m["state"] == "stopped").unwrap();
    let first = workers.iter().find(|m| m["state"] == "started").unwrap();
    assert_eq!(
        standby["config"]["standbys"],
        serde_json::json!([first["id"]])
    );
}

#[test]
fn a_version_that_fails_its_check_is_put_back_with_config_image_and_secrets() {
    let Some(world) = World::start() else { return };
    let folder = world.app("back", &web("back", "VERSION = \"1\""));
    world.ok(&["deploy", &folder, "--ha=false"]);
    world.ok(&["secrets", "set", "WORD=old", "-a", "back"]);
    let before = world.machines("back").remove(0);
    let mut other = crate::world::image_spec();
    other.env.insert("OTHER_IMAGE".into(), "yes".into());
    world.import("other", &other);

    world.ok(&["secrets", "set", "WORD=new", "--stage", "-a", "back"]);
    world.app("back", &web("back", "VERSION = \"2\"\nUNHEALTHY = \"1\""));
    let said = world.fails(
        5,
        &[
            "deploy",
            &folder,
            "--image",
            "other",
            "--wait-timeout",
            "1s",
        ],
    );
    let id = before["id"].as_str().unwrap();
    assert!(said.contains(id), "{said}");
    assert!(
        said.contains("did not pass within 1 s: got status 500"),
        "{said}"
    );
    assert_eq!(
        said.matches("listening on 0.0.0.0:8080").count(),
        1,
        "last log lines, once: {said}"
    );

    let after = world.machines("back").remove(0);
    assert_eq!(after["id"], before["id"]);
    assert_eq!(after["state"], "started");
    assert_eq!(after["config"]["env"], before["config"]["env"]);
    assert_eq!(after["image_ref"]["digest"], before["image_ref"]["digest"]);
    let env = world.get("back", "/env").body;
    assert!(
        env.contains("VERSION=1") && env.contains("WORD=old"),
        "{env}"
    );
    assert!(!env.contains("OTHER_IMAGE"), "{env}");
    assert_eq!(statuses(&world, "back")[0], "failed");
}

#[test]
fn a_worker_that_exits_soon_after_its_start_fails_the_deploy() {
    let Some(world) = World::start() else { return };
    let toml = |worker: &str| {
        let groups = format!("[processes]\nweb = \"serve\"\nworker = \"{worker}\"\n");
        fly_toml("short", &format!("{groups}{}", service(&["web"])))
    };
    let folder = world.app("short", &toml("lines 1 0"));
    world.ok(&["deploy", &folder, "--ha=false", "--smoke-checks=false"]);
    let worker = world.only("short", "worker");

    world.app("short", &toml("exit 1 300"));
    let said = world.fails(5, &["deploy", &folder]);
    assert!(
        said.contains(&worker) && said.contains("exited with code 1"),
        "{said}"
    );
    assert!(
        said.contains("exiting with 1"),
        "the last log lines are told: {said}"
    );
    assert_eq!(world.started_groups("short"), ["web", "worker"]);
    let command = &world.machine("short", &worker)["config"]["init"]["cmd"];
    assert_eq!(command, &serde_json::json!(["lines", "1", "0"]));
}

#[test]
fn without_rollback_a_failed_deploy_leaves_the_fleet_as_it_is() {
    let Some(world) = World::start() else { return };
    let folder = world.app("leave", &web("leave", "VERSION = \"1\""));
    world.ok(&["deploy", &folder, "--ha=false"]);
    world.app("leave", &web("leave", "VERSION = \"2\"\nUNHEALTHY = \"1\""));
    let said = world.fails(
        6,
        &["deploy", &folder, "--no-rollback", "--wait-timeout", "1s"],
    );
    assert!(said.contains("left as it is"), "{said}");
    let machine = world.machines("leave").remove(0);
    assert_eq!(machine["config"]["env"]["VERSION"], "2");
    assert_eq!(machine["state"], "started");
}

#[test]
fn new_groups_are_up_before_old_ones_are_destroyed() {
    let Some(world) = World::start() else { return };
    let toml = |name: &str, env: &str| {
        let groups = format!("[env]\n{env}\n[processes]\n{name} = \"serve\"\n");
        fly_toml("rename", &format!("{groups}{}", service(&[name])))
    };
    let folder = world.app("rename", &toml("web", "VERSION = \"1\""));
    world.ok(&["deploy", &folder, "--ha=false"]);
    let old = world.only("rename", "web");

    // The new group never gets healthy: the old one is still there, untouched.
    world.app("rename", &toml("site", "UNHEALTHY = \"1\""));
    world.fails(
        5,
        &["deploy", &folder, "--ha=false", "--wait-timeout", "1s"],
    );
    assert_eq!(world.only("rename", "web"), old);
    assert_eq!(world.machines("rename").len(), 1);
    assert_eq!(world.ask("rename")["machine"], old.as_str());

    // A healthy one takes over first.
    world.app("rename", &toml("site", "VERSION = \"2\""));
    let ran = world.ok(&["deploy", &folder, "--ha=false"]);
    let new = world.only("rename", "site");
    assert_eq!(world.machines("rename").len(), 1);
    let line = |id: &str, word: &str| {
        let at = ran
            .stderr
            .lines()
            .position(|l| l.contains(id) && l.contains(word));
        at.unwrap_or_else(|| panic!("no line with {id} and {word}:\n{}", ran.stderr))
    };
    assert!(
        line(&new, "started") < line(&old, "Destroying"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_second_deploy_at_once_is_refused_and_told_who_is_deploying() {
    let Some(mut world) = World::start() else {
        return;
    };
    let folder = world.app("two", &web("two", "VERSION = \"1\""));
    world.ok(&["deploy", &folder, "--ha=false"]);
    world.app("two", &web("two", "VERSION = \"2\"\nDELAY_MS = \"2500\""));
    world.ok(&["deploy", &folder, "--detach"]);
    let said = world.fails(1, &["deploy", &folder]);
    assert!(said.contains("v2") && said.contains("admin"), "{said}");
    world.eventually("the first deploy ends", |w| {
        (statuses(w, "two")[0] == "complete").then_some(())
    });
    assert_eq!(statuses(&world, "two").len(), 2);
    world.stop_server();
    world.start_server();
    world.ok(&["deploy", &folder, "--wait-timeout", "30s"]);
}

#[test]
fn a_deploy_ends_without_the_command_line_that_asked_for_it() {
    let Some(mut world) = World::start() else {
        return;
    };
    let folder = world.app("alone", &web("alone", "VERSION = \"1\""));
    world.ok(&["deploy", &folder]);
    world.app(
        "alone",
        &web("alone", "VERSION = \"2\"\nDELAY_MS = \"800\""),
    );
    world.start_hangar(&["deploy", &folder]);
    world.eventually("the deploy is under way", |w| {
        (statuses(w, "alone").len() == 2).then_some(())
    });
    let cli = world.last_started();
    cli.kill().unwrap();
    cli.wait().unwrap();
    world.eventually("the deploy ends", |w| {
        (statuses(w, "alone")[0] == "complete").then_some(())
    });
    for machine in world.machines("alone") {
        assert_eq!(machine["config"]["env"]["VERSION"], "2");
        assert_eq!(machine["state"], "started");
    }
}

#[test]
fn a_deploy_goes_on_after_the_server_was_killed() {
    let Some(mut world) = World::start() else {
        return;
    };
    let folder = world.app("killed", &web("killed", "VERSION = \"1\""));
    world.ok(&["deploy", &folder]);
    world.app(
        "killed",
        &web("killed", "VERSION = \"2\"\nDELAY_MS = \"800\""),
    );
    // The command line sees it through, too: it asks again when the server is back.
    world.start_hangar(&["deploy", &folder]);
    world.eventually("a Machine is being updated", |w| {
        let updated = |m: &Value| m["config"]["env"]["VERSION"] == "2";
        w.machines("killed").iter().any(updated).then_some(())
    });
    world.kill_server();
    world.start_server();
    let code = world.last_started().wait().unwrap().code();
    assert_eq!(code, Some(0));
    assert_eq!(statuses(&world, "killed"), ["complete", "complete"]);
    let machines = world.machines("killed");
    assert_eq!(machines.len(), 2);
    assert!(
        machines
            .iter()
            .all(|m| m["config"]["env"]["VERSION"] == "2" && m["state"] == "started")
    );
}

#[test]
fn an_app_that_is_restarted_by_its_policy_does_not_keep_the_server_busy() {
    let Some(world) = World::start() else { return };
    let toml = web("busy", "UNHEALTHY = \"1\"").replace(
        "[env]",
        "[[restart]]\npolicy = \"always\"\nretries = 10\n[env]",
    );
    let toml = toml.replace("[build]", "[processes]\napp = \"late 10500\"\n[build]");
    let toml = toml.replace("internal_port", "processes = [\"app\"]\ninternal_port");
    let folder = world.app("busy", &toml);
    world.ok(&[
        "deploy",
        &folder,
        "--ha=false",
        "--detach",
        "--wait-timeout",
        "20s",
    ]);
    world.eventually("it has exited after ten seconds", |world| {
        let machine = world.machines("busy").pop()?;
        let mut events = machine["events"].as_array()?.iter();
        events.any(|event| event["type"] == "exit").then_some(())
    });
    let spent = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", world.server_pid())).unwrap();
        let rest = stat.rsplit(')').next().unwrap().split_whitespace();
        let ticks: Vec<u64> = rest.skip(11).take(2).map(|t| t.parse().unwrap()).collect();
        ticks[0] + ticks[1]
    };
    let before = spent();
    std::thread::sleep(std::time::Duration::from_secs(3));
    let ticks = spent() - before;
    // A driver that never waits takes all of a processor: 300 ticks.
    assert!(ticks < 150, "{ticks} ticks in 3 s");
    world.eventually("it is put back", |w| {
        (statuses(w, "busy")[0] == "failed").then_some(())
    });
}

#[test]
fn without_a_fly_toml_the_current_configuration_is_deployed_again() {
    let Some(world) = World::start() else { return };
    let folder = world.app("bare", &web("bare", "VERSION = \"1\""));
    world.ok(&["deploy", &folder, "--ha=false"]);
    world.ok(&["secrets", "set", "LATE=1", "--stage", "-a", "bare"]);
    let ran = world.ok(&["deploy"]);
    assert!(
        ran.stderr.contains("taking bare, the only app"),
        "{}",
        ran.stderr
    );
    assert!(
        ran.stderr.contains("configuration of v1 again"),
        "{}",
        ran.stderr
    );
    let env = world.get("bare", "/env").body;
    assert!(env.contains("VERSION=1") && env.contains("LATE=1"), "{env}");
}

#[test]
fn a_rollback_makes_a_new_release_from_an_old_one() {
    let Some(world) = World::start() else { return };
    let folder = world.app("again", &web("again", "VERSION = \"1\""));
    world.ok(&["deploy", &folder, "--ha=false"]);
    world.app("again", &web("again", "VERSION = \"2\""));
    world.ok(&["deploy", &folder]);
    assert_eq!(world.ask("again")["version"], "2");
    world.ok(&["releases", "rollback", "-a", "again"]);
    assert_eq!(world.ask("again")["version"], "1");
    world.ok(&["releases", "rollback", "v2", "-a", "again"]);
    assert_eq!(world.ask("again")["version"], "2");
    assert_eq!(statuses(&world, "again"), ["complete"; 4]);
    let listed = world.ok(&["releases", "-a", "again"]).stdout;
    assert!(
        listed.starts_with(" VERSION  STATUS    DESCRIPTION"),
        "{listed}"
    );
    let said = world.fails(3, &["releases", "rollback", "v9", "-a", "again"]);
    assert!(said.contains("v9"), "{said}");
}

#[test]
fn scaling_adds_and_removes_machines_of_single_groups() {
    let Some(world) = World::start() else { return };
    let groups = "[processes]\nweb = \"serve\"\nworker = \"lines 1 0\"\n";
    let folder = world.app(
        "scale",
        &fly_toml("scale", &format!("{groups}{}", service(&["web"]))),
    );
    world.ok(&["deploy", &folder, "--ha=false", "--smoke-checks=false"]);
    world.ok(&[
        "scale", "count", "web=3", "worker=2", "-a", "scale", "--yes",
    ]);
    world.eventually("all are up", |w| {
        (w.started_groups("scale") == ["web", "web", "web", "worker", "worker"]).then_some(())
    });
    world.ok(&["scale", "count", "-1", "-g", "web", "-a", "scale", "--yes"]);
    world.ok(&["scale", "count", "worker=0", "-a", "scale", "--yes"]);
    assert_eq!(world.started_groups("scale"), ["web", "web"]);
    let said = world.fails(2, &["scale", "count", "wbe=1", "-a", "scale"]);
    assert!(said.contains("wbe") && said.contains("web"), "{said}");
    // A deploy keeps the count of a group, also when that is 0.
    world.ok(&["deploy", &folder, "--ha=false", "--smoke-checks=false"]);
    assert_eq!(world.started_groups("scale"), ["web", "web"]);
    world.ok(&["scale", "count", "worker=1", "-a", "scale", "--yes"]);
    world.eventually("worker is back", |w| {
        (w.started_groups("scale") == ["web", "web", "worker"]).then_some(())
    });
    let machines = world.machines("scale");
    assert!(machines.iter().all(|m| !group(m).is_empty()));
    let shown = world.json(&["scale", "show", "-a", "scale"]);
    assert_eq!(shown[0]["Process"], "web");
    assert_eq!(shown[0]["Count"], 2);
}

#[test]
fn after_a_deploy_that_failed_every_new_machine_is_of_the_image_that_was_put_back() {
    let Some(world) = World::start() else { return };
    let variant = |number: &str| {
        let mut spec = crate::world::image_spec();
        spec.env.insert("VARIANT".into(), number.into());
        world.import("same", &spec);
    };
    variant("1");
    let folder = world.app("again", &web("again", "VERSION = \"1\""));
    world.ok(&["deploy", &folder, "--ha=false", "--image", "same"]);
    let id = world.machines("again").remove(0)["id"].clone();
    let id = id.as_str().unwrap();

    variant("2");
    world.app("again", &web("again", "VERSION = \"2\"\nUNHEALTHY = \"1\""));
    let patience = ["--image", "same", "--wait-timeout", "1s"];
    world.fails(5, &[&["deploy", &folder], &patience[..]].concat());

    let all_are_first = |what: &str| {
        world.eventually("all have started", |world| {
            let all = world.machines("again");
            all.iter().all(|m| m["state"] == "started").then_some(())
        });
        for machine in world.machines("again") {
            let id = machine["id"].as_str().unwrap();
            let env = world.exec("again", id, &["env"]).stdout;
            assert!(env.contains("VARIANT=1"), "{what}: {machine} {env}");
        }
    };
    world.ok(&["scale", "count", "2", "-a", "again", "--yes"]);
    all_are_first("scale count");
    world.ok(&[
        "machine", "update", id, "-a", "again", "--env", "X=1", "--yes",
    ]);
    all_are_first("machine update");
    world.ok(&["deploy", "-a", "again"]);
    all_are_first("deploy without a fly.toml");
    world.ok(&["scale", "count", "0", "-a", "again", "--yes"]);
    world.ok(&["image", "prune"]);
    world.ok(&["scale", "count", "1", "-a", "again", "--yes"]);
    assert_eq!(world.machines("again").len(), 1);
    all_are_first("scale count from nothing");
}

#[test]
fn secrets_and_rollbacks_keep_to_the_deploy_section_of_the_release() {
    let Some(world) = World::start() else { return };
    let section = "[deploy]\nwait_timeout = \"1s\"\n";
    let toml = format!("{}{section}", web("kept", "VERSION = \"1\""));
    let folder = world.app("kept", &toml);
    world.ok(&["deploy", &folder, "--ha=false"]);
    let said = world.fails(5, &["secrets", "set", "UNHEALTHY=1", "-a", "kept"]);
    assert!(said.contains("did not pass within 1 s"), "{said}");
    assert_eq!(world.get("kept", "/health").status, 200);
    assert!(said.contains("The secrets are stored"), "{said}");
}

#[test]
fn the_folder_comes_first_and_a_configuration_is_looked_for_from_there() {
    let Some(world) = World::start() else { return };
    let folder = world.app("there", &web("there", "VERSION = \"1\""));
    let staging = web("staging", "VERSION = \"2\"");
    std::fs::write(world.path("there/fly.staging.toml"), staging).unwrap();
    world.ok(&["deploy", &folder, "-c", "fly.staging.toml", "--ha=false"]);
    assert_eq!(world.ask("staging")["version"], "2");
    // A folder with a fly.json is that app's, also where there is only one other app.
    let json = r#"{"app": "json", "build": {"image": "testapp"}}"#;
    std::fs::create_dir(world.path("json")).unwrap();
    std::fs::write(world.path("json/fly.json"), json).unwrap();
    let folder = world.path("json").to_string_lossy().into_owned();
    let plan = world.ok(&["deploy", &folder, "--dry-run"]);
    assert!(plan.stdout.contains("create"), "{plan:?}");
    // A strategy that there is not is refused with those that there are.
    let said = world.fails(2, &["deploy", &folder, "--strategy", "sideways"]);
    assert!(said.contains("canary and bluegreen"), "{said}");
}

#[test]
fn a_deploy_that_is_cancelled_turns_back() {
    let Some(world) = World::start() else { return };
    let toml = |version: &str| {
        let groups = "[processes]\nworker = \"lines 1 0\"\n";
        fly_toml("turn", &format!("[env]\nVERSION = \"{version}\"\n{groups}"))
    };
    let folder = world.app("turn", &toml("1"));
    world.ok(&["deploy", &folder, "--ha=false", "--smoke-checks=false"]);
    let before = world.machines("turn").remove(0);
    world.app("turn", &toml("2"));
    world.ok(&["deploy", &folder, "--detach"]);
    let deployments = "/v1/apps/turn/deployments";
    let newest = |world: &World| -> Value {
        let answer = world.api("GET", deployments, Some(&world.token()));
        serde_json::from_str::<Value>(&answer.body).unwrap()[0].clone()
    };
    let id = newest(&world)["id"].as_str().unwrap().to_owned();
    let cancel = format!("{deployments}/{id}/cancel");
    assert_eq!(world.api("POST", &cancel, Some(&world.token())).status, 202);
    let over = world.eventually("it is over", |world| {
        let deployment = newest(world);
        (!deployment["finished_at"].is_null()).then_some(deployment)
    });
    assert_eq!(over["status"], "rolled_back");
    let error = over["error"].as_str().unwrap();
    assert!(error.contains("cancelled by admin"), "{error}");
    let after = world.machines("turn").remove(0);
    assert_eq!(after["config"], before["config"]);
    assert_eq!(world.api("POST", &cancel, Some(&world.token())).status, 412);
}
