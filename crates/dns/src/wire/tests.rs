use std::collections::BTreeMap;
use std::sync::Arc;

use hangar_api::catalog::{CatalogApp, CatalogMachine, Liveness, MachineRoute, Phase};
use hangar_api::id::{AppName, GroupName, HostId, MachineId, Region};
use hangar_api::net::{HostPart, address};
use hickory_proto::op::Query;
use proptest::prelude::*;

use super::*;

const NETWORK: NetworkId = NetworkId(1);

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
        revision: 1,
        routes: 1,
        apps: BTreeMap::from([(name, Arc::new(app))]),
    }
}

fn machine() -> Asker {
    asker("fdaa:0:1:a7b:1:0:1:2".parse().unwrap()).unwrap()
}

fn request(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.id = 0x1234;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn ask(machines: u32, request: &Message, transport: Transport) -> (Message, usize) {
    let packet = request.to_vec().unwrap();
    match respond(&catalog(machines), Some(&machine()), &packet, transport, 1) {
        Reply::Send(bytes) => (Message::from_vec(&bytes).unwrap(), bytes.len()),
        other => panic!("an answer was expected, not {other:?}"),
    }
}

#[test]
fn an_answer_says_that_it_is_one_and_how_long_it_holds() {
    let (answer, _) = ask(
        2,
        &request("Shop.INTERNAL.", RecordType::AAAA),
        Transport::Udp,
    );
    assert_eq!(answer.metadata.id, 0x1234);
    assert_eq!(answer.metadata.message_type, MessageType::Response);
    assert!(answer.metadata.authoritative && answer.metadata.recursion_available);
    assert!(answer.metadata.recursion_desired);
    assert_eq!(answer.answers.len(), 2);
    assert!(answer.answers.iter().all(|record| record.ttl == TTL));
    assert_eq!(answer.queries[0].name().to_ascii(), "Shop.INTERNAL.");
}

#[test]
fn nothing_of_this_kind_and_no_such_name_are_told_apart() {
    let (nothing, _) = ask(1, &request("shop.internal.", RecordType::A), Transport::Udp);
    assert_eq!(nothing.metadata.response_code, ResponseCode::NoError);
    assert!(nothing.answers.is_empty());
    let (missing, _) = ask(
        1,
        &request("shops.internal.", RecordType::AAAA),
        Transport::Udp,
    );
    assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
    for answer in [nothing, missing] {
        assert_eq!(answer.authorities[0].ttl, NEGATIVE_TTL);
        assert_eq!(answer.authorities[0].record_type(), RecordType::SOA);
    }
}

#[test]
fn a_long_answer_is_cut_by_udp_and_whole_by_tcp() {
    let plain = request("shop.internal.", RecordType::AAAA);
    let (answer, size) = ask(100, &plain, Transport::Udp);
    assert!(answer.metadata.truncation && size <= 512);
    assert!(
        (10..=17).contains(&answer.answers.len()),
        "{}",
        answer.answers.len()
    );

    let mut large = plain.clone();
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    large.set_edns(edns);
    let (answer, size) = ask(100, &large, Transport::Udp);
    assert!(answer.metadata.truncation && size <= usize::from(LARGEST_UDP));
    assert!(answer.answers.len() > 30 && answer.edns.is_some());
    let (answer, _) = ask(20, &large, Transport::Udp);
    assert!(!answer.metadata.truncation && answer.answers.len() == 20);

    let (answer, _) = ask(100, &plain, Transport::Tcp);
    assert!(!answer.metadata.truncation && answer.answers.len() == 100);
}

#[test]
fn ten_thousand_machines_still_make_an_answer() {
    let (answer, _) = ask(
        10_000,
        &request("shop.internal.", RecordType::AAAA),
        Transport::Tcp,
    );
    assert_eq!(answer.answers.len(), zone::MAX_ADDRESSES);
    let (answer, _) = ask(
        10_000,
        &request("vms.shop.internal.", RecordType::TXT),
        Transport::Tcp,
    );
    assert_eq!(answer.answers.len(), 1);
    let (answer, size) = ask(
        10_000,
        &request("vms.shop.internal.", RecordType::TXT),
        Transport::Udp,
    );
    assert!(answer.metadata.truncation && answer.answers.is_empty() && size <= 512);
}

#[test]
fn a_stranger_is_refused_and_other_names_are_passed_on() {
    let packet = request("shop.internal.", RecordType::AAAA)
        .to_vec()
        .unwrap();
    let Reply::Send(bytes) = respond(&catalog(1), None, &packet, Transport::Udp, 1) else {
        panic!("a refusal was expected");
    };
    let refusal = Message::from_vec(&bytes).unwrap();
    assert_eq!(refusal.metadata.response_code, ResponseCode::Refused);
    assert!(refusal.answers.is_empty());

    let packet = request("example.org.", RecordType::A).to_vec().unwrap();
    let reply = respond(&catalog(1), Some(&machine()), &packet, Transport::Udp, 1);
    let Reply::Forward { otherwise } = reply else {
        panic!("the name is for others");
    };
    let failure = Message::from_vec(&otherwise).unwrap();
    assert_eq!(failure.metadata.response_code, ResponseCode::ServFail);
}

#[test]
fn only_addresses_of_a_private_network_ask_for_one() {
    for stranger in [
        "fdaa::3",
        "fdaa:0:0:a7b::2",
        "fd00::1",
        "::1",
        "172.30.0.2",
        "fe80::2",
    ] {
        assert_eq!(asker(stranger.parse().unwrap()), None, "{stranger}");
    }
    assert_eq!(machine().network, NETWORK);
}

#[test]
fn requests_that_are_none_get_a_fault_or_silence() {
    let code = |message: &Message| ask(1, message, Transport::Udp).0.metadata.response_code;
    let good = request("shop.internal.", RecordType::AAAA);

    let mut update = good.clone();
    update.metadata.op_code = OpCode::Update;
    assert_eq!(code(&update), ResponseCode::NotImp);
    let mut two = good.clone();
    two.queries.push(good.queries[0].clone());
    assert_eq!(code(&two), ResponseCode::FormErr);
    let mut none = good.clone();
    none.queries.clear();
    assert_eq!(code(&none), ResponseCode::FormErr);
    assert_eq!(
        code(&request("internal.", RecordType::AXFR)),
        ResponseCode::Refused
    );
    let mut newer = good.clone();
    let mut edns = Edns::new();
    edns.set_version(1);
    newer.set_edns(edns);
    assert_eq!(u16::from(code(&newer)), u16::from(ResponseCode::BADVERS));

    let mut answer = good.to_vec().unwrap();
    answer[2] |= 0x80;
    for packet in [&answer[..], &[], &[0; 11]] {
        let reply = respond(&catalog(1), Some(&machine()), packet, Transport::Udp, 1);
        assert_eq!(reply, Reply::Ignore);
    }
}

#[test]
fn an_answer_from_another_resolver_must_be_to_our_question() {
    let ours = request("example.org.", RecordType::A);
    let mut reply = ours.clone();
    reply.metadata.message_type = MessageType::Response;
    let ours = ours.to_vec().unwrap();
    assert!(answers(&ours, &reply.to_vec().unwrap()));
    let mut other_id = reply.clone();
    other_id.metadata.id = 1;
    let mut other_name = reply.clone();
    other_name.queries[0].name = Name::from_ascii("example.com.").unwrap();
    for wrong in [other_id, other_name] {
        assert!(!answers(&ours, &wrong.to_vec().unwrap()));
    }
    assert!(!answers(&ours, &ours));
    assert!(!answers(&ours, &[]));
}

/// Packets that have broken resolvers: loops and jumps of compressed names, counts that lie,
/// labels that go past the end, options that are cut.
const CORPUS: [&[u8]; 8] = [
    b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\xc0\x0c\0\x1c\0\x01",
    b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\xc0\xff\0\x1c\0\x01",
    b"\0\x01\x01\0\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x3fabc",
    b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x08\xff\xfe\xfd\xfc\0..\n\x08internal\0\0\x1c\0\x01",
    b"\0\x01\x01\0\0\x01\0\0\0\0\0\x01\x04shop\x08internal\0\0\x1c\0\x01\0\0\x29\0\0\0\0\0\0\0\xff",
    b"\0\x01\x01\0\0\x01\0\0\0\0\0\x01\x04shop\x08internal\0\0\x1c\0\x01\0\0\x29\0\0\0\0\0\0\0\0",
    b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x80abc\0\0\x1c\0\x01",
];

fn bears(packet: &[u8]) {
    for (transport, most) in [
        (Transport::Udp, usize::from(LARGEST_UDP)),
        (Transport::Tcp, 65_535),
    ] {
        for who in [None, Some(machine())] {
            match respond(&catalog(3), who.as_ref(), packet, transport, 1) {
                Reply::Send(bytes) | Reply::Forward { otherwise: bytes } => {
                    assert!(bytes.len() <= most);
                    assert_eq!(bytes[..2], packet[..2], "the id is the asker's");
                    assert_eq!(bytes[2] & 0x80, 0x80, "it is an answer");
                }
                Reply::Ignore => {}
            }
        }
    }
}

#[test]
fn packets_that_broke_others_do_no_harm() {
    CORPUS.into_iter().for_each(bears);
}

proptest! {
    #[test]
    fn any_bytes_do_no_harm(packet in prop::collection::vec(any::<u8>(), 0..600)) {
        bears(&packet);
        let _either = answers(&packet, &packet);
    }

    #[test]
    fn a_request_with_any_byte_changed_does_no_harm(
        at in 0_usize..64, to: u8, kind in prop_oneof![Just(RecordType::AAAA), Just(RecordType::TXT)],
        cut in 12_usize..64,
    ) {
        let mut message = request("web.process.shop.internal.", kind);
        message.set_edns(Edns::new());
        let mut packet = message.to_vec().unwrap();
        let length = packet.len();
        packet[at % length] = to;
        bears(&packet);
        bears(&packet[..cut.min(length)]);
    }
}
