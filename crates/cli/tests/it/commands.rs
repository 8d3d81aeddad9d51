//! What the command line prints: flyctl's tables, JSON on standard output, talk on standard error.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::Value;

use crate::world::{IMAGE, Ran, World, fly_toml, service};

fn deployed(world: &World, app: &str) -> String {
    let groups = "[processes]\nweb = \"serve\"\nworker = \"lines 3 1\"\n";
    let folder = world.app(
        app,
        &fly_toml(app, &format!("{groups}{}", service(&["web"]))),
    );
    world.ok(&["deploy", &folder, "--ha=false", "--smoke-checks=false"]);
    folder
}

/// Returns the words of a table's heading.
fn heading(ran: &Ran, first: &str) -> Vec<String> {
    let line = ran
        .stdout
        .lines()
        .find(|line| line.trim_start().starts_with(first));
    let line = line.unwrap_or_else(|| panic!("no heading {first} in\n{}", ran.stdout));
    let cells = line
        .split("  ")
        .map(str::trim)
        .filter(|cell| !cell.is_empty());
    cells.map(str::to_owned).collect()
}

#[test]
fn tables_have_the_columns_that_flyctl_prints() {
    let Some(world) = World::start() else { return };
    deployed(&world, "tables");
    world.ok(&["secrets", "set", "KEY=value", "--stage", "-a", "tables"]);
    let columns = |words: &[&str], first: &str| {
        let ran = world.ok(&[words, &["-a", "tables"]].concat());
        heading(&ran, first).join(" | ")
    };
    assert_eq!(
        columns(&["status"], "PROCESS"),
        "PROCESS | ID | VERSION | REGION | STATE | ROLE | CHECKS | LAST UPDATED"
    );
    assert_eq!(
        columns(&["releases"], "VERSION"),
        "VERSION | STATUS | DESCRIPTION | USER | DATE"
    );
    assert_eq!(
        columns(&["releases", "--image"], "VERSION"),
        "VERSION | STATUS | DESCRIPTION | USER | DATE | DOCKER IMAGE"
    );
    assert_eq!(
        columns(&["checks", "list"], "NAME"),
        "NAME | STATUS | MACHINE | LAST UPDATED | OUTPUT"
    );
    // What is bound where is Hangar's own.
    assert_eq!(
        columns(&["services", "list"], "PROTOCOL"),
        "PROTOCOL | PORTS | BOUND AT | HANDLERS | FORCE HTTPS | PROCESS GROUP | REGIONS | MACHINES"
    );
    assert_eq!(
        columns(&["scale", "show"], "NAME"),
        "NAME | COUNT | KIND | CPUS | MEMORY | REGIONS"
    );
    assert_eq!(
        columns(&["secrets", "list"], "NAME"),
        "NAME | DIGEST | STATUS"
    );
    let apps = world.ok(&["apps", "list"]);
    assert_eq!(
        heading(&apps, "NAME").join(" | "),
        "NAME | OWNER | STATUS | LATEST DEPLOY"
    );
    assert_eq!(world.ok(&["apps", "list", "--quiet"]).stdout, "tables\n");
    let machines = world.ok(&["machine", "list", "-a", "tables"]);
    let expected = [
        "ID",
        "NAME",
        "STATE",
        "CHECKS",
        "REGION",
        "ROLE",
        "IMAGE",
        "IP ADDRESS",
        "VOLUME",
        "CREATED",
        "LAST UPDATED",
        "PROCESS GROUP",
        "SIZE",
    ];
    assert_eq!(heading(&machines, "ID"), expected);
}

#[test]
fn json_is_all_that_standard_output_has_and_nothing_is_drawn() {
    let Some(world) = World::start() else { return };
    let folder = deployed(&world, "plain");
    for words in [
        &["status"][..],
        &["releases"],
        &["checks", "list"],
        &["services", "list"],
        &["scale", "show"],
        &["secrets", "list"],
        &["machine", "list"],
    ] {
        let ran = world.ok(&[words, &["-a", "plain", "--json"]].concat());
        let read = serde_json::from_str::<Value>(&ran.stdout);
        assert!(read.is_ok(), "{words:?}: {}", ran.stdout);
    }
    for words in [
        &["apps", "list"][..],
        &["platform", "regions"],
        &["image", "list"],
        &["doctor"],
    ] {
        let ran = world.ok(&[words, &["--json"]].concat());
        assert!(
            serde_json::from_str::<Value>(&ran.stdout).is_ok(),
            "{words:?}"
        );
    }
    // Where nobody reads along there are no colours and no progress that draws over itself.
    let ran = world.ok(&["deploy", &folder, "--smoke-checks=false"]);
    for text in [&ran.stdout, &ran.stderr] {
        assert!(!text.contains('\u{1b}') && !text.contains('\r'), "{text:?}");
    }
    // A flag that would do nothing is not there.
    world.fails(2, &["deploy", &folder, "--json"]);
}

#[test]
fn on_a_terminal_what_takes_long_is_shown_to_go_on() {
    let Some(world) = World::start() else { return };
    let folder = world.app("shown", &fly_toml("shown", &service(&[])));
    let words = format!(
        "{} deploy {folder} --ha=false",
        env!("CARGO_BIN_EXE_hangar")
    );
    let mut command = world.command("script");
    command
        .args(["-qec", &words, "/dev/null"])
        .env("TERM", "xterm");
    let ran = crate::world::finish(&mut command);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stdout.contains("Deploying v1"), "{ran:?}");
    assert!(ran.stdout.contains("[app] is started"), "{ran:?}");
    let mut command = world.command("script");
    command
        .args(["-qec", &words, "/dev/null"])
        .env("TERM", "dumb");
    let ran = crate::world::finish(&mut command);
    assert!(!ran.stdout.contains('\u{1b}'), "{ran:?}");
}

#[test]
fn the_app_is_the_one_named_or_found_here_or_the_only_one() {
    let Some(world) = World::start() else { return };
    let none = world.fails(3, &["status"]);
    assert!(none.contains("hangar deploy"), "{none}");
    let folder = deployed(&world, "first");
    let only = world.ok(&["status"]);
    assert!(
        only.stderr.contains("taking first, the only app"),
        "{}",
        only.stderr
    );
    world.ok(&["apps", "create", "second"]);
    let many = world.fails(2, &["status"]);
    assert!(
        many.contains("-a") && many.contains("first, second"),
        "{many}"
    );
    assert!(
        world
            .ok(&["status", "-c", &folder])
            .stdout
            .contains("first")
    );
    assert!(
        world
            .ok(&["status", "-a", "second"])
            .stdout
            .contains("second")
    );
    let mut command = world.command(env!("CARGO_BIN_EXE_hangar"));
    let ran = crate::world::finish(command.arg("status").env("FLY_APP", "first"));
    assert!(ran.stdout.contains("first"), "{ran:?}");
    let unknown = world.fails(3, &["status", "-a", "third"]);
    assert!(unknown.contains("third"), "{unknown}");
}

#[test]
fn secrets_reach_machines_when_they_are_told_to_and_are_never_shown() {
    let Some(world) = World::start() else { return };
    deployed(&world, "secret");
    let env = || world.get("secret", "/env").body;
    world.ok(&["secrets", "set", "ONE=first word", "-a", "secret"]);
    assert!(env().contains("ONE=first word"));
    let staged = world.ok(&["secrets", "set", "TWO=2", "--stage", "-a", "secret"]);
    assert!(
        staged.stderr.contains("staged") || staged.stdout.contains("staged"),
        "{staged:?}"
    );
    assert!(!env().contains("TWO=2"));
    let mut command = world.command(env!("CARGO_BIN_EXE_hangar"));
    command.args(["secrets", "import", "-a", "secret"]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let text = b"# a comment\nTHREE=\"quoted\"\nFOUR=\"\"\"a\nb\"\"\"\n";
    child.stdin.take().unwrap().write_all(text).unwrap();
    assert!(child.wait().unwrap().success());
    let all = env();
    for line in ["TWO=2", "THREE=quoted", "FOUR=a\nb"] {
        assert!(all.contains(line), "{line}: {all}");
    }
    let listed = world.ok(&["secrets", "list", "-a", "secret"]).stdout;
    for name in ["ONE", "TWO", "THREE", "FOUR"] {
        assert!(listed.contains(name), "{listed}");
    }
    assert!(
        !listed.contains("word") && !listed.contains("quoted"),
        "{listed}"
    );
    world.ok(&["secrets", "unset", "ONE", "-a", "secret"]);
    assert!(!env().contains("ONE="));
    // On the disk there is nothing to be read either.
    let store = std::fs::read(world.data_dir().join("store.db-wal")).unwrap();
    let find = |needle: &[u8]| store.windows(needle.len()).any(|w| w == needle);
    assert!(find(b"THREE") && !find(b"first word") && !find(b"quoted"));
    let wrong = world.fails(2, &["secrets", "set", "NOVALUE", "-a", "secret"]);
    assert!(wrong.contains("NAME=VALUE"), "{wrong}");
}

#[test]
fn logs_are_marked_with_their_group_and_can_be_narrowed() {
    let Some(world) = World::start() else { return };
    deployed(&world, "talk");
    let all = world.eventually("both have said something", |world| {
        let all = world.logs("talk");
        (all.contains("worker [info] line 2") && all.contains("web [info] listening"))
            .then_some(all)
    });
    assert!(all.lines().all(|line| line.contains(" iad ")), "{all}");
    let web = world
        .ok(&["logs", "-a", "talk", "-n", "--group", "web"])
        .stdout;
    assert!(
        web.contains("listening") && !web.contains("line 2"),
        "{web}"
    );
    let id = world.only("talk", "worker");
    let one = world
        .ok(&["logs", "-a", "talk", "-n", "--machine", &id])
        .stdout;
    assert!(
        one.contains("line 2") && !one.contains("listening"),
        "{one}"
    );
    let json = world.ok(&["logs", "-a", "talk", "-n", "--json"]).stdout;
    assert!(
        json.lines()
            .all(|line| serde_json::from_str::<Value>(line).is_ok()),
        "{json}"
    );
}

#[test]
fn the_configuration_is_saved_in_every_format_and_its_build_section_kept() {
    let Some(world) = World::start() else { return };
    let toml = fly_toml(
        "kept",
        &format!("[env]\nCOLOUR = \"blue\"\n{}", service(&[])),
    );
    let folder = world.app("kept", &toml);
    world.ok(&["deploy", &folder]);
    world.ok(&["secrets", "set", "--stage", "TOKEN=hunter2", "-a", "kept"]);
    let env = world.ok(&["config", "env", "-a", "kept"]).stdout;
    for part in [
        "Secrets",
        "TOKEN",
        "Environment Variables",
        "COLOUR",
        "blue",
    ] {
        assert!(env.contains(part), "{part} not in {env}");
    }
    assert!(!env.contains("hunter2"), "{env}");
    let file = format!("{folder}/saved.toml");
    let said = world.ok(&[
        "config",
        "save",
        "-a",
        "kept",
        "-c",
        &format!("{folder}/new.toml"),
    ]);
    assert!(said.stdout.contains("Wrote config file"), "{}", said.stdout);
    // A file that is there is not overwritten unasked; its own way to build stays.
    std::fs::write(&file, "app = \"kept\"\n[build]\ndockerfile = \"Own\"\n").unwrap();
    let args = ["config", "save", "-a", "kept", "-c", &file];
    world.fails(2, &args);
    world.ok(&[&args[..], &["--yes"]].concat());
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(
        text.starts_with("# fly.toml app configuration file generated for kept on 20"),
        "{text}"
    );
    assert!(text.contains("  COLOUR = 'blue'\n"), "{text}");
    assert!(text.contains("  dockerfile = 'Own'\n"), "{text}");
    for (flag, begins) in [
        ("--json", "{"),
        ("--yaml", "# fly.yaml"),
        ("--toml", "# fly.toml"),
    ] {
        let shown = world.ok(&["config", "show", flag, "-a", "kept"]).stdout;
        assert!(shown.starts_with(begins), "{flag}: {shown}");
        assert!(shown.contains("COLOUR"), "{shown}");
    }
    let schema = world.ok(&["config", "schema"]).stdout;
    let schema: Value = serde_json::from_str(&schema).unwrap();
    assert_eq!(schema["properties"]["processes"]["type"], "object");
}

#[test]
fn the_configuration_is_shown_and_checked() {
    let Some(world) = World::start() else { return };
    let folder = deployed(&world, "conf");
    let shown: Value =
        serde_json::from_str(&world.ok(&["config", "show", "-a", "conf"]).stdout).unwrap();
    assert_eq!(shown["processes"]["worker"], "lines 3 1");
    assert_eq!(shown["http_service"]["internal_port"], 8080);
    world.ok(&["config", "validate", "-c", &folder]);
    world.app(
        "conf",
        &format!("app = \"conf\"\nunknown_key = 1\n[build]\nimage = \"{IMAGE}\"\n"),
    );
    let ran = world.ok(&["config", "validate", "-c", &folder]);
    assert!(
        ran.stderr.contains("line 2") && ran.stderr.contains("unknown_key"),
        "{}",
        ran.stderr
    );
    world.fails(2, &["config", "validate", "--strict", "-c", &folder]);
    let local: Value = serde_json::from_str(
        &world
            .ok(&["config", "show", "--local", "-c", &folder])
            .stdout,
    )
    .unwrap();
    assert_eq!(local["app"], "conf");
}

#[test]
fn apps_are_created_restarted_and_destroyed() {
    let Some(world) = World::start() else { return };
    assert_eq!(
        world.ok(&["apps", "create", "mine"]).stdout,
        "New app created: mine\n"
    );
    let taken = world.fails(1, &["apps", "create", "mine"]);
    assert!(taken.to_lowercase().contains("taken"), "{taken}");
    deployed(&world, "mine");
    let before = world.machines("mine");
    world.ok(&["apps", "restart", "mine"]);
    let after = world.machines("mine");
    assert_eq!(before.len(), after.len());
    for machine in &after {
        assert!(
            machine["events"]
                .as_array()
                .unwrap()
                .iter()
                .any(|e| e["type"] == "restart"),
            "{machine}"
        );
    }
    // Without a terminal to ask at, and without --yes, nothing is destroyed.
    assert_ne!(world.hangar(&["apps", "destroy", "mine"]).code, 0);
    assert_eq!(world.machines("mine").len(), 2);
    assert_eq!(
        world.ok(&["apps", "destroy", "mine", "--yes"]).stdout,
        "Destroyed app mine\n"
    );
    world.eventually("nothing of it runs", |world| {
        world.inits().is_empty().then_some(())
    });
    assert_eq!(world.json(&["apps", "list"]), serde_json::json!([]));
}

#[test]
fn secrets_say_which_machines_have_them() {
    let Some(world) = World::start() else { return };
    let folder = deployed(&world, "marks");
    let status = |name: &str| {
        let all = world.json(&["secrets", "list", "-a", "marks"]);
        let all = all.as_array().unwrap().clone();
        let found = all.into_iter().find(|s| s["name"] == name).unwrap();
        found["status"].as_str().unwrap().to_owned()
    };
    world.ok(&["secrets", "set", "ONE=1", "-a", "marks"]);
    assert_eq!(status("ONE"), "Deployed");
    world.ok(&["secrets", "set", "TWO=2", "ONE=1", "--stage", "-a", "marks"]);
    assert_eq!(
        (status("ONE"), status("TWO")),
        ("Deployed".into(), "Staged".into())
    );
    let id = world.only("marks", "web");
    world.ok(&["machine", "update", &id, "-a", "marks", "--yes"]);
    assert_eq!(status("TWO"), "Partial");
    let listed = world.ok(&["secrets", "list", "-a", "marks"]).stdout;
    assert!(
        listed.contains("! TWO") && !listed.contains("! ONE"),
        "{listed}"
    );
    world.ok(&["secrets", "set", "TWO=3", "--stage", "-a", "marks"]);
    let listed = world.ok(&["secrets", "list", "-a", "marks"]).stdout;
    assert!(listed.contains("* TWO"), "{listed}");
    world.ok(&["deploy", &folder, "--ha=false", "--smoke-checks=false"]);
    assert_eq!(status("TWO"), "Deployed");
}

#[test]
fn an_app_is_given_a_name_and_its_status_is_watched() {
    let Some(world) = World::start() else { return };
    let made = world.ok(&["apps", "create", "--generate-name"]).stdout;
    let name = made
        .trim()
        .strip_prefix("New app created: ")
        .unwrap()
        .to_owned();
    assert_eq!(
        world.ok(&["apps", "list", "-q"]).stdout,
        format!("{name}\n")
    );
    world.ok(&["apps", "create", "--name", "flagged", "--org", "personal"]);
    let none = world.fails(2, &["apps", "create"]);
    assert!(none.contains("--generate-name"), "{none}");
    let org = world.fails(3, &["apps", "create", "x", "--org", "acme"]);
    assert!(org.contains("acme"), "{org}");
    let mut command = world.command("timeout");
    command.args(["-s", "INT", "3", env!("CARGO_BIN_EXE_hangar")]);
    command.args(["status", "-a", &name, "--watch", "--rate", "1"]);
    let ran = crate::world::finish(&mut command);
    assert!(ran.stdout.matches("Hostname").count() >= 2, "{ran:?}");
    world.fails(2, &["status", "-a", &name, "--watch", "--json"]);
    world.fails(2, &["status", "-a", &name, "--watch", "--rate", "0"]);
}

#[test]
fn an_app_that_is_made_anew_has_none_of_the_lines_of_the_one_before() {
    let Some(world) = World::start() else { return };
    let toml = |line: &str| {
        let env = format!("[env]\nMARK = \"{line}\"\n[processes]\napp = \"env\"\n");
        fly_toml(
            "again",
            &format!("{env}[[restart]]\npolicy = \"never\"\nprocesses = [\"app\"]\n"),
        )
    };
    for (mark, before) in [("first", "second"), ("second", "first")] {
        let folder = world.app("again", &toml(mark));
        world.ok(&["deploy", &folder, "--ha=false", "--smoke-checks=false"]);
        let said = world.eventually("its line is there", |world| {
            let said = world.logs("again");
            said.contains(&format!("MARK={mark}")).then_some(said)
        });
        assert!(!said.contains(&format!("MARK={before}")), "{said}");
        world.ok(&["apps", "destroy", "again", "--yes"]);
        world.eventually("its name is free", |world| {
            let listed = world.json(&["apps", "list"]);
            listed.as_array().unwrap().is_empty().then_some(())
        });
    }
}
