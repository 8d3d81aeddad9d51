//! Control-C in `hangar deploy`, under each strategy.

use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::strategies::{fleet, has_told, ids, toml, versions};
use crate::world::World;

/// Starts a deploy whose new version is up only after a while, and returns when it has told this.
fn begin(world: &World, folder: &str, strategy: &str, told: &str) -> Child {
    world.app(
        "broken",
        &toml("broken", "2", strategy, "DELAY_MS = \"4000\""),
    );
    let mut command: Command = world.command(env!("CARGO_BIN_EXE_hangar"));
    command.args(["deploy", folder]);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let child = child.unwrap();
    world.eventually(told, |w| has_told(w, "broken", told).then_some(()));
    child
}

fn press(child: &Child) {
    // It may have ended by itself.
    let _gone = kill_process(Pid::from_child(child), Signal::INT);
}

/// Waits for the command and returns its exit code and what it has said.
fn end(world: &World, mut child: Child) -> (Option<i32>, String) {
    world.eventually("the command ends", |_| child.try_wait().unwrap());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

/// A deploy that is interrupted leaves the fleet as it was, without leases, new Machines or a
/// claim on the app.
fn undone(strategy: &str, told: &str) {
    let Some(world) = World::start() else { return };
    let folder = fleet(&world, "broken", strategy, 3);
    let before = ids(&world, "broken");
    let child = begin(&world, &folder, strategy, told);
    press(&child);
    let (code, said) = end(&world, child);
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("Cancelling the deploy of v"), "{said}");
    assert!(said.contains("it was cancelled by admin"), "{said}");
    assert!(!said.contains("not listening"), "{said}");
    assert_eq!(ids(&world, "broken"), before);
    assert_eq!(versions(&world, "broken"), ["1"; 3]);
    assert_eq!(world.started_groups("broken").len(), 3);
    assert!(
        world
            .machines("broken")
            .iter()
            .all(|m| m["cordoned"] == false)
    );
    assert_eq!(world.ask("broken")["version"], "1");
    nothing_is_held(&world, &folder, strategy);
}

fn nothing_is_held(world: &World, folder: &str, strategy: &str) {
    let leases = world.ok(&["machine", "leases", "view", "-a", "broken"]);
    assert_eq!(leases.stdout.trim(), "No leases found");
    world.app("broken", &toml("broken", "3", strategy, ""));
    world.ok(&["deploy", folder]);
    assert_eq!(versions(world, "broken"), ["3"; 3]);
}

#[test]
fn a_rolling_deploy_that_is_interrupted_is_undone() {
    undone("rolling", "Updating Machine");
}

#[test]
fn a_canary_deploy_that_is_interrupted_is_undone() {
    undone("canary", "Creating canary machine");
}

#[test]
fn a_bluegreen_deploy_that_is_interrupted_is_undone() {
    undone("bluegreen", "Creating green machines");
}

#[test]
fn an_immediate_deploy_that_is_interrupted_comes_to_a_rest() {
    let Some(world) = World::start() else { return };
    let folder = fleet(&world, "broken", "immediate", 3);
    let before = ids(&world, "broken");
    let child = begin(&world, &folder, "immediate", "Updating Machine");
    press(&child);
    let (code, said) = end(&world, child);
    // It promises nothing: by then it may be over, and what it has done stays.
    assert!(code == Some(6) || code == Some(0), "{code:?}: {said}");
    assert_eq!(ids(&world, "broken"), before);
    nothing_is_held(&world, &folder, "immediate");
}

#[test]
fn interrupted_twice_the_command_ends_and_the_server_goes_on() {
    let Some(mut world) = World::start() else {
        return;
    };
    let folder = fleet(&world, "broken", "rolling", 3);
    let mut child = begin(&world, &folder, "rolling", "Updating Machine");
    // A server that is away cannot be asked to turn back.
    world.kill_server();
    // Two presses that come at once are one.
    world.eventually("the command ends", |_| {
        press(&child);
        child.try_wait().unwrap()
    });
    let (code, said) = end(&world, child);
    assert_eq!(code, Some(130), "{said}");
    assert!(
        said.contains("the server goes on with the deploy of v"),
        "{said}"
    );
    world.start_server();
    world.eventually("the deploy is complete", |w| {
        (versions(w, "broken") == ["2"; 3]).then_some(())
    });
}

#[test]
fn a_server_that_was_away_is_told_when_it_is_back() {
    let Some(mut world) = World::start() else {
        return;
    };
    let folder = fleet(&world, "broken", "rolling", 3);
    let before = ids(&world, "broken");
    let child = begin(&world, &folder, "rolling", "Updating Machine");
    world.kill_server();
    press(&child);
    world.start_server();
    let (code, said) = end(&world, child);
    assert_eq!(code, Some(5), "{said}");
    assert_eq!(ids(&world, "broken"), before);
    assert_eq!(versions(&world, "broken"), ["1"; 3]);
    nothing_is_held(&world, &folder, "rolling");
}

#[test]
fn a_detached_deploy_is_listed_shown_and_cancelled() {
    let Some(world) = World::start() else { return };
    let folder = fleet(&world, "broken", "rolling", 3);
    let before = ids(&world, "broken");
    let none = world.fails(3, &["deployments", "cancel", "-a", "broken"]);
    assert!(none.contains("app broken is not being deployed"), "{none}");
    let slow = toml("broken", "2", "rolling", "DELAY_MS = \"60000\"");
    world.app("broken", &slow);
    world.ok(&["deploy", &folder, "--detach"]);
    world.eventually("it is under way", |w| {
        has_told(w, "broken", "Updating Machine").then_some(())
    });
    let listed = world.ok(&["deployments", "list", "-a", "broken"]).stdout;
    let newest = listed.lines().nth(1).unwrap();
    assert!(
        newest.contains(" v2 ") && newest.contains("running"),
        "{listed}"
    );
    let shown = world.ok(&["deployments", "show", "-a", "broken"]).stdout;
    assert!(shown.contains("Updating Machine"), "{shown}");
    let ran = world.ok(&["deployments", "cancel", "-a", "broken"]);
    assert!(ran.stderr.contains("The deploy of v2 is undone"), "{ran:?}");
    assert_eq!(ids(&world, "broken"), before);
    assert_eq!(versions(&world, "broken"), ["1"; 3]);
    let shown = world.json(&["deployments", "show", "-a", "broken"]);
    assert_eq!(shown["status"], "rolled_back");
    let id = shown["id"].as_str().unwrap();
    let late = world.hangar(&["deployments", "cancel", id, "-a", "broken"]);
    assert!(late.code != 0, "{late:?}");
    nothing_is_held(&world, &folder, "rolling");
}
