//! Requests that start Machines.

use hangar_api::catalog::Phase;
use hyper::StatusCode;
use serde_json::json;

use crate::rig::{Rig, SOON, Server, come_up, down, machine_id, until, up, web, web_with};

#[tokio::test]
async fn many_requests_share_one_start() {
    let rig = Rig::start();
    let one = Server::start("one").await;
    rig.app("app", vec![down(1, &web())]).await;
    let tasks: Vec<_> = (0..50).map(|_| rig.client("app").spawn_get("/")).collect();
    until("the start is asked for", || rig.waker.count() > 0).await;
    rig.set_phase("app", 1, Phase::Coming).await;
    rig.change("app", 1, |machine| come_up(machine, one.address))
        .await;
    for task in tasks {
        let answer = tokio::time::timeout(SOON, task).await.unwrap().unwrap();
        assert_eq!(answer.body, "one");
    }
    assert_eq!(rig.waker.count(), 1);
}

#[tokio::test]
async fn a_refused_start_leads_to_the_next_machine() {
    let rig = Rig::start();
    let one = Server::start("one").await;
    *rig.waker.refuse.lock().unwrap() = vec![machine_id(1), machine_id(2)];
    rig.app(
        "app",
        vec![down(1, &web()), down(2, &web()), down(3, &web())],
    )
    .await;
    let task = rig.client("app").spawn_get("/");
    let asked_third = || rig.waker.asked.lock().unwrap().contains(&machine_id(3));
    until("the third is asked", asked_third).await;
    rig.change("app", 3, |machine| come_up(machine, one.address))
        .await;
    assert_eq!(task.await.unwrap().body, "one");
}

#[tokio::test]
async fn when_every_start_is_refused_the_answer_says_why() {
    let rig = Rig::start();
    *rig.waker.refuse.lock().unwrap() = vec![machine_id(1), machine_id(2)];
    rig.app("app", vec![down(1, &web()), down(2, &web())]).await;
    let answer = rig.client("app").get("/").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        answer.body.contains("leased by somebody"),
        "{}",
        answer.body
    );
    assert_eq!(rig.waker.count(), 2);
}

#[tokio::test]
async fn a_machine_that_goes_down_again_is_not_started_for_ever() {
    let rig = Rig::start();
    rig.app("app", vec![down(1, &web())]).await;
    let task = rig.client("app").spawn_get("/");
    until("the start is asked for", || rig.waker.count() == 1).await;
    rig.set_phase("app", 1, Phase::Coming).await;
    rig.set_phase("app", 1, Phase::Down).await;
    let answer = tokio::time::timeout(SOON, task).await.unwrap().unwrap();
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.body.contains("went down again"), "{}", answer.body);
    assert_eq!(rig.waker.count(), 1);
}

#[tokio::test]
async fn above_the_soft_limit_another_machine_is_started_and_nobody_waits() {
    let rig = Rig::start();
    let one = Server::start("one").await;
    let service = web_with(json!({"type": "requests", "soft_limit": 1}));
    rig.app("app", vec![up(1, one.address, &service), down(2, &service)])
        .await;
    let task = rig.client("app").spawn_get("/slow");
    until("the request is there", || one.slow() == 1).await;
    assert_eq!(rig.waker.count(), 0);
    assert_eq!(rig.client("app").get("/").await.body, "one");
    until("the second is asked", || rig.waker.count() == 1).await;
    assert_eq!(*rig.waker.asked.lock().unwrap(), vec![machine_id(2)]);
    one.state.gate.add_permits(1);
    task.await.unwrap();
}

#[tokio::test]
async fn a_standby_is_never_started_by_a_request() {
    let rig = Rig::start();
    let mut standby = down(1, &web());
    standby.route.standby = true;
    rig.app("app", vec![standby]).await;
    let answer = rig.client("app").get("/").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(rig.waker.count(), 0);
}

#[tokio::test]
async fn a_machine_that_never_arrives_does_not_keep_others_from_being_started() {
    let rig = Rig::start();
    let two = Server::start("two").await;
    let mut never = down(1, &web());
    never.live.phase = Phase::Coming;
    rig.app("app", vec![never, down(2, &web()), down(3, &web())])
        .await;
    let tasks: Vec<_> = (0..20).map(|_| rig.client("app").spawn_get("/")).collect();
    until("another one is asked", || rig.waker.count() > 0).await;
    let asked = rig.waker.asked.lock().unwrap()[0].clone();
    let n = if asked == machine_id(2) { 2 } else { 3 };
    rig.change("app", n, |machine| come_up(machine, two.address))
        .await;
    for task in tasks {
        let answer = tokio::time::timeout(SOON, task).await.unwrap().unwrap();
        assert_eq!(answer.body, "two");
    }
}

#[tokio::test]
async fn a_request_is_held_while_a_stopped_machine_is_updated() {
    let rig = Rig::start();
    let one = Server::start("one").await;
    *rig.waker.busy.lock().unwrap() = vec![machine_id(1)];
    rig.app("app", vec![down(1, &web())]).await;
    let task = rig.client("app").spawn_get("/");
    until("it is asked again", || rig.waker.count() > 1).await;
    assert!(!task.is_finished());
    rig.waker.busy.lock().unwrap().clear();
    let asked = rig.waker.count();
    until("it is asked after the update", || rig.waker.count() > asked).await;
    rig.change("app", 1, |machine| come_up(machine, one.address))
        .await;
    let answer = tokio::time::timeout(SOON, task).await.unwrap().unwrap();
    assert_eq!(answer.body, "one");
}

#[tokio::test]
async fn a_machine_that_is_updated_does_not_keep_another_from_being_started() {
    let rig = Rig::start();
    let two = Server::start("two").await;
    *rig.waker.busy.lock().unwrap() = vec![machine_id(1)];
    rig.app("app", vec![down(1, &web()), down(2, &web())]).await;
    let task = rig.client("app").spawn_get("/");
    let asked = || rig.waker.asked.lock().unwrap().contains(&machine_id(2));
    until("the other one is asked", asked).await;
    rig.change("app", 2, |machine| come_up(machine, two.address))
        .await;
    assert_eq!(task.await.unwrap().body, "two");
}
