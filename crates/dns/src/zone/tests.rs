use std::collections::BTreeMap;
use std::sync::Arc;

use hangar_api::catalog::{Liveness, MachineRoute};
use hangar_api::id::{GroupName, HostId, MachineId};
use hangar_api::net::{HostPart, address};
use proptest::prelude::*;

use super::*;

const MINE: NetworkId = NetworkId(1);
const OTHER: NetworkId = NetworkId(2);

fn machine(
    network: NetworkId,
    id: &str,
    group: &str,
    region: &str,
    phase: Phase,
) -> CatalogMachine {
    let id = MachineId::new(id).unwrap();
    CatalogMachine {
        route: MachineRoute {
            private_ip: address(network, HostPart(1), &id),
            id,
            host: HostId::new("here").unwrap(),
            group: GroupName::new(group).unwrap(),
            region: Region::new(region).unwrap(),
            metadata: BTreeMap::new(),
            skip_dns: false,
            cordoned: false,
            standby: false,
            services: Arc::new([]),
        },
        live: Liveness {
            phase,
            ..Liveness::default()
        },
    }
}

fn app(name: &str, network: NetworkId, machines: Vec<CatalogMachine>) -> Catalog {
    let name = AppName::new(name).unwrap();
    let app = CatalogApp {
        name: name.clone(),
        network,
        primary_region: None,
        deploying_until: None,
        hostnames: vec![],
        machines: machines.into_iter().map(Arc::new).collect(),
    };
    Catalog {
        revision: 1,
        routes: 1,
        apps: BTreeMap::from([(name, Arc::new(app))]),
    }
}

/// An app `shop` with web in two regions, a stopped worker, and a hidden and a draining Machine.
fn shop() -> Catalog {
    let mut labelled = machine(MINE, "00000000000001", "web", "iad", Phase::Up);
    labelled.route.metadata = BTreeMap::from([("Role".to_owned(), "v1.Primary".to_owned())]);
    let mut hidden = machine(MINE, "00000000000004", "web", "iad", Phase::Up);
    hidden.route.skip_dns = true;
    let mut catalog = app(
        "shop",
        MINE,
        vec![
            labelled,
            machine(MINE, "00000000000002", "web", "gru", Phase::Up),
            machine(MINE, "00000000000003", "worker", "gru", Phase::Down),
            hidden,
            machine(MINE, "00000000000005", "cron", "iad", Phase::Draining),
        ],
    );
    let strangers = vec![machine(OTHER, "00000000000009", "app", "iad", Phase::Up)];
    catalog
        .apps
        .append(&mut app("strangers", OTHER, strangers).apps);
    catalog
}

fn ask_as(machine: u64, name: &str, kind: Kind) -> Answer {
    let id = MachineId::new(format!("{machine:014x}")).unwrap();
    let asker = Asker {
        network: MINE,
        address: address(MINE, HostPart(1), &id).into(),
    };
    let labels = name.split('.').map(str::to_owned).collect();
    answer(&shop(), &asker, &Question { labels, kind }, 7)
}

/// Returns the machine numbers in the answer, sorted.
fn numbers(name: &str) -> Option<Vec<u16>> {
    match ask_as(1, name, Kind::Aaaa) {
        Answer::Found(data) => {
            let mut all: Vec<u16> = data.iter().map(number).collect();
            all.sort_unstable();
            Some(all)
        }
        _ => None,
    }
}

fn number(data: &Data) -> u16 {
    match data {
        Data::Address(address) => address.segments()[6],
        Data::Text(text) => panic!("an address was expected, not {text}"),
    }
}

fn text(name: &str) -> Option<String> {
    match ask_as(1, name, Kind::Txt) {
        Answer::Found(data) => Some(
            data.into_iter()
                .map(|d| match d {
                    Data::Text(text) => text,
                    Data::Address(address) => panic!("a text was expected, not {address}"),
                })
                .collect(),
        ),
        _ => None,
    }
}

#[test]
fn an_app_is_its_machines_that_are_up_and_not_hidden() {
    assert_eq!(numbers("shop.internal"), Some(vec![1, 2]));
    assert_eq!(numbers("global.shop.internal"), Some(vec![1, 2]));
}

#[test]
fn a_group_a_region_a_machine_and_metadata_have_names() {
    assert_eq!(numbers("web.process.shop.internal"), Some(vec![1, 2]));
    assert_eq!(numbers("gru.shop.internal"), Some(vec![2]));
    assert_eq!(numbers("00000000000001.vm.shop.internal"), Some(vec![1]));
    assert_eq!(
        numbers("v1.primary.role.kv._metadata.shop.internal"),
        Some(vec![1])
    );
    assert_eq!(numbers("primary.role.kv._metadata.shop.internal"), None);
}

#[test]
fn what_is_stopped_or_draining_exists_and_has_no_address() {
    assert_eq!(numbers("worker.process.shop.internal"), Some(vec![]));
    assert_eq!(numbers("00000000000003.vm.shop.internal"), Some(vec![]));
    assert_eq!(numbers("cron.process.shop.internal"), Some(vec![]));
}

#[test]
fn what_nothing_answers_to_does_not_exist() {
    for name in [
        "nothing.internal",
        "db.process.shop.internal",
        "fra.shop.internal",
        "00000000000004.vm.shop.internal",
        "00000000000009.vm.shop.internal",
        "a.b.shop.internal",
        "top0.nearest.of.shop.internal",
        "topless.nearest.of.shop.internal",
        "web.process.strangers.internal",
        "strangers.internal",
        "_peer.internal",
        "shop.flycast",
        "8.b.d.0.1.0.0.2.a.a.d.f.ip6.arpa",
    ] {
        assert_eq!(ask_as(1, name, Kind::Aaaa), Answer::NoSuchName, "{name}");
    }
}

#[test]
fn a_name_with_addresses_has_no_ipv4_and_still_exists() {
    assert_eq!(
        ask_as(1, "shop.internal", Kind::Other),
        Answer::Found(vec![])
    );
    assert_eq!(ask_as(1, "shop.internal", Kind::Txt), Answer::Found(vec![]));
    assert_eq!(ask_as(1, "internal", Kind::Aaaa), Answer::Found(vec![]));
    assert_eq!(
        ask_as(1, "process.shop.internal", Kind::Aaaa),
        Answer::Found(vec![])
    );
}

#[test]
fn names_outside_are_for_others() {
    for name in ["example.org", "internal.example.org", "com", ""] {
        assert_eq!(ask_as(1, name, Kind::Aaaa), Answer::Elsewhere, "{name}");
    }
}

#[test]
fn the_nearest_are_of_the_askers_region() {
    for (asker, nearest) in [(1, 1), (2, 2), (3, 2)] {
        let Answer::Found(data) = ask_as(asker, "top1.nearest.of.shop.internal", Kind::Aaaa) else {
            panic!("the name exists");
        };
        assert_eq!(data.iter().map(number).collect::<Vec<_>>(), [nearest]);
    }
    assert_eq!(numbers("top5.nearest.of.shop.internal"), Some(vec![1, 2]));
}

#[test]
fn lists_are_texts() {
    let up = "00000000000001 iad,00000000000002 gru";
    assert_eq!(text("vms.shop.internal").unwrap(), up);
    let all = format!("{up},00000000000003 gru,00000000000005 iad");
    assert_eq!(text("all.vms.shop.internal").unwrap(), all);
    assert_eq!(text("regions.shop.internal").unwrap(), "gru,iad");
    assert_eq!(text("_apps.internal").unwrap(), "shop");
    let instances = text("_instances.internal").unwrap();
    assert!(
        instances
            .starts_with("instance=00000000000001,app=shop,ip=fdaa:0:1:a7b:1:0:1:2,region=iad;"),
        "{instances}"
    );
    assert_eq!(instances.split(';').count(), 2);
    assert_eq!(
        text("all._instances.internal").unwrap().split(';').count(),
        4
    );
}

#[test]
fn the_api_has_an_address_for_everybody() {
    for (kind, data) in [
        (Kind::Aaaa, vec![Data::Address(RESOLVER)]),
        (Kind::Txt, vec![]),
    ] {
        let asker = Asker {
            network: OTHER,
            address: Ipv6Addr::LOCALHOST.into(),
        };
        let question = Question {
            labels: vec!["_api".to_owned(), "internal".to_owned()],
            kind,
        };
        let found = answer(&Catalog::default(), &asker, &question, 1);
        assert_eq!(found, Answer::Found(data));
    }
}

#[test]
fn every_machine_comes_first_about_as_often() {
    let ids = (1..=5).map(|n| machine(MINE, &format!("{n:014x}"), "app", "iad", Phase::Up));
    let catalog = app("spread", MINE, ids.collect());
    let asker = Asker {
        network: MINE,
        address: Ipv6Addr::LOCALHOST.into(),
    };
    let question = Question {
        labels: vec!["spread".to_owned(), "internal".to_owned()],
        kind: Kind::Aaaa,
    };
    let mut first = BTreeMap::<u16, u32>::new();
    for seed in 0..5_000 {
        let Answer::Found(data) = answer(&catalog, &asker, &question, seed) else {
            panic!("the name exists");
        };
        assert_eq!(data.len(), 5);
        *first.entry(number(&data[0])).or_default() += 1;
    }
    assert!(
        first.values().all(|n| (850..1_150).contains(n)),
        "{first:?}"
    );
}

#[test]
fn a_list_that_is_too_long_is_cut_at_an_entry() {
    let entries = (0..10_000).map(|n| format!("entry-{n:04}"));
    let text = join(entries, ",");
    assert!(text.len() <= MAX_TEXT && text.len() > MAX_TEXT - 20);
    assert!(text.split(',').all(|entry| entry.len() == 10));
}

proptest! {
    #[test]
    fn no_name_leads_into_another_network(
        labels in prop::collection::vec(
            prop_oneof![
                Just("internal".to_owned()), Just("strangers".to_owned()), Just("_instances".to_owned()),
                Just("all".to_owned()), Just("vm".to_owned()), Just("process".to_owned()),
                Just("app".to_owned()), Just("00000000000009".to_owned()), Just("of".to_owned()),
                Just("nearest".to_owned()), Just("top9".to_owned()), Just("_metadata".to_owned()),
                Just("kv".to_owned()), "[a-z0-9.]{0,8}",
            ],
            0..6,
        ),
        seed: u64,
    ) {
        let asker = Asker { network: MINE, address: Ipv6Addr::LOCALHOST.into() };
        for kind in [Kind::Aaaa, Kind::Txt, Kind::Any, Kind::Other] {
            let question = Question { labels: labels.clone(), kind };
            if let Answer::Found(data) = answer(&shop(), &asker, &question, seed) {
                for one in data {
                    match one {
                        Data::Address(ip) => prop_assert_eq!(hangar_api::net::network_of(ip), Some(MINE)),
                        Data::Text(text) => prop_assert!(!text.contains("00000000000009"), "{}", text),
                    }
                }
            }
        }
    }
}
