//! The configuration of an app that was never deployed: it is made of its Machines.

use crate::world::{IMAGE, World};

/// Runs a Machine of the app that is not managed by deploys.
fn run(world: &World, app: &str, command: &[&str]) -> String {
    let head = [
        "machine",
        "run",
        "-a",
        app,
        "-r",
        "iad",
        "-e",
        "ENV=preflight",
        IMAGE,
        "--",
    ];
    world.ok(&[&head[..], command].concat());
    let machines = world.machines(app);
    let newest = machines.iter().max_by_key(|m| m["created_at"].to_string());
    newest.unwrap()["id"].as_str().unwrap().to_owned()
}

/// Saves the app's configuration into a new file; returns it and what was said.
fn saved(world: &World, app: &str) -> (String, String) {
    let file = world.path(&format!("{app}.toml"));
    let name = file.to_string_lossy().into_owned();
    let said = world.ok(&["config", "save", "-a", app, "-c", &name]).stderr;
    (std::fs::read_to_string(file).unwrap(), said)
}

/// Row: ConfigSave_ProcessGroups.
#[test]
fn most_machines_make_the_configuration_and_the_others_are_told() {
    let Some(world) = World::start() else { return };
    world.ok(&["apps", "create", "bare"]);
    let said = world.fails(3, &["config", "show", "-a", "bare"]);
    assert!(said.contains("no release yet and no Machines"), "{said}");

    run(&world, "bare", &["lines", "3", "0", "of two; words"]);
    run(&world, "bare", &["lines", "3", "0", "of two; words"]);
    let other = run(&world, "bare", &["lines", "2", "0"]);
    let (text, said) = saved(&world, "bare");
    for part in [
        "app = 'bare'\n",
        "[env]\n  ENV = 'preflight'\n",
        "[processes]\n  app = \"lines 3 0 'of two; words'\"\n",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    for part in [
        "WARNINGS:",
        "Found these additional commands on some machines",
        "lines 2 0",
        &other,
    ] {
        assert!(said.contains(part), "{part} in\n{said}");
    }
    // What is saved can be deployed, and what is shown says the same.
    let file = world.path("bare.toml").to_string_lossy().into_owned();
    world.ok(&["config", "validate", "-c", &file]);
    let shown = world.ok(&["config", "show", "--toml", "-a", "bare"]);
    let body = |text: &str| text.split_once("\n\n").unwrap().1.trim().to_owned();
    assert_eq!(body(&shown.stdout), body(&text));
    let env = world.ok(&["config", "env", "-a", "bare"]).stdout;
    assert!(env.contains("ENV") && env.contains("preflight"), "{env}");
}

/// Row: ConfigSave_OneMachine.
#[test]
fn a_single_machine_makes_it_alone_and_a_release_takes_its_place() {
    let Some(world) = World::start() else { return };
    world.ok(&["apps", "create", "one"]);
    run(&world, "one", &["lines", "3", "0"]);
    let (text, said) = saved(&world, "one");
    assert!(text.contains("[env]\n  ENV = 'preflight'\n"), "{text}");
    assert!(
        text.contains("[processes]\n  app = 'lines 3 0'\n"),
        "{text}"
    );
    assert!(!said.contains("WARNING"), "{said}");
    let valid = world.ok(&["config", "validate", "-a", "one"]);
    assert!(
        valid.stderr.contains("the configuration of its Machines"),
        "{valid:?}"
    );

    // A deploy without a fly.toml is of that configuration; the Machine itself is left alone.
    let lone = world.machines("one").remove(0);
    let deploy = ["deploy", "-a", "one", "--ha=false", "--smoke-checks=false"];
    let said = world.fails(2, &deploy);
    assert!(said.contains("there is nothing to build"), "{said}");
    let said = world
        .ok(&[&deploy[..], &["--image", IMAGE]].concat())
        .stderr;
    assert!(
        said.contains("deploying the configuration of its Machines"),
        "{said}"
    );
    let machines = world.machines("one");
    assert_eq!(machines.len(), 2, "{machines:?}");
    for machine in &machines {
        assert_eq!(machine["config"]["env"]["ENV"], "preflight");
        assert_eq!(
            machine["config"]["init"]["cmd"],
            lone["config"]["init"]["cmd"]
        );
    }
    assert_eq!(
        world.machine("one", lone["id"].as_str().unwrap())["config"],
        lone["config"]
    );

    let folder = world.app(
        "one",
        &crate::world::fly_toml("one", "[env]\nENV = \"release\"\n"),
    );
    world.ok(&["deploy", &folder, "--ha=false", "--smoke-checks=false"]);
    let shown = world.ok(&["config", "show", "--toml", "-a", "one"]).stdout;
    assert!(shown.contains("ENV = 'release'"), "{shown}");
}
