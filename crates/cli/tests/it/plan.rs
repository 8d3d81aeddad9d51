//! `hangar plan` and `hangar explain`.

use serde_json::Value;

use crate::world::{IMAGE, Ran, World, fly_toml, image_spec, service};

fn toml(mode: &str, groups: &str) -> String {
    let web = "web = \"serve\"\n";
    fly_toml(
        "planned",
        &format!(
            "[env]\nMODE = \"{mode}\"\n[processes]\n{web}{groups}\n{}",
            service(&["web"])
        ),
    )
}

fn plan(world: &World, folder: &str, code: i32, more: &[&str]) -> Ran {
    let ran = world.hangar(&[&["plan", folder], more].concat());
    assert_eq!(ran.code, code, "{}\n{}", ran.stdout, ran.stderr);
    ran
}

#[test]
fn a_plan_names_each_field_that_changes_and_comes_true() {
    let Some(world) = World::start() else { return };
    let folder = world.app("planned", &toml("one", "worker = \"lines 3 1\"\n"));

    // Of an app that is not there yet all is to be created; nothing is.
    let first = plan(&world, &folder, 2, &[]).stdout;
    assert!(first.contains("web: 2 to create"), "{first}");
    assert!(first.contains("worker: 2 to create"), "{first}");
    assert!(first.contains("Plan: 4 to create."), "{first}");
    world.fails(3, &["status", "-a", "planned"]);

    world.ok(&["deploy", &folder, "--smoke-checks=false"]);
    let same = plan(&world, &folder, 0, &[]).stdout;
    assert!(
        same.contains("web: 2 to keep") && same.contains("Nothing to do"),
        "{same}"
    );

    // One group goes, one comes, a variable and a port change.
    let other = toml("two", "cron = \"lines 1 1\"\n").replace("8080", "8081");
    world.app("planned", &other);
    let changed = plan(&world, &folder, 2, &["--ha=false"]).stdout;
    for part in [
        "cron: 1 to create",
        "env.MODE: \"one\" -> \"two\"",
        "services[0].internal_port: 8080 -> 8081",
        "worker: 2 to destroy",
        "process group worker is not in fly.toml any more",
        "Plan: 1 to create, 2 to change, 2 to destroy.",
    ] {
        assert!(changed.contains(part), "{part} in\n{changed}");
    }
    let json: Value = serde_json::from_str(&plan(&world, &folder, 2, &["--json"]).stdout).unwrap();
    assert_eq!(json["something_to_do"], true);
    let web = json["groups"]
        .as_array()
        .unwrap()
        .iter()
        .find(|g| g["group"] == "web")
        .unwrap();
    assert_eq!(web["machines"][0]["action"], "change");
    let changes = web["machines"][0]["changes"].as_array().unwrap();
    assert!(
        changes
            .iter()
            .any(|c| c["field"] == "env.MODE" && c["to"] == "two"),
        "{changes:?}"
    );

    // After the deploy nothing is left to do.
    let other = other.replace("8081", "8080");
    world.app("planned", &other);
    world.ok(&["deploy", &folder, "--ha=false", "--smoke-checks=false"]);
    plan(&world, &folder, 0, &["--ha=false"]);
}

#[test]
fn a_plan_takes_what_a_deploy_takes_and_shows_what_that_very_deploy_does() {
    let Some(world) = World::start() else { return };
    let folder = world.app("planned", &toml("one", "worker = \"lines 3 1\"\n"));
    world.ok(&["deploy", &folder, "--smoke-checks=false"]);
    world.ok(&["scale", "count", "web=4", "-a", "planned", "--yes"]);
    let versions = |world: &World| -> Vec<Value> {
        let machines = world.machines("planned");
        machines.iter().map(|m| m["instance_id"].clone()).collect()
    };
    let before = versions(&world);
    world.app("planned", &toml("two", "cron = \"lines 1 1\"\n"));

    // Strategy, filters and the rest: said by the plan, and done by the deploy.
    let how = [
        "--strategy",
        "canary",
        "--process-groups",
        "web",
        "--max-unavailable",
        "2",
        "--file-literal",
        "/told=by a flag",
        "--env",
        "EXTRA=1",
    ];
    let said = plan(&world, &folder, 2, &how).stdout;
    for part in [
        "--process-groups filter applied, deploying to 4/6 machines",
        " * try 1 \"web\" canary machine first",
        " * update 4 \"web\" machines (the first alone, then 2 at a time)",
        "env.EXTRA: + \"1\"",
        "files: + [{\"guest_path\":\"/told\"",
        "Plan: 4 to change.",
    ] {
        assert!(said.contains(part), "{part} in\n{said}");
    }
    assert!(
        !said.contains("cron") && !said.contains("destroy"),
        "{said}"
    );
    assert_eq!(versions(&world), before);
    let done = world.ok(&[&["deploy", &folder], &how[..]].concat()).stderr;
    assert!(
        done.contains("Creating canary machine for group web"),
        "{done}"
    );
    assert!(done.contains("deploying to 4/6 machines"), "{done}");
    plan(&world, &folder, 0, &how);

    let said = plan(&world, &folder, 2, &["--update-only", "--env", "EXTRA=1"]).stdout;
    assert!(
        !said.contains("to create") && said.contains("2 to destroy"),
        "{said}"
    );
    let said = plan(&world, &folder, 2, &["--strategy", "immediate"]).stdout;
    assert!(said.contains("without waiting"), "{said}");
    let json: Value = serde_json::from_str(&plan(&world, &folder, 2, &["--json"]).stdout).unwrap();
    let steps = json["steps"].as_array().unwrap();
    assert!(
        steps.iter().any(|s| s.as_str().unwrap().contains("cron")),
        "{steps:?}"
    );
}

#[test]
fn what_a_deploy_refuses_a_plan_refuses_in_the_same_words() {
    let Some(world) = World::start() else { return };
    let folder = world.app("planned", &toml("one", ""));
    for bad in [
        &["--process-groups", "none"][..],
        &["--file-local", "/a=not-there"],
        &["--strategy", "slow"],
        &["--max-unavailable", "0"],
    ] {
        let planned = plan(&world, &folder, 2, bad).stderr;
        let deployed = world.fails(2, &[&["deploy", &folder], bad].concat());
        assert!(planned.contains("rror"), "{planned}");
        assert_eq!(planned.lines().next(), deployed.lines().next());
    }
    // How patient a deploy is makes no difference to what it does.
    let said = plan(&world, &folder, 2, &["--wait-timeout", "5s"]).stderr;
    assert!(
        said.contains("unexpected argument '--wait-timeout'"),
        "{said}"
    );
}

#[test]
fn another_image_and_staged_secrets_are_something_to_do() {
    let Some(world) = World::start() else { return };
    let folder = world.app("planned", &toml("one", ""));
    world.ok(&["deploy", &folder, "--ha=false", "--smoke-checks=false"]);
    // The same image by another name is the same.
    world.import("alias", &image_spec());
    plan(&world, &folder, 0, &["--image", "alias"]);
    let mut spec = image_spec();
    spec.env.insert("NEW".to_owned(), "1".to_owned());
    world.import("newer", &spec);
    let image = plan(&world, &folder, 2, &["--image", "newer"]).stdout;
    assert!(
        image.contains(&format!("image: \"{IMAGE}@sha256:")),
        "{image}"
    );
    world.ok(&["secrets", "set", "A=b", "--stage", "-a", "planned"]);
    let secrets = plan(&world, &folder, 2, &[]).stdout;
    assert!(
        secrets.contains("secrets: \"version 0\" -> \"version 1\""),
        "{secrets}"
    );
    // An image that is yet to be built cannot be compared, and that is said.
    std::fs::write(world.path("planned").join("Dockerfile"), "FROM scratch").unwrap();
    let built = toml("one", "").replace(&format!("[build]\nimage = \"{IMAGE}\"\n"), "");
    world.app("planned", &built);
    let built = plan(&world, &folder, 2, &[]).stdout;
    assert!(built.contains("(built by the deploy)"), "{built}");
    let broken = world.app(
        "broken",
        "app = \"broken\"\n[[services]]\ninternal_port = \"x\"\n",
    );
    world.fails(2, &["plan", &broken]);
}

#[test]
fn a_machine_is_explained_from_what_happened_to_it() {
    let Some(world) = World::start() else { return };
    let text = fly_toml(
        "told",
        &format!(
            "[processes]\nweb = \"serve\"\nworker = \"lines 3 1\"\nbad = \"exit 3\"\n{}[[restart]]\npolicy = \"on-failure\"\nretries = 3\nprocesses = [\"bad\"]\n",
            service(&["web"])
        ),
    );
    let folder = world.app("told", &text);
    let _fails = world.hangar(&[
        "deploy",
        &folder,
        "--ha=false",
        "--smoke-checks=false",
        "--no-rollback",
    ]);
    let explain = |id: &str| world.ok(&["explain", id, "-a", "told"]).stdout;

    let bad = world.of_group("told", "bad")[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let crash = world.eventually("it fails again and again", |_| {
        let text = explain(&bad);
        (text.contains("fails again and again") && text.contains("used up")).then_some(text)
    });
    assert!(crash.contains("code 3"), "{crash}");

    let web = world.of_group("told", "web")[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    world.ok(&["machine", "stop", &web, "-a", "told"]);
    let stopped = world.eventually("it is stopped", |_| {
        let text = explain(&web);
        text.contains("stopped by request").then_some(text)
    });
    assert!(stopped.contains("hangar machine start"), "{stopped}");
    assert!(stopped.contains("it is in iad on slot"), "{stopped}");

    let json = world.json(&["explain", &web, "-a", "told"]);
    assert_eq!(json["group"], "web");
    assert_eq!(json["findings"][0]["about"], "state");
    let unknown = world.fails(3, &["explain", "00000000000000", "-a", "told"]);
    assert!(unknown.contains("not found"), "{unknown}");
}
