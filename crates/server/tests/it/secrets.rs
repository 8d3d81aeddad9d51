//! Secrets: in, never out, and only to the Machines they are for.

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::cluster::{Cluster, id};

#[tokio::test]
async fn secrets_are_versioned_and_reach_a_machine_with_its_next_version() {
    let cluster = Cluster::start().await;
    cluster.app("sec").await;
    let path = "/v1/apps/sec/secrets";
    let first = cluster
        .post(path, json!({"values": {"A": "hunter2", "B": "b"}}))
        .await;
    assert_eq!(
        (&first["version"], &first["Version"]),
        (&json!(1), &json!(1))
    );
    let same = cluster
        .post(path, json!({"values": {"A": "hunter2"}}))
        .await;
    assert_eq!(same["version"], 1, "an equal value changes nothing");
    let machine = cluster.machine("sec").await;
    assert_eq!(cluster.host.secrets(&id(&machine))["A"], "hunter2");

    let second = cluster
        .post(path, json!({"values": {"A": "other", "B": null}}))
        .await;
    assert_eq!(second["version"], 2);
    let list = cluster.get(path).await;
    assert_eq!(list["secrets"].as_array().unwrap().len(), 1);
    assert_eq!(list["secrets"][0]["digest"].as_str().unwrap().len(), 16);
    assert!(!list.to_string().contains("other"));
    assert_eq!(cluster.host.secrets(&id(&machine))["A"], "hunter2");

    let update = json!({"config": {"image": "x"}, "min_secrets_version": 3});
    let machine_path = format!("/v1/apps/sec/machines/{machine}");
    let (status, _) = cluster.call(Method::POST, &machine_path, update).await;
    assert_eq!(status, StatusCode::PRECONDITION_FAILED);
    let updated = cluster
        .post(&machine_path, json!({"config": {"image": "x"}}))
        .await;
    let version = updated["instance_id"].as_str().unwrap();
    cluster
        .get(&format!("{machine_path}/wait?version={version}&timeout=10"))
        .await;
    let given = cluster.host.secrets(&id(&machine));
    assert_eq!(given.len(), 1);
    assert_eq!(given["A"], "other");
}

#[tokio::test]
async fn the_store_holds_no_secret_and_no_token_in_the_clear() {
    let mut cluster = Cluster::start().await;
    cluster.app("clear").await;
    let (status, set) = cluster
        .call(
            Method::POST,
            "/v1/apps/clear/secrets/KEY",
            json!({"value": "hunter2"}),
        )
        .await;
    assert_eq!(status, StatusCode::CREATED, "{set}");
    let page = cluster
        .store
        .backend()
        .list("".into(), None, 1000)
        .await
        .unwrap();
    for entry in page.entries {
        let text = format!("{} {}", entry.key, String::from_utf8_lossy(&entry.value));
        assert!(!text.contains("hunter2"), "{text}");
        assert!(!text.contains(&cluster.token), "{text}");
    }
    cluster.down().await;
    cluster.up().await;
    let machine = cluster.machine("clear").await;
    assert_eq!(cluster.host.secrets(&id(&machine))["KEY"], "hunter2");
}

#[tokio::test]
async fn a_lost_key_is_said_instead_of_a_machine_without_its_secrets() {
    let mut cluster = Cluster::start().await;
    cluster.app("lost").await;
    cluster
        .post("/v1/apps/lost/secrets", json!({"values": {"KEY": "x"}}))
        .await;
    cluster.down().await;
    let keyring = cluster.dir.path().join("keyring");
    let key = std::fs::read_dir(&keyring)
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    std::fs::rename(key.path(), keyring.join("999999999999.key")).unwrap();
    cluster.up().await;
    let body = json!({"config": {"image": "x"}});
    let (status, error) = cluster
        .call(Method::POST, "/v1/apps/lost/machines", body)
        .await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    let text = error["error"].as_str().unwrap();
    assert!(text.contains("the keyring has no key"), "{text}");
    assert_eq!(cluster.get("/v1/apps/lost/machines").await, json!([]));
}

#[tokio::test]
async fn what_cannot_be_an_environment_variable_is_refused() {
    let cluster = Cluster::start().await;
    cluster.app("names").await;
    for bad in ["1A", "A-B", "", "A=B"] {
        let body = json!({"values": {bad: "x"}});
        let (status, error) = cluster
            .call(Method::POST, "/v1/apps/names/secrets", body)
            .await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{bad}: {error}");
    }
    let (status, _) = cluster
        .call(Method::GET, "/v1/apps/names/secrets/X", Value::Null)
        .await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let gone = cluster
        .call(Method::DELETE, "/v1/apps/names/secrets/X", Value::Null)
        .await;
    assert_eq!(gone.1["version"], 0);
}
