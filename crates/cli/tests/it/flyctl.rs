//! The unmodified flyctl against a server, where it is on the PATH; else this is skipped aloud.
//! What it sent once is replayed everywhere by [`crate::compat`].

use std::process::Command;

use serde_json::{Value, json};

use crate::world::{Ran, World, finish, fly_toml, group};

/// A fly.toml with most of what makes a Machine, for both ways to deploy.
pub(crate) const SHOP: &str = r#"kill_signal = "SIGTERM"
kill_timeout = "7s"
[env]
MODE = "live"
[processes]
web = "serve"
worker = "lines 3 100"
disk = "serve 9000"
[http_service]
internal_port = 8080
processes = ["web"]
auto_stop_machines = "off"
auto_start_machines = true
min_machines_running = 1
[http_service.concurrency]
type = "requests"
soft_limit = 20
hard_limit = 25
[[http_service.checks]]
grace_period = "1s"
interval = "2s"
timeout = "1s"
path = "/health"
[checks.alive]
type = "tcp"
port = 8080
interval = "5s"
timeout = "1s"
processes = ["web"]
[[mounts]]
source = "data"
destination = "/data"
processes = ["disk"]
initial_size = "1"
[[vm]]
size = "shared-cpu-1x"
memory = "512mb"
processes = ["worker"]
[[restart]]
policy = "on-failure"
retries = 3
processes = ["worker"]
[[files]]
guest_path = "/etc/motd"
raw_value = "aGVsbG8="
"#;

impl World {
    /// Returns flyctl as `hangar flyctl-env` sets it up, or says that there is none.
    fn flyctl(&self) -> Option<Command> {
        let known = Command::new("flyctl").arg("version").output();
        if known.is_err() {
            eprintln!("skipped: needs flyctl on the PATH");
            return None;
        }
        let mut command = self.command("flyctl");
        let printed = self.ok(&["flyctl-env"]).stdout;
        for line in printed.lines() {
            let set = line.strip_prefix("export ").unwrap();
            let (name, value) = set.split_once('=').unwrap();
            command.env(name, value.trim_matches('\''));
        }
        command.env("FLY_CONFIG_DIR", self.path("flyctl"));
        Some(command)
    }

    /// Runs flyctl, which must succeed.
    fn fly(&self, arguments: &[&str]) -> Option<Ran> {
        let ran = finish(self.flyctl()?.args(arguments));
        assert_eq!(
            ran.code,
            0,
            "flyctl {arguments:?}\n{}\n{}\nserver:\n{}",
            ran.stdout,
            ran.stderr,
            self.server_log()
        );
        Some(ran)
    }

    /// Runs flyctl with `--json` and returns what it printed.
    fn fly_json(&self, arguments: &[&str]) -> Option<Value> {
        let ran = self.fly(&[arguments, &["--json"]].concat())?;
        Some(serde_json::from_str(&ran.stdout).unwrap())
    }

    /// Returns an app's Machines by what a deploy decides of them.
    pub(crate) fn fleet(&self, app: &str) -> Vec<Value> {
        let mut fleet: Vec<Value> = self.machines(app).iter().map(decided).collect();
        fleet.sort_by_key(Value::to_string);
        fleet
    }
}

/// Returns what a deploy decides of a Machine: all but ids, names, addresses and times. The image
/// is its digest, since its name may be written in several ways; and null is as good as absent.
fn decided(machine: &Value) -> Value {
    let mut config = machine["config"].clone();
    let object = config.as_object_mut().unwrap();
    object.remove("image");
    let standby = object.remove("standbys").is_some();
    let metadata = object["metadata"].as_object_mut().unwrap();
    for own in ["fly_release_id", "fly_flyctl_version"] {
        metadata.remove(own);
    }
    if let Some(env) = object.get_mut("env").and_then(Value::as_object_mut)
        && env.contains_key("FLY_STANDBY_FOR")
    {
        env.insert("FLY_STANDBY_FOR".to_owned(), json!("another"));
    }
    for mount in object
        .get_mut("mounts")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        mount.as_object_mut().unwrap().remove("volume");
    }
    without_nulls(&mut config);
    json!({
        "group": group(machine),
        "standby": standby,
        "region": machine["region"],
        "cordoned": machine["cordoned"],
        "digest": machine["image_ref"]["digest"],
        "config": config,
    })
}

fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|_, value| !value.is_null());
            object.values_mut().for_each(without_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

#[test]
fn flyctl_deploys_shows_scales_and_destroys_an_app() {
    let Some(world) = World::start() else { return };
    let Some(who) = world.fly(&["auth", "whoami"]) else {
        return;
    };
    assert_eq!(who.stdout.trim(), "admin@localhost");
    world.fly(&["apps", "create", "shop", "-o", "personal"]);
    let toml = fly_toml("shop", SHOP);
    let folder = world.app("shop", &toml);
    let file = format!("{folder}/fly.toml");
    let deploy = ["deploy", "-c", &file, "--yes", "--dns-checks=false"];
    world.fly(&deploy);
    assert_eq!(
        world.started_groups("shop"),
        ["disk", "web", "web", "worker"]
    );
    let status = world.fly_json(&["status", "-a", "shop"]).unwrap();
    assert_eq!(status["Machines"].as_array().unwrap().len(), 5);
    let releases = world.fly_json(&["releases", "-a", "shop"]).unwrap();
    assert_eq!(releases[0]["Status"], "complete");
    world.fly(&["scale", "count", "web=3", "-a", "shop", "--yes"]);
    assert_eq!(world.of_group("shop", "web").len(), 3);
    // The group's formation has followed: the server repairs nothing.
    world.eventually("the formation follows", |world| {
        let shown = world.api("GET", "/v1/apps/shop/formation", Some(&world.token()));
        let shown: Value = serde_json::from_str(&shown.body).ok()?;
        (shown["groups"]["web"]["count"] == 3).then_some(())
    });
    world.fly(&["secrets", "set", "A=1", "-a", "shop"]);
    let releases = world.json(&["releases", "-a", "shop"]);
    assert_eq!(releases[0]["version"], 2);
    assert_eq!(releases[0]["status"], "complete");
    // What flyctl deployed can be gone back to here.
    let back = world.ok(&["releases", "rollback", "v1", "-a", "shop"]);
    assert!(back.stderr.contains("v3"), "{}", back.stderr);
    world.fly(&["apps", "destroy", "shop", "--yes"]);
    assert!(world.json(&["apps", "list"]).as_array().unwrap().is_empty());
}

#[test]
fn flyctl_and_hangar_end_in_the_same_fleet() {
    let Some(world) = World::start() else { return };
    let Some(_) = world.fly(&["apps", "create", "theirs", "-o", "personal"]) else {
        return;
    };
    let theirs = world.app("theirs", &fly_toml("theirs", SHOP));
    let file = format!("{theirs}/fly.toml");
    world.fly(&["deploy", "-c", &file, "--yes", "--dns-checks=false"]);
    let ours = world.app("ours", &fly_toml("ours", SHOP));
    world.ok(&["deploy", &ours]);
    assert_eq!(world.fleet("theirs"), world.fleet("ours"));
}
