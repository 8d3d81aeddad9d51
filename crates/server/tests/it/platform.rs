//! Images, logs, regions and the edge.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::cluster::{Cluster, read};

#[tokio::test]
async fn an_archive_is_imported_whatever_its_size_and_leaves_nothing_behind() {
    let cluster = Cluster::start().await;
    let archive = vec![7_u8; 3 * 1024 * 1024];
    let mut request = cluster.request(Method::POST, "/v1/images?name=mine", &Value::Null);
    *request.body_mut() = Full::new(Bytes::from(archive));
    let (status, image) = read(cluster.send(request).await).await;
    assert_eq!(status, StatusCode::CREATED, "{image}");
    assert_eq!(
        (&image["repository"], &image["tag"]),
        (&json!("mine"), &json!("3145728"))
    );
    let left = std::fs::read_dir(cluster.dir.path().join("tmp"))
        .unwrap()
        .count();
    assert_eq!(left, 0);
    let (status, _) = cluster.call(Method::POST, "/v1/images", Value::Null).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn images_of_machines_are_in_use_and_are_kept() {
    let cluster = Cluster::start().await;
    cluster.app("img").await;
    let config = json!({"config": {"image": "used"}});
    let made = cluster.post("/v1/apps/img/machines", config).await;
    let images = cluster.get("/v1/images").await;
    assert_eq!(
        (&images[0]["in_use"], &images[1]["in_use"]),
        (&json!(true), &json!(false))
    );
    let pruned = cluster.post("/v1/images/prune", Value::Null).await;
    assert_eq!(pruned["images"], json!([made["image_ref"]["digest"]]));
    let resolved = cluster.get("/v1/images/resolve?name=used").await;
    assert_eq!(resolved["digest"], made["image_ref"]["digest"]);
    let (status, _) = cluster
        .call(Method::GET, "/v1/images/resolve?name=missing", Value::Null)
        .await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn regions_edge_and_logs_are_told() {
    let cluster = Cluster::start().await;
    let regions = cluster.get("/v1/platform/regions").await;
    assert_eq!(regions["nearest"], "iad");
    assert_eq!(regions["regions"][0]["name"], "Sao Paulo, Brazil");
    assert_eq!(cluster.get("/v1/platform/edge").await["ports"]["80"], 8080);
    cluster.app("logs").await;
    let machine = cluster.machine("logs").await;
    let line = cluster
        .get(&format!("/v1/apps/logs/logs?machine={machine}&tail=5"))
        .await;
    assert_eq!(
        (&line["message"], &line["instance"]),
        (&json!("the last words"), &json!(machine))
    );
    let (status, _) = cluster
        .call(
            Method::GET,
            "/v1/apps/logs/logs?machine=nonsense",
            Value::Null,
        )
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}
