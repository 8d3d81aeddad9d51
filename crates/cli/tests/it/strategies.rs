//! Strategies beside rolling, filters and test Machines, with real Machines.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::world::{World, fly_toml, group, service};

/// An app of one group with a service, by version and strategy; `env` breaks it.
pub(crate) fn toml(app: &str, version: &str, strategy: &str, env: &str) -> String {
    let head = format!(
        "[env]\nVERSION = \"{version}\"\n{env}\n[deploy]\nstrategy = \"{strategy}\"\nwait_timeout = \"20s\"\n"
    );
    fly_toml(app, &format!("{head}{}", service(&[])))
}

pub(crate) fn ids(world: &World, app: &str) -> BTreeSet<String> {
    let machines = world.machines(app);
    let id = |m: &Value| m["id"].as_str().unwrap().to_owned();
    machines.iter().map(id).collect()
}

pub(crate) fn versions(world: &World, app: &str) -> Vec<String> {
    let machines = world.machines(app);
    let version = |m: &Value| m["config"]["env"]["VERSION"].as_str().unwrap().to_owned();
    machines.iter().map(version).collect()
}

/// Deploys version 1 and scales it to so many Machines.
pub(crate) fn fleet(world: &World, app: &str, strategy: &str, count: usize) -> String {
    let folder = world.app(app, &toml(app, "1", strategy, ""));
    world.ok(&["deploy", &folder, "--ha=false"]);
    if count > 1 {
        world.ok(&["scale", "count", &count.to_string(), "-a", app, "--yes"]);
    }
    folder
}

#[test]
fn bluegreen_makes_new_machines_and_removes_the_old_ones() {
    let Some(world) = World::start() else { return };
    let folder = fleet(&world, "bg", "bluegreen", 2);
    let blue = ids(&world, "bg");
    world.app("bg", &toml("bg", "2", "bluegreen", ""));
    let plan = world.ok(&["deploy", &folder, "--dry-run"]);
    assert!(plan.stdout.contains("a new one beside each"), "{plan:?}");
    world.ok(&["deploy", &folder]);
    let green = ids(&world, "bg");
    assert_eq!(green.len(), 2);
    assert!(green.is_disjoint(&blue), "{green:?} {blue:?}");
    assert_eq!(versions(&world, "bg"), ["2", "2"]);
    for machine in world.machines("bg") {
        assert_eq!(machine["state"], "started");
        let metadata = &machine["config"]["metadata"];
        assert!(metadata["fly_bluegreen_deployment_tag"].is_string());
        assert!(metadata["fly_flyctl_bluegreen_launch_id"].is_string());
        assert_eq!(machine["cordoned"], false);
    }
    assert_eq!(world.ask("bg")["version"], "2");
}

#[test]
fn bluegreen_without_any_check_is_refused_in_words() {
    let Some(world) = World::start() else { return };
    let toml = fly_toml(
        "nocheck",
        "[deploy]\nstrategy = \"bluegreen\"\n[http_service]\ninternal_port = 8080\n",
    );
    let folder = world.app("nocheck", &toml);
    world.ok(&["deploy", &folder, "--ha=false"]);
    let before = world.machines("nocheck");
    let said = world.fails(1, &["deploy", &folder]);
    assert!(said.contains("at least 1 check"), "{said}");
    assert_eq!(world.machines("nocheck"), before);
    // New secrets are not held up by that.
    let said = world.ok(&["secrets", "set", "WORD=new", "-a", "nocheck"]);
    assert!(said.stderr.contains("by rolling instead"), "{said:?}");
    assert!(world.get("nocheck", "/env").body.contains("WORD=new"));
}

#[test]
fn bluegreen_starts_one_of_a_group_of_stopped_machines_to_see_whether_it_can() {
    let Some(world) = World::start() else { return };
    let folder = fleet(&world, "rest", "bluegreen", 2);
    for id in ids(&world, "rest") {
        world.ok(&["machine", "stop", &id, "-a", "rest"]);
    }
    let before = world.machines("rest");
    world.app("rest", &toml("rest", "2", "bluegreen", "UNHEALTHY = \"1\""));
    world.fails(5, &["deploy", &folder, "--wait-timeout", "2s"]);
    let states = |world: &World| {
        let machines = world.machines("rest");
        let mut all: Vec<String> = machines
            .iter()
            .map(|m| m["state"].as_str().unwrap().to_owned())
            .collect();
        all.sort();
        all
    };
    assert_eq!(world.machines("rest"), before);
    world.app("rest", &toml("rest", "3", "bluegreen", ""));
    world.ok(&["deploy", &folder]);
    assert_eq!(states(&world), ["started", "stopped"]);
}

/// Whatever the strategy, a version that never becomes healthy leaves the fleet as it was; only
/// immediate promises nothing.
fn never_healthy(strategy: &str, count: usize) {
    let Some(world) = World::start() else { return };
    let folder = fleet(&world, "sick", strategy, count);
    let before = ids(&world, "sick");
    world.app("sick", &toml("sick", "2", strategy, "UNHEALTHY = \"1\""));
    let said = world.fails(5, &["deploy", &folder, "--wait-timeout", "2s"]);
    assert!(said.contains("did not pass within 2 s"), "{said}");
    assert_eq!(ids(&world, "sick"), before);
    assert_eq!(versions(&world, "sick"), vec!["1"; count]);
    assert_eq!(world.started_groups("sick").len(), count);
    assert_eq!(world.ask("sick")["version"], "1");
    for machine in world.machines("sick") {
        assert_eq!(machine["cordoned"], false);
    }
}

#[test]
fn a_version_that_never_becomes_healthy_is_undone_by_rolling() {
    never_healthy("rolling", 1);
    never_healthy("rolling", 4);
}

#[test]
fn a_version_that_never_becomes_healthy_is_undone_by_canary() {
    never_healthy("canary", 1);
    never_healthy("canary", 4);
}

#[test]
fn a_version_that_never_becomes_healthy_is_undone_by_bluegreen() {
    never_healthy("bluegreen", 1);
    never_healthy("bluegreen", 4);
}

#[test]
fn immediate_waits_for_no_check_and_says_so() {
    let Some(world) = World::start() else { return };
    for count in [1, 4] {
        let app = format!("now{count}");
        let folder = fleet(&world, &app, "immediate", count);
        world.app(
            &app,
            &toml(
                &app,
                "2",
                "immediate",
                "UNHEALTHY = \"1\"\nDELAY_MS = \"2000\"",
            ),
        );
        let said = world.ok(&["deploy", &folder]).stderr;
        assert!(said.contains("what fails is not put back"), "{said}");
        // Nobody knows yet whether it will listen.
        assert!(!said.contains("not listening"), "{said}");
        assert_eq!(versions(&world, &app), vec!["2"; count]);
    }
}

#[test]
fn a_canary_passes_first_and_is_gone_afterwards() {
    let Some(world) = World::start() else { return };
    let folder = fleet(&world, "tweet", "canary", 2);
    let before = ids(&world, "tweet");
    world.app("tweet", &toml("tweet", "2", "canary", ""));
    let said = world.ok(&["deploy", &folder]).stderr;
    let line = |word: &str| {
        said.find(word)
            .unwrap_or_else(|| panic!("no {word}:\n{said}"))
    };
    assert!(line("Creating canary machine for group app") < line("Canary Machine"));
    assert!(line("Canary Machine") < line("Updating Machine"));
    assert_eq!(ids(&world, "tweet"), before);
    assert_eq!(versions(&world, "tweet"), ["2", "2"]);
}

#[test]
fn filters_leave_machines_alone_and_say_how_many() {
    let Some(world) = World::start() else { return };
    let toml = |version: &str| {
        let head = format!("[env]\nVERSION = \"{version}\"\n[processes]\n");
        let groups = "web = \"serve\"\nworker = \"lines 1 0\"\n";
        fly_toml("part", &format!("{head}{groups}{}", service(&["web"])))
    };
    let folder = world.app("part", &toml("1"));
    world.ok(&["deploy", &folder, "--ha=false", "--smoke-checks=false"]);
    let version = |world: &World, name: &str| {
        let id = world.only("part", name);
        world.machine("part", &id)["config"]["env"]["VERSION"].clone()
    };
    world.app("part", &toml("2"));
    let said = world
        .ok(&["deploy", &folder, "--process-groups", "web"])
        .stderr;
    assert!(
        said.contains("--process-groups filter applied, deploying to 1/2 machines"),
        "{said}"
    );
    assert_eq!(version(&world, "web"), "2");
    assert_eq!(version(&world, "worker"), "1");
    let said = world.fails(2, &["deploy", &folder, "--process-groups", "nobody"]);
    assert!(said.contains("the groups are: web, worker"), "{said}");

    // A group whose Machines are all left out counts as empty, unless nothing is to be created.
    let web = world.only("part", "web");
    world.app("part", &toml("3"));
    let out = [
        "--exclude-machines",
        &web,
        "--smoke-checks=false",
        "--ha=false",
    ];
    world.ok(&[&["deploy", &folder, "--update-only"], &out[..]].concat());
    assert_eq!(version(&world, "web"), "2");
    assert_eq!(version(&world, "worker"), "3");
    world.ok(&[&["deploy", &folder], &out[..]].concat());
    assert_eq!(world.of_group("part", "web").len(), 2);
    world.ok(&["deploy", &folder, "--only-machines", &web, "--update-only"]);
    assert_eq!(world.machine("part", &web)["config"]["env"]["VERSION"], "3");
}

#[test]
fn test_machines_reach_the_updated_machine_and_decide() {
    let Some(world) = World::start() else { return };
    let toml = |version: &str, command: &str| {
        let head = format!("[env]\nVERSION = \"{version}\"\n{}", service(&[]));
        let check = format!("[[machine_checks]]\ncommand = [{command}]\n");
        fly_toml("tested", &format!("{head}{check}"))
    };
    let folder = world.app("tested", &toml("1", "\"env\""));
    world.ok(&["deploy", &folder, "--ha=false"]);
    let said = world.ok(&["deploy", &folder]).stderr;
    assert!(said.contains("completed successfully"), "{said}");
    let logs = world.logs("tested");
    assert!(logs.contains("FLY_TEST_COMMAND=1"), "{logs}");
    let ip = world.machines("tested")[0]["private_ip"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        logs.contains(&format!("FLY_TEST_MACHINE_IP={ip}")),
        "{logs}"
    );

    world.app("tested", &toml("2", "\"exit\", \"4\""));
    let said = world.fails(5, &["deploy", &folder]);
    assert!(said.contains("exited with non-zero status of 4"), "{said}");
    assert!(said.contains("exiting with 4"), "its log: {said}");
    assert_eq!(versions(&world, "tested"), ["1"]);
    let left = world.machines("tested");
    assert!(left.iter().all(|m| group(m) == "app"), "{left:?}");
}

#[test]
fn files_of_flags_are_laid_over_those_of_fly_toml() {
    let Some(world) = World::start() else { return };
    let files = "[[files]]\nguest_path = \"/etc/a\"\nraw_value = \"old\"\n[[files]]\nguest_path = \"/etc/b\"\nraw_value = \"gone\"\n";
    let folder = world.app(
        "files",
        &fly_toml("files", &format!("{files}{}", service(&[]))),
    );
    std::fs::write(world.path("files/local.txt"), "here").unwrap();
    world.ok(&[
        "deploy",
        &folder,
        "--ha=false",
        "--file-literal",
        "/etc/a=new",
        "--file-literal",
        "/etc/b=",
        "--file-local",
        "/etc/c=local.txt",
    ]);
    let machine = world.machines("files").remove(0);
    let files: Vec<(&str, &str)> = machine["config"]["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| {
            (
                f["guest_path"].as_str().unwrap(),
                f["raw_value"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(files, [("/etc/a", "bmV3"), ("/etc/c", "aGVyZQ==")]);
}

#[test]
fn an_image_label_is_the_tag_of_what_is_sent_and_env_is_part_of_the_release() {
    let Some(world) = World::start() else { return };
    let folder = world.app("label", &fly_toml("label", &service(&[])));
    let sent = ["--image", "./testapp.tar", "--image-label", "v7"];
    let env = ["-e", "EXTRA=1", "--ha=false"];
    world.ok(&[&["deploy", &folder], &sent[..], &env[..]].concat());
    let machine = world.machines("label").remove(0);
    let image = machine["config"]["image"].as_str().unwrap();
    assert!(image.starts_with("label:v7@sha256:"), "{image}");
    assert_eq!(machine["config"]["env"]["EXTRA"], "1");
    let answer = world.api("GET", "/v1/apps/label/releases/1", Some(&world.token()));
    let release: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(release["definition"]["env"]["EXTRA"], "1");
}

#[test]
fn a_variable_that_looks_like_a_secret_is_warned_of() {
    let Some(world) = World::start() else { return };
    let folder = world.app("warn", &toml("warn", "1", "rolling", "API_KEY = \"x\""));
    let said = world
        .ok(&["deploy", &folder, "--dry-run", "-e", "AWS_ACCESS_KEY_ID=1"])
        .stderr;
    assert!(
        said.contains("WARN API_KEY may be a potentially sensitive"),
        "{said}"
    );
    assert!(!said.contains("AWS_ACCESS_KEY_ID may"), "{said}");
}

/// Returns whether the newest deployment has told this.
pub(crate) fn has_told(world: &World, app: &str, text: &str) -> bool {
    let path = format!("/v1/apps/{app}/deployments");
    let answer = world.api("GET", &path, Some(&world.token()));
    answer.body.contains(text)
}

#[test]
fn a_server_killed_at_any_stage_of_bluegreen_or_canary_ends_with_one_fleet() {
    let Some(mut world) = World::start() else {
        return;
    };
    let toml = |version: usize, strategy: &str| {
        toml("cut", &version.to_string(), strategy, "").replace(
            "[deploy]",
            &format!("[deploy]\nrelease_command = \"exit 0 100\"\n# {version}"),
        )
    };
    let folder = world.app("cut", &toml(0, "rolling"));
    world.ok(&["deploy", &folder, "--ha=false"]);
    world.ok(&["scale", "count", "2", "-a", "cut", "--yes"]);
    let moments = [
        ("bluegreen", "Release v"),
        ("bluegreen", "Running release_command"),
        ("bluegreen", "Creating green machines"),
        ("bluegreen", "Green Machine"),
        ("bluegreen", "Marking green machines as ready"),
        ("bluegreen", "Destroying all blue machines"),
        ("canary", "Creating canary machine"),
        ("canary", "Canary Machine"),
        ("canary", "Updating Machine"),
    ];
    for (index, (strategy, moment)) in moments.into_iter().enumerate() {
        let version = index + 1;
        world.app("cut", &toml(version, strategy));
        world.start_hangar(&["deploy", &folder]);
        let path = format!("/v1/apps/cut/releases/{}", version + 1);
        world.eventually("the deploy has come so far", |world| {
            let release = world.api("GET", &path, Some(&world.token()));
            (release.status == 200 && has_told(world, "cut", moment)).then_some(())
        });
        world.kill_server();
        world.start_server();
        let code = world.last_started().wait().unwrap().code();
        assert_eq!(code, Some(0), "killed at {moment}\n{}", world.server_log());
        assert_eq!(
            versions(&world, "cut"),
            vec![version.to_string(); 2],
            "killed at {moment}"
        );
        assert_eq!(world.started_groups("cut"), ["app", "app"]);
        assert!(world.machines("cut").iter().all(|m| m["cordoned"] == false));
    }
    let path = "/v1/apps/cut/machines?include_deleted=true";
    let answer = world.api("GET", path, Some(&world.token()));
    let machines: Vec<Value> = serde_json::from_str(&answer.body).unwrap();
    let is_release = |m: &&Value| group(m) == "fly_app_release_command";
    let runs: Vec<&Value> = machines.iter().filter(is_release).collect();
    // The first deploy is by rolling, and has one too.
    assert_eq!(runs.len(), moments.len() + 1, "one a deploy");
    for run in runs {
        let events = run["events"].as_array().unwrap().iter();
        assert_eq!(events.filter(|e| e["status"] == "started").count(), 1);
    }
}
