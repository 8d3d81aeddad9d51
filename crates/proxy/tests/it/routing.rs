//! Host names and external ports to services.

use hyper::{Request, StatusCode};
use serde_json::json;

use crate::rig::{Client, Rig, Server, WEB, service, up, web};

#[tokio::test]
async fn a_request_goes_to_the_app_that_its_host_names() {
    let rig = Rig::start();
    let (one, two) = (Server::start("one").await, Server::start("two").await);
    rig.app("first", vec![up(1, one.address, &web())]).await;
    rig.app("second", vec![up(2, two.address, &web())]).await;
    assert_eq!(rig.client("first").get("/").await.body, "one");
    assert_eq!(rig.client("second").get("/").await.body, "two");
    let shouted = Client::new(rig.at(WEB), "SECOND.LocalHost:9999".to_owned());
    assert_eq!(shouted.get("/").await.body, "two");
    let absolute = Request::get("http://first.localhost/").header("host", "second.localhost");
    assert_eq!(rig.client("second").send(absolute, "").await.body, "one");
}

#[tokio::test]
async fn an_unknown_host_is_told_so_by_name() {
    let rig = Rig::start();
    let one = Server::start("one").await;
    rig.app("first", vec![up(1, one.address, &web())]).await;
    let answer = rig.client("nobody").get("/").await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert!(answer.body.contains("nobody.localhost"), "{}", answer.body);
    assert!(answer.headers.contains_key("fly-request-id"));
}

#[tokio::test]
async fn machines_of_two_groups_share_the_requests_of_one_port() {
    let rig = Rig::start();
    let (one, two) = (Server::start("one").await, Server::start("two").await);
    let other_port = service(json!({
        "internal_port": Server::PORT,
        "ports": [{"start_port": 8080, "end_port": 8081, "handlers": ["http"]}],
    }));
    rig.app(
        "app",
        vec![up(1, one.address, &web()), up(2, two.address, &other_port)],
    )
    .await;
    for _ in 0..100 {
        assert_eq!(rig.client("app").get("/").await.status, StatusCode::OK);
    }
    assert_eq!(one.requests() + two.requests(), 100);
    assert!(one.requests() > 10 && two.requests() > 10);
    let only_two = Client::new(rig.at(8081), "app.localhost".to_owned());
    assert_eq!(only_two.get("/").await.body, "two");
}

#[tokio::test]
async fn force_https_redirects_to_the_port_that_https_is_bound_to() {
    let rig = Rig::start();
    let one = Server::start("one").await;
    let both = service(json!({
        "internal_port": Server::PORT,
        "ports": [
            {"port": 8080, "handlers": ["http"], "force_https": true},
            {"port": 8443, "handlers": ["tls", "http"]},
        ],
    }));
    rig.app("app", vec![up(1, one.address, &both)]).await;
    let answer = rig.client("app").get("/a?b=c").await;
    assert_eq!(answer.status, StatusCode::MOVED_PERMANENTLY);
    assert_eq!(
        answer.headers["location"],
        "https://app.localhost:8443/a?b=c"
    );
    let plain = Client::new(rig.at(8443), "app.localhost".to_owned());
    let answer = plain.get("/").await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.body.contains("https"));
    assert_eq!(one.requests(), 0);
}

#[tokio::test]
async fn a_cordoned_machine_gets_nothing() {
    let rig = Rig::start();
    let (one, two) = (Server::start("one").await, Server::start("two").await);
    let mut cordoned = up(2, two.address, &web());
    cordoned.route.cordoned = true;
    rig.app("app", vec![up(1, one.address, &web()), cordoned])
        .await;
    for _ in 0..30 {
        assert_eq!(rig.client("app").get("/").await.body, "one");
    }
}
