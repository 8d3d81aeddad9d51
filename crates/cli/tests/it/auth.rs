//! Logging in from elsewhere, tokens, and organisations, on the real command line.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::world::{Ran, World, finish, fly_toml, service};

const TLS_API: &str = "https://127.0.0.1:4280";

/// Returns a command line as on another computer: it finds no server by itself.
fn elsewhere(world: &World, arguments: &[&str]) -> Command {
    let mut command = world.command(env!("CARGO_BIN_EXE_hangar"));
    command.env("HANGAR_DATA_DIR", world.path("nowhere"));
    command.args(arguments);
    command
}

fn ask(world: &World, arguments: &[&str]) -> Ran {
    finish(&mut elsewhere(world, arguments))
}

/// Returns the last fingerprint that the server has printed.
fn printed_fingerprint(world: &World) -> String {
    let log = std::fs::read_to_string(world.path("server.log")).unwrap();
    let is_one = |line: &&str| line.len() == 95 && line.split(':').count() == 32;
    log.lines().rfind(is_one).unwrap().to_owned()
}

fn open_to_others() -> Option<World> {
    let mut world = World::empty()?;
    world.set_arguments(&["--listen", "0.0.0.0:4280"]);
    world.start_server();
    Some(world)
}

#[test]
fn a_laptop_logs_in_once_it_has_agreed_to_the_servers_certificate() {
    let Some(mut world) = open_to_others() else {
        return;
    };
    let (token, print) = (world.token(), printed_fingerprint(&world));
    assert_ne!(
        ask(&world, &["apps", "list"]).code,
        0,
        "nothing is known yet"
    );

    // Without anybody to compare them, and with the wrong one, nothing is sent.
    let login = ["auth", "login", TLS_API, "--token", &token];
    let ran = ask(&world, &login);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.stderr.contains(&print), "{ran:?}");
    let other = print.replace(['A', '1'], "0");
    let ran = ask(&world, &[&login[..], &["--fingerprint", &other]].concat());
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(!world.path("config/config.json").exists());
    let wrong = [
        "auth",
        "login",
        TLS_API,
        "--token",
        "hangar_x",
        "--fingerprint",
        &print,
    ];
    let ran = ask(&world, &wrong);
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(ran.stderr.contains("does not know this token"), "{ran:?}");
    let clear = ask(&world, &["auth", "login", "http://192.0.2.1:4280"]);
    assert_eq!(clear.code, 2, "{clear:?}");

    let ran = ask(&world, &[&login[..], &["--fingerprint", &print]].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    let file = world.path("config/config.json");
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(ask(&world, &["apps", "create", "far"]).code, 0);
    assert_eq!(ask(&world, &["auth", "whoami"]).stdout.trim(), "admin");
    assert_eq!(ask(&world, &["auth", "token"]).stdout.trim(), token);
    // Docker's configuration gets the token too.
    let mut docker = elsewhere(&world, &["auth", "docker"]);
    let ran = finish(docker.env("DOCKER_CONFIG", world.path("docker")));
    assert_eq!(ran.code, 0, "{ran:?}");
    let config = std::fs::read_to_string(world.path("docker/config.json")).unwrap();
    assert!(config.contains("127.0.0.1:4280"), "{config}");

    // A server with another certificate is another server.
    world.stop_server();
    std::fs::remove_dir_all(world.data_dir().join("api-tls")).unwrap();
    world.start_server();
    assert_ne!(printed_fingerprint(&world), print);
    let ran = ask(&world, &["apps", "list"]);
    assert_eq!(ran.code, 7, "{ran:?}");
    assert!(ran.stderr.contains("another than the one"), "{ran:?}");
    assert_eq!(ask(&world, &["auth", "logout"]).code, 0);
    assert!(!file.exists());
}

#[test]
fn a_certificate_of_ones_own_is_used_and_read_again_when_it_changes() {
    let Some(mut world) = World::empty() else {
        return;
    };
    let (cert, key) = (world.path("cert.pem"), world.path("key.pem"));
    let renew = || {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        std::fs::write(&cert, made.cert.pem()).unwrap();
        hangar_api::fingerprint::Fingerprint::of(made.cert.der()).to_string()
    };
    let first = renew();
    let flags = [
        "--tls-cert",
        cert.to_str().unwrap(),
        "--tls-key",
        key.to_str().unwrap(),
    ];
    world.set_arguments(&flags);
    world.start_server();
    assert_eq!(printed_fingerprint(&world), first);
    let login = |world: &World, print: &str| {
        let token = world.token();
        let url = ["auth", "login", "https://localhost:4280"];
        let how = ["--token", &token, "--fingerprint", print];
        ask(world, &[&url[..], &how].concat()).code
    };
    assert_eq!(login(&world, &first), 0);
    let second = renew();
    world.eventually("the new certificate is served", |world| {
        (login(world, &second) == 0).then_some(())
    });
    world.stop_server();
    std::fs::write(&key, "nonsense").unwrap();
    let ran = world.hangar(&[&["server"], &flags[..]].concat());
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("--tls-key"), "{ran:?}");
    renew();
    world.start_server();
}

/// Puts an `ssh` on the PATH that runs what it is given here, as the user whose server this is.
fn fake_ssh(world: &World) -> std::path::PathBuf {
    let folder = world.path("bin");
    std::fs::create_dir_all(&folder).unwrap();
    let script = format!(
        "#!/bin/sh\necho \"$@\" >> {asked}\necho 'Welcome to the far side'\n\
         while [ \"$1\" != hangar ]; do shift; done\nshift\n\
         unset HANGAR_API_URL HANGAR_CONFIG_DIR\nexport HOME=/nonexistent HANGAR_DATA_DIR={data}\n\
         exec {hangar} \"$@\"\n",
        asked = world.path("asked").display(),
        data = world.data_dir().display(),
        hangar = env!("CARGO_BIN_EXE_hangar"),
    );
    let path = folder.join("ssh");
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

fn through_ssh(world: &World, url: &str, arguments: &[&str]) -> Ran {
    let path = format!("{}:/usr/bin:/bin", world.path("bin").display());
    let mut command = elsewhere(world, arguments);
    finish(command.env("PATH", path).env("HANGAR_API_URL", url))
}

#[test]
fn a_server_is_reached_through_ssh_as_the_user_over_there() {
    let Some(world) = World::start() else { return };
    fake_ssh(&world);
    let toml = fly_toml("there", &service(&[]));
    let folder = world.app("there", &toml);
    let url = "ssh://me@box:2222";
    let ran = through_ssh(&world, url, &["deploy", &folder, "--ha=false"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let asked = std::fs::read_to_string(world.path("asked")).unwrap();
    let first = asked.lines().next().unwrap();
    assert_eq!(first, "-T -p 2222 -- me@box hangar __dial-stdio");
    let ran = through_ssh(&world, url, &["auth", "whoami"]);
    assert_eq!((ran.code, ran.stdout.trim()), (0, "admin"), "{ran:?}");
    // A connection that goes over to another protocol goes through too.
    let id = world.only("there", "app");
    let console = ["ssh", "console", "-a", "there", "--machine", &id, "-C"];
    let ran = through_ssh(&world, url, &[&console[..], &["/testapp exit 3"]].concat());
    assert_eq!(ran.code, 3, "{ran:?}");
    // It is remembered like any other.
    let mut login = elsewhere(&world, &["auth", "login", url]);
    let path = format!("{}:/usr/bin:/bin", world.path("bin").display());
    let ran = finish(login.env("PATH", &path).stdin(Stdio::null()));
    assert_eq!(ran.code, 0, "{ran:?}");
    let ran = finish(elsewhere(&world, &["apps", "list", "--json"]).env("PATH", &path));
    assert!(ran.stdout.contains("there"), "{ran:?}");

    let broken = "#!/bin/sh\necho 'no such host' >&2\nexit 255\n";
    std::fs::write(world.path("bin/ssh"), broken).unwrap();
    let ran = through_ssh(&world, url, &["apps", "list"]);
    assert_eq!(ran.code, 7, "{ran:?}");
    assert!(
        ran.stderr.contains("no such host") && ran.stderr.contains("255"),
        "{ran:?}"
    );
}

fn minted(world: &World, arguments: &[&str]) -> String {
    world.ok(arguments).stdout.trim().to_owned()
}

#[test]
fn a_deploy_token_deploys_its_app_and_no_other() {
    let Some(world) = World::start() else { return };
    world.ok(&["orgs", "create", "Blue Team"]);
    world.ok(&["apps", "create", "mine", "-o", "blue-team"]);
    world.ok(&["apps", "create", "theirs"]);
    let listed = world.json(&["apps", "list", "--org", "blue-team"]);
    assert_eq!(listed.as_array().unwrap().len(), 1);
    let token = minted(
        &world,
        &["tokens", "create", "deploy", "-a", "mine", "-n", "ci"],
    );
    assert!(token.starts_with("fm2_"), "{token}");
    let groups = "[processes]\nweb = \"serve\"\nworker = \"lines 10 10\"\n";
    let toml = fly_toml("mine", &format!("{groups}{}", service(&["web"])));
    let folder = world.app("mine", &toml);
    let deploy = [
        "deploy",
        &folder,
        "--ha=false",
        "--smoke-checks=false",
        "-t",
        &token,
    ];
    world.ok(&deploy);
    let listed = world.ok(&["apps", "list", "-q", "-t", &token]).stdout;
    assert_eq!(listed.trim(), "mine");
    let other = world.app("theirs", &fly_toml("theirs", &service(&[])));
    let said = world.fails(4, &["deploy", &other, "--ha=false", "-t", &token]);
    assert!(
        said.contains("this token may not do that to app theirs"),
        "{said}"
    );
    world.fails(4, &["tokens", "list", "-a", "mine", "-t", &token]);

    one_groups_commands(&world);
    let limited = limited_on_the_way(&world, &token);
    let tokens = world.json(&["tokens", "list", "-a", "mine"]);
    let ci = tokens.as_array().unwrap().iter();
    let ci = ci
        .filter(|token| token["name"] == "ci")
        .collect::<Vec<&Value>>();
    assert_eq!(ci.len(), 1);
    let table = world.ok(&["tokens", "list", "-a", "mine"]).stdout;
    assert!(table.starts_with("Tokens for app \"mine\":"), "{table}");
    world.ok(&["tokens", "revoke", ci[0]["id"].as_str().unwrap()]);
    world.fails(4, &["status", "-a", "mine", "-t", &token]);
    world.fails(4, &["status", "-a", "mine", "-t", &limited]);
}

fn one_groups_commands(world: &World) {
    let exec = ["tokens", "create", "ssh", "-a", "mine", "-g", "web"];
    let exec = minted(world, &exec);
    let run = |group: &str| {
        let id = world.only("mine", group);
        let command = ["machine", "exec", "-a", "mine", "-t", &exec, &id];
        world.hangar(&[&command[..], &["/testapp", "exit", "5"]].concat())
    };
    assert_eq!(run("web").code, 5);
    assert_eq!(run("worker").code, 4);
    let console = [
        "ssh",
        "console",
        "-a",
        "mine",
        "-t",
        &exec,
        "-C",
        "/testapp exit 6",
    ];
    assert_eq!(
        world.hangar(&console).code,
        6,
        "the only Machine that it may see"
    );
}

/// Returns a token that is limited further, without the server.
fn limited_on_the_way(world: &World, token: &str) -> String {
    let limited = [
        "tokens",
        "attenuate",
        "--read-only",
        "-x",
        "1h",
        "-t",
        token,
    ];
    let limited = minted(world, &limited);
    world.ok(&["status", "-a", "mine", "-t", &limited]);
    world.fails(4, &["secrets", "set", "A=b", "-a", "mine", "-t", &limited]);
    let caveats = world.path("caveats.json");
    std::fs::write(&caveats, r#"[{"type":"Action","body":"r"}]"#).unwrap();
    let file = caveats.to_str().unwrap();
    let limited = minted(world, &["tokens", "attenuate", "-f", file, "-t", token]);
    world.fails(
        4,
        &[
            "scale", "count", "web=2", "-a", "mine", "-y", "-t", &limited,
        ],
    );
    limited
}

#[test]
fn organisations_are_made_shown_and_deleted() {
    let Some(world) = World::start() else { return };
    let made = world.json(&["orgs", "create", "Blue Team"]);
    assert_eq!(made["slug"], "blue-team");
    let all = world.json(&["orgs", "list"]);
    assert_eq!(all["blue-team"], "Blue Team");
    assert_eq!(all["personal"], "personal");
    world.ok(&["apps", "create", "inside", "-o", "blue-team"]);
    world.fails(3, &["apps", "create", "other", "-o", "nobody"]);
    let shown = world.ok(&["orgs", "show", "blue-team"]).stdout;
    assert!(
        shown.contains("Blue Team") && shown.contains("SHARED"),
        "{shown}"
    );
    let said = world.fails(1, &["orgs", "delete", "blue-team", "--yes"]);
    assert!(said.contains("inside"), "{said}");
    world.ok(&["apps", "destroy", "inside", "--yes"]);
    // A first deploy by a token of the organization makes the app there.
    let token = minted(&world, &["tokens", "create", "org", "-o", "blue-team"]);
    let folder = world.app("born", &fly_toml("born", &service(&[])));
    world.ok(&["deploy", &folder, "--ha=false", "-t", &token]);
    let born = world.json(&["apps", "list", "--org", "blue-team"]);
    assert_eq!(born[0]["name"], "born");
    world.ok(&["apps", "destroy", "born", "--yes", "-t", &token]);
    world.ok(&["orgs", "delete", "blue-team", "--yes"]);
    world.fails(3, &["orgs", "show", "blue-team"]);
}

#[test]
fn a_token_of_fly_goes_only_to_a_server_that_was_named() {
    let Some(world) = World::start() else { return };
    let with = |token: &str, url: Option<&str>| {
        let mut command = elsewhere(&world, &["apps", "list", "--json"]);
        command.env("FLY_ACCESS_TOKEN", token);
        if let Some(url) = url {
            command.env("HANGAR_API_URL", url);
        }
        finish(&mut command).code
    };
    let header = format!("FlyV1 {}", world.token());
    assert_eq!(with(&world.token(), Some("http://127.0.0.1:4280")), 0);
    assert_eq!(with(&header, Some("http://127.0.0.1:4280")), 0);
    assert_eq!(with(&world.token(), None), 4);
    // This machine's own token is not put aside for it.
    let mut here = world.command(env!("CARGO_BIN_EXE_hangar"));
    here.env("FLY_ACCESS_TOKEN", "fm2_other")
        .args(["apps", "list"]);
    assert_eq!(finish(&mut here).code, 0);
}
