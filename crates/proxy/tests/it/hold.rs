//! Requests that wait for a Machine.

use std::time::Duration;

use hangar_api::catalog::{CatalogMachine, LiveService, Phase};
use hyper::StatusCode;
use tokio::time::Instant;

use crate::rig::{Rig, SOON, Server, come_up, down, stays_pending, up, web};

#[tokio::test]
async fn a_request_is_held_while_the_only_machine_is_coming() {
    let rig = Rig::start();
    let one = Server::start("one").await;
    let mut machine = down(1, &web());
    machine.live.phase = Phase::Coming;
    rig.app("app", vec![machine]).await;
    let mut tasks: Vec<_> = (0..20).map(|_| rig.client("app").spawn_get("/")).collect();
    assert!(stays_pending(&mut tasks[0]).await);
    rig.change("app", 1, |machine| come_up(machine, one.address))
        .await;
    for task in tasks {
        let answer = tokio::time::timeout(SOON, task).await.unwrap().unwrap();
        assert_eq!(answer.body, "one");
    }
}

#[tokio::test]
async fn a_request_is_held_until_the_first_check_of_the_only_machine_passes() {
    let rig = Rig::start();
    let one = Server::start("one").await;
    let mut machine = up(1, one.address, &web());
    let service = web();
    machine.live.services = [LiveService {
        service,
        healthy: false,
    }]
    .into();
    rig.app("app", vec![machine]).await;
    let mut task = rig.client("app").spawn_get("/");
    assert!(stays_pending(&mut task).await);
    assert_eq!(one.requests(), 0);
    rig.change("app", 1, |machine| {
        let service = web();
        machine.live.services = [LiveService {
            service,
            healthy: true,
        }]
        .into();
    })
    .await;
    assert_eq!(task.await.unwrap().body, "one");
}

#[tokio::test]
async fn a_machine_that_was_up_before_the_proxy_has_little_time_for_its_first_checks() {
    let rig = Rig::start_with(|config| {
        config.limits.first_checks = Duration::from_millis(100);
    });
    let one = Server::start("one").await;
    let failing = |machine: &mut CatalogMachine| {
        let service = web();
        machine.live.services = [LiveService {
            service,
            healthy: false,
        }]
        .into();
    };
    let mut machine = up(1, one.address, &web());
    failing(&mut machine);
    rig.app("app", vec![machine]).await;
    let answer = tokio::time::timeout(SOON, rig.client("app").spawn_get("/"));
    let answer = answer.await.unwrap().unwrap();
    assert!(answer.body.contains("checks"), "{}", answer.body);
    // One that comes up now has the usual time.
    rig.change("app", 1, |machine| {
        come_up(machine, one.address);
        failing(machine);
    })
    .await;
    let mut task = rig.client("app").spawn_get("/");
    assert!(stays_pending(&mut task).await);
    assert!(stays_pending(&mut task).await);
    task.abort();
}

#[tokio::test]
async fn a_request_is_held_while_the_only_machine_is_replaced() {
    let rig = Rig::start();
    let old = Server::start("old").await;
    rig.app("app", vec![up(1, old.address, &web())]).await;
    assert_eq!(rig.client("app").get("/").await.body, "old");
    rig.set_phase("app", 1, Phase::Draining).await;
    let mut task = rig.client("app").spawn_get("/");
    assert!(stays_pending(&mut task).await);
    let address = old.address;
    drop(old);
    rig.set_phase("app", 1, Phase::Coming).await;
    assert!(stays_pending(&mut task).await);
    let new = Server::start_at("new", address).await;
    rig.change("app", 1, |machine| come_up(machine, new.address))
        .await;
    assert_eq!(task.await.unwrap().body, "new");
}

#[tokio::test]
async fn a_request_is_refused_at_once_when_no_machine_can_come() {
    let rig = Rig::start();
    let service = crate::rig::service(serde_json::json!({
        "internal_port": Server::PORT,
        "autostart": false,
        "ports": [{"port": 8080, "handlers": ["http"]}],
    }));
    rig.app("app", vec![down(1, &service)]).await;
    let began = Instant::now();
    let answer = rig.client("app").get("/").await;
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.body.contains("stopped"), "{}", answer.body);
    assert_eq!(rig.waker.count(), 0);
}

#[tokio::test]
async fn the_hold_ends_with_503_when_nothing_came() {
    let rig = Rig::start_with(|config| config.limits.hold = Duration::from_millis(200));
    let mut machine = down(1, &web());
    machine.live.phase = Phase::Coming;
    rig.app("app", vec![machine]).await;
    let answer = rig.client("app").get("/").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.body.contains("[PR04]"), "{}", answer.body);
}

#[tokio::test]
async fn a_service_that_vanished_a_moment_ago_is_waited_for() {
    let rig = Rig::start();
    let one = Server::start("one").await;
    rig.app("app", vec![up(1, one.address, &web())]).await;
    rig.app("app", vec![]).await;
    let mut task = rig.client("app").spawn_get("/");
    assert!(stays_pending(&mut task).await);
    rig.app("app", vec![up(2, one.address, &web())]).await;
    assert_eq!(task.await.unwrap().body, "one");
}

#[tokio::test]
async fn a_service_that_stays_away_is_given_up_and_its_port_is_closed() {
    let rig = Rig::start_with(|config| config.limits.vanished = Duration::from_millis(100));
    let one = Server::start("one").await;
    rig.app("app", vec![up(1, one.address, &web())]).await;
    let client = rig.client("app");
    rig.app("app", vec![]).await;
    let answer = client.get("/").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    let mut edge = rig.proxy.edge();
    let closed = edge.wait_for(|edge| edge.ports.is_empty());
    tokio::time::timeout(SOON, closed).await.unwrap().unwrap();
    let refused = async { while client.connect().await.is_ok() {} };
    tokio::time::timeout(SOON, refused).await.unwrap();
}
