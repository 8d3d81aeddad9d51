//! Leases (machines-api.md 10).

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::cluster::Cluster;

#[tokio::test]
async fn a_lease_keeps_others_out_until_it_is_given_back() {
    let cluster = Cluster::start().await;
    cluster.app("lease").await;
    let id = cluster.machine("lease").await;
    let path = format!("/v1/apps/lease/machines/{id}");
    let lease = format!("{path}/lease");
    let (status, error) = cluster.call(Method::GET, &lease, Value::Null).await;
    assert_eq!(
        (status, &error["error"]),
        (StatusCode::NOT_FOUND, &json!("lease not found"))
    );
    let (status, taken) = cluster
        .call(Method::POST, &format!("{lease}?ttl=13"), Value::Null)
        .await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(taken["status"], "success");
    let nonce = taken["data"]["nonce"].as_str().unwrap();
    assert_eq!(nonce.len(), 12);
    assert_eq!(cluster.get(&lease).await["data"]["owner"], "admin");

    let (status, error) = cluster.call(Method::POST, &lease, json!({"ttl": 5})).await;
    assert_eq!(status, StatusCode::CONFLICT);
    let text = error["error"].as_str().unwrap();
    assert!(
        text.contains("lease currently held by admin, expires at "),
        "{text}"
    );
    let (status, again) = cluster
        .call_with(Method::POST, &lease, json!({"ttl": 60}), Some(nonce))
        .await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(again["data"]["nonce"], nonce);
    assert!(again["data"]["expires_at"].as_i64() > taken["data"]["expires_at"].as_i64());

    let update = json!({"config": {"image": "x"}});
    for (method, path, body) in [
        (Method::POST, path.clone(), update.clone()),
        (Method::POST, format!("{path}/stop"), Value::Null),
        (Method::POST, format!("{path}/restart"), Value::Null),
        (Method::POST, format!("{path}/cordon"), Value::Null),
        (Method::DELETE, format!("{path}?force=true"), Value::Null),
    ] {
        for nonce in [None, Some("000000000000")] {
            let (status, error) = cluster
                .call_with(method.clone(), &path, body.clone(), nonce)
                .await;
            assert_eq!(status, StatusCode::CONFLICT, "{method} {path}: {error}");
        }
    }
    // Neither signals nor metadata are gated.
    cluster
        .post(&format!("{path}/signal"), json!({"signal": "USR1"}))
        .await;
    cluster
        .post(&format!("{path}/metadata/k"), json!({"value": "v"}))
        .await;
    let (status, _) = cluster
        .call_with(Method::POST, &path, update, Some(nonce))
        .await;
    assert_eq!(status, StatusCode::OK);

    let (status, _) = cluster.call(Method::DELETE, &lease, Value::Null).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, done) = cluster
        .call_with(Method::DELETE, &lease, Value::Null, Some(nonce))
        .await;
    assert_eq!(
        (status, &done["data"]["ok"]),
        (StatusCode::OK, &json!(true))
    );
    cluster.post(&format!("{path}/cordon"), Value::Null).await;
}

#[tokio::test]
async fn a_lease_can_come_with_the_machine_and_ends_by_itself() {
    let cluster = Cluster::start().await;
    cluster.app("brief").await;
    let body = json!({"config": {"image": "x"}, "lease_ttl": 1});
    let made = cluster.post("/v1/apps/brief/machines", body).await;
    let nonce = made["nonce"].as_str().unwrap();
    let path = format!("/v1/apps/brief/machines/{}", made["id"].as_str().unwrap());
    let (_, shown) = cluster
        .call(Method::GET, &format!("{path}/lease"), Value::Null)
        .await;
    assert_eq!(shown["data"]["nonce"], nonce);
    assert_eq!(cluster.get(&path).await["nonce"], Value::Null);
    cluster
        .until(&format!("{path}/lease"), |body| {
            body["error"] == "lease not found"
        })
        .await;
    cluster.post(&format!("{path}/cordon"), Value::Null).await;
    let (status, _) = cluster
        .call(Method::POST, &format!("{path}/lease"), json!({"ttl": -1}))
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}
