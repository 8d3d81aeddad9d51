//! The Machines API to the letter, where it takes a real Machine.

use serde_json::json;

use crate::world::{IMAGE, World};

/// Makes an app with one started Machine and returns the Machine's path.
fn started(world: &World, app: &str, config: serde_json::Value) -> String {
    let (status, made) = world.send("POST", "/v1/apps", &json!({"name": app}));
    assert_eq!(status, 201, "{made}");
    let base = format!("/v1/apps/{app}/machines");
    let (status, machine) = world.send("POST", &base, &json!({"config": config}));
    assert_eq!(status, 200, "{machine}");
    let path = format!("{base}/{}", machine["id"].as_str().unwrap());
    let (status, waited) = world.send("GET", &format!("{path}/wait?timeout=30"), &json!(null));
    assert_eq!(status, 200, "{waited}");
    path
}

#[test]
fn processes_are_listed_with_what_they_listen_on() {
    let Some(world) = World::start() else { return };
    let path = started(&world, "ps", json!({"image": IMAGE}));
    let row = world.eventually("the program listens", |world| {
        let (status, rows) = world.send("GET", &format!("{path}/ps?sort_by=pid"), &json!(null));
        assert_eq!(status, 200, "{rows}");
        let rows = rows.as_array().unwrap().clone();
        assert_eq!(rows[0]["pid"], 1, "{rows:?}");
        let serves = |row: &serde_json::Value| {
            let command = row["command"].as_str().unwrap();
            let sockets = row["listen_sockets"].as_array().unwrap();
            command.ends_with("/testapp serve") && !sockets.is_empty()
        };
        rows.into_iter().find(serves)
    });
    assert_eq!(
        row["listen_sockets"][0]["proto"].as_str().unwrap()[..3],
        *"tcp"
    );
    let address = row["listen_sockets"][0]["address"].as_str().unwrap();
    assert!(address.ends_with(":8080"), "{row}");
    assert_eq!(row["directory"], "/");
    assert!(row["rss"].as_u64().unwrap() > 10_000, "{row}");
    assert!(row["pid"].as_u64().unwrap() > 1);
}

#[test]
fn memory_is_limited_while_a_machine_runs_and_never_below_what_it_uses() {
    let Some(world) = World::start() else { return };
    let guest = json!({"cpu_kind": "shared", "cpus": 1, "memory_mb": 256, "max_memory_mb": 512});
    let path = started(&world, "mem", json!({"image": IMAGE, "guest": guest}));
    let memory = format!("{path}/memory");
    let (status, before) = world.send("GET", &memory, &json!(null));
    assert_eq!(
        (status, &before["limit_mb"]),
        (200, &json!(256)),
        "{before}"
    );
    let left = before["available_mb"].as_u64().unwrap();
    assert!((100..256).contains(&left), "{before}");
    for limit in [512, 64, 128] {
        let (status, after) = world.send("PUT", &memory, &json!({"limit_mb": limit}));
        assert_eq!(
            (status, &after["limit_mb"]),
            (200, &json!(limit)),
            "{after}"
        );
    }
    for bad in [json!(1), json!(513), json!("much"), json!(null)] {
        let (status, refused) = world.send("PUT", &memory, &json!({"limit_mb": bad}));
        assert_eq!(status, 400, "{refused}");
    }
    let (_, kept) = world.send("GET", &memory, &json!(null));
    assert_eq!(kept["limit_mb"], 128);
    // Either the kernel can take memory back, or it is said that it cannot.
    let (status, reclaimed) = world.send(
        "POST",
        &format!("{memory}/reclaim"),
        &json!({"amount_mb": 1}),
    );
    match status {
        200 => assert!(reclaimed["actual_mb"].is_u64(), "{reclaimed}"),
        other => {
            assert_eq!(other, 501, "{reclaimed}");
            let text = reclaimed["error"].as_str().unwrap();
            assert!(text.contains("takes no memory back"), "{text}");
        }
    }
    // A Machine that is down uses nothing that could be told.
    world.send("POST", &format!("{path}/stop"), &json!(null));
    let (status, _) = world.send("GET", &format!("{path}/wait?state=stopped"), &json!(null));
    assert_eq!(status, 200);
    assert_eq!(world.send("GET", &memory, &json!(null)).0, 412);
    assert_eq!(
        world.send("GET", &format!("{path}/ps"), &json!(null)).0,
        412
    );
}

#[test]
fn a_file_of_megabytes_reaches_its_machine_whole() {
    let Some(world) = World::start() else { return };
    let content = "aGVsbG8h".repeat(300_000);
    let file = json!({"guest_path": "/etc/large", "raw_value": content});
    let path = started(&world, "files", json!({"image": IMAGE, "files": [file]}));
    let (status, shown) = world.send("GET", &path, &json!(null));
    assert_eq!(status, 200);
    assert!(shown["config"]["files"][0]["raw_value"] == json!(content));
    let id = path.rsplit('/').next().unwrap();
    let pid = world.inits()[0];
    let root = std::path::PathBuf::from(format!("/proc/{pid}")).join("root");
    let written = std::fs::metadata(root.join("etc/large")).unwrap();
    assert_eq!(written.len(), 1_800_000, "machine {id}");
    // As it is after a restart of the server, too.
    let (status, _) = world.send("POST", &format!("{path}/restart"), &json!(null));
    assert_eq!(status, 200);
    let (status, waited) = world.send("GET", &format!("{path}/wait?state=started"), &json!(null));
    assert_eq!(status, 200, "{waited}");
}

#[test]
fn limits_of_the_rate_are_set_by_a_flag() {
    let Some(mut world) = World::empty() else {
        return;
    };
    world.set_arguments(&["--rate-limit", "on"]);
    world.start_server();
    world.send("POST", "/v1/apps", &json!({"name": "often"}));
    let many = |world: &World| {
        let asked = (0..6).map(|_| world.send("GET", "/v1/apps/often/machines", &json!(null)));
        asked
            .filter(|(status, body)| *status == 429 && body["error"] == "rate limit exceeded")
            .count()
    };
    assert!(many(&world) >= 1);
    world.stop_server();
    world.set_arguments(&[]);
    world.start_server();
    assert_eq!(many(&world), 0);
    let refused = world.fails(2, &["server", "--rate-limit", "fast"]);
    assert!(refused.contains("off, on"), "{refused}");
}
