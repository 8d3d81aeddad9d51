//! The private network as a Machine sees it: names, neighbours, and what it must not reach.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::world::{LIMIT, World, finish, fly_toml, in_network, service};

/// How late a name may follow what happens. A second is promised; a busy machine gets more.
const LATE: Duration = Duration::from_secs(10);

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
    let stopped = Instant::now();
    world.eventually("the stopped one is not named", |_| {
        (ask("web.process.names.internal").is_empty()
            && ask("names.internal") == [at_worker.clone()])
        .then_some(())
    });
    assert!(stopped.elapsed() < LATE, "{:?}", stopped.elapsed());
    assert_eq!(
        ask(&format!("{web}.vm.names.internal")),
        Vec::<String>::new()
    );
    world.ok(&["machine", "start", &web, "-a", "names"]);
    let started = Instant::now();
    world.eventually("the started one is named again", |_| {
        (ask("web.process.names.internal") == [at_web.clone()]).then_some(())
    });
    assert!(started.elapsed() < LATE, "{:?}", started.elapsed());
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

// --- who reaches whom --------------------------------------------------------------------------

/// Deploys an app that serves on every address, with a shell, and returns its only Machine.
fn server_with_shell(world: &World, app: &str) -> String {
    let serve = "[env]\nBIND = \"::\"\n[processes]\napp = \"/testapp serve\"\n";
    world.shell_app(app, &format!("{serve}{}", service(&["app"])))
}

/// Tries to connect from a Machine to many places at once; returns those that answered.
fn reached(world: &World, app: &str, id: &str, places: &[SocketAddr]) -> Vec<SocketAddr> {
    let places: Vec<String> = places.iter().map(ToString::to_string).collect();
    let script = format!(
        "for to in {}; do (echo \"$to $(/testapp connect $to)\") & done; wait",
        places
            .iter()
            .map(|p| format!("'{p}'"))
            .collect::<Vec<_>>()
            .join(" ")
    );
    let said = world.said(app, id, &script);
    let answers: Vec<(&str, &str)> = said
        .lines()
        .filter_map(|line| line.split_once(' '))
        .collect();
    assert_eq!(answers.len(), places.len(), "{said}");
    let mut found: Vec<SocketAddr> = answers
        .iter()
        .filter(|(_, answer)| *answer == "connected")
        .map(|(place, _)| place.parse().unwrap())
        .collect();
    found.sort();
    found
}

/// Returns where a Machine is: its 6PN address, and the one that only its host uses.
fn addresses(world: &World, app: &str, id: &str) -> [IpAddr; 2] {
    let hosts = world.said(app, id, "cat /etc/hosts");
    let named = hosts
        .lines()
        .filter(|line| line.split_whitespace().nth(1) == Some(id));
    let mut own: Vec<IpAddr> = named
        .map(|line| line.split_whitespace().next().unwrap().parse().unwrap())
        .collect();
    own.sort_by_key(IpAddr::is_ipv4);
    assert_eq!(own[0].to_string(), address(world, app, id), "{hosts}");
    own.try_into().unwrap()
}

fn at(addresses: [IpAddr; 2], port: u16) -> Vec<SocketAddr> {
    addresses.map(|ip| SocketAddr::from((ip, port))).to_vec()
}

#[test]
fn machines_of_one_network_reach_each_other_and_those_of_others_do_not() {
    let Some(world) = World::with_shell() else {
        return;
    };
    world.ok(&["apps", "create", "other", "--network", "apart"]);
    let all = ["mine", "near", "other"].map(|app| (app, server_with_shell(&world, app)));
    let place = |at: usize| addresses(&world, all[at].0, &all[at].1);
    let from = |from: usize, to: usize| {
        let (app, id) = &all[from];
        reached(&world, app, id, &at(place(to), 8080))
    };
    // What cannot be reached below is there: the host reaches it, both ways.
    for number in 0..all.len() {
        for to in at(place(number), 8080) {
            let connected = world.inside(|| TcpStream::connect_timeout(&to, LIMIT));
            assert!(connected.is_ok(), "{to}: {connected:?}");
        }
    }
    let v6 = |number: usize| vec![at(place(number), 8080)[0]];
    assert_eq!((from(0, 1), from(1, 0)), (v6(1), v6(0)));
    assert_eq!((from(0, 2), from(2, 0)), (Vec::new(), Vec::new()));
    let ask = |at: usize, name: &str| resolve(&world, all[at].0, &all[at].1, name);
    let none = Vec::<String>::new();
    assert_eq!(ask(0, "near.internal"), [place(1)[0].to_string()]);
    for name in ["other.internal", "app.process.other.internal"] {
        assert_eq!(ask(0, name), none, "{name}");
    }
    assert_eq!(ask(0, &format!("{}.vm.other.internal", all[2].1)), none);
    assert_eq!(ask(2, "mine.internal"), none);
}

#[test]
fn a_machine_reaches_nothing_of_its_host_but_the_resolver() {
    let Some(mut world) = World::empty() else {
        return;
    };
    let Some(spec) = crate::busybox::shell_spec() else {
        return;
    };
    // What may listen everywhere does, and the host has addresses of its own.
    let outside = Outside::of(&mut world);
    world.set_arguments(&["--edge", "0.0.0.0"]);
    world.start_server();
    world.import(crate::busybox::SHELL, &spec);
    let id = server_with_shell(&world, "mine");
    let listeners =
        world.inside(|| ["0.0.0.0:9999", "[::]:9998"].map(|to| TcpListener::bind(to).unwrap()));
    let edge = world.inside(|| TcpStream::connect(("127.0.0.1", 80)).map(drop));

    let listed = finish(world.command("ip").args(["-o", "addr"])).stdout;
    let mut hosts: Vec<IpAddr> = listed
        .lines()
        .filter_map(|line| {
            line.split_whitespace()
                .nth(3)?
                .split('/')
                .next()?
                .parse()
                .ok()
        })
        .filter(|ip: &IpAddr| !ip.is_loopback() && !is_link_local(ip))
        .collect();
    // Where the Machine's own packets go first.
    let gateways = world.exec("mine", &id, &["gateways"]).stdout;
    hosts.extend(gateways.lines().map(|ip| ip.parse::<IpAddr>().unwrap()));
    hosts.sort();
    hosts.dedup();
    let resolver: IpAddr = "fdaa::3".parse().unwrap();
    for known in [HOST[0], HOST[1], "fdaa::3"] {
        assert!(hosts.contains(&known.parse().unwrap()), "{hosts:?}");
    }
    assert!(edge.is_ok(), "the edge listens: {edge:?}");
    let ports = [53, 80, 443, 4280, 9998, 9999];
    let places: Vec<SocketAddr> = hosts
        .iter()
        .flat_map(|ip| ports.map(|port| SocketAddr::from((*ip, port))))
        .collect();
    // The host itself reaches them: it is not that nobody listens.
    for port in [80, 9999] {
        let to = SocketAddr::from((HOST[0].parse::<IpAddr>().unwrap(), port));
        assert!(world.inside(|| TcpStream::connect(to)).is_ok(), "{to}");
    }
    // Names, and the Machines API.
    let open = [53, 4280].map(|port| SocketAddr::from((resolver, port)));
    assert_eq!(reached(&world, "mine", &id, &places), open);
    // The Machine's loopback is its own.
    let own: Vec<SocketAddr> = [4280, 9999, 9998, 8080]
        .map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
        .to_vec();
    assert_eq!(reached(&world, "mine", &id, &own), [own[3]]);
    drop(listeners);
    no_datagram_arrives(&world, &id, &hosts, &outside);
}

/// Sends datagrams from a Machine to its host's addresses: the first one that arrives there is the
/// host's own. Outside they do arrive.
fn no_datagram_arrives(world: &World, id: &str, hosts: &[IpAddr], outside: &Outside) {
    let here = world.inside(|| UdpSocket::bind("[::]:9997").unwrap());
    let elsewhere = outside.run(|| UdpSocket::bind("[::]:9997").unwrap());
    let outsiders = OUTSIDE.map(|ip| ip.parse::<IpAddr>().unwrap());
    for ip in hosts.iter().chain(&outsiders) {
        let to = SocketAddr::from((*ip, 9997)).to_string();
        let said = world.exec("mine", id, &["say", &to, "x"]);
        assert_eq!(said.code, 0, "{to}: {said:?}");
    }
    for socket in [&here, &elsewhere] {
        socket.set_read_timeout(Some(LIMIT)).unwrap();
    }
    let mut heard = [0; 8];
    for _ in outsiders {
        assert_eq!(elsewhere.recv(&mut heard).unwrap(), 1);
    }
    world.inside(|| {
        let own = UdpSocket::bind("[::1]:0").unwrap();
        own.send_to(b"own", "[::1]:9997").unwrap();
    });
    let (length, from) = here.recv_from(&mut heard).unwrap();
    assert_eq!(&heard[..length], b"own", "{from}");
}

fn is_link_local(ip: &IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

// --- the way out -------------------------------------------------------------------------------

/// The addresses of the two ends of the cable between a world and what is outside.
const HOST: [&str; 2] = ["198.51.100.1", "2001:db8::1"];
const OUTSIDE: [&str; 2] = ["198.51.100.2", "2001:db8::2"];

/// A network beside the world's: the internet, as far as its Machines can tell.
struct Outside {
    namespace: PathBuf,
}

impl Outside {
    /// Lays the cable, and sends what is for elsewhere over it. It ends with the world.
    fn of(world: &mut World) -> Self {
        let mut holder = world.command("unshare");
        holder.args(["--net", "sleep", "1000000"]);
        let before = std::fs::read_link("/proc/self/ns/net").unwrap();
        world.keep(holder.stdout(Stdio::null()));
        let pid = world.last_started().id().to_string();
        let process = Path::new("/proc").join(&pid);
        // It is there when the program has left the world's network, which is not ours either.
        let inside = world.inside(|| std::fs::read_link("/proc/thread-self/ns/net").unwrap());
        world.eventually("there is an outside", |_| {
            let now = std::fs::read_link(process.join("ns/net")).ok()?;
            let sleeps = std::fs::read_to_string(process.join("comm")).ok()?;
            (now != before && now != inside && sleeps.trim() == "sleep").then_some(())
        });
        let outside = Self {
            namespace: process.join("ns/net"),
        };
        let ours = |words: &str| run_in(world.command("ip"), words);
        ours(&format!(
            "link add up0 type veth peer name wan0 netns {pid}"
        ));
        cable(HOST, "up0", ours);
        cable(OUTSIDE, "wan0", |words| outside.ip(words));
        for there in OUTSIDE {
            ours(&format!("route add default via {there}"));
        }
        outside
    }

    fn ip(&self, words: &str) {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.namespace.display()));
        command.arg("ip");
        run_in(command, words);
    }

    fn run<T: Send>(&self, code: impl FnOnce() -> T + Send) -> T {
        in_network(&self.namespace, code)
    }

    /// Listens on a port of both families.
    fn listens(&self) -> TcpListener {
        self.run(|| TcpListener::bind("[::]:7777").unwrap())
    }

    fn places() -> Vec<SocketAddr> {
        let place = |ip: &str| SocketAddr::from((ip.parse::<IpAddr>().unwrap(), 7777));
        let mut places = OUTSIDE.map(place).to_vec();
        places.sort();
        places
    }
}

fn run_in(mut command: Command, words: &str) {
    crate::world::run(command.args(words.split_whitespace()));
}

fn cable([v4, v6]: [&str; 2], interface: &str, ip: impl Fn(&str)) {
    ip(&format!("addr add {v4}/24 dev {interface}"));
    ip(&format!("addr add {v6}/64 dev {interface} nodad"));
    ip(&format!("link set {interface} up"));
}

/// Adds a table of somebody else's that lets nothing through.
fn add_fence(world: &World, table: &str) {
    for rule in [
        format!("add table {table}"),
        format!(
            "add chain {table} fence {{ type filter hook forward priority 10 ; policy drop ; }}"
        ),
    ] {
        run_in(world.command("nft"), &rule);
    }
}

#[test]
fn the_way_out_stays_open_beside_other_firewalls_and_after_a_flush() {
    let Some(mut world) = World::empty() else {
        return;
    };
    let Some(spec) = crate::busybox::shell_spec() else {
        return;
    };
    let outside = Outside::of(&mut world);
    let listener = outside.listens();
    add_fence(&world, "inet before");
    world.start_server();
    world.import(crate::busybox::SHELL, &spec);
    world.ok(&["apps", "create", "other", "--network", "apart"]);
    let id = server_with_shell(&world, "mine");
    let other = server_with_shell(&world, "other");
    let near = server_with_shell(&world, "near");
    let goes_out = |world: &World| reached(world, "mine", &id, &Outside::places());
    assert_eq!(goes_out(&world), Outside::places());
    // Outside, it is the host that speaks.
    let mut seen: Vec<IpAddr> = (0..2)
        .map(|_| listener.accept().unwrap().1.ip().to_canonical())
        .collect();
    seen.sort();
    assert_eq!(seen, HOST.map(|ip| ip.parse::<IpAddr>().unwrap()));

    add_fence(&world, "ip after");
    add_fence(&world, "ip6 after");
    let open = |world: &World| (goes_out(world) == Outside::places()).then_some(());
    world.eventually("the way out is open again", open);
    // The other tables are somebody else's, and still there.
    let rules = || finish(world.command("nft").args(["list", "ruleset"])).stdout;
    for table in ["table inet before", "table ip after", "table ip6 after"] {
        assert!(rules().contains(table), "{table}: {}", rules());
    }

    run_in(world.command("nft"), "flush ruleset");
    world.eventually("the table is back", |_| {
        rules().contains("table inet hangar").then_some(())
    });
    world.eventually("the way out is open again", open);
    let (near, other) = (
        addresses(&world, "near", &near),
        addresses(&world, "other", &other),
    );
    assert_eq!(
        reached(
            &world,
            "mine",
            &id,
            &[at(near, 8080), at(other, 8080)].concat()
        ),
        [at(near, 8080)[0]]
    );

    // The way in stays closed, also for who knows the way.
    let mine = addresses(&world, "mine", &id);
    outside.ip(&format!("route add {}/32 via {}", mine[1], HOST[0]));
    outside.ip(&format!("route add {}/128 via {}", mine[0], HOST[1]));
    for to in at(mine, 8080) {
        let time = Duration::from_secs(1);
        let connected = outside.run(|| TcpStream::connect_timeout(&to, time));
        assert!(connected.is_err(), "{to}");
        assert!(world.inside(|| TcpStream::connect(to)).is_ok(), "{to}");
    }
}

#[test]
fn a_machine_that_speaks_for_another_is_not_heard() {
    let Some(mut world) = World::empty() else {
        return;
    };
    let Some(spec) = crate::busybox::shell_spec() else {
        return;
    };
    let outside = Outside::of(&mut world);
    world.start_server();
    world.import(crate::busybox::SHELL, &spec);
    world.ok(&["apps", "create", "other", "--network", "apart"]);
    let (thief, victim) = (
        server_with_shell(&world, "mine"),
        server_with_shell(&world, "other"),
    );
    let (own, stolen) = (
        addresses(&world, "mine", &thief),
        addresses(&world, "other", &victim),
    );
    let sockets = OUTSIDE.map(|ip| outside.run(|| UdpSocket::bind((ip, 7778)).unwrap()));
    // A Machine may not add addresses; with the rights of the host it is done for it.
    let inside = Path::new("/proc").join(world.init_of(&thief).to_string());
    let inside = inside.join("ns/net");
    let ip = |words: String| {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", inside.display())).arg("ip");
        run_in(command, &words);
    };
    ip(format!("addr add {}/128 dev eth0 nodad", stolen[0]));
    ip(format!("addr add {}/32 dev eth0", stolen[1]));
    ip("addr add 203.0.113.9/32 dev eth0".to_owned());
    let say = |text: &str, from: IpAddr, to: &str| {
        in_network(&inside, || {
            let socket = UdpSocket::bind((from, 0)).unwrap();
            // What is dropped on the way is sent all the same.
            socket.send_to(text.as_bytes(), (to, 7778)).unwrap();
        });
    };
    say("stolen", stolen[1], OUTSIDE[0]);
    say("forged", "203.0.113.9".parse().unwrap(), OUTSIDE[0]);
    say("own", own[1], OUTSIDE[0]);
    say("stolen", stolen[0], OUTSIDE[1]);
    say("own", own[0], OUTSIDE[1]);
    for socket in sockets {
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        let mut heard = [0; 16];
        let length = socket.recv(&mut heard).unwrap();
        assert_eq!(String::from_utf8_lossy(&heard[..length]), "own");
    }
}

// --- staying true ------------------------------------------------------------------------------

#[test]
fn a_flushed_firewall_is_made_again() {
    let Some(world) = World::start() else { return };
    world.ok(&["apps", "create", "other", "--network", "apart"]);
    deploy(&world, "mine");
    deploy(&world, "other");
    let rules = || {
        let mut command = world.command("nft");
        finish(command.args(["list", "ruleset"])).stdout
    };
    let before = rules();
    assert!(before.contains("table inet hangar"), "{before}");
    let mut command = world.command("nft");
    assert_eq!(finish(command.args(["flush", "ruleset"])).code, 0);
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
    let own = address(&world, "mine", &world.only("mine", "web"));
    let near = format!("[{own}]:8080");
    let said = world.exec("mine", &from, &["connect", &near]).stdout;
    assert_eq!(said, "connected\n");
    assert_eq!(world.get("mine", "/health").status, 200);
}

#[test]
fn the_hosts_neighbours_are_closed_to_machines_until_the_operator_opens_them() {
    let Some(mut world) = World::empty() else {
        return;
    };
    let Some(spec) = crate::busybox::shell_spec() else {
        return;
    };
    let outside = Outside::of(&mut world);
    let near = ["10.99.0.2", "192.168.99.2", "fd99::2"];
    for (host, neighbour, prefix) in [
        ("10.99.0.1", near[0], 24),
        ("192.168.99.1", near[1], 24),
        ("fd99::1", near[2], 64),
    ] {
        let add = |ip: &str, dev: &str| format!("addr add {ip}/{prefix} dev {dev}");
        run_in(world.command("ip"), &add(host, "up0"));
        outside.ip(&add(neighbour, "wan0"));
    }
    let _listener = outside.listens();
    // As where Docker is: our way through its table is no way to its containers.
    add_fence(&world, "ip filter");
    world.start_server();
    world.import(crate::busybox::SHELL, &spec);
    let id = server_with_shell(&world, "mine");
    let places = near.map(|ip| SocketAddr::from((ip.parse::<IpAddr>().unwrap(), 7777)));
    let all = [&places[..], &Outside::places()].concat();
    assert_eq!(reached(&world, "mine", &id, &all), Outside::places());
    assert!(world.inside(|| TcpStream::connect(places[0]).is_ok()));

    world.stop_server();
    world.set_arguments(&[
        "--allow-egress",
        "10.99.0.0/16",
        "--allow-egress",
        "fd99::2",
    ]);
    world.start_server();
    let mut open = [&[places[0], places[2]], &Outside::places()[..]].concat();
    open.sort();
    assert_eq!(reached(&world, "mine", &id, &all), open);

    world.stop_server();
    let said = world.fails(2, &["server", "--allow-egress", "10.99.0.0/33"]);
    assert!(said.contains("10.1.0.0/16"), "{said}");
}
