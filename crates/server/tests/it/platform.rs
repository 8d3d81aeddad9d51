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

#[tokio::test]
async fn a_region_has_a_city_and_a_place_on_the_map() {
    let cluster = Cluster::start().await;
    let all = cluster.get("/v1/platform/regions").await;
    let region = &all["regions"][1];
    assert_eq!(region["code"], "iad");
    assert_eq!(region["name"], "Ashburn, Virginia (US)");
    assert_eq!(region["geo_region"], "north_america");
    assert!((region["latitude"].as_f64().unwrap() - 39.0).abs() < 0.1);
    assert!((region["longitude"].as_f64().unwrap() + 77.5).abs() < 0.1);
    for flag in [
        "requires_paid_plan",
        "gateway_available",
        "deprecated",
        "mpg_available",
    ] {
        assert_eq!(region[flag], false, "{flag}");
    }
}

#[tokio::test]
async fn placements_say_where_machines_would_be_put() {
    let cluster = Cluster::start().await;
    let ask = async |body: Value| {
        let path = "/v1/platform/placements";
        cluster.call(Method::POST, path, body).await
    };
    let of = |region: &str, count: usize, concurrency: usize| json!({"region": region, "count": count, "concurrency": concurrency});
    for (body, wanted) in [
        (
            json!({"org_slug": "personal", "count": 1}),
            vec![of("iad", 1, 1)],
        ),
        (
            json!({"region": "gru", "count": "3"}),
            vec![of("gru", 3, 2)],
        ),
        (
            json!({"region": "any", "count": 4}),
            vec![of("iad", 2, 2), of("gru", 2, 2)],
        ),
        (
            json!({"region": "gru,iad", "count": 2}),
            vec![of("gru", 2, 2)],
        ),
        (
            json!({"region": "us", "count": null}),
            vec![of("iad", 10_000, 2)],
        ),
        (
            json!({"region": ""}),
            vec![of("iad", 10_000, 2), of("gru", 10_000, 2)],
        ),
    ] {
        let (status, answer) = ask(body.clone()).await;
        assert_eq!(status, StatusCode::OK, "{body}: {answer}");
        assert_eq!(answer["regions"], json!(wanted), "{body}");
    }
    for (body, status) in [
        (json!({"region": "ams"}), 422),
        (json!({"count": 10_001}), 400),
        (json!({"compute": {"cpus": 3}}), 400),
        (json!({"compute": {"gpu_kind": "a10"}}), 501),
    ] {
        assert_eq!(ask(body.clone()).await.0.as_u16(), status, "{body}");
    }
}

#[tokio::test]
async fn an_app_has_the_addresses_that_it_was_given_where_the_proxy_listens() {
    let mut cluster = Cluster::start().await;
    cluster.app("found").await;
    let path = "/v1/apps/found/ip_assignments";
    assert_eq!(cluster.get(path).await, json!({"ips": []}));
    let v6 = json!({"type": "v6", "region": "", "org_slug": "", "network": "", "service_name": ""});
    let given = cluster.post(path, v6.clone()).await;
    assert_eq!(given["ip"], "::ffff:127.0.0.1");
    assert_eq!(
        (&given["shared"], &given["region"]),
        (&json!(false), &json!("iad"))
    );
    assert!(given["created_at"].is_string());
    // Asked for again, the same is given.
    assert_eq!(cluster.post(path, v6).await, given);
    let v4 = cluster.post(path, json!({"type": "shared_v4"})).await;
    assert_eq!(v4["ip"], "127.0.0.1");
    assert_eq!(cluster.get(path).await["ips"].as_array().unwrap().len(), 2);
    for (kind, status) in [
        ("private_v6", 501),
        ("egress_v4", 501),
        ("egress_pair", 501),
        ("v5", 400),
        ("", 400),
    ] {
        let (got, answer) = cluster
            .call(Method::POST, path, json!({"type": kind}))
            .await;
        assert_eq!(got.as_u16(), status, "{kind}: {answer}");
    }

    // They move with the proxy.
    cluster.down().await;
    cluster.edge = "2001:db8::7".parse().unwrap();
    cluster.up().await;
    let ips = cluster.get(path).await;
    assert_eq!(ips["ips"].as_array().unwrap().len(), 1);
    assert_eq!(ips["ips"][0]["ip"], "2001:db8::7");
    let (status, _) = cluster
        .call(Method::POST, path, json!({"type": "v4"}))
        .await;
    assert_eq!(status, StatusCode::NOT_IMPLEMENTED);
    for (ip, status) in [
        ("2001:db8::8", 404),
        ("nonsense", 400),
        ("2001:db8::7", 204),
        ("2001:db8::7", 404),
    ] {
        let (got, _) = cluster
            .call(Method::DELETE, &format!("{path}/{ip}"), Value::Null)
            .await;
        assert_eq!(got.as_u16(), status, "{ip}");
    }
    cluster
        .call(Method::DELETE, "/v1/apps/found", Value::Null)
        .await;
    cluster.app("found").await;
    assert_eq!(cluster.get(path).await, json!({"ips": []}));
}
