//! The process-group story, from one group to several and back, as a user lives it.

use serde_json::Value;

use crate::world::{IMAGE, World, group};

fn without_processes() -> String {
    format!(
        r#"
app = "story"
primary_region = "iad"
[build]
image = "{IMAGE}"
[http_service]
internal_port = 8080
[[http_service.checks]]
path = "/health"
interval = "2s"
timeout = "1s"
"#
    )
}

fn with_processes(extra: &str) -> String {
    format!(
        r#"
app = "story"
primary_region = "iad"
[build]
image = "{IMAGE}"
[processes]
web = "serve"
cron = "lines 3 10"
{extra}
[http_service]
internal_port = 8080
processes = ["web"]
[[http_service.checks]]
path = "/health"
interval = "2s"
timeout = "1s"
"#
    )
}

fn answering_groups(world: &World, app: &str, times: usize) -> Vec<String> {
    let mut groups: Vec<String> = (0..times)
        .map(|_| {
            let answer = world.get(app, "/");
            assert_eq!(answer.status, 200, "{answer:?}");
            let body: Value = serde_json::from_str(&answer.body).unwrap();
            body["group"].as_str().unwrap().to_owned()
        })
        .collect();
    groups.sort();
    groups.dedup();
    groups
}

fn of_group(world: &World, name: &str) -> Vec<Value> {
    world
        .machines("story")
        .into_iter()
        .filter(|m| group(m) == name)
        .collect()
}

#[test]
fn an_app_grows_from_one_group_to_several() {
    let Some(world) = World::start() else { return };

    // Without [processes] the image's own command runs, in group `app`.
    let folder = world.app("story", &without_processes());
    world.ok(&["deploy", &folder, "--ha=false", "--smoke-checks=false"]);
    assert_eq!(world.started_groups("story"), ["app"]);
    assert_eq!(answering_groups(&world, "story", 5), ["app"]);

    // With `web` and `cron`, `app` is gone, both groups run, and requests reach only `web`.
    world.app("story", &with_processes(""));
    world.ok(&["deploy", &folder, "--ha=false", "--smoke-checks=false"]);
    assert_eq!(world.started_groups("story"), ["cron", "web"]);
    assert_eq!(answering_groups(&world, "story", 10), ["web"]);

    // A group that is added appears with the next deploy.
    world.app("story", &with_processes("worker = \"lines 2 5\""));
    world.ok(&["deploy", &folder, "--ha=false", "--smoke-checks=false"]);
    assert_eq!(world.started_groups("story"), ["cron", "web", "worker"]);

    // A clone is in the same group, with its command, services and checks.
    let source = of_group(&world, "web").remove(0);
    let cloned = world.ok(&[
        "machine",
        "clone",
        source["id"].as_str().unwrap(),
        "--region",
        "gru",
        "-a",
        "story",
    ]);
    let copy = world.json(&["machine", "status", cloned.stdout.trim(), "-a", "story"]);
    assert_eq!(copy["region"], "gru");
    for part in ["init", "services", "checks", "metadata"] {
        assert_eq!(copy["config"][part], source["config"][part], "{part}");
    }

    // A Machine that is moved by its metadata runs its new group's command after a deploy.
    world.ok(&[
        "machine",
        "update",
        cloned.stdout.trim(),
        "--metadata",
        "fly_process_group=worker",
        "--yes",
        "-a",
        "story",
    ]);
    world.ok(&["deploy", &folder, "--ha=false", "--smoke-checks=false"]);
    let moved = world.json(&["machine", "status", cloned.stdout.trim(), "-a", "story"]);
    assert_eq!(
        moved["config"]["init"]["cmd"],
        serde_json::json!(["lines", "2", "5"])
    );
    assert_eq!(of_group(&world, "worker").len(), 2);
    assert_eq!(of_group(&world, "web").len(), 1);
}

#[test]
fn two_groups_with_a_service_on_one_port_share_its_requests() {
    let Some(world) = World::start() else { return };
    let folder = world.app(
        "shared",
        &format!(
            r#"
app = "shared"
primary_region = "iad"
[build]
image = "{IMAGE}"
[processes]
one = "serve"
two = "serve"
[http_service]
internal_port = 8080
processes = ["one", "two"]
[[http_service.checks]]
path = "/health"
interval = "2s"
timeout = "1s"
"#
        ),
    );
    world.ok(&["deploy", &folder, "--ha=false", "--smoke-checks=false"]);
    assert_eq!(answering_groups(&world, "shared", 60), ["one", "two"]);
}
