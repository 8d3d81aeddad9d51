//! Suspension, autostop and autostart: real Machines that are frozen, stopped and woken.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hangar_testkit::random::Random;

use crate::world::{World, fly_toml, request};

/// Requests of the short and of the long form, by these clients.
const SHORT: usize = 2_000;
const LONG: usize = 20_000;
const CLIENTS: usize = 8;
/// Most requests of a client in one burst, and the longest pause between two bursts.
const BURST: u64 = 12;
const PAUSE_MS: u64 = 1_000;
/// Fewer rests or starts prove nothing.
const ENOUGH: usize = 10;
/// The loop's pace.
const EVERY: &str = "200ms";

fn toml(app: &str, autostop: &str, more: &str) -> String {
    fly_toml(
        app,
        &format!(
            "kill_timeout = \"2s\"\n[http_service]\ninternal_port = 8080\n\
             auto_stop_machines = \"{autostop}\"\n{more}\n"
        ),
    )
}

fn deploy(world: &World, app: &str, toml: &str) {
    let folder = world.app(app, toml);
    world.ok(&["deploy", &folder, "--ha=false"]);
}

fn world() -> Option<World> {
    let mut world = World::start()?;
    world.set_arguments(&["--autostop-interval", EVERY]);
    world.stop_server();
    world.start_server();
    Some(world)
}

/// Returns how many of an app's Machines are in this state.
fn count(world: &World, app: &str, state: &str) -> usize {
    let machines = world.machines(app);
    machines.iter().filter(|m| m["state"] == state).count()
}

/// Returns how many requests the app's Machine has answered, by its own memory.
fn counted(world: &World, app: &str) -> u64 {
    world.ask(app)["count"].as_u64().unwrap()
}

/// Suspends a Machine that has just answered: it does so before its host has told that it runs.
fn suspended(world: &World, id: &str) {
    world.eventually("it is started", |world| {
        (world.machine("nap", id)["state"] == "started").then_some(())
    });
    world.ok(&["machine", "suspend", id, "-a", "nap", "-w"]);
}

#[test]
fn a_suspended_machine_keeps_its_memory_whoever_ends_and_whoever_wakes_it() {
    let Some(mut world) = World::start() else {
        return;
    };
    deploy(&world, "nap", &toml("nap", "off", ""));
    let id = world.only("nap", "app");
    let mut expected = counted(&world, "nap");
    let mut keeps = |world: &World, what: &str| {
        expected += 1;
        assert_eq!(counted(world, "nap"), expected, "{what}");
    };
    let suspend = ["machine", "suspend", &id, "-a", "nap", "-w"];
    let said = world.ok(&suspend).stdout;
    assert_eq!(said.trim(), format!("{id} has been suspended"));
    assert_eq!(world.machine("nap", &id)["state"], "suspended");
    let inits = world.inits();
    assert_ne!(world.exec("nap", &id, &["env"]).code, 0);
    // Twice is once, and without `-w` nobody waits.
    let said = world.ok(&["machine", "suspend", &id, "-a", "nap"]).stdout;
    assert_eq!(said.trim(), format!("{id} is being suspended"));
    world.ok(&["machine", "start", &id, "-a", "nap"]);
    keeps(&world, "a start");
    world.ok(&suspend);
    keeps(&world, "a request");
    suspended(&world, &id);
    world.stop_server();
    world.start_server();
    assert_eq!(world.machine("nap", &id)["state"], "suspended");
    keeps(&world, "a server that was stopped");
    suspended(&world, &id);
    world.kill_server();
    world.start_server();
    assert_eq!(world.machine("nap", &id)["state"], "suspended");
    keeps(&world, "a server that was killed");
    assert_eq!(world.inits(), inits, "it is the same run all along");
}

#[test]
fn a_suspended_machine_is_stopped_updated_and_destroyed_and_one_that_is_down_is_not_suspended() {
    let Some(world) = World::start() else { return };
    deploy(&world, "ends", &toml("ends", "off", ""));
    let id = world.only("ends", "app");
    let act = |words: &[&str]| world.ok(&[words, &["-a", "ends"]].concat());
    act(&["machine", "suspend", &id, "-w", "30s"]);
    act(&["machine", "stop", &id]);
    let exit = &world.machine("ends", &id)["events"][0]["request"]["exit_event"];
    assert_eq!(exit["requested_stop"], true, "{exit}");
    assert_eq!(world.inits(), [0; 0]);
    let why = world.fails(1, &["machine", "suspend", &id, "-a", "ends"]);
    assert!(why.contains("from current state: 'stopped'"), "{why}");
    act(&["machine", "start", &id]);
    act(&["machine", "suspend", &id, "-w"]);
    // A deploy leaves it down, with the new version; a request starts that.
    deploy(
        &world,
        "ends",
        &toml("ends", "off", "[env]\nVERSION = \"2\""),
    );
    assert_eq!(world.machine("ends", &id)["state"], "stopped");
    assert_eq!(world.ask("ends")["version"], "2");
    act(&["machine", "suspend", &id, "-w"]);
    act(&["machine", "destroy", &id]);
    world.eventually("nothing of it is left", |world| {
        world.inits().is_empty().then_some(())
    });
}

#[test]
fn idle_machines_rest_down_to_the_minimum_of_the_primary_region() {
    let Some(world) = world() else { return };
    let toml = toml("rests", "suspend", "min_machines_running = 1");
    deploy(&world, "rests", &toml);
    world.ok(&["scale", "count", "3", "-a", "rests", "--yes"]);
    let far = ["--region", "gru", "-a", "rests", "--yes"];
    world.ok(&[&["scale", "count", "2"][..], &far].concat());
    let states = |world: &World| {
        let up = count(world, "rests", "started");
        (up, count(world, "rests", "suspended"))
    };
    let all = world.machines("rests").len();
    assert_eq!(all, 5);
    world.eventually("all rest but one", |world| {
        (states(world) == (1, all - 1)).then_some(())
    });
    let machines = world.machines("rests");
    let left = machines.iter().find(|m| m["state"] == "started").unwrap();
    assert_eq!(left["region"], "iad");
    let log = world.logs("rests");
    let line = "machines left running (region=iad, process group=app)";
    assert!(
        log.contains("has excess capacity, autosuspending machine"),
        "{log}"
    );
    assert!(
        log.contains(line) && log.contains("0 out of 2 machines"),
        "{log}"
    );
    // The one that is left answers, and it stays the only one.
    for _ in 0..20 {
        world.ask("rests");
    }
    assert_eq!(states(&world), (1, all - 1));
}

#[test]
fn many_requests_share_one_start_and_more_than_it_can_take_start_a_second_one() {
    let Some(world) = world() else { return };
    let more = "[http_service.concurrency]\ntype = \"requests\"\nsoft_limit = 4\nhard_limit = 4";
    deploy(&world, "many", &toml("many", "suspend", more));
    world.ok(&["scale", "count", "2", "-a", "many", "--yes"]);
    let at_rest = |world: &World| (count(world, "many", "suspended") == 2).then_some(());
    world.eventually("both rest", at_rest);
    let edge = world.edge(80);
    let all_at_once = |number: usize, path: &str| {
        std::thread::scope(|scope| {
            let ask = || world.inside(|| request(edge, "GET", path, "many.localhost", "", b""));
            let asked: Vec<_> = (0..number).map(|_| scope.spawn(ask)).collect();
            for answer in asked {
                assert_eq!(answer.join().unwrap().unwrap().status, 200);
            }
        });
    };
    // A Machine answers before its log says that it was started.
    let started = |world: &World| world.logs("many").matches("Machine started in").count();
    all_at_once(4, "/");
    world.eventually("one was started", |world| {
        (started(world) == 1).then_some(())
    });
    world.eventually("both rest", at_rest);
    assert_eq!(started(&world), 1);
    all_at_once(8, "/slow?ms=300");
    world.eventually("the second one too", |world| {
        (started(world) == 3).then_some(())
    });
}

#[test]
fn a_connection_of_raw_tcp_wakes_a_suspended_machine() {
    let Some(world) = World::start() else { return };
    let services = "[[services]]\ninternal_port = 8080\nprotocol = \"tcp\"\n\
                    [[services.ports]]\nport = 7070\n";
    deploy(&world, "raw", &fly_toml("raw", services));
    let id = world.only("raw", "app");
    let edge = world.edge(7070);
    let ask = || {
        world.inside(|| {
            let mut stream = TcpStream::connect(edge)?;
            stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok::<_, std::io::Error>(text)
        })
    };
    assert!(ask().unwrap().contains("\"count\":1"));
    for round in 2..5 {
        world.ok(&["machine", "suspend", &id, "-a", "raw", "-w"]);
        let text = ask().unwrap();
        assert!(text.contains(&format!("\"count\":{round}")), "{text}");
    }
}

#[test]
fn a_machine_that_somebody_has_leased_is_neither_stopped_nor_started_by_the_proxy() {
    let Some(world) = world() else { return };
    deploy(&world, "lease", &toml("lease", "suspend", ""));
    let id = world.only("lease", "app");
    let token = world.token();
    let lease = format!("/v1/apps/lease/machines/{id}/lease");
    world.eventually("it rests", |world| {
        (count(world, "lease", "suspended") == 1).then_some(())
    });
    assert_eq!(
        world
            .api("POST", &format!("{lease}?ttl=2"), Some(&token))
            .status,
        201
    );
    let began = Instant::now();
    // Held for as long as the lease lasts, not refused.
    assert_eq!(world.get("lease", "/").status, 200);
    assert!(
        began.elapsed() > Duration::from_millis(900),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(
        world
            .api("POST", &format!("{lease}?ttl=60"), Some(&token))
            .status,
        201
    );
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(
        count(&world, "lease", "started"),
        1,
        "ten looks left it alone"
    );
}

#[test]
fn no_request_is_lost_while_machines_are_suspended_and_woken() {
    under_load("suspend");
}

#[test]
fn no_request_is_lost_while_machines_are_stopped_and_started() {
    under_load("stop");
}

/// Bursts of requests with pauses in which Machines rest, or have just begun to; every request has
/// its answer.
fn under_load(autostop: &str) {
    let Some(world) = world() else { return };
    // So low a limit that a burst starts the second one too.
    let more = "[http_service.concurrency]\ntype = \"requests\"\nsoft_limit = 2";
    deploy(&world, "busy", &toml("busy", autostop, more));
    world.ok(&["scale", "count", "2", "-a", "busy", "--yes"]);
    let edge = world.edge(80);
    let long = std::env::var_os("HANGAR_LONG").is_some();
    let all = if long { LONG } else { SHORT };
    let faults = Mutex::new(Vec::new());
    let slowest = AtomicU64::new(0);
    let client = |count: u64| {
        for _ in 0..count {
            let began = Instant::now();
            let answer = request(edge, "GET", "/", "busy.localhost", "", b"");
            let took = u64::try_from(began.elapsed().as_millis()).unwrap();
            slowest.fetch_max(took, Ordering::Relaxed);
            if !answer.as_ref().is_ok_and(|answer| answer.status == 200) {
                let mut faults = faults.lock().unwrap_or_else(PoisonError::into_inner);
                faults.push(format!("{answer:?}"));
            }
        }
    };
    let (mut random, mut asked) = (Random::new(1), 0);
    while asked < all {
        let counts: Vec<u64> = (0..CLIENTS).map(|_| random.below(BURST)).collect();
        std::thread::scope(|scope| {
            for count in &counts {
                let (world, client) = (&world, &client);
                scope.spawn(move || world.inside(|| client(*count)));
            }
        });
        asked += usize::try_from(counts.iter().sum::<u64>()).unwrap();
        std::thread::sleep(Duration::from_millis(random.below(PAUSE_MS)));
    }
    let log = world.ok(&["logs", "-a", "busy", "--no-tail"]).stdout;
    let verb = if autostop == "stop" {
        "autostopping"
    } else {
        "autosuspending"
    };
    let rests = log.matches(verb).count();
    let starts = log.matches("Machine started in").count();
    let (faults, slowest) = (faults.into_inner().unwrap(), slowest.into_inner());
    eprintln!("{asked} requests, {rests} rests, {starts} starts, slowest {slowest} ms");
    assert_eq!(faults, [""; 0]);
    assert!(
        rests >= ENOUGH && starts >= ENOUGH,
        "{rests} rests, {starts} starts: too few to prove anything\n{log}"
    );
}

#[test]
fn a_server_killed_while_machines_rest_and_wake_loses_none_of_them() {
    let Some(mut world) = world() else { return };
    for (app, autostop) in [("naps", "suspend"), ("stops", "stop")] {
        deploy(&world, app, &toml(app, autostop, ""));
    }
    let seed = std::env::var("HANGAR_SEED")
        .ok()
        .and_then(|s| s.parse().ok());
    let mut random = Random::new(seed.unwrap_or(1));
    let rounds = if std::env::var_os("HANGAR_LONG").is_some() {
        100
    } else {
        10
    };
    let mut answered = counted(&world, "naps");
    for round in 0..rounds {
        std::thread::sleep(Duration::from_millis(random.below(700)));
        if random.below(2) == 0 {
            world.ask("stops");
        }
        world.kill_server();
        world.start_server();
        let now = counted(&world, "naps");
        assert!(
            now > answered,
            "round {round}: its memory is lost: {now} after {answered}"
        );
        answered = now;
        assert_eq!(world.get("stops", "/").status, 200, "round {round}");
    }
    for app in ["naps", "stops"] {
        world.eventually("it rests", |world| {
            (count(world, app, "started") == 0).then_some(())
        });
    }
    assert_eq!(world.inits().len(), 1, "the frozen one");
}
