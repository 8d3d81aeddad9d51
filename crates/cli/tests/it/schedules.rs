//! Scheduled Machines: a real job is started once an hour, by a server that was away too.
//!
//! Nobody waits for an hour: while the server is down, what it remembers is made an hour older, as
//! if it had been away for so long. The hours themselves pass on the simulated clock of the
//! server's own tests.

use serde_json::Value;

use crate::world::{IMAGE, World, fly_toml};

/// Puts back the beginning of a Machine's cycle; the server is down.
fn age(world: &World, app: &str, id: &str, hours: f64) {
    let store = rusqlite::Connection::open(world.data_dir().join("store.db")).unwrap();
    let key = format!("cycles/{app}/{id}");
    let read = "SELECT value FROM kv WHERE key = ?1";
    let bytes: Vec<u8> = store.query_row(read, [&key], |row| row.get(0)).unwrap();
    let mut cycle: Value = serde_json::from_slice(&bytes).unwrap();
    let began: jiff::Timestamp = cycle["d"]["began"].as_str().unwrap().parse().unwrap();
    let earlier = began - jiff::SignedDuration::from_secs_f64(hours * 3600.0);
    cycle["d"]["began"] = earlier.to_string().into();
    let write = "UPDATE kv SET value = ?1 WHERE key = ?2";
    let bytes = serde_json::to_vec(&cycle).unwrap();
    assert_eq!(store.execute(write, (&bytes, &key)).unwrap(), 1);
}

/// Returns how often a Machine was started.
fn starts(world: &World, app: &str, id: &str) -> usize {
    let machine = world.machine(app, id);
    let events = machine["events"].as_array().unwrap().iter();
    events
        .filter(|e| e["type"] == "start" && e["status"] == "started")
        .count()
}

fn is_stopped(world: &World, app: &str, id: &str) -> Option<Value> {
    let machine = world.machine(app, id);
    (machine["state"] == "stopped" && !machine["next_run"].is_null()).then_some(machine)
}

#[test]
fn a_scheduled_job_runs_again_after_its_hour_and_explain_says_when() {
    let Some(mut world) = World::start() else {
        return;
    };
    world.ok(&["apps", "create", "cron"]);
    let said = world.fails(
        2,
        &[
            "machine",
            "run",
            "-a",
            "cron",
            IMAGE,
            "--schedule",
            "0 3 * * *",
        ],
    );
    assert!(said.contains("hourly, daily, weekly or monthly"), "{said}");
    world.ok(&[
        "machine",
        "run",
        "-a",
        "cron",
        IMAGE,
        "exit",
        "0",
        "--schedule",
        "hourly",
        "--detach",
    ]);
    let id = world.machines("cron")[0]["id"].as_str().unwrap().to_owned();
    let done = world.eventually("it has run", |world| is_stopped(world, "cron", &id));
    assert_eq!(done["config"]["schedule"], "hourly");
    assert_eq!(done["config"]["restart"]["policy"], "on-failure");
    assert_eq!(starts(&world, "cron", &id), 1);
    let told = world.ok(&["explain", &id, "-a", "cron"]).stdout;
    assert!(
        told.contains("its schedule is hourly: it is started next at"),
        "{told}"
    );

    // Half an hour away: nothing is due. More than an hour, and killed at once: one run.
    world.stop_server();
    age(&world, "cron", &id, 0.4);
    world.start_server();
    assert_eq!(starts(&world, "cron", &id), 1);
    for run in 2..4 {
        world.kill_server();
        age(&world, "cron", &id, 3.0);
        world.start_server();
        world.eventually("it runs again", |world| {
            let again = starts(world, "cron", &id) == run;
            (again && is_stopped(world, "cron", &id).is_some()).then_some(())
        });
    }
    let newest = &world.machine("cron", &id)["events"];
    let start = newest.as_array().unwrap().iter();
    let start = start.clone().find(|e| e["type"] == "start").unwrap();
    assert_eq!(start["source"], "flyd", "{newest}");

    // Without its schedule it stays as it is.
    world.ok(&["machine", "update", &id, "--schedule", "", "--yes"]);
    world.eventually("its schedule is forgotten", |world| {
        world.machine("cron", &id)["next_run"]
            .is_null()
            .then_some(())
    });
    assert_eq!(world.machine("cron", &id)["state"], "stopped");
}

#[test]
fn a_group_gets_a_schedule_and_keeps_it_through_deploys() {
    let Some(mut world) = World::start() else {
        return;
    };
    let rest = "[processes]\nweb = \"serve\"\nsweep = \"exit 0\"\n\n[[restart]]\npolicy = \"on-failure\"\nprocesses = [\"sweep\"]\n";
    let folder = world.app("site", &fly_toml("site", rest));
    world.ok(&["deploy", &folder, "--ha=false"]);
    let sweep = world.only("site", "sweep");
    world.ok(&[
        "machine",
        "update",
        "-g",
        "sweep",
        "--schedule",
        "daily",
        "-a",
        "site",
        "--yes",
    ]);
    let said = world.fails(
        3,
        &[
            "machine",
            "update",
            "-g",
            "none",
            "--schedule",
            "daily",
            "-a",
            "site",
            "--yes",
        ],
    );
    assert!(said.contains("no Machines in group none"), "{said}");
    let web = world.only("site", "web");
    assert!(world.machine("site", &web)["config"]["schedule"].is_null());
    world.eventually("its cycle begins", |world| {
        is_stopped(world, "site", &sweep)
    });
    world.ok(&["deploy", &folder, "--ha=false", "-e", "NEW=1"]);
    let after = world.machine("site", &sweep);
    assert_eq!(after["config"]["schedule"], "daily");
    assert_eq!(after["config"]["env"]["NEW"], "1");
    assert_eq!(after["state"], "stopped");
    let before = starts(&world, "site", &sweep);
    world.stop_server();
    age(&world, "site", &sweep, 25.0);
    world.start_server();
    world.eventually("the new version runs", |world| {
        (starts(world, "site", &sweep) > before).then_some(())
    });
}

#[test]
fn a_periodic_job_of_nomads_is_deployed_with_its_schedule() {
    let Some(world) = World::start() else { return };
    let folder = world.path("report");
    std::fs::create_dir(&folder).unwrap();
    let job = serde_json::json!({"Job": {
        "ID": "report", "Type": "batch", "Periodic": {"Enabled": true, "Specs": ["0 4 * * 1"]},
        "TaskGroups": [{"Name": "report", "Count": 1, "Tasks": [{"Name": "report",
            "Driver": "docker", "Config": {"image": IMAGE, "args": ["exit", "0"]}}]}]}});
    std::fs::write(folder.join("job.json"), job.to_string()).unwrap();
    let said = world.ok(&["migrate", "nomad", "report/job.json"]).stderr;
    assert!(said.contains("\"0 4 * * 1\" becomes weekly"), "{said}");
    world.ok(&["deploy", "report", "--ha=false"]);
    let all = world.machines("report");
    assert_eq!(all.len(), 1, "{all:?}");
    let id = all[0]["id"].as_str().unwrap();
    let ran = world.eventually("it has run", |world| is_stopped(world, "report", id));
    assert_eq!(ran["config"]["schedule"], "weekly");
    assert_eq!(starts(&world, "report", id), 1);
}
