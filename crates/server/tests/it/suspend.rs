//! Suspension as clients see it, and what the host hears of leases.

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::cluster::{Cluster, PATIENCE, id};

#[tokio::test]
async fn a_machine_is_suspended_and_goes_on_and_what_cannot_be_is_refused_in_words() {
    let cluster = Cluster::start().await;
    cluster.app("nap").await;
    let id = &cluster.machine("nap").await;
    let path = format!("/v1/apps/nap/machines/{id}");
    let act = async |verb: &str| {
        let path = format!("{path}/{verb}");
        cluster.call(Method::POST, &path, Value::Null).await
    };
    for _ in 0..2 {
        let (status, answer) = act("suspend").await;
        assert_eq!((status, answer), (StatusCode::OK, json!({"ok": true})));
    }
    cluster.wait("nap", id, "suspended").await;
    cluster.wait("nap", id, "settled").await;
    assert_eq!(cluster.get(&path).await["state"], "suspended");
    let listed = cluster
        .get("/v1/apps/nap/machines?state=suspended,stopped")
        .await;
    assert_eq!(listed.as_array().unwrap().len(), 1);
    for verb in ["exec", "signal", "restart"] {
        let body = json!({"signal": 9, "cmd": "true"});
        let (status, _) = cluster
            .call(Method::POST, &format!("{path}/{verb}"), body)
            .await;
        assert_eq!(status, StatusCode::PRECONDITION_FAILED, "{verb}");
    }
    let (_, answer) = act("start").await;
    assert_eq!(answer["previous_state"], "suspended");
    cluster.wait("nap", id, "started").await;
    act("suspend").await;
    cluster.wait("nap", id, "suspended").await;
    act("stop").await;
    cluster.wait("nap", id, "stopped").await;
    let (status, error) = act("suspend").await;
    assert_eq!(status, StatusCode::PRECONDITION_FAILED);
    assert_eq!(
        error["error"],
        "failed_precondition: unable to suspend machine from current state: 'stopped'"
    );
    act("start").await;
    cluster.wait("nap", id, "started").await;
    act("suspend").await;
    cluster.wait("nap", id, "suspended").await;
    // Without force, as one that is stopped.
    let (status, _) = cluster.call(Method::DELETE, &path, Value::Null).await;
    assert_eq!(status, StatusCode::OK);

    for (config, word) in [
        (
            json!({"guest": {"cpu_kind": "shared", "cpus": 2, "memory_mb": 4096}}),
            "2048 MB",
        ),
        (json!({"init": {"swap_size_mb": 512}}), "swap"),
    ] {
        let mut config = config;
        config["image"] = json!("nginx");
        let made = cluster
            .post("/v1/apps/nap/machines", json!({"config": config}))
            .await;
        let id = made["id"].as_str().unwrap();
        cluster.wait("nap", id, "started").await;
        let path = format!("/v1/apps/nap/machines/{id}/suspend");
        let (status, error) = cluster.call(Method::POST, &path, Value::Null).await;
        assert_eq!(status, StatusCode::PRECONDITION_FAILED);
        assert!(error["error"].as_str().unwrap().contains(word), "{error}");
    }
}

#[tokio::test]
async fn the_host_hears_of_a_clients_lease_and_of_its_end() {
    let cluster = Cluster::start().await;
    cluster.app("held").await;
    let machine_id = id(&cluster.machine("held").await);
    let path = format!("/v1/apps/held/machines/{machine_id}/lease");
    let told = async |wanted: bool| {
        let limit = tokio::time::Instant::now() + PATIENCE;
        while cluster.host.leased_until(&machine_id).is_some() != wanted {
            assert!(tokio::time::Instant::now() < limit, "it is not told");
            tokio::task::yield_now().await;
        }
    };
    let lease = cluster.post(&path, json!({"ttl": 60})).await;
    told(true).await;
    let nonce = lease["data"]["nonce"].as_str().unwrap();
    let (status, _) = cluster
        .call_with(Method::DELETE, &path, Value::Null, Some(nonce))
        .await;
    assert_eq!(status, StatusCode::OK);
    told(false).await;
}
