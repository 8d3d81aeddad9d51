//! `hangar launch`: from a folder to an app that answers.

use std::path::Path;

use crate::world::{IMAGE, World, image_spec};

/// Returns a folder of the world with these files.
fn folder(world: &World, name: &str, files: &[(&str, &str)]) -> String {
    let folder = world.path(name);
    std::fs::create_dir_all(&folder).unwrap();
    for (file, text) in files {
        std::fs::write(folder.join(file), text).unwrap();
    }
    folder.to_string_lossy().into_owned()
}

fn text(folder: &str, file: &str) -> String {
    std::fs::read_to_string(Path::new(folder).join(file)).unwrap()
}

#[test]
fn a_procfile_becomes_groups_and_the_app_answers() {
    let Some(world) = World::start() else { return };
    let procfile = "web: serve\nworker: lines 3 1\n";
    let dir = folder(&world, "My_Shop", &[("Procfile", procfile)]);
    let launch = ["launch", "--path", &dir, "--image", IMAGE, "--ha=false"];

    // Nobody is there to say yes, so nothing is made.
    let asked = world.fails(2, &[&launch[..], &["--region", "gru"]].concat());
    assert!(asked.contains("--yes"), "{asked}");
    assert!(!Path::new(&dir).join("fly.toml").exists());
    world.fails(3, &["status", "-a", "my-shop"]);

    let ran = world.ok(&[
        &launch[..],
        &["--region", "gru", "--vm-memory", "512", "--yes"],
    ]
    .concat());
    for part in [
        "Name:         my-shop",
        "derived from your directory name",
        "Sao Paulo",
        "shared-cpu-1x, 512MB RAM",
        "web, worker",
        "Created app 'my-shop' in organization 'personal'",
        "Visit your newly deployed app",
    ] {
        assert!(ran.stderr.contains(part), "{part} in\n{}", ran.stderr);
    }
    let written = text(&dir, "fly.toml");
    assert!(written.contains("web = \"serve\"") && written.contains("primary_region = \"gru\""));
    assert_eq!(world.started_groups("my-shop"), ["web", "worker"]);
    let machine = &world.of_group("my-shop", "worker")[0];
    assert_eq!(machine["config"]["guest"]["memory_mb"], 512);
    assert_eq!(machine["region"], "gru");
    assert_eq!(world.ask("my-shop")["group"], "web");
    // What launch wrote is what deploy takes.
    let again = world.ok(&["deploy", &dir, "--dry-run"]);
    assert!(
        again.stdout.contains("update 1 \"web\" machine"),
        "{again:?}"
    );
}

#[test]
fn a_fly_toml_that_is_there_is_used_and_never_overwritten() {
    let Some(world) = World::start() else { return };
    let config = format!(
        "# mine\napp = \"mine\"\n[build]\nimage = \"{IMAGE}\"\n[http_service]\ninternal_port = 8080\n"
    );
    let dir = folder(
        &world,
        "there",
        &[("fly.toml", &config), ("Dockerfile", "FROM scratch")],
    );
    // Without an answer nothing happens to it.
    world.fails(2, &["launch", "--path", &dir]);
    assert_eq!(text(&dir, "fly.toml"), config);
    let port = [
        "launch",
        "--path",
        &dir,
        "--copy-config",
        "--internal-port",
        "9",
    ];
    assert!(world.fails(2, &port).contains("internal_port"));

    let made = world.ok(&[
        "launch",
        "--path",
        &dir,
        "--copy-config",
        "--yes",
        "--no-deploy",
    ]);
    assert!(made.stderr.contains("found for app mine"), "{made:?}");
    assert!(made.stderr.contains("hangar deploy"), "{made:?}");
    assert_eq!(text(&dir, "fly.toml"), config);
    assert!(world.machines("mine").is_empty());

    // The name is taken now: that is said, and another one is made only when asked for.
    let taken = world.fails(2, &["launch", "--path", &dir, "--yes"]);
    assert!(
        taken.contains("already exists") && taken.contains("hangar deploy"),
        "{taken}"
    );
    let named = world.fails(2, &["launch", "--path", &dir, "--yes", "--name", "mine"]);
    assert!(named.contains("already taken"), "{named}");
    let other = [
        "launch",
        "--path",
        &dir,
        "--yes",
        "--generate-name",
        "--ha=false",
    ];
    let other = world.ok(&other);
    assert!(other.stderr.contains("(generated)"), "{other:?}");
    assert_eq!(world.json(&["apps", "list"]).as_array().unwrap().len(), 2);
    assert_eq!(text(&dir, "fly.toml"), config);
}

#[test]
fn a_dockerfile_says_the_port_and_an_archive_is_sent() {
    let Some(world) = World::start() else { return };
    let dir = folder(
        &world,
        "docked",
        &[("Dockerfile", "FROM scratch\nEXPOSE 3000\n")],
    );
    let made = [
        "launch",
        "--path",
        &dir,
        "--name",
        "port",
        "--no-deploy",
        "--yes",
    ];
    let made = world.ok(&made);
    assert!(
        made.stderr.contains("Port:") && made.stderr.contains("3000"),
        "{made:?}"
    );
    assert!(text(&dir, "fly.toml").contains("internal_port = 3000"));

    let archive = world.path(&format!("{IMAGE}.tar"));
    let dir = folder(&world, "archived", &[]);
    let archive = archive.to_string_lossy().into_owned();
    let ran = world.ok(&[
        "launch",
        "--path",
        &dir,
        "--image",
        &archive,
        "--now",
        "--ha=false",
    ]);
    assert!(ran.stderr.contains("Created app 'archived'"), "{ran:?}");
    assert!(!text(&dir, "fly.toml").contains("[build]"));
    assert_eq!(world.ask("archived")["group"], "app");
}

#[test]
fn an_empty_folder_an_unknown_region_and_a_file_that_cannot_be_deployed_make_nothing() {
    let Some(world) = World::start() else { return };
    let dir = folder(&world, "empty", &[]);
    let nothing = world.fails(2, &["launch", "--path", &dir, "--yes"]);
    assert!(nothing.contains("no Dockerfile"), "{nothing}");
    let image = ["launch", "--path", &dir, "--yes", "--image", IMAGE];
    let region = world.fails(2, &[&image[..], &["--region", "moon"]].concat());
    assert!(
        region.contains("region moon not found: there are ams"),
        "{region}"
    );
    let missing = world.fails(2, &["launch", "--path", "/no/such/folder", "--yes"]);
    assert!(missing.contains("/no/such/folder"), "{missing}");
    assert!(!Path::new(&dir).join("fly.toml").exists());
    assert!(world.json(&["apps", "list"]).as_array().unwrap().is_empty());
}

#[test]
fn a_compose_file_becomes_apps_that_find_each_other() {
    let Some(world) = World::start() else { return };
    world.import("other", &image_spec());
    let compose = format!(
        "services:
  web: {{image: {IMAGE}, command: serve, ports: [\"9000:8080\"], environment: {{BACK: http://back:8080/}}}}
  worker: {{image: {IMAGE}, command: [lines, \"3\", \"1\"]}}
  back: {{image: other, command: serve}}
"
    );
    let dir = folder(&world, "stack", &[("compose.yaml", &compose)]);
    let ran = world.ok(&[
        "launch",
        "--path",
        &dir,
        "--ha=false",
        "--yes",
        "--region",
        "iad",
    ]);
    assert!(ran.stderr.contains("stack-back, stack"), "{ran:?}");
    assert_eq!(world.started_groups("stack"), ["web", "worker"]);
    assert_eq!(world.started_groups("stack-back"), ["back"]);
    assert_eq!(world.ask("stack")["group"], "web");
    assert!(
        world
            .get("stack", "/env")
            .body
            .contains("BACK=http://stack-back.internal:8080/")
    );
    assert!(text(&dir, "fly.stack-back.toml").contains("image = \"other\""));
}
