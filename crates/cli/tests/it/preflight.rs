//! The end-to-end tests that Fly's own client has (process-groups-and-deploy.md 9.4), as tests of
//! ours: the comment before each says which. Those that other modules tell are not told again.

use std::path::Path;

use serde_json::Value;

use crate::busybox::SHELL;
use crate::world::{World, fly_toml, group, service};

/// Without checks nobody waits for what these tests are not about.
const QUICK: &str = "--smoke-checks=false";

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn ids(world: &World, app: &str, name: &str) -> Vec<String> {
    let machines = world.of_group(app, name);
    machines.iter().map(|m| text(&m["id"])).collect()
}

fn metadata(world: &World, app: &str, id: &str, key: &str) -> Value {
    world.machine(app, id)["config"]["metadata"][key].clone()
}

/// Returns a fly.toml for the image with a shell.
fn shell_toml(app: &str, rest: &str) -> String {
    fly_toml(app, rest).replace("image = \"testapp\"", &format!("image = \"{SHELL}\""))
}

fn volumes(world: &World, app: &str) -> Vec<Value> {
    let all = world.json(&["volumes", "list", "-a", app]);
    all.as_array().unwrap().clone()
}

/// Row: AppsV2Config_ProcessGroups.
#[test]
fn groups_come_and_go_and_machines_that_stay_keep_what_they_were_given() {
    let Some(world) = World::start() else { return };
    let app = "story";
    let deploy = |processes: &str| {
        let folder = world.app(app, &fly_toml(app, processes));
        world.ok(&["deploy", &folder, "--ha=false", QUICK]).stderr
    };
    let said = deploy("");
    assert!(said.contains("create 1 \"app\" machine"), "{said}");
    let first = world.only(app, "app");
    assert_eq!(metadata(&world, app, &first, "fly_process_group"), "app");

    let said = deploy("[processes]\nweb = \"serve\"\nbar_web = \"lines 1 0\"\n");
    for line in [
        "destroy 1 \"app\" machine",
        "create 1 \"web\" machine",
        "create 1 \"bar_web\" machine",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    let (web, bar) = (world.only(app, "web"), world.only(app, "bar_web"));
    world.ok(&["machine", "clone", &bar, "--region", "gru", "-a", app]);
    let update = |pair: &str| {
        let words = ["machine", "update", &web, "-a", app, "--yes", "--metadata"];
        world.ok(&[&words[..], &[pair]].concat());
    };
    update("ABCD=EFGH");

    let said = deploy("[processes]\nweb = \"lines 2 0\"\n");
    assert!(said.contains("destroy 2 \"bar_web\" machines"), "{said}");
    assert_eq!(world.only(app, "web"), web, "the same Machine");
    assert_eq!(metadata(&world, app, &web, "ABCD"), "EFGH");

    update("CUSTOM=META");
    world.ok(&["secrets", "set", "WORD=new", "-a", app]);
    assert_eq!(world.only(app, "web"), web);
    assert_eq!(metadata(&world, app, &web, "ABCD"), "EFGH");
    assert_eq!(metadata(&world, app, &web, "CUSTOM"), "META");
    let now = world.machine(app, &web);
    assert_eq!(now["config"]["init"]["cmd"][0], "lines");
}

/// Rows: AppsV2Example, DeployDetach.
#[test]
fn an_app_is_cloned_restarted_and_deployed_without_waiting() {
    let Some(world) = World::start() else { return };
    let app = "example";
    let folder = world.app(app, &fly_toml(app, &service(&[])));
    let said = world.ok(&["deploy", &folder, "--ha=false"]).stderr;
    assert!(said.contains("is started"), "{said}");
    let first = world.only(app, "app");
    for region in ["iad", "gru"] {
        world.ok(&["machine", "clone", &first, "--region", region, "-a", app]);
    }
    world.eventually("all are started", |world| {
        let status = world.ok(&["status", "-a", app]).stdout;
        (status.matches("started").count() == 3).then_some(())
    });
    world.ok(&["secrets", "set", "WORD=new", "-a", app]);
    let has_word = |world: &World| world.get(app, "/env").body.contains("WORD=new");
    assert!(has_word(&world));
    world.ok(&["apps", "restart", app]);
    let said = world.ok(&["deploy", &folder, "--detach"]);
    assert!(!said.stderr.contains("started"), "{said:?}");
    assert!(said.stderr.contains("is under way"), "{said:?}");
    world.eventually("it is done by itself", |world| {
        let releases = world.json(&["releases", "-a", app]);
        (releases[0]["Status"] == "complete" || releases[0]["status"] == "complete").then_some(())
    });
}

/// Row: AppsV2ConfigChanges.
#[test]
fn a_variable_that_was_changed_is_saved_as_it_was_deployed() {
    let Some(world) = World::start() else { return };
    let app = "changes";
    let deploy = |env: &str| {
        let folder = world.app(app, &fly_toml(app, &format!("[env]\n{env}\n")));
        world.ok(&["deploy", &folder, "--ha=false", QUICK]);
        folder
    };
    deploy("FOO = \"BAR\"");
    let folder = deploy("BAR = \"QUX\"");
    let file = Path::new(&folder).join("fly.toml");
    std::fs::remove_file(&file).unwrap();
    let target = file.to_string_lossy().into_owned();
    world.ok(&["config", "save", "-a", app, "-c", &target, "--yes"]);
    let saved = std::fs::read_to_string(&file).unwrap();
    assert!(saved.contains("BAR = 'QUX'"), "{saved}");
    assert!(!saved.contains("FOO"), "{saved}");
}

/// Row: FlyLaunchHA.
#[test]
fn a_first_deploy_has_two_of_what_serves_a_standby_of_what_does_not_and_one_with_a_volume() {
    let Some(world) = World::with_disks() else {
        return;
    };
    let app = "five";
    let rest = "[processes]\napp = \"/testapp serve\"\ntask = \"sleep 100000\"\ndisk = \"sleep 100000\"\n\
                [[mounts]]\nsource = \"disk\"\ndestination = \"/data\"\nprocesses = [\"disk\"]\n\
                [http_service]\ninternal_port = 8080\nprocesses = [\"app\"]\n";
    let folder = world.app(app, &shell_toml(app, rest));
    let said = world.ok(&["deploy", &folder, QUICK]).stderr;
    assert!(
        said.contains("create 1 \"task\" machine and 1 standby machine for it"),
        "{said}"
    );
    assert_eq!(world.machines(app).len(), 5);
    let of = |name: &str| world.of_group(app, name);
    let (web, task, disk) = (of("app"), of("task"), of("disk"));
    assert_eq!((web.len(), task.len(), disk.len()), (2, 2, 1));
    let stands_by = |m: &&Value| {
        m["config"]["standbys"]
            .as_array()
            .is_some_and(|s| !s.is_empty())
    };
    let standbys: Vec<&Value> = task.iter().filter(stands_by).collect();
    assert_eq!(standbys.len(), 1, "{task:?}");
    let other = task.iter().find(|m| m["id"] != standbys[0]["id"]).unwrap();
    assert_eq!(standbys[0]["config"]["standbys"][0], other["id"]);
    for machine in world.machines(app) {
        let services = machine["config"]["services"].as_array();
        let serves = services.is_some_and(|s| !s.is_empty());
        assert_eq!(serves, group(&machine) == "app", "{machine}");
    }
}

/// Rows: FlyLaunchSingleMount, FlyLaunchWithVolumes.
#[test]
fn each_group_of_a_mount_gets_a_volume_of_its_own_and_the_others_none() {
    let Some(world) = World::with_disks() else {
        return;
    };
    let groups = |names: &[&str]| -> String {
        let lines = names
            .iter()
            .map(|name| format!("{name} = \"sleep 100000\"\n"));
        format!("[processes]\n{}", lines.collect::<String>())
    };
    let mount = |name: &str, groups: &[&str]| {
        format!(
            "[[mounts]]\nsource = \"{name}\"\ndestination = \"/data\"\nprocesses = {groups:?}\n"
        )
    };
    let single = format!(
        "{}{}",
        groups(&["app", "task"]),
        mount("data", &["app", "task"])
    );
    let folder = world.app("single", &shell_toml("single", &single));
    world.ok(&["deploy", &folder, QUICK]);
    assert_eq!(world.machines("single").len(), 2);
    let made = volumes(&world, "single");
    assert_eq!(made.len(), 2, "{made:?}");
    let mut owners: Vec<String> = made
        .iter()
        .map(|v| text(&v["attached_machine_id"]))
        .collect();
    owners.sort();
    owners.dedup();
    assert_eq!(owners.len(), 2, "{made:?}");

    let two = format!(
        "{}{}{}",
        groups(&["app", "other", "backend"]),
        mount("data", &["app"]),
        mount("trash", &["other"])
    );
    let folder = world.app("mixed", &shell_toml("mixed", &two));
    world.ok(&["deploy", &folder, QUICK]);
    let mounted = |name: &str| {
        let machine = world.of_group("mixed", name).remove(0);
        machine["config"]["mounts"][0]["name"].clone()
    };
    assert_eq!(mounted("app"), "data");
    assert_eq!(mounted("other"), "trash");
    assert_eq!(mounted("backend"), Value::Null);
    assert_eq!(volumes(&world, "mixed").len(), 2);
    // No volume: one Machine and its standby.
    assert_eq!(world.of_group("mixed", "backend").len(), 2);
}

/// Rows: FlyScaleTo3, FlyScaleCount.
#[test]
fn counts_with_volumes_take_the_size_of_what_is_there_and_come_back_to_it() {
    let Some(world) = World::with_disks() else {
        return;
    };
    let app = "counts";
    let mount = "[[mounts]]\nsource = \"data\"\ndestination = \"/data\"\n";
    world.deploy_shell(app, SHELL, mount);
    let scale = |words: &[&str]| {
        world.ok(&[&["scale", "count", "-a", app, "--yes"], words].concat());
    };
    let first = text(&volumes(&world, app)[0]["id"]);
    world.ok(&["volumes", "extend", &first, "-s", "2", "-a", app]);
    let sizes = |world: &World| {
        let all = volumes(world, app);
        let mut all: Vec<(u64, String)> = all
            .iter()
            .map(|v| (v["size_gb"].as_u64().unwrap(), text(&v["region"])))
            .collect();
        all.sort();
        all
    };
    let in_iad = (2, "iad".to_owned());
    scale(&["2"]);
    assert_eq!(sizes(&world), vec![in_iad.clone(); 2]);
    scale(&["1", "--region", "gru"]);
    let three = vec![(2, "gru".to_owned()), in_iad.clone(), in_iad];
    assert_eq!(sizes(&world), three);
    assert_eq!(world.machines(app).len(), 3);
    let shown = world.ok(&["scale", "show", "-a", app]).stdout;
    assert!(shown.contains("gru,iad(2)"), "{shown}");
    scale(&["0"]);
    world.eventually("none is left", |world| {
        world.machines(app).is_empty().then_some(())
    });
    assert_eq!(sizes(&world), three, "volumes stay");
    world.eventually("the volumes are free", |world| {
        let free = |v: &Value| v["attached_machine_id"].is_null();
        volumes(world, app).iter().all(free).then_some(())
    });
    scale(&["2", "--region", "iad"]);
    assert_eq!(sizes(&world), three, "and are taken again");
    assert_eq!(world.machines(app).len(), 2);

    // And without any volume.
    world.deploy_shell("plain", SHELL, "");
    world.ok(&["scale", "count", "3", "-a", "plain", "--yes"]);
    assert_eq!(world.machines("plain").len(), 3);
    assert!(volumes(&world, "plain").is_empty());
}

/// Rows: DeployToken with an entrypoint or a release command that fails.
#[test]
fn an_entrypoint_or_a_release_command_that_fails_is_told_in_flyctls_words() {
    let Some(world) = World::with_shell() else {
        return;
    };
    let toml = shell_toml("broken", "[experimental]\nentrypoint = [\"/bin/false\"]\n");
    let folder = world.app("broken", &toml);
    let said = world.fails(5, &["deploy", &folder, "--ha=false"]);
    assert!(said.contains("the app appears to be crashing"), "{said}");
    assert!(world.machines("broken").is_empty());
    let toml = shell_toml("release", "[deploy]\nrelease_command = \"/bin/false\"\n");
    let folder = world.app("release", &toml);
    let said = world.fails(5, &["deploy", &folder, "--ha=false"]);
    assert!(said.contains("exited with non-zero status of 1"), "{said}");
    assert!(world.machines("release").is_empty());
}

/// Rows: DeployMachinesCheck, DeployMachinesCheckNoService.
#[test]
fn test_machines_of_a_service_and_of_the_app_are_told() {
    let Some(world) = World::start() else { return };
    let check = "command = [\"env\"]\n";
    let of_service = format!("{}[[http_service.machine_checks]]\n{check}", service(&[]));
    let of_app = format!("[[machine_checks]]\n{check}");
    for (app, rest) in [("checked", of_service), ("noservice", of_app)] {
        let folder = world.app(app, &fly_toml(app, &rest));
        world.ok(&["deploy", &folder, "--ha=false", QUICK]);
        let said = world.ok(&["deploy", &folder, QUICK]).stderr;
        assert!(
            said.contains("Test machine") && said.contains("completed successfully"),
            "{app}: {said}"
        );
    }
}

/// Row: SlowBind, and warn_listen_address_test's: who listens late is not warned of, and who never
/// does is, after a while and once a group.
#[test]
fn an_app_has_its_time_to_listen_before_it_is_warned_of() {
    let Some(world) = World::start() else { return };
    let warning = "The app is not listening on the expected address";
    let deploy = |app: &str, web: &str| {
        let rest = format!(
            "[processes]\nweb = \"{web}\"\n[http_service]\ninternal_port = 8080\nprocesses = [\"web\"]\n"
        );
        let folder = world.app(app, &fly_toml(app, &rest));
        world.ok(&["deploy", &folder]).stderr
    };
    let said = deploy("slow", "slow 11500");
    assert!(!said.contains(warning), "{said}");
    assert_eq!(
        world.get("slow", "/health").status,
        200,
        "it listens by then"
    );
    let said = deploy("never", "lines 1 0");
    assert_eq!(said.matches(warning).count(), 1, "{said}");
    assert!(said.contains("0.0.0.0:8080"), "{said}");
}

/// Row: FlyLogs flags.
#[test]
fn the_logs_of_one_machine_are_asked_for_by_each_of_the_flags() {
    let Some(world) = World::start() else { return };
    let app = "lines";
    let folder = world.app(app, &fly_toml(app, "[processes]\napp = \"lines 1 0\"\n"));
    world.ok(&["deploy", &folder, QUICK, "--ha=false"]);
    let first = world.only(app, "app");
    world.ok(&["scale", "count", "2", "-a", app, "--yes"]);
    let other = ids(&world, app, "app")
        .into_iter()
        .find(|id| *id != first)
        .unwrap();
    for flag in ["--machine", "--instance", "-i"] {
        let seen = world.eventually("its line is there", |world| {
            let said = world
                .ok(&["logs", "-a", app, "--no-tail", flag, &first])
                .stdout;
            said.contains("line 0").then_some(said)
        });
        assert!(!seen.contains(&other), "{flag}: {seen}");
    }
}

/// Row: status getImage (9.3).
#[test]
fn the_image_of_the_newest_release_is_that_of_the_app() {
    let Some(world) = World::start() else { return };
    world.import("newer", &crate::world::image_spec());
    let app = "two";
    let groups = "[processes]\na = \"lines 1 0\"\nb = \"lines 1 0\"\n";
    let folder = world.app(app, &fly_toml(app, groups));
    let deploy = |more: &[&str]| {
        world.ok(&[&["deploy", &folder, "--ha=false", QUICK], more].concat());
    };
    deploy(&[]);
    let image = |world: &World| {
        let status = world.ok(&["status", "-a", app]).stdout;
        let line = status.lines().find(|l| l.trim_start().starts_with("Image"));
        line.unwrap_or_default().to_owned()
    };
    assert!(image(&world).contains("testapp"), "{}", image(&world));
    deploy(&["--image", "newer", "--process-groups", "b"]);
    assert!(image(&world).contains("newer"), "{}", image(&world));
}

/// Row: load_app_config_test (9.1).
#[test]
fn a_configuration_that_is_not_there_is_named_with_what_was_tried() {
    let Some(world) = World::start() else { return };
    let missing = world.path("nowhere").to_string_lossy().into_owned();
    let said = world.fails(2, &["config", "show", "--local", "-c", &missing]);
    assert!(
        said.contains(&format!("{missing} (also tried: {missing}/fly.toml)")),
        "{said}"
    );
    // Where none is asked for and none is there, the app's own is used.
    let folder = world.app("there", &fly_toml("there", ""));
    world.ok(&["deploy", &folder, "--ha=false", QUICK]);
    let shown = world.ok(&["config", "show", "-a", "there"]).stdout;
    assert!(shown.contains("\"app\": \"there\""), "{shown}");
}

/// Row: ParseExperimental. The file stays as it is, so it is said how it is deployed again.
#[test]
fn a_fly_toml_without_a_name_is_launched_under_one() {
    let Some(world) = World::start() else { return };
    let text =
        "[build]\nimage = \"testapp\"\n[experimental]\ncmd = \"lines\"\nauto_rollback = true\n";
    let folder = world.app("nameless", text);
    let launch = [
        "launch",
        "--path",
        &folder,
        "--copy-config",
        "--yes",
        "--ha=false",
    ];
    let said = world
        .ok(&[&launch[..], &["--name", "parsed", "--now"]].concat())
        .stderr;
    assert!(
        said.contains("has no app = line: deploy to this one with -a parsed"),
        "{said}"
    );
    let machine = world.machines("parsed").remove(0);
    assert_eq!(machine["config"]["init"]["cmd"][0], "lines");
    let file = Path::new(&folder).join("fly.toml");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    let said = world
        .ok(&[&launch[..], &["--name", "later", "--no-deploy"]].concat())
        .stderr;
    let hint = format!("hangar deploy -c {} -a later", file.display());
    assert!(said.contains(&hint), "{said}");
    world.ok(&[
        "deploy",
        "-c",
        &file.to_string_lossy(),
        "-a",
        "later",
        "--ha=false",
        QUICK,
    ]);
    assert_eq!(world.machines("later").len(), 1);
}

/// Row: ErrOutput.
#[test]
fn sizes_that_are_not_offered_and_updates_that_take_too_long_are_told_in_flyctls_words() {
    let Some(world) = World::with_shell() else {
        return;
    };
    let app = "errors";
    // It hears no signal, so that its update takes as long as it may take to stop.
    let deaf = "[processes]\napp = \"sh -c 'trap : INT TERM; while :; do sleep 1; done'\"\n";
    let toml = format!("kill_timeout = \"8s\"\n{}", shell_toml(app, deaf));
    let folder = world.app(app, &toml);
    world.ok(&["deploy", &folder, "--ha=false", QUICK]);
    let id = world.only(app, "app");
    let update = |more: &[&str]| {
        world.hangar(&[&["machine", "update", &id, "-a", app, "--yes"], more].concat())
    };
    for (flags, text) in [
        (&["--vm-cpus", "3"][..], "invalid number of CPUs"),
        (&["--vm-cpu-kind", "odd"], "invalid CPU kind"),
        (&["--vm-memory", "300"], "invalid memory size"),
        (
            &["--vm-cpus", "4", "--vm-memory", "256"],
            "memory size for config is too low",
        ),
        (
            &["--vm-memory", "4096"],
            "memory size for config is too high",
        ),
        (
            &["-e", "A=1", "--wait-timeout", "1"],
            "timeout reached waiting for machine's state to change",
        ),
    ] {
        let ran = update(flags);
        assert!(
            ran.code != 0 && ran.stderr.contains(text),
            "{flags:?}: {ran:?}"
        );
    }
}
