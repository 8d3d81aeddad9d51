//! The private network with real namespaces: who reaches whom, and that it stays so.
//!
//! Each test is a small world: a thread in a network namespace of its own is the host, others are
//! Machines and the internet. The machine that runs the tests is not touched.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket,
};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use hangar_api::env::Env;
use hangar_api::id::MachineId;
use hangar_api::net::{HostPart, NetworkId, RESOLVER, address};
use hangar_host::net::veth::{self, GATEWAY_V4};
use hangar_host::net::{NetConfig, NetError, Network};
use hangar_host::runtime::{RunKey, RunNet};
use tokio::runtime::Runtime;

/// How long something is tried that should work.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long something is tried that should not.
const DOUBT: Duration = Duration::from_millis(300);
/// The host's and the internet's addresses on the cable between them.
const HOST: [&str; 2] = ["198.51.100.1", "2001:db8::1"];
const INTERNET: [&str; 2] = ["198.51.100.2", "2001:db8::2"];

const MINE: NetworkId = NetworkId(1);
const OTHER: NetworkId = NetworkId(2);

// --- the world ---------------------------------------------------------------------------------

type Job = Box<dyn FnOnce() + Send>;

/// A thread in a network namespace of its own.
struct Place {
    jobs: mpsc::Sender<Job>,
    thread: u32,
}

/// A Machine without a program: a place that is connected to the host.
struct Machine {
    place: Place,
    net: RunNet,
    interface: String,
}

/// The host of one test, and the internet beside it.
struct Host {
    runtime: Runtime,
    network: Option<Network>,
    internet: Place,
}

impl Place {
    fn new() -> Self {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (born, birth) = mpsc::channel();
        std::thread::spawn(move || {
            leave_network();
            let thread = rustix::thread::gettid().as_raw_nonzero().get();
            born.send(u32::try_from(thread).unwrap()).unwrap();
            inbox.iter().for_each(|job| job());
        });
        Self {
            jobs,
            thread: birth.recv().unwrap(),
        }
    }

    fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = mpsc::channel();
        let job = move || {
            let _unread = done.send(work());
        };
        self.jobs.send(Box::new(job)).unwrap();
        result
            .recv()
            .expect("what is done in a place does not panic")
    }

    /// Connects from here and returns whether that works within the time.
    fn reaches(&self, to: SocketAddr, time: Duration) -> bool {
        self.run(move || TcpStream::connect_timeout(&to, time).is_ok())
    }

    fn listens(&self) -> u16 {
        self.run(|| {
            let listener = TcpListener::bind("[::]:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            std::thread::spawn(move || listener.incoming().for_each(drop));
            port
        })
    }
}

impl Host {
    fn ensure(&mut self, networks: &[NetworkId]) -> &Network {
        let config = NetConfig {
            networks: networks.iter().copied().collect::<BTreeSet<_>>(),
            egress: Vec::new(),
        };
        let network = self.runtime.block_on(Network::ensure(config, &Env::real()));
        self.network.insert(network.unwrap())
    }

    fn machine(&self, network: NetworkId, number: u16) -> Machine {
        let place = Place::new();
        let id = MachineId::new(format!("{number:014x}")).unwrap();
        let made = self.network.as_ref().unwrap();
        let net = RunNet {
            v6: address(network, HostPart(1), &id),
            v4: made.pool().address(number).unwrap(),
        };
        let key = RunKey {
            machine: id,
            start: 1,
        };
        let interface = veth::interface_name(&key);
        self.runtime.block_on(made.ensure_network(network)).unwrap();
        veth::attach(place.thread, &net, &interface).unwrap();
        Machine {
            place,
            net,
            interface,
        }
    }
}

impl Machine {
    fn at(&self, port: u16) -> [SocketAddr; 2] {
        [IpAddr::V6(self.net.v6), IpAddr::V4(self.net.v4)].map(|ip| (ip, port).into())
    }
}

#[expect(
    deprecated,
    reason = "the safe form; a network namespace is no memory that threads could share"
)]
fn leave_network() {
    rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET).unwrap();
}

fn run(command: &str) {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command}: {complaint}");
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    let output = Command::new(program).args(arguments).output();
    output.is_ok_and(|output| output.status.success())
}

/// Runs a test as a host with an uplink, or says why not.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn on_a_host(test: impl FnOnce(&mut Host) + Send + 'static) {
    let has = |name: &str| {
        ["/usr/sbin", "/sbin", "/usr/bin", "/bin"]
            .iter()
            .any(|folder| Path::new(folder).join(name).exists())
    };
    if !rustix::process::geteuid().is_root() || !has("nft") || !has("ip") {
        eprintln!("skipped: needs root, nft and ip");
        return;
    }
    let world = std::thread::spawn(move || {
        leave_network();
        let internet = Place::new();
        run("ip link set lo up");
        run(&format!(
            "ip link add up0 type veth peer name wan0 netns {}",
            internet.thread
        ));
        cable("up0", HOST);
        internet.run(|| cable("wan0", INTERNET));
        run(&format!("ip route add default via {}", INTERNET[0]));
        run(&format!("ip route add default via {}", INTERNET[1]));
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let mut host = Host {
            runtime: runtime.worker_threads(1).enable_all().build().unwrap(),
            network: None,
            internet,
        };
        test(&mut host);
    });
    if let Err(panic) = world.join() {
        std::panic::resume_unwind(panic);
    }
}

fn cable(interface: &str, [v4, v6]: [&str; 2]) {
    run(&format!("ip addr add {v4}/24 dev {interface}"));
    run(&format!("ip addr add {v6}/64 dev {interface} nodad"));
    run(&format!("ip link set {interface} up"));
}

fn reaches(to: impl ToSocketAddrs, time: Duration) -> bool {
    let to = to.to_socket_addrs().unwrap().next().unwrap();
    TcpStream::connect_timeout(&to, time).is_ok()
}

/// Waits until something holds, for as long as the product promises.
fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{what} did not come to hold");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn internet_from(host: &Host, machine: &Machine, time: Duration) -> [bool; 2] {
    let port = host.internet.listens();
    INTERNET.map(|address| {
        machine
            .place
            .reaches((address.parse::<IpAddr>().unwrap(), port).into(), time)
    })
}

// --- who reaches whom --------------------------------------------------------------------------

#[test]
fn machines_of_one_network_reach_each_other_by_ipv6_and_no_others_do() {
    on_a_host(|host| {
        host.ensure(&[]);
        let (a, b, stranger) = (
            host.machine(MINE, 1),
            host.machine(MINE, 2),
            host.machine(OTHER, 3),
        );
        let [v6, v4] = a.at(a.place.listens());
        assert!(b.place.reaches(v6, PATIENCE));
        assert!(
            !b.place.reaches(v4, DOUBT),
            "IPv4 is for the host and the outside"
        );
        assert!(!stranger.place.reaches(v6, DOUBT));
        assert!(!stranger.place.reaches(v4, DOUBT));
        host.internet.run(|| {
            run(&format!("ip route add 172.30.0.0/16 via {}", HOST[0]));
            run(&format!("ip route add fdaa::/16 via {}", HOST[1]));
        });
        assert!(!host.internet.reaches(v6, DOUBT));
        assert!(!host.internet.reaches(v4, DOUBT));
        assert!(
            reaches(v6, PATIENCE) && reaches(v4, PATIENCE),
            "proxy and checks come from the host"
        );
    });
}

#[test]
fn a_machine_that_is_gone_is_refused_at_once() {
    on_a_host(|host| {
        host.ensure(&[]);
        let (a, gone) = (host.machine(MINE, 1), host.machine(MINE, 2));
        veth::detach(&gone.interface).unwrap();
        let to = gone.at(80)[0];
        let error = a
            .place
            .run(move || TcpStream::connect_timeout(&to, PATIENCE).unwrap_err());
        assert_ne!(error.kind(), ErrorKind::TimedOut, "{error}");
    });
}

#[test]
fn the_host_answers_a_machine_nothing_but_names() {
    on_a_host(|host| {
        host.ensure(&[]);
        let machine = host.machine(MINE, 1);
        let everywhere = [
            TcpListener::bind("0.0.0.0:0").unwrap(),
            TcpListener::bind("[::]:0").unwrap(),
        ];
        let resolver = TcpListener::bind((RESOLVER, 53)).unwrap();
        let own = host.network.as_ref().unwrap().pool().host();
        for address in [
            IpAddr::V4(own),
            IpAddr::V4(GATEWAY_V4),
            IpAddr::V6(RESOLVER),
            HOST[0].parse().unwrap(),
            HOST[1].parse().unwrap(),
        ] {
            for listener in &everywhere {
                let port = listener.local_addr().unwrap().port();
                assert!(
                    !machine.place.reaches((address, port).into(), DOUBT),
                    "{address}"
                );
            }
        }
        let names = resolver.local_addr().unwrap();
        assert!(machine.place.reaches(names, PATIENCE) && reaches(names, PATIENCE));
        let elsewhere = (HOST[1].parse::<Ipv6Addr>().unwrap(), 53).into();
        assert!(!machine.place.reaches(elsewhere, DOUBT));
        host.internet
            .run(|| run(&format!("ip route add fdaa::/16 via {}", HOST[1])));
        assert!(
            !host.internet.reaches(names, DOUBT),
            "names are for Machines"
        );
    });
}

#[test]
fn a_machine_cannot_speak_for_another() {
    on_a_host(|host| {
        host.ensure(&[]);
        let (machine, victim) = (host.machine(MINE, 1), host.machine(OTHER, 2));
        let resolver = UdpSocket::bind((RESOLVER, 53)).unwrap();
        resolver.set_read_timeout(Some(PATIENCE)).unwrap();
        let outside = host
            .internet
            .run(|| UdpSocket::bind((INTERNET[0], 0)).unwrap());
        outside.set_read_timeout(Some(PATIENCE)).unwrap();
        let (to_host, to_outside) = (
            resolver.local_addr().unwrap(),
            outside.local_addr().unwrap(),
        );
        let (own, stolen) = (machine.net, victim.net);
        machine.place.run(move || {
            run(&format!("ip addr add {}/128 dev eth0 nodad", stolen.v6));
            run(&format!("ip addr add {}/32 dev eth0", stolen.v4));
            run("ip addr add 203.0.113.9/32 dev eth0");
            let say = |text: &str, from: IpAddr, to: SocketAddr| {
                UdpSocket::bind((from, 0))
                    .unwrap()
                    .send_to(text.as_bytes(), to)
                    .unwrap();
            };
            say("stolen", stolen.v6.into(), to_host);
            say("stolen", stolen.v4.into(), to_outside);
            say("stolen", Ipv4Addr::new(203, 0, 113, 9).into(), to_outside);
            say("own", own.v6.into(), to_host);
            say("own", own.v4.into(), to_outside);
        });
        for socket in [resolver, outside] {
            let mut heard = [0; 16];
            let length = socket.recv(&mut heard).unwrap();
            assert_eq!(&heard[..length], b"own");
        }
    });
}

// --- the way out -------------------------------------------------------------------------------

#[test]
fn machines_reach_the_internet_behind_the_hosts_address() {
    on_a_host(|host| {
        host.ensure(&[]);
        let machine = host.machine(MINE, 1);
        for (there, here) in INTERNET.into_iter().zip(HOST) {
            let listener = host
                .internet
                .run(move || TcpListener::bind((there, 0)).unwrap());
            let to = listener.local_addr().unwrap();
            assert!(machine.place.reaches(to, PATIENCE));
            let (_stream, from) = listener.accept().unwrap();
            assert_eq!(from.ip(), here.parse::<IpAddr>().unwrap());
        }
    });
}

#[test]
fn outbound_works_beside_a_firewall_that_was_there_and_one_that_comes_later() {
    on_a_host(|host| {
        let drops = |table: &str| {
            run(&format!("nft add table {table}"));
            run(&format!(
                "nft add chain {table} fence {{ type filter hook forward priority 10 ; policy drop ; }}"
            ));
        };
        drops("inet before");
        host.ensure(&[]);
        let (machine, peer) = (host.machine(MINE, 1), host.machine(MINE, 2));
        assert_eq!(internet_from(host, &machine, PATIENCE), [true, true]);
        drops("ip after");
        drops("ip6 after");
        wait_until("the way out", || {
            internet_from(host, &machine, DOUBT) == [true, true]
        });
        let to = peer.at(peer.place.listens())[0];
        assert!(machine.place.reaches(to, PATIENCE));
    });
}

#[test]
fn outbound_works_beside_iptables_which_still_reads_its_own_table() {
    on_a_host(|host| {
        if !succeeds("iptables", &["-P", "FORWARD", "DROP"]) {
            eprintln!("skipped: needs iptables");
            return;
        }
        host.ensure(&[]);
        let machine = host.machine(MINE, 1);
        assert!(internet_from(host, &machine, PATIENCE)[0]);
        assert!(succeeds("iptables", &["-S", "FORWARD"]));
    });
}

// --- staying true ------------------------------------------------------------------------------

#[test]
fn what_somebody_flushed_is_made_again() {
    on_a_host(|host| {
        host.ensure(&[]);
        let (a, b, stranger) = (
            host.machine(MINE, 1),
            host.machine(MINE, 2),
            host.machine(OTHER, 3),
        );
        let v6 = a.at(a.place.listens())[0];
        for ruin in [
            "nft flush ruleset",
            "nft flush table inet hangar",
            "nft flush set inet hangar same_network",
            "nft delete chain inet hangar outbound",
        ] {
            run(ruin);
            wait_until(ruin, || {
                b.place.reaches(v6, DOUBT)
                    && !stranger.place.reaches(v6, DOUBT)
                    && internet_from(host, &a, DOUBT) == [true, true]
            });
        }
        run(&format!("ip addr delete {RESOLVER}/128 dev lo"));
        wait_until("the resolver's address", || {
            UdpSocket::bind((RESOLVER, 53)).is_ok()
        });
        assert!(a.place.reaches(b.at(b.place.listens())[0], PATIENCE));
    });
}

#[test]
fn what_somebody_flushes_while_a_network_is_added_is_made_again_too() {
    on_a_host(|host| {
        let network = host.ensure(&[MINE]).clone();
        for number in 100..116 {
            // It comes before what is being done, in the middle of it, and after.
            let ruin = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_micros(700) * (number - 100));
                run("nft flush chain inet hangar to_machine");
            });
            let added = host
                .runtime
                .block_on(network.ensure_network(NetworkId(number)));
            added.unwrap();
            ruin.join().unwrap();
            wait_until("the chain has its rules", || {
                let listed = Command::new("nft")
                    .args(["list", "chain", "inet", "hangar", "to_machine"])
                    .output();
                String::from_utf8_lossy(&listed.unwrap().stdout).contains("drop")
            });
        }
    });
}

#[test]
fn a_server_that_starts_again_takes_over_what_runs_and_two_at_once_are_refused() {
    on_a_host(|host| {
        let pool = host.ensure(&[]).pool();
        let (a, b) = (host.machine(MINE, 1), host.machine(MINE, 2));
        let env = Env::real();
        let second = host
            .runtime
            .block_on(Network::ensure(NetConfig::default(), &env));
        assert!(matches!(second, Err(NetError::Taken)));
        let first = host.network.take().unwrap();
        host.runtime.block_on(first.close());
        let closed = host.runtime.block_on(first.ensure_network(OTHER));
        assert!(matches!(closed, Err(NetError::Closed)));
        assert_eq!(host.ensure(&[MINE]).pool(), pool);
        assert!(a.place.reaches(b.at(b.place.listens())[0], PATIENCE));
    });
}

#[test]
fn a_range_that_the_host_uses_is_not_given_to_machines() {
    on_a_host(|host| {
        run("ip route add 172.16.0.0/12 dev up0");
        let pool = host.ensure(&[]).pool();
        assert_eq!(pool.cidr(), "100.64.0.0/16");
        let machine = host.machine(MINE, 1);
        assert_eq!(internet_from(host, &machine, PATIENCE), [true, true]);
    });
}

// --- cables ------------------------------------------------------------------------------------

#[test]
fn detaching_leaves_nothing_and_may_be_repeated() {
    on_a_host(|host| {
        host.ensure(&[]);
        let machine = host.machine(MINE, 1);
        assert_eq!(veth::interfaces().unwrap(), [machine.interface.as_str()]);
        veth::detach(&machine.interface).unwrap();
        veth::detach(&machine.interface).unwrap();
        assert!(veth::interfaces().unwrap().is_empty());
        let devices = || std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
        let inside = machine.place.run(devices);
        assert!(
            inside.contains("lo:") && !inside.contains("eth0:"),
            "the inner end is gone too"
        );
    });
}

#[test]
fn a_quick_restart_takes_the_addresses_over_from_the_run_before() {
    on_a_host(|host| {
        host.ensure(&[]);
        let before = host.machine(MINE, 1);
        let after = Place::new();
        let next = RunKey {
            machine: MachineId::new(format!("{:014x}", 1)).unwrap(),
            start: 2,
        };
        let net = before.net;
        let interface = veth::interface_name(&next);
        for _ in 0..2 {
            veth::attach(after.thread, &net, &interface).unwrap();
        }
        let port = after.listens();
        for to in before.at(port) {
            assert!(reaches(to, PATIENCE), "{to}");
        }
        veth::detach(&before.interface).unwrap();
        for to in before.at(port) {
            assert!(reaches(to, PATIENCE), "{to} after the run before has gone");
        }
    });
}

#[test]
fn attaching_to_nobody_fails_in_words_and_leaves_nothing() {
    on_a_host(|host| {
        host.ensure(&[]);
        let net = RunNet {
            v6: address(
                MINE,
                HostPart(1),
                &MachineId::new("00000000000001").unwrap(),
            ),
            v4: Ipv4Addr::new(172, 30, 0, 2),
        };
        let error = veth::attach(u32::MAX >> 1, &net, "hg000000011").unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("make interface hg000000011: "),
            "{error}"
        );
        assert!(veth::interfaces().unwrap().is_empty());
    });
}
