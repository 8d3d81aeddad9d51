//! Soft and hard limits, regions and health.

use std::sync::atomic::Ordering;

use hangar_api::catalog::LiveService;
use hangar_api::id::Region;
use hyper::StatusCode;
use serde_json::json;

use crate::rig::{Rig, SOON, Server, stays_pending, until, up, web, web_with};

#[tokio::test]
async fn the_soft_limit_spreads_and_at_the_hard_limit_requests_wait_in_line() {
    let rig = Rig::start();
    let (one, two) = (Server::start("one").await, Server::start("two").await);
    let service = web_with(json!({"type": "requests", "soft_limit": 1, "hard_limit": 2}));
    rig.app(
        "app",
        vec![up(1, one.address, &service), up(2, two.address, &service)],
    )
    .await;
    let client = rig.client("app");
    let mut running = Vec::new();
    for count in 1..=4_usize {
        running.push(client.spawn_get("/slow"));
        until("the request is there", || one.slow() + two.slow() == count).await;
        if count == 2 {
            assert_eq!((one.slow(), two.slow()), (1, 1));
        }
    }
    assert_eq!((one.slow(), two.slow()), (2, 2));
    let mut fifth = client.spawn_get("/");
    assert!(stays_pending(&mut fifth).await);
    one.state.gate.add_permits(1);
    let answer = tokio::time::timeout(SOON, fifth).await.unwrap().unwrap();
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (StatusCode::OK, "one")
    );
    one.state.gate.add_permits(9);
    two.state.gate.add_permits(9);
    for task in running {
        assert_eq!(task.await.unwrap().status, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_hard_limit_is_the_process_s_and_not_a_core_s() {
    let rig = Rig::start_with(|config| config.cores = 4);
    let one = Server::start("one").await;
    let service = web_with(json!({"type": "requests", "hard_limit": 3}));
    rig.app("app", vec![up(1, one.address, &service)]).await;
    let client = rig.client("app");
    let tasks: Vec<_> = (0..60).map(|_| client.spawn_get("/slow")).collect();
    until("the machine is full", || one.slow() == 3).await;
    one.state.gate.add_permits(60);
    for task in tasks {
        let answer = tokio::time::timeout(SOON, task).await.unwrap().unwrap();
        assert_eq!(answer.status, StatusCode::OK);
    }
    assert_eq!(one.state.most_slow.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_full_service_answers_503_after_the_hold_and_at_once_when_too_many_wait() {
    let rig = Rig::start_with(|config| {
        config.limits.hold = std::time::Duration::from_millis(300);
        config.limits.held_per_service = 1;
    });
    let one = Server::start("one").await;
    let service = web_with(json!({"type": "requests", "hard_limit": 1}));
    rig.app("app", vec![up(1, one.address, &service)]).await;
    let client = rig.client("app");
    let first = client.spawn_get("/slow");
    until("the machine is full", || one.slow() == 1).await;
    let (second, third) = tokio::join!(client.get("/"), client.get("/"));
    let mut bodies = [second.body, third.body];
    bodies.sort();
    assert_eq!(second.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(second.headers["retry-after"], "1");
    assert!(bodies[0].contains("[PL02]"), "{bodies:?}");
    assert!(bodies[1].contains("[PR04] too many"), "{bodies:?}");
    one.state.gate.add_permits(1);
    assert_eq!(first.await.unwrap().status, StatusCode::OK);
    assert_eq!(client.get("/").await.body, "one");
}

#[tokio::test]
async fn another_region_is_used_only_when_the_near_ones_are_full_or_unhealthy() {
    let rig = Rig::start_with(|config| config.regions = vec![Region::new("iad").unwrap()]);
    let (near, far) = (Server::start("near").await, Server::start("far").await);
    let service = web_with(json!({"type": "requests", "soft_limit": 1, "hard_limit": 2}));
    let mut far_machine = up(2, far.address, &service);
    far_machine.route.region = Region::new("gru").unwrap();
    rig.app("app", vec![up(1, near.address, &service), far_machine])
        .await;
    let client = rig.client("app");
    let tasks = [client.spawn_get("/slow"), client.spawn_get("/slow")];
    until("both are near", || near.slow() == 2).await;
    assert_eq!(client.get("/").await.body, "far");
    near.state.gate.add_permits(2);
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(client.get("/").await.body, "near");
    rig.change("app", 1, |machine| {
        let service = machine.live.services[0].service.clone();
        let healthy = false;
        machine.live.services = [LiveService { service, healthy }].into();
    })
    .await;
    assert_eq!(client.get("/").await.body, "far");
}

#[tokio::test]
async fn a_service_whose_checks_all_fail_answers_503_in_words() {
    let rig = Rig::start();
    let one = Server::start("one").await;
    rig.app("app", vec![up(1, one.address, &web())]).await;
    assert_eq!(rig.client("app").get("/").await.body, "one");
    rig.change("app", 1, |machine| {
        let service = machine.live.services[0].service.clone();
        let healthy = false;
        machine.live.services = [LiveService { service, healthy }].into();
    })
    .await;
    let answer = rig.client("app").get("/").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        answer.body.contains("no healthy machine"),
        "{}",
        answer.body
    );
}
