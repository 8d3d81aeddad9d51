//! `hangar migrate`: from other platforms' files to Machines.

use std::path::Path;

use crate::busybox::SHELL;
use crate::world::{IMAGE, World, finish};

/// Runs `hangar` without a server: conversions need none.
fn hangar(arguments: &[&str]) -> crate::world::Ran {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_hangar"));
    finish(
        command
            .args(arguments)
            .env("HANGAR_DATA_DIR", "/nonexistent"),
    )
}

fn write(dir: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        std::fs::write(dir.join(name), text).unwrap();
    }
}

#[test]
fn a_procfile_is_written_as_fly_toml_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let none = hangar(&["migrate", "procfile", path]);
    assert_eq!(none.code, 2, "{none:?}");
    assert!(none.stderr.contains("Procfile"), "{none:?}");

    let app_json = r#"{"formation": {"web": {"quantity": 3}}, "addons": ["papertrail"], "env": {"KEY": {"description": "x"}}}"#;
    write(
        dir.path(),
        &[
            ("Procfile", "web: serve $PORT\nworker: work\n"),
            ("app.json", app_json),
        ],
    );
    let printed = hangar(&["migrate", "procfile", path, "--print", "--name", "shop"]);
    assert_eq!(printed.code, 0, "{printed:?}");
    assert!(!dir.path().join("fly.toml").exists());
    let ran = hangar(&[
        "migrate", "procfile", path, "--name", "shop", "--region", "ams",
    ]);
    assert_eq!(ran.code, 0, "{ran:?}");
    for part in [
        "Wrote config file",
        "app.json addons: papertrail is not made",
        "hangar secrets set KEY=... --stage -a shop",
        "hangar scale count web=3 -a shop --yes",
    ] {
        assert!(ran.stderr.contains(part), "{part} in\n{}", ran.stderr);
    }
    let text = std::fs::read_to_string(dir.path().join("fly.toml")).unwrap();
    assert_eq!(
        text.replace("\nprimary_region = \"ams\"", ""),
        printed.stdout
    );
    assert!(text.contains("# - app.json addons: papertrail"), "{text}");

    let again = hangar(&["migrate", "procfile", path]);
    assert_eq!(again.code, 2, "{again:?}");
    assert!(again.stderr.contains("--overwrite"), "{again:?}");
    assert_eq!(
        std::fs::read_to_string(dir.path().join("fly.toml")).unwrap(),
        text
    );
    let over = hangar(&[
        "migrate",
        "procfile",
        path,
        "--overwrite",
        "--name",
        "other",
    ]);
    assert_eq!(over.code, 0, "{over:?}");
    let valid = hangar(&["config", "validate", "-c", path]);
    assert_eq!(valid.code, 0, "{valid:?}");
}

#[test]
fn a_compose_file_is_written_as_a_fly_toml_for_each_app() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let compose = "services:
  web: {build: ., ports: [80], env_file: web.env, environment: {A: \"${FROM_ENV}\"}}
  api: {build: ./api, command: serve}
  db: {image: postgres, volumes: [data:/data], cap_add: [ALL]}
";
    let files = [
        ("compose.yml", compose),
        (".env", "FROM_ENV=one\n"),
        ("web.env", "B=two\n"),
    ];
    write(dir.path(), &files);
    let ran = hangar(&["migrate", "compose", path, "--name", "shop"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains("services.db.cap_add"), "{ran:?}");
    assert!(
        ran.stderr.contains(&format!("hangar deploy {path}/api\n")),
        "{ran:?}"
    );
    assert!(
        ran.stderr
            .contains(&format!("hangar deploy {path} -c fly.shop-db.toml")),
        "{ran:?}"
    );
    let text = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    assert!(
        text("fly.toml").contains("A = \"one\"\nB = \"two\""),
        "{}",
        text("fly.toml")
    );
    assert!(text("api/fly.toml").contains("app = \"shop-api\""));
    assert!(text("fly.shop-db.toml").contains("destination = \"/data\""));

    let broken = dir.path().join("broken.yaml");
    std::fs::write(&broken, "services: [\n").unwrap();
    let ran = hangar(&["migrate", "compose", broken.to_str().unwrap()]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.stderr.contains("broken.yaml: line "), "{ran:?}");
}

#[test]
fn a_nomad_job_is_written_with_its_counts_and_regions() {
    let dir = tempfile::tempdir().unwrap();
    let job = dir.path().join("job.json");
    let text = r#"{"Job": {"ID": "shop", "Datacenters": ["fra", "iad"], "TaskGroups": [
        {"Name": "web", "Count": 2, "Tasks": [{"Name": "web", "Driver": "docker",
            "Config": {"image": "shop:1"}, "Vault": {"Role": "x"}}]},
        {"Name": "worker", "Count": 1, "Tasks": [{"Name": "worker", "Driver": "docker",
            "Config": {"image": "shop:1", "args": ["work"]}}]}]}}"#;
    std::fs::write(&job, text).unwrap();
    let ran = hangar(&["migrate", "nomad", job.to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{ran:?}");
    for part in [
        "Group web task web.Vault",
        "--ha=false",
        "hangar apps create shop",
        "/formation.json -a shop --yes",
    ] {
        assert!(ran.stderr.contains(part), "{part} in\n{}", ran.stderr);
    }
    let written = std::fs::read_to_string(dir.path().join("fly.toml")).unwrap();
    assert!(written.contains("primary_region = \"fra\"") && written.contains("worker = \"work\""));
    let formation = std::fs::read(dir.path().join("formation.json")).unwrap();
    let formation: serde_json::Value = serde_json::from_slice(&formation).unwrap();
    let regions = ["fra", "iad"];
    assert_eq!(
        formation,
        serde_json::json!({"groups": {
            "web": {"count": 2, "regions": regions}, "worker": {"count": 1, "regions": regions},
        }})
    );
    // Neither of the two files is overwritten.
    std::fs::remove_file(dir.path().join("fly.toml")).unwrap();
    let again = hangar(&["migrate", "nomad", job.to_str().unwrap()]);
    assert_eq!(again.code, 2, "{again:?}");
    assert!(
        again.stderr.contains("formation.json is there already"),
        "{again:?}"
    );
    assert!(!dir.path().join("fly.toml").exists());
    std::fs::write(&job, "job \"shop\" {}").unwrap();
    let hcl = hangar(&["migrate", "nomad", job.to_str().unwrap()]);
    assert_eq!(hcl.code, 2, "{hcl:?}");
    assert!(hcl.stderr.contains("nomad job inspect"), "{hcl:?}");
}

#[test]
fn a_nomad_job_comes_up_with_its_counts_and_regions() {
    let Some(world) = World::start() else { return };
    let task = |name: &str, words: &str| {
        serde_json::json!({"Name": name, "Driver": "docker",
            "Config": {"image": IMAGE, "args": words.split(' ').collect::<Vec<_>>()}})
    };
    let only = |region: &str| serde_json::json!([{"LTarget": "${node.datacenter}", "Operand": "=", "RTarget": region}]);
    let job = serde_json::json!({"Job": {"ID": "shop", "Datacenters": ["fra", "iad"], "TaskGroups": [
        {"Name": "web", "Count": 3, "Tasks": [task("web", "serve")]},
        {"Name": "worker", "Count": 2, "Constraints": only("iad"),
            "Tasks": [task("worker", "lines 1 0")]},
        {"Name": "idle", "Count": 0, "Tasks": [task("idle", "lines 1 0")]}]}});
    let file = world.path("job.json");
    std::fs::write(&file, job.to_string()).unwrap();
    let ran = world.ok(&["migrate", "nomad", file.to_str().unwrap()]);
    let (_, next) = ran.stderr.split_once("\nNext:\n").unwrap();
    let commands: Vec<Vec<&str>> = next
        .lines()
        .map(|line| line.split_whitespace().skip(1).collect())
        .collect();
    let names: Vec<&str> = commands.iter().map(|words| words[0]).collect();
    assert_eq!(names, ["apps", "formation", "deploy"], "{next}");
    let mut said = String::new();
    for words in &commands {
        said += &world.ok(words).stderr;
    }
    assert!(said.contains("its first deploy begins with that"), "{said}");
    let places = |group: &str| {
        let machines = world.of_group("shop", group);
        let region = |m: &serde_json::Value| m["region"].as_str().unwrap().to_owned();
        let mut regions: Vec<String> = machines.iter().map(region).collect();
        regions.sort();
        regions
    };
    world.eventually("all groups are there", |_| {
        let there = (places("web"), places("worker"), places("idle"));
        (there == (words("fra fra iad"), words("iad iad"), Vec::new())).then_some(())
    });

    // What is shown is what is set.
    let shown = world.json(&["formation", "show", "-a", "shop"]);
    assert_eq!(
        shown["groups"]["web"]["regions"],
        serde_json::json!({"fra": 2, "iad": 1})
    );
    let table = world.ok(&["formation", "show", "-a", "shop"]).stdout;
    assert!(table.contains("fra(2),iad(1)"), "{table}");
    let mut other = shown.clone();
    other["groups"]["web"]["regions"] = serde_json::json!({"fra": 1, "iad": 1});
    std::fs::write(&file, other.to_string()).unwrap();
    let set = ["formation", "set", file.to_str().unwrap(), "-a", "shop"];
    let asked = world.fails(2, &set);
    assert!(
        asked.contains("  -1 machines for group 'web' on region 'fra'"),
        "{asked}"
    );
    let ran = world.ok(&[&set[..], &["-y"]].concat());
    assert!(ran.stderr.contains("  Destroyed "), "{ran:?}");
    assert_eq!(places("web"), words("fra iad"));
    assert_eq!(world.json(&["formation", "show", "-a", "shop"]), other);
    bad_files_are_refused(&world, &file, &set);
}

fn bad_files_are_refused(world: &World, file: &Path, set: &[&str]) {
    for (text, why) in [
        ("{", "line 1"),
        ("{}", "it names no group"),
        (
            "{\"groups\": {\"web\": {\"cuont\": 1}}}",
            "unknown field `cuont`",
        ),
        (
            "{\"groups\": {\"wbe\": {\"count\": 1}}}",
            "no process group wbe",
        ),
    ] {
        std::fs::write(file, text).unwrap();
        let ran = world.hangar(&[set, &["-y"]].concat());
        assert!(ran.code != 0 && ran.stderr.contains(why), "{text}: {ran:?}");
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// Returns a Machine as `fly machines list --json` prints it.
fn fly_machine(id: &str, group: &str, region: &str, memory: u64) -> serde_json::Value {
    serde_json::json!({
        "id": id, "state": "started", "region": region,
        "config": {
            "image": "registry.fly.io/moved:deployment-1",
            "guest": {"cpu_kind": "shared", "cpus": 1, "memory_mb": memory},
            "metadata": {"fly_platform_version": "v2", "fly_process_group": group}
        }
    })
}

/// The command line, after [`fly_app`] has written the files.
const FLY: [&str; 8] = [
    "migrate",
    "fly",
    "--config",
    "config.json",
    "--machines",
    "machines.json",
    "--secrets",
    "secrets.json",
];
const JOURNAL: [&str; 4] = ["migrate", "fly", "--config", "config.json"];

/// Writes what Fly's commands print of an app with three groups and one secret.
fn fly_app(world: &World) {
    let config = format!(
        r#"{{"app": "moved", "primary_region": "iad", "build": {{"image": "{IMAGE}"}},
        "processes": {{"web": "serve", "worker": "lines 3 1", "cron": "lines 1 1"}},
        "http_service": {{"internal_port": 8080, "processes": ["web"]}}}}"#
    );
    let machines = serde_json::json!([
        fly_machine("1", "web", "iad", 512),
        fly_machine("2", "web", "ams", 512),
        fly_machine("3", "worker", "mia", 256),
    ]);
    let secrets = r#"[{"name": "KEY", "digest": "x"}]"#;
    std::fs::write(world.path("config.json"), config).unwrap();
    std::fs::write(world.path("machines.json"), machines.to_string()).unwrap();
    std::fs::write(world.path("secrets.json"), secrets).unwrap();
}

/// Returns group, region, memory and state of each Machine.
fn places(world: &World) -> Vec<String> {
    let machines = world.machines("moved").into_iter().map(|m| {
        let memory = m["config"]["guest"]["memory_mb"].to_string();
        let group = crate::world::group(&m);
        let part = |key: &str| m[key].as_str().unwrap().to_owned();
        format!("{group} {} {memory} {}", part("region"), part("state"))
    });
    let mut places: Vec<String> = machines.collect();
    places.sort();
    places
}

#[test]
fn an_app_of_flys_is_rebuilt_by_group_and_goes_on_after_a_stop() {
    let Some(world) = World::start() else { return };
    fly_app(&world);
    let shown = world.ok(&FLY).stderr;
    for part in [
        "create 1 \"web\" machine in ams of size shared-cpu-1x with 512 MB",
        "process group \"cron\": no Machines",
    ] {
        assert!(shown.contains(part), "{part} in\n{shown}");
    }
    world.fails(3, &["status", "-a", "moved"]);

    // A region that is not here stops it before anything is made, a missing secret right after.
    let apply = [&FLY[..], &["--apply", "--yes"]].concat();
    assert!(world.fails(2, &apply).contains("--map-region mia=REGION"));
    world.fails(3, &["status", "-a", "moved"]);
    let apply = [&apply[..], &["--map-region", "mia=gru"]].concat();
    let missing = world.fails(1, &apply);
    assert!(
        missing.contains("hangar secrets set KEY=... --stage -a moved"),
        "{missing}"
    );
    world.ok(&["secrets", "set", "KEY=v", "--stage", "-a", "moved"]);
    world.ok(&apply);
    let expected = [
        "web ams 512 started",
        "web iad 512 started",
        "worker gru 256 started",
    ];
    assert_eq!(places(&world), expected);
    assert_eq!(world.ask("moved")["group"], "web");

    // Run again, it does nothing; after a loss it makes what is missing.
    world.ok(&apply);
    assert_eq!(places(&world), expected);
    let lost = world.only("moved", "worker");
    world.ok(&["machine", "destroy", "--force", &lost, "-a", "moved"]);
    world.ok(&apply);
    assert_eq!(places(&world), expected);
}

#[test]
fn a_migration_is_taken_back_until_it_is_confirmed() {
    let Some(world) = World::start() else { return };
    fly_app(&world);
    let undo = [&JOURNAL[..], &["--undo", "--yes"]].concat();
    let apply = [&FLY[..], &["--apply", "--yes", "--map-region", "mia=gru"]].concat();
    assert!(world.fails(2, &undo).contains("no migration of moved"));
    // It stops for the secret; what it has made until then goes.
    world.fails(1, &apply);
    world.ok(&["status", "-a", "moved"]);
    world.ok(&undo);
    world.fails(3, &["status", "-a", "moved"]);

    // Once confirmed it is not taken back, and an app of somebody else's is never touched.
    world.fails(1, &apply);
    world.ok(&[&JOURNAL[..], &["--confirm"]].concat());
    assert!(world.fails(2, &undo).contains("no migration of moved"));
    assert!(world.fails(2, &apply).contains("is here already"));
    world.ok(&["status", "-a", "moved"]);
}

/// Writes what Fly's commands print of an app whose two databases have volumes, and a third volume
/// that nobody has.
fn fly_app_with_volumes(world: &World) {
    let config = format!(
        r#"{{"app": "moved", "primary_region": "iad", "build": {{"image": "{SHELL}"}},
        "processes": {{"db": "sleep 100000", "job": "sleep 100000"}},
        "mounts": [{{"source": "data", "destination": "/data", "processes": ["db"]}}]}}"#
    );
    let machine = |id: &str, region: &str| {
        let mut machine = fly_machine(id, "db", region, 256);
        let mount = serde_json::json!({"volume": format!("vol_{id}"), "path": "/data"});
        machine["config"]["mounts"] = serde_json::json!([mount]);
        machine
    };
    let volume = |id: &str, name: &str, region: &str, size: u64, machine: Option<&str>| {
        serde_json::json!({
            "id": id, "name": name, "region": region, "size_gb": size, "state": "created",
            "attached_machine_id": machine, "snapshot_retention": 7,
        })
    };
    let mut job = fly_machine("4", "job", "gru", 256);
    job["config"]["schedule"] = "weekly".into();
    let machines = serde_json::json!([machine("1", "iad"), machine("2", "ams"), job]);
    let volumes = serde_json::json!([
        volume("vol_1", "data", "iad", 1, Some("1")),
        volume("vol_2", "data", "ams", 2, Some("2")),
        volume("vol_3", "spare", "ams", 1, None),
    ]);
    std::fs::write(world.path("config.json"), config).unwrap();
    std::fs::write(world.path("machines.json"), machines.to_string()).unwrap();
    std::fs::write(world.path("volumes.json"), volumes.to_string()).unwrap();
}

/// Returns name, region, size and owner of each volume here.
fn disks(world: &World) -> Vec<String> {
    let listed = world.json(&["volumes", "list", "-a", "moved"]);
    let line = |volume: &serde_json::Value| {
        let part = |key: &str| volume[key].as_str().unwrap_or("nobody").to_owned();
        let size = &volume["size_gb"];
        format!(
            "{} {} {size} {}",
            part("name"),
            part("region"),
            part("attached_machine_id")
        )
    };
    let mut disks: Vec<String> = listed.as_array().unwrap().iter().map(line).collect();
    disks.sort();
    disks
}

/// A migration of an app whose Machines have volumes.
const WITH_VOLUMES: [&str; 8] = [
    "migrate",
    "fly",
    "--config",
    "config.json",
    "--machines",
    "machines.json",
    "--volumes",
    "volumes.json",
];

#[test]
fn volumes_of_flys_are_made_here_and_their_data_is_copied_as_the_plan_says() {
    let Some(world) = World::with_disks() else {
        return;
    };
    fly_app_with_volumes(&world);
    let shown = world.ok(&WITH_VOLUMES).stderr;
    for part in [
        "create 1 \"db\" machine in ams of size shared-cpu-1x with 256 MB and volume data",
        "create volume data (2 GB) in ams, empty, for a \"db\" machine",
        "create volume spare (1 GB) in ams, empty, attached to no Machine",
        "what is in the volumes is not copied",
    ] {
        assert!(shown.contains(part), "{part} in\n{shown}");
    }
    let apply = [&WITH_VOLUMES[..], &["--apply", "--yes"]].concat();
    let said = world.ok(&apply).stderr;
    let machine = |region: &str| {
        let all = world.machines("moved");
        let mut of = all.iter().filter(|m| m["region"] == region);
        let found = of.next().unwrap()["id"].as_str().unwrap().to_owned();
        assert!(of.next().is_none(), "{all:?}");
        found
    };
    let expected = || {
        [
            format!("data ams 2 {}", machine("ams")),
            format!("data iad 1 {}", machine("iad")),
            "spare ams 1 nobody".to_owned(),
        ]
    };
    assert_eq!(disks(&world), expected());
    // One with a schedule rests until somebody begins it.
    let job = world.machine("moved", &machine("gru"));
    assert_eq!(job["config"]["schedule"], "weekly");
    assert_ne!(job["state"], "started");
    assert!(
        said.contains(&format!(
            "begins with: hangar machine start {}",
            machine("gru")
        )),
        "{said}"
    );
    let copy = format!(
        "fly ssh console -a moved --machine 2 -C \"tar -C /data -cf - .\" | hangar ssh console -a moved --machine {} -C \"tar -C /data -xf -\"",
        machine("ams")
    );
    assert!(said.contains(&copy), "{copy} in\n{said}");

    let ams = machine("ams");
    unpack_into(&world, &ams);
    // Again, nothing is to be done; a lost Machine is made anew and gets its volume back.
    world.ok(&apply);
    assert_eq!(disks(&world), expected());
    world.ok(&["machine", "destroy", "--force", &ams, "-a", "moved"]);
    world.ok(&apply);
    assert_ne!(machine("ams"), ams);
    assert_eq!(disks(&world), expected());
    let back = machine("ams");
    assert_eq!(world.said("moved", &back, "cat /data/precious"), "kept\n");
    is_taken_back(&world);
}

/// The second half of the command that the migration prints, with an archive of anybody's.
fn unpack_into(world: &World, machine: &str) {
    let file = world.path("data.tar");
    let mut archive = std::process::Command::new("tar");
    let folder = world.path("fly-data");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("precious"), "kept\n").unwrap();
    archive
        .arg("-C")
        .arg(&folder)
        .arg("-cf")
        .arg(&file)
        .arg(".");
    assert_eq!(finish(&mut archive).code, 0);
    let mut console = world.command(env!("CARGO_BIN_EXE_hangar"));
    let words = ["ssh", "console", "-a", "moved", "--machine", machine, "-C"];
    console.args(words).arg("/bin/busybox tar -C /data -xf -");
    console.stdin(std::fs::File::open(&file).unwrap());
    let ran = finish(&mut console);
    assert_eq!(ran.code, 0, "{ran:?}");
    let said = world.said("moved", machine, "cat /data/precious");
    assert_eq!(said, "kept\n");
}

fn is_taken_back(world: &World) {
    world.ok(&[&JOURNAL[..], &["--undo", "--yes"]].concat());
    world.fails(3, &["status", "-a", "moved"]);
    world.eventually("nothing is left on disk", |world| {
        let images = std::fs::read_dir(world.data_dir().join("volumes")).unwrap();
        (images.count() == 0).then_some(())
    });
}

/// Stopped in the middle, by a kill that nobody can catch, the same command comes to the same end.
#[test]
fn a_migration_that_was_killed_makes_no_volume_twice() {
    let Some(mut world) = World::with_disks() else {
        return;
    };
    fly_app_with_volumes(&world);
    let apply = [&WITH_VOLUMES[..], &["--apply", "--yes"]].concat();
    for volumes in 1..4 {
        world.start_hangar(&apply);
        world.eventually("so many volumes are there", |world| {
            let listed = world.hangar(&["volumes", "list", "-a", "moved", "--json"]);
            let listed: serde_json::Value = serde_json::from_str(&listed.stdout).ok()?;
            (listed.as_array()?.len() >= volumes).then_some(())
        });
        let migration = world.last_started();
        migration.kill().unwrap();
        migration.wait().unwrap();
    }
    world.ok(&apply);
    let made = disks(&world);
    assert_eq!(made.len(), 3, "{made:?}");
    let owned = made.iter().filter(|line| !line.ends_with("nobody"));
    assert_eq!(owned.count(), 2, "{made:?}");
    let groups = world.machines("moved");
    assert_eq!(groups.len(), 3, "{groups:?}");
    is_taken_back(&world);
}
