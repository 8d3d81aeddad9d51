//! What clients in the wild send: nulls, numbers as text, options where others have them, bodies
//! that are empty in four ways.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::cluster::{Cluster, read};

/// Posts these bytes with a JSON content type and returns status and answer.
async fn raw(cluster: &Cluster, method: Method, path: &str, body: &'static str) -> (u16, Value) {
    let mut request = cluster.request(method, path, &Value::Null);
    *request.body_mut() = Full::new(Bytes::from_static(body.as_bytes()));
    let kind = "application/json".parse().unwrap();
    request.headers_mut().insert("content-type", kind);
    let (status, body) = read(cluster.send(request).await).await;
    (status.as_u16(), body)
}

#[tokio::test]
async fn a_body_is_nothing_in_four_ways() {
    let cluster = Cluster::start().await;
    cluster.app("empty").await;
    let id = cluster.machine("empty").await;
    let path = format!("/v1/apps/empty/machines/{id}");
    let (signal, volumes) = (format!("{path}/signal"), "/v1/apps/empty/volumes");
    for body in ["", "{}", "null", " \n"] {
        for (action, state) in [
            ("stop", "stopped"),
            ("start", "started"),
            ("restart", "started"),
            ("suspend", "suspended"),
            ("start", "started"),
            ("cordon", "started"),
            ("uncordon", "started"),
        ] {
            let (status, answer) =
                raw(&cluster, Method::POST, &format!("{path}/{action}"), body).await;
            assert_eq!(status, 200, "{action} {body:?}: {answer}");
            cluster.wait("empty", &id, state).await;
        }
        let (status, lease) = raw(&cluster, Method::POST, &format!("{path}/lease"), body).await;
        assert_eq!(status, 201, "{lease}");
        let nonce = lease["data"]["nonce"].as_str();
        let (status, _) = cluster
            .call_with(Method::DELETE, &format!("{path}/lease"), Value::Null, nonce)
            .await;
        assert_eq!(status, StatusCode::OK);
        let (status, _) = raw(&cluster, Method::PATCH, &format!("{path}/metadata"), body).await;
        assert_eq!(status, 204);
        // Where something is needed, that is said.
        for (method, path, word) in [
            (
                Method::POST,
                "/v1/apps/empty/machines",
                "config.image is required",
            ),
            (Method::POST, path.as_str(), "config.image is required"),
            (Method::POST, volumes, "volume name"),
            (Method::POST, signal.as_str(), "signal"),
        ] {
            let (status, answer) = raw(&cluster, method, path, body).await;
            let text = answer["error"].as_str().unwrap();
            assert!(
                status == 400 && text.contains(word),
                "{path} {body:?}: {answer}"
            );
        }
        assert_eq!(raw(&cluster, Method::POST, "/v1/apps", body).await.0, 422);
    }
    for bad in ["[]", "1", "{", "\"x\"", "not json"] {
        let (status, answer) = raw(&cluster, Method::POST, &format!("{path}/stop"), bad).await;
        assert_eq!(status, 400, "{bad}: {answer}");
        assert!(answer["error"].is_string());
    }
}

#[tokio::test]
async fn null_stands_for_what_is_left_out() {
    let cluster = Cluster::start().await;
    let app = json!({
        "name": null, "app_name": "nulls", "org_slug": null, "network": null, "app_role_id": null,
        "idempotency_key": null, "enable_subdomains": null,
    });
    cluster.post("/v1/apps", app).await;
    let base = "/v1/apps/nulls/machines";
    let config = json!({
        "image": "x", "env": null, "init": null, "guest": null, "size": null, "metadata": null,
        "services": null, "checks": null, "restart": null, "stop_config": null, "dns": null,
        "auto_destroy": null, "standbys": null, "files": null, "mounts": null, "schedule": null,
        "metrics": null, "statics": null, "processes": null, "containers": null, "volumes": null,
        "rootfs": null, "cache_drive": null, "spot": null, "disable_machine_autostart": null,
    });
    let body = json!({
        "config": config, "name": null, "region": null, "skip_launch": null,
        "skip_service_registration": null, "skip_secrets": null, "lease_ttl": null,
        "current_version": null, "min_secrets_version": null, "lsvd": null,
    });
    let made = cluster.post(base, body.clone()).await;
    assert!(
        made["name"].as_str().unwrap().split('-').count() == 3,
        "{made}"
    );
    let shown = made["config"].as_object().unwrap();
    for list in [
        "services",
        "standbys",
        "files",
        "mounts",
        "statics",
        "processes",
    ] {
        assert!(!shown.contains_key(list), "{list}");
    }
    assert_eq!(made["config"]["guest"]["memory_mb"], 256);
    let id = made["id"].as_str().unwrap();
    let path = format!("{base}/{id}");
    cluster.post(&path, body).await;
    let exec = json!({"cmd": "echo hi", "command": null, "stdin": null, "timeout": null, "container": null});
    assert_eq!(
        cluster.post(&format!("{path}/exec"), exec).await["stdout"],
        "echo hi"
    );
    let volume = json!({
        "name": "data", "region": null, "size_gb": null, "encrypted": null, "fstype": null,
        "require_unique_zone": null, "unique_zone_app_wide": null, "snapshot_id": null,
        "source_volume_id": null, "snapshot_retention": null, "auto_backup_enabled": null,
        "compute": null, "compute_image": null,
    });
    let volume = cluster.post("/v1/apps/nulls/volumes", volume).await;
    assert_eq!(volume["size_gb"], 3);
    let stop = json!({"signal": null, "timeout": null});
    cluster.post(&format!("{path}/stop"), stop).await;
    let secrets = json!({"values": null});
    cluster.post("/v1/apps/nulls/secrets", secrets).await;
}

#[tokio::test]
async fn null_stands_for_what_is_left_out_of_a_service_too() {
    let cluster = Cluster::start().await;
    cluster.app("nulls").await;
    let base = "/v1/apps/nulls/machines";
    let service = json!({
        "internal_port": 80, "protocol": null, "ports": null, "concurrency": null, "autostop": null,
        "autostart": null, "min_machines_running": null, "checks": null,
        "force_instance_key": null, "force_instance_description": null,
    });
    let port = json!({
        "port": 80, "start_port": null, "end_port": null, "handlers": null, "force_https": null,
        "tls_options": null, "http_options": null, "proxy_proto_options": null,
    });
    let check = json!({
        "type": "tcp", "port": 80, "interval": null, "timeout": null, "grace_period": null,
        "method": null, "path": null, "protocol": null, "headers": null, "tls_skip_verify": null,
        "tls_server_name": null, "kind": null,
    });
    let mut with_ports = service.clone();
    with_ports["ports"] = json!([port]);
    with_ports["checks"] = json!([check]);
    let config = json!({"image": "x", "services": [service, with_ports], "checks": {"c": check}});
    let made = cluster.post(base, json!({"config": config})).await;
    assert!(made["config"]["services"][0].get("ports").is_none());
}

#[tokio::test]
async fn numbers_and_flags_may_be_text() {
    let cluster = Cluster::start().await;
    cluster.app("text").await;
    let base = "/v1/apps/text/machines";
    let body = json!({
        "config": {
            "image": "x",
            "guest": {"cpus": "1", "memory_mb": "512", "cpu_kind": "shared"},
            "services": [{"internal_port": "8080", "ports": [{"port": "443"}], "autostart": "true"}],
            "restart": {"policy": "on-failure", "max_retries": "3"},
            "env": {"PORT": 8080},
        },
        "lease_ttl": "30", "skip_launch": "true",
    });
    let made = cluster.post(base, body).await;
    let config = &made["config"];
    assert_eq!(config["guest"]["memory_mb"], 512);
    assert_eq!(config["services"][0]["internal_port"], 8080);
    assert_eq!(config["services"][0]["ports"][0]["port"], 443);
    assert_eq!(config["services"][0]["autostart"], true);
    assert_eq!(config["restart"]["max_retries"], 3);
    assert_eq!(config["env"]["PORT"], "8080");
    let id = made["id"].as_str().unwrap();
    cluster.wait("text", id, "stopped").await;
    let nonce = made["nonce"].as_str();
    assert!(nonce.is_some());
    let lease = format!("{base}/{id}/lease");
    let (status, _) = cluster
        .call_with(Method::POST, &lease, json!({"ttl": "60"}), nonce)
        .await;
    assert_eq!(status, StatusCode::CREATED);
    let volume = json!({"name": "v", "size_gb": "2", "encrypted": "false"});
    let volume = cluster.post("/v1/apps/text/volumes", volume).await;
    assert_eq!(volume["size_gb"], 2);
    let extend = format!(
        "/v1/apps/text/volumes/{}/extend",
        volume["id"].as_str().unwrap()
    );
    let (status, extended) = cluster
        .call(Method::PUT, &extend, json!({"size_gb": "4"}))
        .await;
    assert_eq!(
        (status, &extended["volume"]["size_gb"]),
        (StatusCode::OK, &json!(4))
    );
}

#[tokio::test]
async fn options_stand_in_the_query_or_in_the_body() {
    let cluster = Cluster::start().await;
    cluster.app("where").await;
    let base = "/v1/apps/where/machines";
    let id = cluster.machine("where").await;
    let path = format!("{base}/{id}");
    let in_query = format!("{path}/stop?signal=SIGTERM&timeout=3");
    for (path, body) in [
        (in_query.clone(), Value::Null),
        (in_query, json!({"id": id})),
        (
            format!("{path}/stop"),
            json!({"signal": 15, "timeout": "3s"}),
        ),
        (
            format!("{path}/stop"),
            json!({"signal": "TERM", "timeout": 3_000_000_000_u64}),
        ),
    ] {
        cluster.post(&path, body).await;
        cluster.wait("where", &id, "stopped").await;
    }
    cluster.post(&format!("{path}/start"), Value::Null).await;
    cluster.wait("where", &id, "started").await;
    for (query, body) in [
        ("", json!({"force_stop": true})),
        ("?force_stop=true", Value::Null),
        ("?timeout=30s&signal=SIGINT", Value::Null),
        ("?timeout=30", json!({"signal": "SIGINT"})),
        ("", json!({"timeout": 30})),
    ] {
        cluster.post(&format!("{path}/restart{query}"), body).await;
        cluster.wait("where", &id, "started").await;
    }
    for (query, body) in [
        ("?timeout=301", Value::Null),
        ("", json!({"timeout": 301})),
        ("", json!({"timeout": "soon"})),
        ("?signal=SIGFOO", Value::Null),
        ("", json!({"force_stop": "perhaps"})),
    ] {
        let path = format!("{path}/restart{query}");
        let (status, answer) = cluster.call(Method::POST, &path, body.clone()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query} {body}: {answer}");
    }
    // The body's word counts.
    let both = format!("{path}/lease?ttl=5000");
    let lease = cluster
        .post(&both, json!({"ttl": 10, "description": "mine"}))
        .await;
    let ends = lease["data"]["expires_at"].as_i64().unwrap();
    assert!(ends <= cluster.env.now().as_second() + 11, "{lease}");
    let nonce = lease["data"]["nonce"].as_str();
    let (status, met) = cluster
        .call(
            Method::GET,
            &format!("{path}/wait"),
            json!({"state": ["started"], "timeout": 5}),
        )
        .await;
    assert_eq!((status, &met["state"]), (StatusCode::OK, &json!("started")));
    let (status, _) = cluster
        .call_with(Method::DELETE, &path, json!({"force": true}), nonce)
        .await;
    assert_eq!(status, StatusCode::OK);
    let (status, _) = cluster
        .call(Method::DELETE, "/v1/apps/where", json!({"force": true}))
        .await;
    assert_eq!(status, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn statuses_are_those_that_clients_look_for_and_an_image_has_its_tag_and_digest() {
    let cluster = Cluster::start().await;
    let (status, _) = cluster
        .call(Method::POST, "/v1/apps?wait=true", json!({"name": "codes"}))
        .await;
    assert_eq!(status, StatusCode::CREATED);
    let base = "/v1/apps/codes/machines";
    let secret = json!({"config": {"image": "x"}, "skip_secrets": true});
    cluster
        .post("/v1/apps/codes/secrets", json!({"values": {"K": "v"}}))
        .await;
    let (status, made) = cluster.call(Method::POST, base, secret).await;
    assert_eq!(status, StatusCode::OK);
    for part in ["registry", "repository", "tag", "digest"] {
        assert!(made["image_ref"][part].is_string(), "{part}: {made}");
    }
    for list in ["events", "checks"] {
        assert!(made[list].is_array(), "{list}");
    }
    let groups = made["private_ip"].as_str().unwrap().split(':').count();
    assert_eq!(groups, 8, "{made}");
    let id = made["id"].as_str().unwrap();
    cluster.wait("codes", id, "started").await;
    // It was to have none.
    assert!(cluster.host.secrets(&crate::cluster::id(id)).is_empty());
    let path = format!("{base}/{id}");
    let (status, _) = cluster
        .call(
            Method::POST,
            &format!("{path}/metadata/k"),
            json!({"value": "v"}),
        )
        .await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let (status, _) = cluster
        .call(Method::POST, &format!("{path}/lease"), json!({"ttl": 1}))
        .await;
    assert_eq!(status, StatusCode::CREATED);
    let (status, body) = cluster
        .call(
            Method::POST,
            &format!("{path}/exec"),
            json!({"cmd": "a", "container": "side"}),
        )
        .await;
    assert_eq!(status, StatusCode::NOT_IMPLEMENTED, "{body}");
    cluster
        .until(&format!("{path}/lease"), |body| body["error"].is_string())
        .await;
    let (status, body) = cluster
        .call(Method::DELETE, &format!("{path}?kill=true"), Value::Null)
        .await;
    assert_eq!((status, body), (StatusCode::OK, json!({"ok": true})));
    let (status, _) = cluster
        .call(Method::DELETE, "/v1/apps/codes?force=true", Value::Null)
        .await;
    assert_eq!(status, StatusCode::ACCEPTED);
}
