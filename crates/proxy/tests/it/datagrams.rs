//! Services of UDP.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hangar_api::catalog::Phase;
use serde_json::json;
use tokio::net::UdpSocket;

use crate::rig::{
    Rig, SOON, come_up, down, fresh_address, machine_id, service, stays_pending, until, up,
};

const PORT: u16 = 5300;
const SHORT: Duration = Duration::from_millis(100);

/// A program that sends each datagram back behind its name, while it is told to answer.
struct Echo {
    address: Ipv4Addr,
    answers: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Echo {
    async fn start(name: &'static str) -> Self {
        Self::start_at(name, fresh_address()).await
    }

    async fn start_at(name: &'static str, address: Ipv4Addr) -> Self {
        let socket = UdpSocket::bind((address, PORT)).await.unwrap();
        let answers = Arc::new(AtomicBool::new(true));
        let told = answers.clone();
        let task = tokio::spawn(async move {
            let mut bytes = vec![0; 65_536];
            loop {
                let (count, from) = socket.recv_from(&mut bytes).await.unwrap();
                if told.load(Ordering::SeqCst) {
                    let answer = [name.as_bytes(), &bytes[..count]].concat();
                    socket.send_to(&answer, from).await.unwrap();
                }
            }
        });
        Self {
            address,
            answers,
            task,
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn udp(more: serde_json::Value) -> hangar_api::machine::Service {
    let mut service = json!({"protocol": "udp", "internal_port": PORT, "ports": [{"port": PORT}]});
    let more = more.as_object().unwrap().clone();
    service.as_object_mut().unwrap().extend(more);
    self::service(service)
}

fn at(rig: &Rig, external: u16) -> SocketAddr {
    let bound = rig.proxy.edge().borrow().udp[&external];
    SocketAddr::from((rig.address, bound))
}

async fn client(rig: &Rig) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(at(rig, PORT)).await.unwrap();
    socket
}

/// Sends until there is an answer, as clients of UDP must.
async fn ask(client: &UdpSocket, text: &str) -> String {
    let asking = async {
        let mut bytes = vec![0; 65_536];
        loop {
            client.send(text.as_bytes()).await.unwrap();
            let heard = tokio::time::timeout(Duration::from_secs(2), client.recv(&mut bytes));
            if let Ok(Ok(count)) = heard.await {
                return String::from_utf8_lossy(&bytes[..count]).into_owned();
            }
        }
    };
    tokio::time::timeout(SOON, asking).await.unwrap()
}

#[tokio::test]
async fn datagrams_pass_both_ways_and_each_client_stays_at_its_machine() {
    let rig = Rig::start();
    let (one, two) = (Echo::start("one ").await, Echo::start("two ").await);
    let service = udp(json!({"concurrency": {"soft_limit": 1}}));
    let machines = vec![up(1, one.address, &service), up(2, two.address, &service)];
    rig.app("app", machines).await;
    let (a, b) = (client(&rig).await, client(&rig).await);
    let first = ask(&a, "x").await;
    // The other one is above its soft limit.
    let second = ask(&b, "x").await;
    assert_ne!(first, second);
    for n in 0..50 {
        let text = format!("{n} {}", "y".repeat(n * 25));
        assert_eq!(ask(&a, &text).await, format!("{}{text}", &first[..4]));
        assert_eq!(ask(&b, &text).await, format!("{}{text}", &second[..4]));
    }
    // The largest that there is, and an empty one.
    let large = "z".repeat(60_000);
    assert_eq!(ask(&a, &large).await.len(), large.len() + 4);
    assert_eq!(ask(&a, "").await, first[..4]);
}

#[tokio::test]
async fn tcp_and_udp_share_a_number_and_no_limit_and_the_port_is_never_rewritten() {
    let rig = Rig::start();
    let echo = Echo::start("udp ").await;
    let tcp = service(json!({"internal_port": PORT, "ports": [{"port": PORT}],
        "concurrency": {"hard_limit": 1}}));
    // Whatever the internal port is.
    let udp = udp(json!({"internal_port": 9, "concurrency": {"hard_limit": 1}}));
    let listener = tokio::net::TcpListener::bind((echo.address, PORT))
        .await
        .unwrap();
    let mut machine = up(1, echo.address, &tcp);
    machine.route.services = Arc::new([tcp, udp]);
    come_up(&mut machine, echo.address);
    rig.app("app", vec![machine]).await;
    let stream = tokio::net::TcpStream::connect(rig.at(PORT)).await.unwrap();
    let accepted = tokio::time::timeout(SOON, listener.accept()).await.unwrap();
    assert_eq!(ask(&client(&rig).await, "x").await, "udp x");
    drop((stream, accepted));
}

#[tokio::test]
async fn a_datagram_starts_a_stopped_machine_and_waits_until_it_listens() {
    let rig = Rig::start();
    rig.app("app", vec![down(1, &udp(json!({})))]).await;
    let client = client(&rig).await;
    client.send(b"early").await.unwrap();
    until("it was asked for", || rig.waker.count() == 1).await;
    // It comes up, and its program listens a moment later.
    let address = fresh_address();
    rig.change("app", 1, |machine| come_up(machine, address))
        .await;
    tokio::time::sleep(SHORT).await;
    let _echo = Echo::start_at("here ", address).await;
    let mut bytes = [0; 64];
    let heard = tokio::time::timeout(SOON, client.recv(&mut bytes));
    let count = heard.await.unwrap().unwrap();
    assert_eq!(&bytes[..count], b"here early");
    assert_eq!(*rig.waker.asked.lock().unwrap(), [machine_id(1)]);
}

#[tokio::test]
async fn a_client_is_forgotten_after_silence_and_its_place_is_another_ones() {
    let rig = Rig::start_with(|config| {
        config.limits.datagrams_idle = SHORT;
        config.limits.datagrams_unanswered = SHORT;
    });
    let one = Echo::start("one ").await;
    let service = udp(json!({"concurrency": {"soft_limit": 1, "hard_limit": 1}}));
    rig.app("app", vec![up(1, one.address, &service)]).await;
    let (a, b) = (client(&rig).await, client(&rig).await);
    assert_eq!(ask(&a, "x").await, "one x");
    // It waits for the place, and is answered without asking again.
    b.send(b"y").await.unwrap();
    let mut bytes = [0; 64];
    let heard = tokio::time::timeout(SOON, b.recv(&mut bytes)).await;
    assert_eq!(&bytes[..heard.unwrap().unwrap()], b"one y");
    // Nor does one that is never answered hold a place for ever.
    one.answers.store(false, Ordering::SeqCst);
    a.send(b"x").await.unwrap();
    until("all are forgotten", || rig.proxy.connections() == 0).await;
}

#[tokio::test]
async fn clients_of_a_machine_that_goes_move_to_another_one() {
    let rig = Rig::start_with(|config| config.limits.vanished = SHORT);
    let (one, two) = (Echo::start("one ").await, Echo::start("two ").await);
    let machines = vec![up(1, one.address, &udp(json!({})))];
    rig.app("app", machines.clone()).await;
    let client = client(&rig).await;
    assert_eq!(ask(&client, "x").await, "one x");
    let second = up(2, two.address, &udp(json!({})));
    rig.app("app", [machines, vec![second]].concat()).await;
    rig.set_phase("app", 1, Phase::Draining).await;
    assert_eq!(ask(&client, "x").await, "two x");
    // Its port is closed with the service, and may be had again.
    let bound = at(&rig, PORT);
    rig.app("app", vec![]).await;
    let is_free = || std::net::UdpSocket::bind(bound).is_ok();
    until("the port is free", is_free).await;
    until("all are forgotten", || rig.proxy.connections() == 0).await;
}

#[tokio::test]
async fn no_more_clients_than_places_and_a_flood_of_strangers_ends() {
    let rig = Rig::start_with(|config| {
        config.cores = 1;
        config.limits.connections_per_port = 4;
        config.limits.datagrams_unanswered = SHORT;
        config.limits.datagrams_idle = SHORT;
    });
    let one = Echo::start("one ").await;
    one.answers.store(false, Ordering::SeqCst);
    rig.app("app", vec![up(1, one.address, &udp(json!({})))])
        .await;
    let mut most = 0;
    for _ in 0..50 {
        // Each is a new client.
        client(&rig).await.send(b"flood").await.unwrap();
        most = most.max(rig.proxy.connections());
    }
    assert!(most <= 4, "{most}");
    one.answers.store(true, Ordering::SeqCst);
    assert_eq!(ask(&client(&rig).await, "x").await, "one x");
}

#[tokio::test]
async fn two_apps_on_one_port_of_udp_are_told_so_and_neither_gets_anything() {
    let rig = Rig::start();
    let (one, two) = (Echo::start("one ").await, Echo::start("two ").await);
    rig.app("one", vec![up(1, one.address, &udp(json!({})))])
        .await;
    rig.app("two", vec![up(2, two.address, &udp(json!({})))])
        .await;
    let edge = rig.proxy.edge().borrow().clone();
    assert!(edge.udp_refused[&PORT].contains("several apps"), "{edge:?}");
    let client = client(&rig).await;
    let mut asking = tokio::spawn(async move { ask(&client, "x").await });
    assert!(stays_pending(&mut asking).await);
    asking.abort();
}
