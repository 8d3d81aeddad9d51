//! Machines that nobody uses are brought to rest, and never one that somebody does.

use std::time::Duration;

use hangar_api::Timestamp;
use hangar_api::catalog::Phase;
use hangar_api::machine::Service;

use crate::rig::{Rig, Server, come_up, machine_id, service, stays_pending, until, up};

const EVERY: Duration = Duration::from_millis(20);

fn idle_service(autostop: &str, min: u32) -> Service {
    service(serde_json::json!({
        "internal_port": Server::PORT,
        "autostop": autostop,
        "min_machines_running": min,
        "concurrency": {"type": "requests", "soft_limit": 2},
        "ports": [{"port": 8080, "handlers": ["http"]}],
    }))
}

fn looking() -> Rig {
    Rig::start_with(|config| config.autostop_every = EVERY)
}

/// Waits for some looks: long enough for a mistake to show.
async fn some_looks() {
    tokio::time::sleep(EVERY * 8).await;
}

#[tokio::test]
async fn idle_machines_go_one_after_the_other_down_to_the_minimum() {
    let rig = looking();
    let one = Server::start("one").await;
    let web = idle_service("suspend", 1);
    let machines = (1..=3).map(|n| up(n, one.address, &web)).collect();
    rig.app("app", machines).await;
    until("two are asked to rest", || rig.waker.rested().len() == 2).await;
    some_looks().await;
    // Each was asked once, though the Catalog shows nothing of it yet.
    assert_eq!(rig.waker.rested(), [machine_id(3), machine_id(2)]);
    rig.set_phase("app", 3, Phase::Suspended).await;
    rig.set_phase("app", 2, Phase::Draining).await;
    some_looks().await;
    assert_eq!(rig.waker.rested().len(), 2);
    let last = rig.waker.idle.lock().unwrap().last().unwrap().clone();
    assert!(last.suspend);
    assert_eq!((last.starts, last.left, last.all), (1, 1, 3));
    assert_eq!(rig.client("app").get("/").await.body, "one");
}

#[tokio::test]
async fn one_that_is_in_use_or_was_a_moment_ago_goes_on() {
    let rig = Rig::start_with(|config| config.autostop_every = Duration::from_millis(100));
    let one = Server::start("one").await;
    let web = idle_service("stop", 0);
    rig.app("app", vec![up(1, one.address, &web)]).await;
    // The look before the first request may have been the second one.
    let mut slow = rig.client("app").spawn_get("/slow");
    assert!(stays_pending(&mut slow).await && stays_pending(&mut slow).await);
    assert_eq!(rig.waker.rested(), []);
    slow.abort();
    for _ in 0..10 {
        assert_eq!(rig.client("app").get("/").await.body, "one");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    assert_eq!(rig.waker.rested(), []);
    until("it rests once nobody comes", || {
        rig.waker.rested() == [machine_id(1)]
    })
    .await;
    // What comes now is held, and served when it is up again.
    let mut held = rig.client("app").spawn_get("/");
    assert!(stays_pending(&mut held).await);
    rig.set_phase("app", 1, Phase::Draining).await;
    rig.set_phase("app", 1, Phase::Down).await;
    until("it is woken", || rig.waker.count() == 1).await;
    rig.change("app", 1, |machine| come_up(machine, one.address))
        .await;
    assert_eq!(held.await.unwrap().body, "one");
}

#[tokio::test]
async fn one_that_the_host_keeps_is_open_again_and_the_next_one_is_tried() {
    let rig = looking();
    let one = Server::start("one").await;
    let web = idle_service("stop", 1);
    let machines = (1..=2).map(|n| up(n, one.address, &web)).collect();
    rig.waker.refuse.lock().unwrap().push(machine_id(2));
    rig.app("app", machines).await;
    until("both were asked", || {
        rig.waker
            .rested()
            .starts_with(&[machine_id(2), machine_id(1)])
    })
    .await;
    rig.set_phase("app", 1, Phase::Down).await;
    assert_eq!(rig.client("app").get("/").await.body, "one");
    assert_eq!(rig.waker.count(), 0, "the other one is not needed");
}

#[tokio::test]
async fn one_that_goes_on_after_its_drain_is_used_at_once() {
    use hangar_api::seam::Drain as _;
    let rig = Rig::start();
    let one = Server::start("one").await;
    rig.app("app", vec![up(1, one.address, &idle_service("suspend", 0))])
        .await;
    let id = machine_id(1);
    rig.proxy
        .drained(id.clone(), 1, Duration::from_secs(30))
        .await;
    let mut held = rig.client("app").spawn_get("/");
    assert!(stays_pending(&mut held).await);
    rig.proxy.reopened(&id, 1);
    assert_eq!(held.await.unwrap().body, "one");
    // Also where the rest was seen, and the drain was later than that.
    rig.set_phase("app", 1, Phase::Suspended).await;
    rig.proxy
        .drained(id.clone(), 1, Duration::from_secs(30))
        .await;
    rig.proxy.reopened(&id, 1);
    rig.set_phase("app", 1, Phase::Up).await;
    assert_eq!(rig.client("app").get("/").await.body, "one");
}

#[tokio::test]
async fn an_app_that_is_being_deployed_a_cordoned_machine_and_autostop_off_are_left_alone() {
    let rig = looking();
    let one = Server::start("one").await;
    let machines = |how: &str| -> Vec<_> {
        let web = idle_service(how, 0);
        (1..=2).map(|n| up(n, one.address, &web)).collect()
    };
    rig.deploying("app", machines("stop"), Some(Timestamp::MAX))
        .await;
    some_looks().await;
    assert_eq!(rig.waker.rested(), []);
    rig.app("app", machines("off")).await;
    some_looks().await;
    assert_eq!(rig.waker.rested(), []);
    let mut cordoned = machines("stop");
    for machine in &mut cordoned {
        machine.route.cordoned = true;
    }
    rig.app("app", cordoned).await;
    some_looks().await;
    assert_eq!(rig.waker.rested(), []);
    rig.deploying("app", machines("stop"), Some(Timestamp::UNIX_EPOCH))
        .await;
    until("a claim that has lapsed is none", || {
        !rig.waker.rested().is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_suspended_or_stopped_machine_is_startable_at_once() {
    let rig = Rig::start();
    let one = Server::start("one").await;
    for (round, phase) in [Phase::Suspended, Phase::Down].into_iter().enumerate() {
        rig.app("app", vec![up(1, one.address, &idle_service("stop", 0))])
            .await;
        rig.set_phase("app", 1, phase).await;
        let began = tokio::time::Instant::now();
        let held = rig.client("app").spawn_get("/");
        until("it is woken", || rig.waker.count() == round + 1).await;
        assert!(began.elapsed() < Duration::from_millis(400));
        rig.change("app", 1, |machine| come_up(machine, one.address))
            .await;
        assert_eq!(held.await.unwrap().body, "one");
    }
}
