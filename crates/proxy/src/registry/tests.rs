use super::*;
use hangar_api::catalog::{Liveness, MachineRoute};
use hangar_api::id::{GroupName, HostId, Region};

const ADDRESS: std::net::Ipv4Addr = std::net::Ipv4Addr::new(127, 0, 0, 2);

fn at(port: u16) -> (Transport, SocketAddr) {
    (Transport::Tcp, (ADDRESS, port).into())
}

fn id() -> MachineId {
    MachineId::new("0123456789abcd").unwrap()
}

fn machine(phase: Phase, starts: u64) -> CatalogMachine {
    CatalogMachine {
        route: MachineRoute {
            id: id(),
            host: HostId::new("here").unwrap(),
            group: GroupName::app(),
            region: Region::new("iad").unwrap(),
            private_ip: std::net::Ipv6Addr::LOCALHOST,
            metadata: std::collections::BTreeMap::new(),
            skip_dns: false,
            cordoned: false,
            standby: false,
            services: Arc::new([]),
        },
        live: Liveness {
            phase,
            starts,
            address: Some(ADDRESS),
            ..Liveness::default()
        },
    }
}

fn registry() -> (Registry, Instant) {
    (Registry::new(1, Arc::default()), Instant::now())
}

fn load(registry: &Registry, now: Instant) -> Arc<Load> {
    registry.service(&id(), 80, at(80), now).unwrap().load
}

#[tokio::test]
async fn a_snapshot_from_before_a_drain_does_not_open_it_again() {
    let (registry, now) = registry();
    registry.observe(&machine(Phase::Up, 1), now);
    let first = load(&registry, now);
    assert_eq!(
        registry.close(&id(), 1, now + Duration::from_secs(9)).len(),
        1
    );
    registry.observe(&machine(Phase::Up, 1), now);
    assert!(first.is_closed());
    // The drain is seen, and taken back: the same start goes on.
    registry.observe(&machine(Phase::Draining, 1), now);
    registry.observe(&machine(Phase::Up, 1), now);
    assert!(!load(&registry, now).is_closed());
}

#[tokio::test]
async fn a_drain_that_comes_before_the_snapshot_closes_what_the_snapshot_brings() {
    let (registry, now) = registry();
    assert!(
        registry
            .close(&id(), 3, now + Duration::from_secs(9))
            .is_empty()
    );
    registry.observe(&machine(Phase::Up, 3), now);
    assert!(load(&registry, now).is_closed());
    registry.observe(&machine(Phase::Up, 4), now);
    assert!(!load(&registry, now).is_closed());
}

#[tokio::test]
async fn a_new_start_counts_from_zero_and_the_old_one_stays_until_it_is_empty() {
    let (registry, now) = registry();
    registry.observe(&machine(Phase::Up, 1), now);
    let claim = load(&registry, now).claim(None).unwrap();
    registry.observe(&machine(Phase::Up, 2), now);
    assert_eq!(load(&registry, now).in_flight(), 0);
    assert!(claim.load().is_closed());
    assert_eq!(registry.close(&id(), 2, now).len(), 2);
    drop(claim);
    registry.tidy(now);
    assert_eq!(registry.all().len(), 1);
}

#[tokio::test]
async fn a_drain_that_nobody_followed_runs_out() {
    let (registry, now) = registry();
    registry.observe(&machine(Phase::Up, 1), now);
    let first = load(&registry, now);
    registry.close(&id(), 1, now + Duration::from_secs(9));
    assert!(!registry.tidy(now));
    let later = now + Duration::from_secs(10);
    assert!(registry.tidy(later));
    registry.observe(&machine(Phase::Up, 1), later);
    assert!(!first.is_closed());
}

#[tokio::test]
async fn a_start_that_goes_on_after_its_connections_were_cut_has_another_load() {
    let (registry, now) = registry();
    registry.observe(&machine(Phase::Up, 1), now);
    let first = load(&registry, now);
    let frozen = first.claim(None).unwrap();
    registry.close(&id(), 1, now + Duration::from_secs(9));
    first.cut.cancel();
    registry.observe(&machine(Phase::Suspended, 1), now);
    registry.reopen(&id(), 1);
    registry.observe(&machine(Phase::Up, 1), now);
    let second = load(&registry, now);
    assert!(!second.is_cut() && !second.is_closed());
    assert!(first.is_closed(), "what is left of it ends");
    drop(frozen);
}

#[tokio::test]
async fn only_what_is_idle_is_closed_and_may_be_opened_again() {
    let (registry, now) = registry();
    registry.observe(&machine(Phase::Up, 1), now);
    let until = now + Duration::from_secs(9);
    let (one, other) = (load(&registry, now), || {
        registry.service(&id(), 81, at(81), now).unwrap().load
    });
    let claim = other().claim(None).unwrap();
    assert!(!registry.close_if_idle(&id(), 1, until));
    assert!(!one.is_closed() && !other().is_closed());
    drop(claim);
    assert!(!registry.close_if_idle(&id(), 2, until), "another start");
    assert!(registry.close_if_idle(&id(), 1, until));
    assert!(one.is_closed() && one.claim(None).is_err());
    // A snapshot from before does not open it; who closed it does.
    registry.observe(&machine(Phase::Up, 1), now);
    assert!(one.is_closed());
    registry.reopen(&id(), 1);
    assert!(one.claim(None).is_ok());
}
