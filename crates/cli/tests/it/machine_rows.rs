//! The rows of the spec's section 9.4 about single Machines and volumes, each as one test: what
//! Fly's own client is tried with, end to end.

use serde_json::{Value, json};

use crate::busybox::SHELL;
use crate::world::{IMAGE, World};

const APP: &str = "rows";

fn ids(world: &World) -> Vec<String> {
    let all = world.machines(APP);
    all.iter()
        .map(|m| m["id"].as_str().unwrap().to_owned())
        .collect()
}

/// Runs a command that makes a Machine and returns that Machine.
fn made_by(world: &World, words: &[&str]) -> Value {
    let before = ids(world);
    world.ok(words);
    let after = ids(world);
    let new: Vec<&String> = after.iter().filter(|id| !before.contains(id)).collect();
    assert_eq!(new.len(), 1, "{words:?}");
    world.machine(APP, new[0])
}

fn id(machine: &Value) -> String {
    machine["id"].as_str().unwrap().to_owned()
}

#[test]
fn machine_run_port() {
    let Some(world) = World::start() else { return };
    world.ok(&["apps", "create", APP]);
    let run = ["machine", "run", "-a", APP, IMAGE, "--detach", "--port"];
    let machine = made_by(&world, &[&run[..], &["443:80/tcp:http:tls"]].concat());
    let service = |ports: Value| json!({"protocol": "tcp", "internal_port": 80, "ports": ports});
    let https = json!({"port": 443, "handlers": ["http", "tls"]});
    assert_eq!(
        machine["config"]["services"],
        json!([service(json!([https]))])
    );
    let machine = id(&machine);
    let services = |words: &[&str]| {
        let update = ["machine", "update", "-a", APP, &machine, "-y"];
        world.ok(&[&update[..], words].concat());
        world.machine(APP, &machine)["config"]["services"].clone()
    };
    let http = json!({"port": 80, "handlers": ["http"]});
    let both = services(&["--port", "80/tcp:http", "--port", "1001/tcp"]);
    let other = json!({"protocol": "tcp", "internal_port": 1001, "ports": [{"port": 1001}]});
    assert_eq!(both, json!([service(json!([https, http])), other]));
    // The dash takes the service's ports away, and a service without ports goes.
    let last = services(&["--port", "80/tcp:-", "--port", "1001/tcp:tls"]);
    let other = json!([{"port": 1001, "handlers": ["tls"]}]);
    assert_eq!(
        last,
        json!([{"protocol": "tcp", "internal_port": 1001, "ports": other}])
    );
    // Another protocol is another service, on the same numbers too.
    let udp = services(&["--port", "53/udp"]);
    assert_eq!(
        udp[1],
        json!({"protocol": "udp", "internal_port": 53, "ports": [{"port": 53}]})
    );
}

#[test]
fn machine_run_standby_for() {
    let Some(world) = World::start() else { return };
    world.ok(&["apps", "create", APP]);
    let run = ["machine", "run", "-a", APP, IMAGE, "--detach"];
    let first = id(&made_by(&world, &run));
    assert!(world.machine(APP, &first)["config"]["standbys"].is_null());
    let standby_for = format!("--standby-for={first}");
    let second = made_by(&world, &[&run[..], &[&standby_for]].concat());
    let rests =
        |machine: &Value| ["created", "stopped"].contains(&machine["state"].as_str().unwrap());
    assert!(rests(&second), "{second}");
    assert_eq!(second["config"]["standbys"], json!([first]));
    let second = id(&second);
    world.ok(&[
        "machine",
        "update",
        "-a",
        APP,
        &second,
        "--standby-for=",
        "-y",
    ]);
    let cleared = world.machine(APP, &second);
    assert!(rests(&cleared), "{cleared}");
    assert!(cleared["config"]["standbys"].is_null());
    let list = format!("--standby-for=source,{second}");
    let third = made_by(&world, &["machine", "clone", "-a", APP, &first, &list]);
    assert!(rests(&third), "{third}");
    assert_eq!(third["config"]["standbys"], json!([first, second]));
    let third = id(&third);
    let list = format!("--standby-for={second}");
    world.ok(&["machine", "update", "-a", APP, &third, &list, "-y"]);
    let third = world.machine(APP, &third);
    assert!(rests(&third), "{third}");
    assert_eq!(third["config"]["standbys"], json!([second]));
}

#[test]
fn machine_run_rootfs_size() {
    let Some(world) = World::start() else { return };
    world.ok(&["apps", "create", APP]);
    let run = ["machine", "run", "-a", APP, IMAGE, "--detach"];
    let machine = made_by(&world, &[&run[..], &["--rootfs-size", "5"]].concat());
    assert_eq!(machine["config"]["rootfs"]["size_gb"], 5);
    let machine = id(&machine);
    let update = [
        "machine",
        "update",
        "-a",
        APP,
        &machine,
        "-y",
        "--rootfs-size",
    ];
    world.ok(&[&update[..], &["10gb"]].concat());
    let size = || world.machine(APP, &machine)["config"]["rootfs"].clone();
    assert_eq!(size()["size_gb"], 10);
    world.ok(&[&update[..], &["0"]].concat());
    assert!(size().is_null());
}

#[test]
fn fly_volume() {
    let Some(world) = World::with_disks() else {
        return;
    };
    world.ok(&["apps", "create", APP]);
    let volume = |words: &[&str]| {
        let whole = [&["volumes"], words, &["-a", APP]].concat();
        world.json(&whole)
    };
    let made = volume(&["create", "test_volume", "-r", "iad", "-s", "1", "-y"]);
    assert_eq!(
        (&made["name"], &made["region"], &made["size_gb"]),
        (&json!("test_volume"), &json!("iad"), &json!(1))
    );
    let made = id(&made);
    let grown = volume(&["extend", &made, "-s", "+1"]);
    assert_eq!(grown["size_gb"], 2);
    let fork = volume(&["fork", &made]);
    assert_ne!(fork["id"], made.as_str());
    assert_eq!(fork["name"], "test_volume");
    let machine = made_by(
        &world,
        &[
            "machine",
            "run",
            SHELL,
            "-a",
            APP,
            "--detach",
            "-v",
            &format!("{made}:/data"),
        ],
    );
    let listed = volume(&["list"]);
    let of = |key: &str| {
        let all = listed.as_array().unwrap().iter();
        let mut found = all.filter(|v| v["id"] == made.as_str());
        found.next().unwrap()[key].clone()
    };
    assert_eq!(listed.as_array().unwrap().len(), 2);
    assert_eq!(of("attached_machine_id"), machine["id"]);
    let said = world.fails(1, &["volumes", "destroy", &made, "-a", APP, "-y"]);
    assert!(said.contains("bound to machine"), "{said}");
    world.ok(&["machine", "destroy", &id(&machine), "--force"]);
    world.eventually("it is free", |world| {
        let shown = world.json(&["volumes", "show", &made, "-a", APP]);
        shown["attached_machine_id"].is_null().then_some(())
    });
    for one in [&made, &id(&fork)] {
        world.ok(&["volumes", "destroy", one, "-a", APP, "-y"]);
    }
    assert_eq!(volume(&["list"]), json!([]));
}
