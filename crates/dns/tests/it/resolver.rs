//! A resolver on loopback, asked by UDP and TCP, with a resolver of the test's own behind it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use hangar_api::catalog::{Catalog, CatalogApp, CatalogMachine, Liveness, MachineRoute, Phase};
use hangar_api::env::Env;
use hangar_api::id::{AppName, GroupName, HostId, MachineId, Region};
use hangar_api::net::{HostPart, NetworkId, address};
use hangar_dns::{Dns, DnsConfig, DnsHandle, Upstreams};
use hickory_proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;

const NETWORK: NetworkId = NetworkId(7);
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const PATIENCE: Duration = Duration::from_secs(10);

struct Running {
    dns: DnsHandle,
    catalog: watch::Sender<Arc<Catalog>>,
}

async fn start(upstreams: Vec<SocketAddr>, loopback: Option<NetworkId>) -> Running {
    let (catalog, receiver) = watch::channel(Arc::new(catalog(1)));
    let config = DnsConfig {
        listen: vec![LOOPBACK],
        upstreams: Upstreams::Fixed(upstreams),
        loopback,
    };
    let dns = Dns::start(config, receiver, Env::real()).await.unwrap();
    Running { dns, catalog }
}

/// Gives the calling thread a network of its own in which the resolver and two askers have their
/// real addresses; returns false, and says so, where that is not allowed.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
#[expect(
    deprecated,
    reason = "the safe form; a network namespace is no memory that threads could share"
)]
fn on_the_private_network(addresses: &[&str]) -> bool {
    let alone = rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET);
    let ip = |line: &str| {
        let output = Command::new("ip").args(line.split(' ')).output();
        output.is_ok_and(|output| output.status.success())
    };
    let ready = alone.is_ok()
        && ip("link set lo up")
        && addresses
            .iter()
            .all(|address| ip(&format!("addr add {address}/128 dev lo nodad")));
    if !ready {
        eprintln!("skipped: needs root and the program ip");
    }
    ready
}

#[test]
fn the_source_address_says_which_network_a_question_is_about() {
    let (resident, stranger, nobody) = ("fdaa:0:7:a7b:1:0:9:2", "fdaa:0:8:a7b:1:0:9:2", "fd00::9");
    let world = std::thread::spawn(move || {
        if !on_the_private_network(&["fdaa::3", resident, stranger, nobody]) {
            return;
        }
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().unwrap().block_on(async {
            let (_sender, receiver) = watch::channel(Arc::new(catalog(1)));
            let config = DnsConfig {
                listen: vec!["[fdaa::3]:53".parse().unwrap()],
                ..DnsConfig::default()
            };
            let _dns = Dns::start(config, receiver, Env::real()).await.unwrap();
            let question = request("shop.internal.", RecordType::AAAA);
            for (from, code, answers) in [
                (resident, ResponseCode::NoError, 1),
                (stranger, ResponseCode::NXDomain, 0),
                (nobody, ResponseCode::Refused, 0),
            ] {
                let from = SocketAddr::new(from.parse().unwrap(), 0);
                let answer = udp_from(from, "[fdaa::3]:53".parse().unwrap(), &question).await;
                assert_eq!(answer.metadata.response_code, code, "{from}");
                assert_eq!(answer.answers.len(), answers);
            }
        });
    });
    if let Err(panic) = world.join() {
        std::panic::resume_unwind(panic);
    }
}

fn catalog(machines: u32) -> Catalog {
    let name = AppName::new("shop").unwrap();
    let machines = (1..=machines).map(|n| {
        let id = MachineId::new(format!("{n:014x}")).unwrap();
        let route = MachineRoute {
            private_ip: address(NETWORK, HostPart(1), &id),
            id,
            host: HostId::new("here").unwrap(),
            group: GroupName::app(),
            region: Region::new("iad").unwrap(),
            metadata: BTreeMap::new(),
            skip_dns: false,
            cordoned: false,
            standby: false,
            services: Arc::new([]),
        };
        let live = Liveness {
            phase: Phase::Up,
            ..Liveness::default()
        };
        Arc::new(CatalogMachine { route, live })
    });
    let app = CatalogApp {
        name: name.clone(),
        network: NETWORK,
        primary_region: None,
        deploying_until: None,
        hostnames: vec![],
        machines: machines.collect(),
    };
    Catalog {
        routes: 1,
        revision: 1,
        apps: BTreeMap::from([(name, Arc::new(app))]),
    }
}

fn request(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.id = 0xbeef;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message.to_vec().unwrap()
}

async fn by_udp(to: SocketAddr, request: &[u8]) -> Message {
    udp_from(LOOPBACK, to, request).await
}

async fn udp_from(from: SocketAddr, to: SocketAddr, request: &[u8]) -> Message {
    let socket = UdpSocket::bind(from).await.unwrap();
    socket.connect(to).await.unwrap();
    socket.send(request).await.unwrap();
    let mut buffer = vec![0; 65_535];
    let length = tokio::time::timeout(PATIENCE, socket.recv(&mut buffer))
        .await
        .unwrap()
        .unwrap();
    Message::from_vec(&buffer[..length]).unwrap()
}

async fn on_stream(stream: &mut TcpStream, request: &[u8]) -> Message {
    stream
        .write_u16(u16::try_from(request.len()).unwrap())
        .await
        .unwrap();
    stream.write_all(request).await.unwrap();
    let length = stream.read_u16().await.unwrap();
    let mut buffer = vec![0; usize::from(length)];
    stream.read_exact(&mut buffer).await.unwrap();
    Message::from_vec(&buffer).unwrap()
}

/// A resolver that knows one address for every name, by UDP and TCP, and first sends an answer
/// that somebody else might have forged.
async fn outside() -> SocketAddr {
    let tcp = TcpListener::bind(LOOPBACK).await.unwrap();
    let at = tcp.local_addr().unwrap();
    let udp = UdpSocket::bind(at).await.unwrap();
    let answer = |packet: &[u8], last: u8| {
        let mut message = Message::from_vec(packet).unwrap();
        message.metadata.message_type = MessageType::Response;
        let name = message.queries[0].name().clone();
        message.add_answer(Record::from_rdata(
            name,
            60,
            RData::A(A::new(192, 0, 2, last)),
        ));
        message.to_vec().unwrap()
    };
    tokio::spawn(async move {
        let mut buffer = [0; 1024];
        loop {
            let (length, from) = udp.recv_from(&mut buffer).await.unwrap();
            let mut forged = answer(&buffer[..length], 66);
            forged[0] ^= 0xff;
            udp.send_to(&forged, from).await.unwrap();
            udp.send_to(&answer(&buffer[..length], 1), from)
                .await
                .unwrap();
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let length = stream.read_u16().await.unwrap();
            let mut buffer = vec![0; usize::from(length)];
            stream.read_exact(&mut buffer).await.unwrap();
            let reply = answer(&buffer, 2);
            stream
                .write_u16(u16::try_from(reply.len()).unwrap())
                .await
                .unwrap();
            stream.write_all(&reply).await.unwrap();
        }
    });
    at
}

fn only_address(message: &Message) -> Ipv4Addr {
    assert_eq!(message.answers.len(), 1, "{message:?}");
    match &message.answers[0].data {
        RData::A(address) => address.0,
        other => panic!("an IPv4 address was expected, not {other:?}"),
    }
}

#[tokio::test]
async fn a_change_of_the_catalog_is_answered_at_once() {
    let running = start(vec![], Some(NETWORK)).await;
    let at = running.dns.addresses()[0];
    let question = request("shop.internal.", RecordType::AAAA);
    assert_eq!(by_udp(at, &question).await.answers.len(), 1);
    running.catalog.send_replace(Arc::new(catalog(3)));
    let answer = by_udp(at, &question).await;
    assert_eq!((answer.answers.len(), answer.metadata.id), (3, 0xbeef));
}

#[tokio::test]
async fn an_answer_cut_by_udp_is_whole_by_tcp_and_a_connection_takes_many_questions() {
    let running = start(vec![], Some(NETWORK)).await;
    running.catalog.send_replace(Arc::new(catalog(60)));
    let at = running.dns.addresses()[0];
    let question = request("shop.internal.", RecordType::AAAA);
    assert!(by_udp(at, &question).await.metadata.truncation);
    let mut stream = TcpStream::connect(at).await.unwrap();
    for _ in 0..3 {
        assert_eq!(on_stream(&mut stream, &question).await.answers.len(), 60);
    }
}

#[tokio::test]
async fn a_source_on_no_network_is_refused_whatever_it_asks() {
    let running = start(vec![outside().await], None).await;
    let at = running.dns.addresses()[0];
    for name in ["shop.internal.", "example.org."] {
        let answer = by_udp(at, &request(name, RecordType::AAAA)).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::Refused);
    }
}

#[tokio::test]
async fn other_names_are_asked_outside_and_a_forged_answer_is_not_taken() {
    let running = start(vec![outside().await], Some(NETWORK)).await;
    let at = running.dns.addresses()[0];
    let question = request("example.org.", RecordType::A);
    let answer = by_udp(at, &question).await;
    assert_eq!(answer.metadata.id, 0xbeef);
    assert_eq!(only_address(&answer), Ipv4Addr::new(192, 0, 2, 1));
    let mut stream = TcpStream::connect(at).await.unwrap();
    let answer = on_stream(&mut stream, &question).await;
    assert_eq!(only_address(&answer), Ipv4Addr::new(192, 0, 2, 2));
}

#[tokio::test]
async fn internal_names_never_leave_and_a_dead_resolver_is_passed_over() {
    let silent = UdpSocket::bind(LOOPBACK).await.unwrap();
    let dead = silent.local_addr().unwrap();
    drop(silent);
    let running = start(vec![dead, outside().await], Some(NETWORK)).await;
    let at = running.dns.addresses()[0];
    let answer = by_udp(at, &request("example.org.", RecordType::A)).await;
    assert_eq!(only_address(&answer), Ipv4Addr::new(192, 0, 2, 1));
    for name in ["nothing.internal.", "shop.flycast."] {
        let answer = by_udp(at, &request(name, RecordType::A)).await;
        assert_eq!(
            answer.metadata.response_code,
            ResponseCode::NXDomain,
            "{name}"
        );
    }
}

#[tokio::test]
async fn with_nobody_to_ask_the_answer_is_a_failure() {
    let running = start(vec![], Some(NETWORK)).await;
    let at = running.dns.addresses()[0];
    let answer = by_udp(at, &request("example.org.", RecordType::A)).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn an_address_that_is_taken_is_named_and_one_that_was_closed_is_free() {
    let running = start(vec![], None).await;
    let at = running.dns.addresses()[0];
    let again = || {
        let (_sender, catalog) = watch::channel(Arc::default());
        let config = DnsConfig {
            listen: vec![at],
            ..DnsConfig::default()
        };
        Dns::start(config, catalog, Env::real())
    };
    let refused = again().await.unwrap_err().to_string();
    assert!(refused.contains(&at.to_string()), "{refused}");
    running.dns.close().await;
    again().await.unwrap().close().await;
}

#[tokio::test]
async fn nonsense_does_not_end_the_resolver() {
    let running = start(vec![], Some(NETWORK)).await;
    let at = running.dns.addresses()[0];
    let socket = UdpSocket::bind(LOOPBACK).await.unwrap();
    for packet in [&[][..], &[0xff; 40], &[0; 12], &[0; 3000]] {
        socket.send_to(packet, at).await.unwrap();
    }
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(&[0xff; 64]).await.unwrap();
    let answer = by_udp(at, &request("shop.internal.", RecordType::AAAA)).await;
    assert_eq!(answer.answers.len(), 1);
}
