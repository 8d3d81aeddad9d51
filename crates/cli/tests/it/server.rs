//! The server as a process: its token, its ports, its end, and Machines that outlive it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use crate::world::{LIMIT, World, fly_toml, service};

fn web(app: &str) -> String {
    fly_toml(app, &service(&[]))
}

#[test]
fn the_admin_token_is_found_on_this_machine_and_given_by_variables_elsewhere() {
    let Some(world) = World::start() else { return };
    let token = world.data_dir().join("token");
    let mode = std::fs::metadata(&token).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let elsewhere = |token: &str| {
        let mut command = world.command(env!("CARGO_BIN_EXE_hangar"));
        command
            .env("HANGAR_DATA_DIR", world.path("nowhere"))
            .env("HANGAR_API_URL", "http://127.0.0.1:4280")
            .env("HANGAR_ACCESS_TOKEN", token);
        crate::world::finish(command.args(["apps", "list", "--json"]))
    };
    let ran = elsewhere(&world.token());
    assert_eq!((ran.code, ran.stdout.trim()), (0, "[]"), "{ran:?}");
    assert_eq!(elsewhere("").code, 4);
    assert_eq!(world.api("GET", "/v1/apps", None).status, 401);
    assert_eq!(world.api("GET", "/v1/no/such/path", None).status, 401);
}

#[test]
fn a_token_whose_file_was_removed_is_let_in_no_more() {
    let Some(mut world) = World::start() else {
        return;
    };
    let leaked = world.token();
    world.stop_server();
    std::fs::remove_file(world.data_dir().join("token")).unwrap();
    world.start_server();
    assert_ne!(world.token(), leaked);
    assert_eq!(world.api("GET", "/v1/apps", Some(&leaked)).status, 401);
    assert_eq!(
        world.api("GET", "/v1/apps", Some(&world.token())).status,
        200
    );
}

#[test]
fn without_a_server_the_command_line_says_how_to_start_one() {
    let Some(world) = World::empty() else { return };
    let said = world.fails(7, &["apps", "list"]);
    assert!(said.contains("127.0.0.1:4280"), "{said}");
    assert!(said.contains("hangar server"), "{said}");
}

/// Asserts that each line that `testapp lines` has numbered is in the log once, and returns how
/// many there are.
fn numbered_once(world: &World, app: &str) -> usize {
    let log = world.api(
        "GET",
        &format!("/v1/apps/{app}/logs?tail=10000"),
        Some(&world.token()),
    );
    let mut seen = Vec::new();
    for line in log.body.split("\"message\":\"line ").skip(1) {
        let number = line.split('"').next().unwrap();
        seen.push(number.parse::<usize>().unwrap());
    }
    let expected: Vec<usize> = (0..seen.len()).collect();
    assert_eq!(seen, expected);
    seen.len()
}

#[test]
fn machines_outlive_the_server_that_stops_and_the_one_that_is_killed() {
    let Some(mut world) = World::start() else {
        return;
    };
    let groups = "[processes]\nweb = \"serve\"\nworker = \"lines 100000 10\"\n";
    let toml = fly_toml("outlive", &format!("{groups}{}", service(&["web"])));
    let folder = world.app("outlive", &toml);
    world.ok(&["deploy", &folder, "--ha=false", "--smoke-checks=false"]);
    let before = world.machines("outlive");
    let count = world.ask("outlive")["count"].as_u64().unwrap();
    let inits = world.inits();
    assert_eq!(inits.len(), 2, "{inits:?}");
    let mut lines = numbered_once(&world, "outlive");
    for kill in [false, true] {
        if kill {
            world.kill_server();
        } else {
            world.stop_server();
        }
        assert_eq!(world.inits(), inits, "Machines run without a server");
        world.start_server();
        // The same process goes on counting.
        world.eventually("the app answers", |world| {
            let counted = world.ask("outlive")["count"].as_u64()?;
            (counted > count).then_some(())
        });
        assert_eq!(world.inits(), inits);
        let after = world.machines("outlive");
        for (before, after) in before.iter().zip(&after) {
            for key in ["id", "state", "instance_id", "config"] {
                assert_eq!(before[key], after[key], "{key}");
            }
        }
        lines = world.eventually("the log goes on", |world| {
            let now = numbered_once(world, "outlive");
            (now > lines).then_some(now)
        });
    }
    // What was taken over can be asked for everything.
    let id = before[0]["id"].as_str().unwrap();
    assert_eq!(world.exec("outlive", id, &["exit", "3"]).code, 3);
    world.ok(&["machine", "restart", id, "-a", "outlive"]);
}

#[test]
fn a_stopping_server_answers_what_it_has_begun_and_takes_no_more() {
    let Some(mut world) = World::start() else {
        return;
    };
    let folder = world.app("slow", &web("slow"));
    world.ok(&["deploy", &folder, "--ha=false"]);
    let edge = world.edge(80);
    let mut stream = world.inside(|| TcpStream::connect(edge).unwrap());
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
        .write_all(
            b"GET /slow?ms=2000 HTTP/1.1\r\nhost: slow.localhost\r\nconnection: close\r\n\r\n",
        )
        .unwrap();
    // The request is under way once the app has it.
    let mut early = [0; 1];
    stream.set_nonblocking(true).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert!(stream.read(&mut early).is_err(), "it was answered too soon");
    stream.set_nonblocking(false).unwrap();
    let code = world.stop_server();
    assert_eq!(code, Some(0));
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let refused = world.inside(|| TcpStream::connect(edge));
    assert!(refused.is_err());
}

#[test]
fn slots_domain_and_log_form_are_the_operators_choice() {
    let Some(mut world) = World::empty() else {
        return;
    };
    world.set_arguments(&[
        "--host",
        "left=ams",
        "--host",
        "right=gru",
        "--domain",
        "apps.test",
        "--log-format",
        "json",
    ]);
    world.start_server();
    world.import(crate::world::IMAGE, &crate::world::image_spec());
    let regions = world.json(&["platform", "regions"]);
    let codes: Vec<&str> = regions
        .as_array()
        .unwrap()
        .iter()
        .map(|region| region["code"].as_str().unwrap())
        .collect();
    assert_eq!(codes, ["ams", "gru"]);
    let toml = web("named").replace("iad", "gru");
    let folder = world.app("named", &toml);
    world.ok(&["deploy", &folder, "--ha=false"]);
    assert_eq!(world.machines("named")[0]["region"], "gru");
    let edge = world.edge(80);
    let ask = |host: &str| {
        world.inside(|| crate::world::request(edge, "GET", "/", host, "", b"").unwrap())
    };
    assert_eq!(ask("named.apps.test").status, 200);
    assert_eq!(ask("named.localhost").status, 404);
    let folder = world.app("far", &web("far"));
    let said = world.fails(1, &["deploy", &folder, "--ha=false"]);
    assert!(said.contains("iad") && said.contains("ams"), "{said}");
    let log = std::fs::read_to_string(world.path("server.log")).unwrap();
    let mut lines = log.lines().filter(|line| line.starts_with('{'));
    assert!(lines.all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
    assert!(log.lines().filter(|line| line.starts_with('{')).count() > 3);
}

#[test]
fn a_store_of_a_newer_version_is_refused_in_words_and_left_alone() {
    let Some(mut world) = World::start() else {
        return;
    };
    world.ok(&["apps", "create", "kept"]);
    world.stop_server();
    let file = world.data_dir().join("store.db");
    let version = |change: Option<u32>| {
        let store = rusqlite::Connection::open(&file).unwrap();
        if let Some(version) = change {
            store.pragma_update(None, "user_version", version).unwrap();
        }
        let read = store.pragma_query_value(None, "user_version", |row| row.get::<_, u32>(0));
        read.unwrap()
    };
    let ours = version(None);
    version(Some(ours + 1));
    let ran = world.hangar(&["server"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("newer"), "{}", ran.stderr);
    assert_eq!(version(None), ours + 1);
    version(Some(ours));
    world.start_server();
    assert_eq!(world.json(&["apps", "list"])[0]["name"], "kept");
}

#[test]
fn a_newer_binary_takes_over_the_machines_of_an_older_one() {
    let Some(mut world) = World::start() else {
        return;
    };
    let folder = world.app("old", &web("old"));
    world.ok(&["deploy", &folder, "--ha=false"]);
    let id = world.only("old", "app");
    let inits = world.inits();
    world.stop_server();
    // Another executable: its Machines would get another `init`.
    let newer = world.path("newer");
    let mut bytes = std::fs::read(env!("CARGO_BIN_EXE_hangar")).unwrap();
    bytes.extend_from_slice(b"newer");
    std::fs::write(&newer, bytes).unwrap();
    std::fs::set_permissions(&newer, std::fs::Permissions::from_mode(0o755)).unwrap();
    world.set_program(newer);
    world.start_server();
    assert_eq!(world.inits(), inits);
    assert_eq!(world.ask("old")["machine"], id.as_str());
    assert_eq!(world.exec("old", &id, &["exit", "4"]).code, 4);
    world.ok(&["machine", "stop", &id, "-a", "old"]);
    let exit = world.machine("old", &id)["events"]
        .as_array()
        .unwrap()
        .iter()
        .find(|event| event["type"] == "exit")
        .unwrap()
        .clone();
    assert_eq!(
        exit["request"]["exit_event"]["requested_stop"], true,
        "{exit}"
    );
    world.ok(&["machine", "start", &id, "-a", "old"]);
    assert_eq!(world.inits().len(), 1);
    let kept = std::fs::read_dir(world.data_dir().join("init"))
        .unwrap()
        .count();
    assert_eq!(kept, 2, "each version of init is kept");
}

#[test]
fn doctor_and_completions_need_no_server() {
    let Some(world) = World::empty() else { return };
    let doctor = world.ok(&["doctor"]).stdout;
    for what in ["rights", "control groups", "overlayfs", "namespaces", "nft"] {
        assert!(doctor.contains(what), "{doctor}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = world.ok(&["completions", shell]).stdout;
        assert!(
            script.contains("hangar") && script.contains("releases"),
            "{script}"
        );
    }
}

#[test]
fn the_server_takes_all_descriptors_that_it_may_have() {
    let Some(mut world) = World::empty() else {
        return;
    };
    world.set_descriptors(256, 3000);
    world.start_server();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", world.server_pid())).unwrap();
    let files = limits.lines().find(|l| l.starts_with("Max open files"));
    let words: Vec<&str> = files.unwrap().split_whitespace().collect();
    assert_eq!(words[3..5], ["3000", "3000"], "{limits}");
}

#[test]
fn the_token_of_this_machine_is_given_to_no_other_server() {
    let Some(world) = World::start() else { return };
    let listener = world.inside(|| std::net::TcpListener::bind("127.0.0.1:5555").unwrap());
    let mut command = world.command(env!("CARGO_BIN_EXE_hangar"));
    command.env("HANGAR_API_URL", "http://127.0.0.1:5555");
    let ran = crate::world::finish(command.args(["apps", "list"]));
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(ran.stderr.contains("HANGAR_ACCESS_TOKEN"), "{ran:?}");
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "nobody was asked");
    for ours in ["http://127.0.0.1:4280/", "http://localhost:4280"] {
        let mut command = world.command(env!("CARGO_BIN_EXE_hangar"));
        command.env("HANGAR_API_URL", ours);
        let ran = crate::world::finish(command.args(["apps", "list"]));
        assert_eq!(ran.code, 0, "{ran:?}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_reason_to_stop() {
    let Some(world) = World::start() else { return };
    let toml = crate::world::fly_toml("unseen", &crate::world::service(&[]));
    let folder = world.app("unseen", &toml);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
    let mut command = world.command(env!("CARGO_BIN_EXE_hangar"));
    command.args(["deploy", &folder, "--ha=false"]);
    let status = command.stderr(full.unwrap()).status().unwrap();
    assert_eq!(status.code(), Some(0));
    assert_eq!(world.started_groups("unseen"), ["app"]);
}
