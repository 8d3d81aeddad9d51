//! Requests from outside, through the real server, to Machines.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use crate::world::{LIMIT, World, fly_toml, request, service};

fn deploy(world: &World, app: &str, rest: &str) -> String {
    let folder = world.app(app, &fly_toml(app, rest));
    world.ok(&["deploy", &folder, "--ha=false"]);
    folder
}

#[test]
fn a_request_starts_a_stopped_machine_where_the_service_allows_it() {
    let Some(world) = World::start() else { return };
    deploy(&world, "wakes", &service(&[]));
    let still = service(&[]).replace(
        "internal_port",
        "auto_start_machines = false\ninternal_port",
    );
    deploy(&world, "still", &still);
    for app in ["wakes", "still"] {
        let id = world.only(app, "app");
        world.ok(&["machine", "stop", &id, "-a", app]);
    }
    assert_eq!(world.get("wakes", "/health").status, 200);
    assert_eq!(world.machines("wakes")[0]["state"], "started");
    let refused = world.get("still", "/health");
    assert_eq!(refused.status, 503, "{refused:?}");
    assert_eq!(world.machines("still")[0]["state"], "stopped");
}

#[test]
fn an_ill_machine_gets_no_requests_until_it_is_well() {
    let Some(world) = World::start() else { return };
    deploy(&world, "ill", &service(&[]).replace("2s", "200ms"));
    world.ok(&["scale", "count", "2", "-a", "ill", "--yes"]);
    let answering = |world: &World| {
        let mut seen: Vec<String> = (0..20)
            .map(|_| world.ask("ill")["machine"].as_str().unwrap().to_owned())
            .collect();
        seen.sort();
        seen.dedup();
        seen
    };
    let both = world.eventually("both answer", |world| {
        let seen = answering(world);
        (seen.len() == 2).then_some(seen)
    });
    let (sick, well) = (&both[0], &both[1]);
    assert_eq!(world.exec("ill", sick, &["sick"]).code, 0);
    world.eventually("only the healthy one answers", |world| {
        (answering(world) == [well.clone()]).then_some(())
    });
    let checks = world.ok(&["checks", "list", "-a", "ill"]).stdout;
    let line = checks
        .lines()
        .find(|line| line.contains(sick.as_str()))
        .unwrap();
    assert!(line.contains("critical"), "{checks}");
    assert_eq!(world.exec("ill", sick, &["well"]).code, 0);
    world.eventually("both answer again", |world| {
        (answering(world) == both).then_some(())
    });
}

#[test]
fn the_app_learns_who_asks_and_how() {
    let Some(world) = World::start() else { return };
    deploy(&world, "heads", &service(&[]));
    let edge = world.edge(80);
    let spoofed = "fly-client-ip: 6.6.6.6\r\nx-forwarded-proto: https\r\nx-mine: kept\r\n";
    let answer = world
        .inside(|| request(edge, "GET", "/headers", "heads.localhost", spoofed, b""))
        .unwrap();
    let heads = answer.body.to_lowercase();
    for line in [
        "fly-client-ip: 127.0.0.1",
        "x-forwarded-proto: http",
        "x-forwarded-for: 127.0.0.1",
        "x-mine: kept",
        "host: heads.localhost",
    ] {
        assert!(
            heads.lines().any(|l| l.starts_with(line)),
            "{line}: {heads}"
        );
    }
    assert!(!heads.contains("6.6.6.6"), "{heads}");
    let unknown = world
        .inside(|| request(edge, "GET", "/", "nobody.localhost", "", b""))
        .unwrap();
    assert_eq!(unknown.status, 404);
    assert!(unknown.body.contains("nobody.localhost"), "{unknown:?}");
}

#[test]
fn plain_http_is_sent_to_https_where_the_service_asks_for_it() {
    let Some(world) = World::start() else { return };
    let forced = service(&[]).replace("internal_port", "force_https = true\ninternal_port");
    deploy(&world, "forced", &forced);
    let edge = world.edge(80);
    let head = world.inside(|| {
        let mut stream = TcpStream::connect(edge).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let ask = b"GET /a?b=c HTTP/1.1\r\nhost: forced.localhost\r\nconnection: close\r\n\r\n";
        stream.write_all(ask).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    });
    assert!(head.starts_with("HTTP/1.1 301"), "{head}");
    let secure = world.edge(443).port();
    let port = if secure == 443 {
        String::new()
    } else {
        format!(":{secure}")
    };
    let location = format!("location: https://forced.localhost{port}/a?b=c");
    assert!(head.to_lowercase().contains(&location), "{head}");
}

#[test]
fn a_raw_tcp_service_passes_bytes_both_ways() {
    let Some(world) = World::start() else { return };
    let raw = "[[services]]\ninternal_port = 8080\nprotocol = \"tcp\"\n[[services.ports]]\nport = 7007\n\
               [[services.tcp_checks]]\ninterval = \"2s\"\ntimeout = \"1s\"\n";
    deploy(&world, "raw", raw);
    let edge = world.edge(7007);
    let answer = world
        .inside(|| request(edge, "POST", "/", "whatever", "", &[1; 100_000]))
        .unwrap();
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (200, "100000 100000")
    );
}

#[test]
fn at_the_hard_limit_requests_wait_for_their_turn() {
    let Some(world) = World::start() else { return };
    let limited = service(&[]).replace(
        "[[http_service.checks]]",
        "[http_service.concurrency]\ntype = \"requests\"\nsoft_limit = 1\nhard_limit = 1\n[[http_service.checks]]",
    );
    deploy(&world, "turns", &limited);
    let edge = world.edge(80);
    let clients: Vec<_> = (0..4)
        .map(|_| {
            world.inside(|| {
                let mut stream = TcpStream::connect(edge).unwrap();
                stream.set_read_timeout(Some(LIMIT)).unwrap();
                let ask = b"GET /slow?ms=200 HTTP/1.1\r\nhost: turns.localhost\r\nconnection: close\r\n\r\n";
                stream.write_all(ask).unwrap();
                stream
            })
        })
        .collect();
    let begun = std::time::Instant::now();
    for mut client in clients {
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    }
    // Four of 200 ms, one at a time; the first began a moment before the clock did.
    assert!(
        begun.elapsed() > Duration::from_millis(650),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn large_bodies_pass_both_ways() {
    let Some(world) = World::start() else { return };
    deploy(&world, "large", &service(&[]));
    let edge = world.edge(80);
    let body = vec![3; 8 << 20];
    let answer = world
        .inside(|| request(edge, "POST", "/", "large.localhost", "", &body))
        .unwrap();
    assert_eq!(answer.body, format!("{} {}", body.len(), 3 * body.len()));
    let answer = world
        .inside(|| request(edge, "GET", "/bytes?n=5000000", "large.localhost", "", b""))
        .unwrap();
    assert_eq!(answer.body.len(), 5_000_000);
}

#[test]
fn a_machine_that_is_stopped_loses_its_requests_first() {
    let Some(world) = World::start() else { return };
    deploy(&world, "leaves", &service(&[]));
    world.ok(&["scale", "count", "2", "-a", "leaves", "--yes"]);
    world.eventually("both are up", |world| {
        let up = |m: &Value| m["state"] == "started" && m["checks"][0]["status"] == "passing";
        world.machines("leaves").iter().all(up).then_some(())
    });
    let ids: Vec<String> = world
        .machines("leaves")
        .iter()
        .map(|m| m["id"].as_str().unwrap().to_owned())
        .collect();
    let edge = world.edge(80);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let answered = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            world.inside(|| {
                let mut count = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let answer =
                        request(edge, "GET", "/slow?ms=5", "leaves.localhost", "", b"").unwrap();
                    assert_eq!(answer.status, 200, "{answer:?}");
                    count += 1;
                }
                count
            })
        });
        for _ in 0..3 {
            world.ok(&["machine", "stop", &ids[0], "-a", "leaves"]);
            world.ok(&["machine", "start", &ids[0], "-a", "leaves"]);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        asking.join().unwrap()
    });
    assert!(answered > 10, "{answered}");
}
