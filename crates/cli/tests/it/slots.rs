//! Lost slots: standbys take over and give back, and a deploy replaces what was there.

use serde_json::Value;

use crate::world::{World, fly_toml};

/// Deploys a worker with its standby and returns the ids of both, and the worker's slot.
fn worker(world: &World, app: &str) -> (String, String, String, String) {
    let toml = fly_toml(app, "[processes]\nworker = \"lines 1 0\"\n");
    let folder = world.app(app, &toml);
    world.ok(&["deploy", &folder, "--smoke-checks=false"]);
    let (first, standby) = pair(world, app);
    let text = |m: &Value, key: &str| m[key].as_str().unwrap().to_owned();
    let slot = text(&first, "slot");
    assert_ne!(slot, text(&standby, "slot"), "not on one slot");
    (folder, text(&first, "id"), text(&standby, "id"), slot)
}

/// Returns the worker and its standby.
fn pair(world: &World, app: &str) -> (Value, Value) {
    let machines = world.of_group(app, "worker");
    assert_eq!(machines.len(), 2, "{machines:?}");
    let is_standby = |m: &&Value| m["config"]["standbys"].is_array();
    let standby = machines.iter().find(is_standby).unwrap().clone();
    let first = machines.iter().find(|m| !is_standby(m)).unwrap().clone();
    (first, standby)
}

fn becomes(world: &World, app: &str, id: &str, state: &str) {
    world.eventually(&format!("{id} is {state}"), |world| {
        (world.machine(app, id)["state"] == state).then_some(())
    });
}

#[test]
fn a_standby_takes_over_when_the_watched_slot_is_lost_and_gives_back() {
    let Some(mut world) = World::start() else {
        return;
    };
    let (_, first, standby, slot) = worker(&world, "stand");
    assert_eq!(world.machine("stand", &standby)["state"], "stopped");
    world.ok(&["slots", "lost", &slot]);
    becomes(&world, "stand", &standby, "started");
    assert_eq!(world.machine("stand", &first)["host_status"], "unreachable");

    // Once for one loss: what somebody stops stays stopped, also after a restart of the server.
    world.ok(&["machine", "stop", &standby, "-a", "stand"]);
    world.kill_server();
    world.start_server();
    let starts = |world: &World| {
        let machine = world.machine("stand", &standby);
        let events = machine["events"].as_array().unwrap().clone();
        events.iter().filter(|e| e["status"] == "started").count()
    };
    assert_eq!(starts(&world), 1);
    world.ok(&["slots", "back", &slot]);
    world.ok(&["slots", "lost", &slot]);
    becomes(&world, "stand", &standby, "started");
    world.ok(&["slots", "back", &slot]);
    becomes(&world, "stand", &standby, "stopped");
    assert_eq!(starts(&world), 2);
    assert_eq!(world.machine("stand", &first)["state"], "started");
}

#[test]
fn a_deploy_replaces_what_is_on_a_lost_slot() {
    let Some(world) = World::start() else { return };
    let (folder, first, standby, slot) = worker(&world, "move");
    world.ok(&["slots", "lost", &slot]);
    becomes(&world, "move", &standby, "started");
    let plan = world.ok(&["deploy", &folder, "--dry-run"]);
    assert!(
        plan.stdout
            .contains("replace 1 \"worker\" machine on lost slots"),
        "{plan:?}"
    );
    let said = world
        .ok(&["deploy", &folder, "--smoke-checks=false"])
        .stderr;
    assert!(said.contains(&format!("is on slot {slot}, which is lost")));
    let (new, old_standby) = pair(&world, "move");
    assert_ne!(new["id"], first.as_str());
    assert_ne!(new["slot"], slot.as_str());
    assert_eq!(new["region"], "iad");
    assert_eq!(old_standby["id"], standby.as_str());
    assert_eq!(
        old_standby["config"]["standbys"],
        serde_json::json!([new["id"]])
    );
    // Whom it stood in for is there again, elsewhere.
    becomes(&world, "move", &standby, "stopped");
    becomes(&world, "move", new["id"].as_str().unwrap(), "started");
}

#[test]
fn slots_are_listed_and_one_that_there_is_not_is_refused() {
    let Some(world) = World::start() else { return };
    let of = |world: &World, name: &str| {
        let slots = world.json(&["slots", "list"]);
        let mut all = slots.as_array().unwrap().iter();
        all.find(|s| s["id"] == name).unwrap()["lost"].clone()
    };
    assert_eq!(of(&world, "iad-a"), false);
    world.ok(&["slots", "lost", "iad-a"]);
    world.ok(&["slots", "lost", "iad-a"]);
    assert_eq!(of(&world, "iad-a"), true);
    let said = world.fails(3, &["slots", "back", "moon"]);
    assert!(said.contains("there is no slot \"moon\""), "{said}");
    // Nothing is placed where everything is lost, and that is said.
    world.ok(&["slots", "lost", "iad-b"]);
    let folder = world.app("none", &fly_toml("none", ""));
    let said = world.fails(1, &["deploy", &folder, "--ha=false"]);
    assert!(said.contains("marked lost; use another region"), "{said}");
}
