//! The Machines API from inside a Machine: by its own socket, and at `_api.internal`.

use serde_json::Value;

use crate::world::{Ran, World, fly_toml, service};

const SOCKET: &str = "/.fly/api";

impl World {
    /// Asks the API from inside a Machine.
    fn ask_from(&self, from: (&str, &str), words: &[&str]) -> (u16, String) {
        let ran = self.exec(from.0, from.1, &[&["ask", SOCKET], words].concat());
        answer(&ran)
    }
}

fn answer(ran: &Ran) -> (u16, String) {
    assert_eq!(ran.code, 0, "{ran:?}");
    let (status, body) = ran
        .stdout
        .trim()
        .split_once(' ')
        .unwrap_or((ran.stdout.trim(), ""));
    (status.parse().unwrap_or(0), body.to_owned())
}

/// Deploys an app of so many Machines and returns their ids.
fn deploy(world: &World, app: &str, count: &str) -> Vec<String> {
    let folder = world.app(app, &fly_toml(app, &service(&[])));
    world.ok(&["deploy", &folder, "--ha=false"]);
    world.ok(&["scale", "count", count, "-a", app, "--yes"]);
    let machines = world.machines(app);
    machines
        .iter()
        .map(|machine| machine["id"].as_str().unwrap().to_owned())
        .collect()
}

fn path(app: &str, machine: &str, rest: &str) -> String {
    format!("/v1/apps/{app}/machines/{machine}{rest}")
}

#[test]
fn a_machine_speaks_for_itself_and_for_its_apps_metadata_and_for_nothing_else() {
    let Some(world) = World::start() else { return };
    let web = deploy(&world, "web", "2");
    let api = deploy(&world, "api", "1");
    let me = ("web", web[0].as_str());
    let ask = |words: &[&str]| world.ask_from(me, words);
    let (status, body) = ask(&["GET", &path("web", &web[0], "")]);
    let seen: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, seen["id"].as_str()), (200, Some(me.1)));

    // Metadata of the app's other Machine too.
    let key = path("web", &web[1], "/metadata/role");
    assert_eq!(ask(&["POST", &key, r#"{"value": "primary"}"#]).0, 204);
    assert_eq!(
        world.machine("web", &web[1])["config"]["metadata"]["role"],
        "primary"
    );
    let (status, body) = ask(&["GET", &key]);
    assert_eq!((status, body.contains("primary")), (200, true), "{body}");
    assert_eq!(ask(&["DELETE", &key]).0, 204);
    assert!(world.machine("web", &web[1])["config"]["metadata"]["role"].is_null());

    let key = path("api", &api[0], "/metadata/role");
    let wrong = [
        ["GET", &path("web", &web[1], "")],
        ["POST", &path("web", &web[1], "/stop")],
        ["POST", &path("web", &web[1], "/suspend")],
        ["POST", &path("web", &web[0], "/restart")],
        ["POST", &path("web", &web[0], "/exec")],
        ["DELETE", &path("web", &web[0], "")],
        ["GET", "/v1/apps/web/machines"],
        ["GET", "/v1/apps"],
        ["GET", &key],
        ["POST", &key],
        // Its own id in another app is not its own.
        ["GET", &path("api", &web[0], "")],
        ["GET", &path("web", &web[0], "/../../../api/machines")],
    ];
    for [method, path] in wrong {
        let (status, body) = ask(&[method, path, r#"{"value": "x"}"#]);
        assert_eq!(status, 401, "{method} {path}: {body}");
    }
    let (status, body) = ask(&["POST", "/v1/tokens/oidc", r#"{"aud": "x"}"#]);
    assert_eq!(status, 501, "{body}");
    assert!(body.contains("no identity provider"), "{body}");

    // With a token it is anybody, and with a wrong one nobody.
    let token = format!("authorization: Bearer {}", world.token());
    assert_eq!(ask(&["GET", "/v1/apps/api/machines", "", &token]).0, 200);
    let wrong = "authorization: Bearer hangar_wrong";
    assert_eq!(ask(&["GET", &path("web", &web[0], ""), "", wrong]).0, 401);
}

#[test]
fn a_machine_suspends_and_stops_itself() {
    let Some(mut world) = World::start() else {
        return;
    };
    let web = deploy(&world, "web", "1");
    let me = ("web", web[0].as_str());
    let state = |world: &World, wanted: &str| {
        world.eventually(wanted, |world| {
            (world.machine("web", me.1)["state"] == wanted).then_some(())
        });
    };
    // Its own answer may reach it only when it goes on.
    let suspend = format!(
        "/testapp ask {SOCKET} POST {}",
        path("web", me.1, "/suspend")
    );
    world.start_hangar(&["machine", "exec", "-a", "web", me.1, &suspend]);
    state(&world, "suspended");
    world.ok(&["machine", "start", me.1, "-a", "web"]);
    state(&world, "started");
    let (status, _) = world.ask_from(me, &["GET", &path("web", me.1, "")]);
    assert_eq!(status, 200);
    let stop = path("web", me.1, "/stop");
    world.exec("web", me.1, &["ask", SOCKET, "POST", &stop, "{}"]);
    state(&world, "stopped");
    world.ok(&["machine", "start", me.1, "-a", "web"]);
    let (status, _) = world.ask_from(me, &["GET", &path("web", me.1, "")]);
    assert_eq!(status, 200);
}

#[test]
fn the_socket_outlives_the_server_and_is_roots_until_root_opens_it() {
    let Some(mut world) = World::start() else {
        return;
    };
    let web = deploy(&world, "web", "1");
    let own = path("web", &web[0], "");
    let as_user = ["as", "1000", "ask", SOCKET, "GET", &own];
    let refused = world.exec("web", &web[0], &as_user);
    assert_ne!(refused.code, 0, "{refused:?}");
    assert!(refused.stdout.contains("Permission denied"), "{refused:?}");
    assert_eq!(
        world.exec("web", &web[0], &["chmod", "666", SOCKET]).code,
        0
    );
    assert_eq!(answer(&world.exec("web", &web[0], &as_user)).0, 200);
    world.kill_server();
    world.start_server();
    world.eventually("it is listened to again", |world| {
        let ran = world.exec("web", &web[0], &as_user);
        (ran.code == 0).then(|| assert_eq!(answer(&ran).0, 200))
    });
    // A new start is root's again.
    world.ok(&["machine", "restart", &web[0], "-a", "web"]);
    assert_ne!(world.exec("web", &web[0], &as_user).code, 0);
    assert_eq!(world.ask_from(("web", &web[0]), &["GET", &own]).0, 200);
}

#[test]
fn a_hostile_machine_is_a_burden_to_itself_alone() {
    let Some(mut world) = World::start() else {
        return;
    };
    let bad = deploy(&world, "bad", "1");
    let good = deploy(&world, "good", "1");
    let large = format!(r#"{{"value": "{}"}}"#, "x".repeat(90_000));
    let key = path("bad", &bad[0], "/metadata/k");
    let (status, body) = world.ask_from(("bad", &bad[0]), &["POST", &key, &large]);
    assert_eq!(status, 413, "{body}");
    let open = |world: &World| {
        let pid = world.server_pid();
        std::fs::read_dir(format!("/proc/{pid}/fd"))
            .unwrap()
            .count()
    };
    let before = open(&world);
    let words = "/testapp crowd /.fly/api 200";
    world.start_hangar(&["machine", "exec", "-a", "bad", &bad[0], words]);
    world.eventually("as many are served as one Machine may have", |world| {
        (open(world) >= before + 32).then_some(())
    });
    // Others do not notice, and it gets no more.
    let own = path("good", &good[0], "");
    assert_eq!(world.ask_from(("good", &good[0]), &["GET", &own]).0, 200);
    assert_eq!(world.ask("good")["machine"], good[0].as_str());
    assert!(open(&world) < before + 64, "{} of {before}", open(&world));
    // What stands in the socket's place is not followed, and costs only its own Machine the API.
    assert_eq!(world.exec("bad", &bad[0], &["block", SOCKET]).code, 0);
    world.kill_server();
    world.start_server();
    assert_eq!(world.ask_from(("good", &good[0]), &["GET", &own]).0, 200);
    assert_eq!(world.ask("bad")["machine"], bad[0].as_str());
    world.ok(&["machine", "restart", &bad[0], "-a", "bad"]);
    let own = path("bad", &bad[0], "");
    assert_eq!(world.ask_from(("bad", &bad[0]), &["GET", &own]).0, 200);
}

#[test]
fn over_the_private_network_the_api_wants_a_token() {
    let Some(world) = World::start() else { return };
    let web = deploy(&world, "web", "1");
    let resolved = world
        .exec("web", &web[0], &["resolve", "_api.internal"])
        .stdout;
    assert_eq!(resolved.trim(), "fdaa::3");
    let ask = |more: &str| {
        let words = ["ask", "[fdaa::3]:4280", "GET", "/v1/apps", "", more];
        answer(&world.exec("web", &web[0], &words)).0
    };
    assert_eq!(ask(""), 401);
    assert_eq!(
        ask(&format!("authorization: Bearer {}", world.token())),
        200
    );
}
