//! Limits, what is not offered, and the id that every answer carries (machines-api.md 1).

use std::num::NonZeroU32;

use bytes::Bytes;
use hangar_server::RateLimit;
use http_body_util::Full;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::cluster::{Cluster, read};

/// Starts the server again with these limits.
async fn with_limit(cluster: &mut Cluster, limit: RateLimit) {
    cluster.down().await;
    cluster.rate_limit = limit;
    cluster.up().await;
}

#[tokio::test]
async fn what_is_asked_too_often_is_refused_machine_by_machine() {
    let mut cluster = Cluster::start().await;
    cluster.app("often").await;
    let id = cluster.machine("often").await;
    let path = format!("/v1/apps/often/machines/{id}");
    with_limit(&mut cluster, RateLimit::as_on_fly()).await;
    let ask = async |method: Method, path: &str, times: usize| {
        let mut refused = 0;
        for _ in 0..times {
            let (status, body) = cluster.call(method.clone(), path, Value::Null).await;
            if status == StatusCode::TOO_MANY_REQUESTS {
                assert_eq!(body, json!({"error": "rate limit exceeded"}));
                refused += 1;
            }
        }
        refused
    };
    // Four looks a second are fine, and so are three stops; the fourth is one too many.
    assert_eq!(ask(Method::GET, &path, 4).await, 0);
    assert_eq!(ask(Method::POST, &format!("{path}/stop"), 3).await, 0);
    assert!(ask(Method::POST, &format!("{path}/stop"), 3).await >= 1);
    assert!(ask(Method::GET, &path, 40).await >= 20);
    // What is Hangar's own is not limited, nor what asks for no app.
    assert_eq!(ask(Method::GET, "/v1/apps/often/deployments", 20).await, 0);
    assert_eq!(ask(Method::GET, "/v1/platform/regions", 20).await, 0);

    let a_thousand = NonZeroU32::new(1000).unwrap();
    with_limit(&mut cluster, RateLimit::times(a_thousand)).await;
    for _ in 0..20 {
        cluster.get(&path).await;
    }
    with_limit(&mut cluster, RateLimit::OFF).await;
    for _ in 0..20 {
        cluster.post(&format!("{path}/stop"), Value::Null).await;
    }
}

#[tokio::test]
async fn what_is_not_offered_is_said_with_the_reason() {
    let cluster = Cluster::start().await;
    cluster.app("absent").await;
    let app = "/v1/apps/absent";
    for (method, path) in [
        (Method::GET, format!("{app}/network_policies")),
        (Method::POST, format!("{app}/network_policies")),
        (Method::DELETE, format!("{app}/network_policies/x")),
        (Method::GET, format!("{app}/secretkeys")),
        (Method::POST, format!("{app}/secretkeys/k")),
        (Method::POST, format!("{app}/secretkeys/k/sign")),
        (Method::GET, "/v1/postgres".to_owned()),
        (Method::POST, "/v1/postgres".to_owned()),
        (Method::GET, "/v1/postgres/x/users/y/credentials".to_owned()),
        (Method::POST, "/v1/tokens/oidc".to_owned()),
        (Method::POST, "/v1/tokens/kms".to_owned()),
    ] {
        let (status, body) = cluster.call(method, &path, json!({"name": "x"})).await;
        assert_eq!(status, StatusCode::NOT_IMPLEMENTED, "{path}: {body}");
        let text = body["error"].as_str().unwrap();
        assert!(text.contains("not offered by this Hangar"), "{text}");
    }
    for config in [
        json!({"image": "x", "guest": {"gpu_kind": "a10", "cpus": 1}}),
        json!({"image": "x", "guest": {"gpus": 1, "cpus": 1}}),
        json!({"image": "x", "containers": [{"name": "a", "image": "b"}]}),
        json!({"image": "x", "processes": [{"cmd": ["a"]}]}),
        json!({"image": "x", "spot": {"max_price_fraction": 0.5}}),
    ] {
        let body = json!({"config": config});
        let (status, body) = cluster
            .call(Method::POST, &format!("{app}/machines"), body)
            .await;
        assert_eq!(status, StatusCode::NOT_IMPLEMENTED, "{config}: {body}");
    }
    assert_eq!(cluster.get(&format!("{app}/machines")).await, json!([]));
}

#[tokio::test]
async fn a_body_of_more_than_a_mebibyte_is_refused_in_words() {
    let cluster = Cluster::start().await;
    cluster.app("big").await;
    let id = cluster.machine("big").await;
    let large = "x".repeat(1024 * 1024);
    for (method, path) in [
        (Method::POST, "/v1/apps".to_owned()),
        (Method::POST, "/v1/apps/big/secrets".to_owned()),
        (Method::POST, "/v1/apps/big/volumes".to_owned()),
        (Method::POST, format!("/v1/apps/big/machines/{id}/stop")),
        (
            Method::PATCH,
            format!("/v1/apps/big/machines/{id}/metadata"),
        ),
    ] {
        let mut request = cluster.request(method, &path, &Value::Null);
        let body = json!({"metadata": {"k": large}, "values": {"K": large}, "name": large});
        *request.body_mut() = Full::new(Bytes::from(body.to_string()));
        let response = cluster.send(request).await;
        assert!(response.headers().contains_key("fly-request-id"));
        let (status, body) = read(response).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{path}");
        let text = body["error"].as_str().unwrap();
        assert!(text.contains("1048576 bytes"), "{text}");
    }
}

#[tokio::test]
async fn files_may_be_larger_than_all_the_rest_and_reach_host_and_client_whole() {
    let mut cluster = Cluster::start().await;
    cluster.app("files").await;
    let base = "/v1/apps/files/machines";
    let file = |letter: &str, length: usize| json!({"guest_path": format!("/{letter}"), "raw_value": letter.repeat(length), "mode": 420});
    let config =
        json!({"image": "x", "files": [file("a", 2_000_000), file("b", 3_000_000), file("c", 4)]});
    let (status, made) = cluster
        .call(Method::POST, base, json!({"config": config}))
        .await;
    assert_eq!(status, StatusCode::OK, "{}", made["error"]);
    let shown = |machine: &Value| machine["config"]["files"] == config["files"];
    assert!(shown(&made));
    let id = made["id"].as_str().unwrap();
    let path = format!("{base}/{id}");
    cluster.wait("files", id, "started").await;
    let at_host = cluster.host.config(&crate::cluster::id(id));
    assert_eq!(
        at_host.files[1].raw_value.as_ref().unwrap().len(),
        3_000_000
    );
    let update = json!({"config": {"image": "y", "files": [file("a", 2_000_000)]}});
    cluster.post(&path, update).await;
    let versions = cluster.get(&format!("{path}/versions")).await;
    assert!(versions[1]["user_config"]["files"] == config["files"]);
    cluster.down().await;
    cluster.up().await;
    let now = cluster.get(&path).await;
    let text = now["config"]["files"][0]["raw_value"].as_str().unwrap();
    assert_eq!(text.len(), 2_000_000);

    let most = json!({"image": "x", "files": [file("a", 9_000_000)]});
    let (status, _) = cluster
        .call(Method::POST, base, json!({"config": most}))
        .await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let rest =
        json!({"image": "x", "files": [file("a", 2_000_000)], "env": {"A": "x".repeat(1_100_000)}});
    let (status, body) = cluster
        .call(Method::POST, base, json!({"config": rest}))
        .await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{}", body["error"]);
}

#[tokio::test]
async fn every_answer_has_an_id_of_its_own() {
    let cluster = Cluster::start().await;
    let mut ids = std::collections::BTreeSet::new();
    for (method, path, token, status) in [
        (Method::GET, "/v1/apps", true, 200),
        (Method::GET, "/v1/apps", false, 401),
        (Method::GET, "/v1/nothing", true, 404),
        (Method::GET, "/v1/apps/none", true, 404),
        (Method::PUT, "/v1/apps", true, 405),
        (Method::GET, "/v1/apps?limit=x", true, 400),
        (Method::GET, "/v1/apps/x/machines/%FF", true, 400),
        (Method::GET, "/v1/apps/x/machines/nonsense", true, 400),
        (Method::POST, "/v1/tokens/kms", true, 501),
        (Method::GET, "/v1/health", false, 200),
    ] {
        let mut request = cluster.request(method, path, &Value::Null);
        if !token {
            request.headers_mut().remove("authorization");
        }
        let response = cluster.send(request).await;
        assert_eq!(response.status().as_u16(), status, "{path}");
        let id = response.headers()["fly-request-id"].to_str().unwrap();
        // A ULID, a dash and a region.
        let (ulid, region) = id.split_once('-').unwrap();
        assert_eq!((ulid.len(), region), (26, "iad"), "{id}");
        assert!(ids.insert(id.to_owned()), "{id} came twice");
        let (_, body) = read(response).await;
        assert!(status == 200 || body["error"].is_string(), "{path}: {body}");
    }
}
