//! The release command: before everything, once, and with its log when it fails.

use serde_json::Value;

use crate::world::{World, fly_toml, service};

fn toml(app: &str, version: &str, deploy: &str) -> String {
    let env = format!("[env]\nVERSION = \"{version}\"\n[deploy]\n{deploy}\n");
    fly_toml(app, &format!("{env}{}", service(&[])))
}

/// Returns all Machines of the release command, those that are gone included.
fn runs(world: &World, app: &str) -> Vec<Value> {
    let path = format!("/v1/apps/{app}/machines?include_deleted=true");
    let answer = world.api("GET", &path, Some(&world.token()));
    let machines: Vec<Value> = serde_json::from_str(&answer.body).unwrap();
    let is_release = |m: &Value| crate::world::group(m) == "fly_app_release_command";
    machines.into_iter().filter(is_release).collect()
}

#[test]
fn a_release_command_runs_once_before_a_machine_is_made() {
    let Some(world) = World::start() else { return };
    let folder = world.app("rel", &toml("rel", "1", "release_command = \"env\""));
    let plan = world.ok(&["deploy", &folder, "--dry-run"]);
    assert!(
        plan.stdout.contains("run the release command: env"),
        "{plan:?}"
    );
    let said = world.ok(&["deploy", &folder, "--ha=false"]).stderr;
    let line = |word: &str| {
        said.find(word)
            .unwrap_or_else(|| panic!("no {word}:\n{said}"))
    };
    assert!(line("Running release_command: env") < line("completed successfully"));
    assert!(line("completed successfully") < line("is started"));
    let ran = runs(&world, "rel");
    assert_eq!(ran.len(), 1);
    assert_eq!(ran[0]["config"]["restart"]["policy"], "no");
    assert_eq!(ran[0]["config"]["guest"]["memory_mb"], 512);
    assert_eq!(ran[0]["config"]["services"], Value::Null);
    let logs = world.logs("rel");
    assert!(logs.contains("RELEASE_COMMAND=1"), "{logs}");
    assert!(logs.contains("VERSION=1"), "{logs}");
    assert_eq!(world.machines("rel").len(), 1, "it is gone");

    // Secrets only restart the app, and a deploy may leave it out.
    world.ok(&["secrets", "set", "WORD=new", "-a", "rel"]);
    world.ok(&["deploy", &folder, "--skip-release-command"]);
    assert_eq!(runs(&world, "rel").len(), 1);
    world.ok(&["deploy", &folder]);
    assert_eq!(runs(&world, "rel").len(), 2);
}

#[test]
fn a_release_command_that_fails_touches_no_machine_and_shows_its_log() {
    let Some(world) = World::start() else { return };
    let folder = world.app("bad", &toml("bad", "1", ""));
    world.ok(&["deploy", &folder, "--ha=false"]);
    let before = world.machines("bad");
    world.app("bad", &toml("bad", "2", "release_command = \"exit 3 100\""));
    let said = world.fails(5, &["deploy", &folder]);
    let id = runs(&world, "bad")[0]["id"].as_str().unwrap().to_owned();
    let reason = format!(
        "release command failed - aborting deployment. machine {id} exited with non-zero status of 3"
    );
    assert!(said.contains(&reason), "{said}");
    assert!(said.contains("exiting with 3"), "its log: {said}");
    assert_eq!(world.machines("bad"), before);
    assert_eq!(world.ask("bad")["version"], "1");

    // On a first deploy nothing is made at all.
    let folder = world.app("new", &toml("new", "1", "release_command = \"exit 1\""));
    world.fails(5, &["deploy", &folder]);
    assert_eq!(world.machines("new"), Vec::<Value>::new());
}

#[test]
fn a_release_command_that_takes_too_long_is_ended() {
    let Some(world) = World::start() else { return };
    let folder = world.app(
        "slow",
        &toml("slow", "1", "release_command = \"lines 1 0\""),
    );
    let said = world.fails(5, &["deploy", &folder, "--release-command-timeout", "1s"]);
    assert!(said.contains("has not ended after 1 s"), "{said}");
    assert_eq!(world.machines("slow"), Vec::<Value>::new());
}

#[test]
fn a_release_command_is_not_run_again_after_the_server_was_killed() {
    let Some(mut world) = World::start() else {
        return;
    };
    let folder = world.app(
        "once",
        &toml("once", "1", "release_command = \"exit 0 1500\""),
    );
    world.start_hangar(&["deploy", &folder, "--ha=false"]);
    world.eventually("the release command runs", |world| {
        let answer = world.api(
            "GET",
            "/v1/apps/once/machines?include_deleted=true",
            Some(&world.token()),
        );
        let machines: Vec<Value> = serde_json::from_str(&answer.body).ok()?;
        (machines.first()?["state"] == "started").then_some(())
    });
    world.kill_server();
    world.start_server();
    let code = world.last_started().wait().unwrap().code();
    assert_eq!(code, Some(0));
    let ran = runs(&world, "once");
    assert_eq!(ran.len(), 1);
    let logs = world.logs("once");
    assert_eq!(logs.matches("exiting with 0").count(), 1, "{logs}");
    assert_eq!(world.started_groups("once"), ["app"]);
}
