//! The private network as a Machine sees it: names, neighbours, and what it must not reach.

use std::net::{TcpListener, UdpSocket};

use crate::world::{World, fly_toml, service};

/// Deploys an app of one serving and one other group.
fn deploy(world: &World, app: &str) {
    let groups = "[env]\nBIND = \"::\"\n[processes]\nweb = \"serve\"\nworker = \"lines 1 0\"\n";
    let folder = world.app(
        app,
        &fly_toml(app, &format!("{groups}{}", service(&["web"]))),
    );
    world.ok(&["deploy", &folder, "--ha=false", "--smoke-checks=false"]);
}

fn address(world: &World, app: &str, id: &str) -> String {
    world.machine(app, id)["private_ip"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn resolve(world: &World, app: &str, id: &str, name: &str) -> Vec<String> {
    let mut found: Vec<String> = world
        .exec(app, id, &["resolve", name])
        .stdout
        .lines()
        .map(str::to_owned)
        .collect();
    found.sort();
    found
}

#[test]
fn names_lead_to_started_machines_and_follow_what_happens() {
    let Some(world) = World::start() else { return };
    deploy(&world, "names");
    let (web, worker) = (world.only("names", "web"), world.only("names", "worker"));
    let (at_web, at_worker) = (
        address(&world, "names", &web),
        address(&world, "names", &worker),
    );
    let ask = |name: &str| resolve(&world, "names", &worker, name);
    let mut both = vec![at_web.clone(), at_worker.clone()];
    both.sort();
    assert_eq!(ask("names.internal"), both);
    let only = |name: &str| {
        let found = ask(name);
        assert_eq!(found.len(), 1, "{name}: {found:?}");
        found[0].clone()
    };
    assert_eq!(only("web.process.names.internal"), at_web);
    assert_eq!(only("worker.process.names.internal"), at_worker);
    assert_eq!(only(&format!("{web}.vm.names.internal")), at_web);
    // By its own name one Machine reaches another.
    let reached = world.exec("names", &worker, &["connect", &format!("[{at_web}]:8080")]);
    assert_eq!(reached.stdout, "connected\n");

    world.ok(&["machine", "stop", &web, "-a", "names"]);
    world.eventually("the stopped one is not named", |_| {
        (ask("web.process.names.internal").is_empty()
            && ask("names.internal") == [at_worker.clone()])
        .then_some(())
    });
    world.ok(&["machine", "start", &web, "-a", "names"]);
    world.eventually("the started one is named again", |_| {
        (ask("web.process.names.internal") == [at_web.clone()]).then_some(())
    });
}

#[test]
fn names_outside_are_asked_of_the_resolvers_that_were_given() {
    let Some(mut world) = World::empty() else {
        return;
    };
    let socket = world.inside(|| UdpSocket::bind("127.0.0.1:53").unwrap());
    // A name server that knows one address for every name.
    let serving = socket.try_clone().unwrap();
    std::thread::spawn(move || {
        let mut packet = [0; 1500];
        while let Ok((length, from)) = serving.recv_from(&mut packet) {
            let question = &packet[12..length];
            let end = question.iter().position(|b| *b == 0).unwrap() + 5;
            let mut answer = packet[..2].to_vec();
            answer.extend_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
            answer.extend_from_slice(&question[..end]);
            answer.extend_from_slice(&[0xc0, 12, 0, 28, 0, 1, 0, 0, 0, 60, 0, 16]);
            answer.extend_from_slice(
                &std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7).octets(),
            );
            let _sent = serving.send_to(&answer, from);
        }
    });
    world.set_arguments(&["--dns-upstream", "127.0.0.1"]);
    world.start_server();
    world.import(crate::world::IMAGE, &crate::world::image_spec());
    deploy(&world, "outside");
    let worker = world.only("outside", "worker");
    assert_eq!(
        resolve(&world, "outside", &worker, "example.test"),
        ["2001:db8::7"]
    );
    assert_eq!(
        resolve(&world, "outside", &worker, "none.internal"),
        Vec::<String>::new()
    );
}

#[test]
fn other_networks_and_the_host_are_out_of_reach() {
    let Some(world) = World::start() else { return };
    let listeners = world.inside(|| {
        ["0.0.0.0:9999", "[::]:9998"].map(|address| TcpListener::bind(address).unwrap())
    });
    world.ok(&["apps", "create", "other", "--network", "apart"]);
    for app in ["mine", "near", "other"] {
        deploy(&world, app);
    }
    let from = world.only("mine", "worker");
    let connect = |to: &str| world.exec("mine", &from, &["connect", to]).stdout;
    let web = |app: &str| address(&world, app, &world.only(app, "web"));
    assert_eq!(connect(&format!("[{}]:8080", web("near"))), "connected\n");
    let apart = connect(&format!("[{}]:8080", web("other")));
    assert!(apart.starts_with("not connected"), "{apart}");
    // Names of other networks are not told either.
    assert_eq!(
        resolve(&world, "mine", &from, "other.internal"),
        Vec::<String>::new()
    );
    let host_v4 = world.exec("mine", &from, &["gateways"]).stdout;
    let mut gateways: Vec<&str> = host_v4.lines().collect();
    gateways.extend(["169.254.1.1", "fdaa::3", "127.0.0.1"]);
    for gateway in gateways {
        for port in [4280, 9999, 9998, 80, 443] {
            let to = if gateway.contains(':') {
                format!("[{gateway}]:{port}")
            } else {
                format!("{gateway}:{port}")
            };
            let said = connect(&to);
            assert!(said.starts_with("not connected"), "{to}: {said}");
        }
    }
    drop(listeners);
}

#[test]
fn a_flushed_firewall_is_made_again() {
    let Some(world) = World::start() else { return };
    world.ok(&["apps", "create", "other", "--network", "apart"]);
    deploy(&world, "mine");
    deploy(&world, "other");
    let rules = || {
        let mut command = world.command("nft");
        crate::world::finish(command.args(["list", "ruleset"])).stdout
    };
    let before = rules();
    assert!(before.contains("table inet hangar"), "{before}");
    let mut command = world.command("nft");
    assert_eq!(
        crate::world::finish(command.args(["flush", "ruleset"])).code,
        0
    );
    world.eventually("the table is back", |_| {
        rules().contains("table inet hangar").then_some(())
    });
    let from = world.only("mine", "worker");
    let to = format!(
        "[{}]:8080",
        address(&world, "other", &world.only("other", "web"))
    );
    let said = world.exec("mine", &from, &["connect", &to]).stdout;
    assert!(said.starts_with("not connected"), "{said}");
    assert_eq!(world.get("mine", "/health").status, 200);
}
