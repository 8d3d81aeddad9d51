//! Apps and the life of Machines (machines-api.md 12).

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::cluster::{Cluster, id};

#[tokio::test]
async fn an_app_is_made_once_and_its_name_is_free_again_when_it_is_gone() {
    let cluster = Cluster::start().await;
    let body = json!({"app_name": "one", "org_slug": "personal"});
    let (status, made) = cluster.call(Method::POST, "/v1/apps", body.clone()).await;
    assert_eq!(status, StatusCode::CREATED);
    assert!(made["created_at"].as_i64().unwrap() > 1_500_000_000_000);
    let (status, error) = cluster.call(Method::POST, "/v1/apps", body.clone()).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(error["status"], "name_taken");
    assert_eq!(
        error["error"],
        "Validation failed: Name has already been taken"
    );
    for bad in ["", "../x", "A", "a.b"] {
        let (status, error) = cluster
            .call(Method::POST, "/v1/apps", json!({"name": bad}))
            .await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{bad}");
        assert!(error["error"].as_str().unwrap().contains("under 63 chars"));
    }
    assert_eq!(cluster.get("/v1/apps/one").await["status"], "pending");
    let machine = cluster.machine("one").await;
    assert_eq!(cluster.get("/v1/apps/one").await["status"], "deployed");
    // With what runs in it, and without force: so Fly's client asks.
    let (status, _) = cluster
        .call(Method::DELETE, "/v1/apps/one", Value::Null)
        .await;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert_eq!(cluster.get("/v1/apps").await["total_apps"], 0);
    let (status, error) = cluster.call(Method::GET, "/v1/apps/one", Value::Null).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(error["error"], "Could not find App \"one\"");
    assert_eq!(cluster.host.forgotten(), [id(&machine)]);
    cluster.app("one").await;
}

#[tokio::test]
async fn a_machine_lives_from_create_to_destroy() {
    let cluster = Cluster::start().await;
    cluster.app("life").await;
    let made = cluster
        .post(
            "/v1/apps/life/machines",
            json!({"config": {"image": "nginx", "init": null}}),
        )
        .await;
    assert_eq!(made["state"], "created");
    assert_eq!(made["instance_id"].as_str().unwrap().len(), 26);
    assert_eq!(made["events"][0]["type"], "launch");
    assert_eq!(made["config"]["guest"]["memory_mb"], 256);
    assert!(
        made["image_ref"]["digest"]
            .as_str()
            .unwrap()
            .starts_with("sha256:")
    );
    assert!(made["private_ip"].as_str().unwrap().starts_with("fdaa:"));
    let id = made["id"].as_str().unwrap();
    let path = format!("/v1/apps/life/machines/{id}");
    let waited = cluster.wait("life", id, "started").await;
    assert_eq!(waited["state"], "started");
    assert_eq!(waited["version"], made["instance_id"]);

    let (status, error) = cluster.call(Method::DELETE, &path, Value::Null).await;
    assert_eq!(status, StatusCode::PRECONDITION_FAILED);
    assert!(
        error["error"]
            .as_str()
            .unwrap()
            .contains("unable to destroy machine, not currently")
    );
    assert_eq!(
        cluster.post(&format!("{path}/stop"), Value::Null).await["ok"],
        true
    );
    cluster.wait("life", id, "stopped").await;
    cluster
        .post(
            &format!("{path}/stop"),
            json!({"signal": "SIGTERM", "timeout": "3s"}),
        )
        .await;
    let started = cluster.post(&format!("{path}/start"), Value::Null).await;
    assert_eq!(started["previous_state"], "stopped");
    cluster.wait("life", id, "started").await;
    cluster
        .post(
            &format!("{path}/restart?timeout=5&signal=SIGINT"),
            Value::Null,
        )
        .await;
    cluster
        .post(&format!("{path}/signal"), json!({"signal": 10}))
        .await;
    let exec = cluster
        .post(&format!("{path}/exec"), json!({"cmd": "echo hi"}))
        .await;
    assert_eq!(
        (&exec["exit_code"], &exec["stdout"]),
        (&json!(3), &json!("echo hi"))
    );
    let events = cluster.get(&format!("{path}/events?limit=3")).await;
    assert_eq!(events.as_array().unwrap().len(), 3);
    assert_eq!(cluster.host.done_twice(), 0);
}

#[tokio::test]
async fn a_destroyed_machine_is_shown_to_who_asks_for_it_and_frees_its_name() {
    let cluster = Cluster::start().await;
    cluster.app("life").await;
    let body = json!({"config": {"image": "nginx"}, "name": "once"});
    let made = cluster.post("/v1/apps/life/machines", body.clone()).await;
    let id = made["id"].as_str().unwrap();
    let path = format!("/v1/apps/life/machines/{id}");

    let (status, _) = cluster
        .call(Method::DELETE, &format!("{path}?kill=true"), Value::Null)
        .await;
    assert_eq!(status, StatusCode::OK);
    cluster.wait("life", id, "destroyed").await;
    assert_eq!(cluster.get("/v1/apps/life/machines").await, json!([]));
    let all = cluster
        .get("/v1/apps/life/machines?include_deleted=true")
        .await;
    assert_eq!(all[0]["state"], "destroyed");
    let deadline = tokio::time::Instant::now() + crate::cluster::PATIENCE;
    loop {
        let (status, error) = cluster
            .call(Method::POST, "/v1/apps/life/machines", body.clone())
            .await;
        if status == StatusCode::OK {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{error}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_update_makes_a_new_version_of_the_same_machine() {
    let cluster = Cluster::start().await;
    cluster.app("up").await;
    let id = cluster.machine("up").await;
    let path = format!("/v1/apps/up/machines/{id}");
    let before = cluster.get(&path).await;
    let body = json!({
        "config": {"image": "nginx", "env": {"A": "1"}},
        "current_version": before["instance_id"],
    });
    let after = cluster.post(&path, body.clone()).await;
    assert_eq!(after["id"], before["id"]);
    assert_ne!(after["instance_id"], before["instance_id"]);
    let version = after["instance_id"].as_str().unwrap();
    cluster
        .get(&format!(
            "{path}/wait?state=started&instance_id={version}&timeout=10"
        ))
        .await;
    assert_eq!(cluster.get(&path).await["config"]["env"]["A"], "1");
    let (status, _) = cluster.call(Method::POST, &path, body).await;
    assert_eq!(status, StatusCode::CONFLICT);
    let old = before["instance_id"].as_str().unwrap();
    let (_, error) = cluster
        .call(
            Method::GET,
            &format!("{path}/wait?version={old}"),
            Value::Null,
        )
        .await;
    assert!(
        error["error"]
            .as_str()
            .unwrap()
            .contains("currently replaced"),
        "{error}"
    );
    // One that is down stays down.
    cluster.post(&format!("{path}/stop"), Value::Null).await;
    cluster.wait("up", &id, "stopped").await;
    let again = cluster
        .post(&path, json!({"config": {"image": "nginx"}}))
        .await;
    let version = again["instance_id"].as_str().unwrap();
    let waited = cluster
        .get(&format!(
            "{path}/wait?state=settled&version={version}&timeout=10"
        ))
        .await;
    assert_eq!(waited["state"], "stopped");
}

#[tokio::test]
async fn a_wait_has_its_limits_and_sees_a_start_that_was_followed_by_a_crash() {
    let cluster = Cluster::start().await;
    cluster.app("waits").await;
    let path = "/v1/apps/waits/machines";
    let body =
        json!({"config": {"image": "x", "env": {"BEHAVIOUR": "crash"}}, "skip_launch": true});
    let made = cluster.post(path, body).await;
    let id = made["id"].as_str().unwrap();
    cluster.wait("waits", id, "stopped").await;
    for bad in ["0", "61", "x"] {
        let (status, error) = cluster
            .call(
                Method::GET,
                &format!("{path}/{id}/wait?timeout={bad}"),
                Value::Null,
            )
            .await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(
            error["error"]
                .as_str()
                .unwrap()
                .contains("inside range [1s, 1m0s]")
        );
    }
    let (status, error) = cluster
        .call(
            Method::GET,
            &format!("{path}/{id}/wait?state=started&timeout=1"),
            Value::Null,
        )
        .await;
    assert_eq!(status, StatusCode::REQUEST_TIMEOUT);
    assert_eq!(
        error["error"],
        "machine failed to reach desired state, started, currently stopped"
    );
    let newest = cluster.get(&format!("{path}/{id}/events")).await[0]["id"].clone();
    cluster
        .post(&format!("{path}/{id}/start"), Value::Null)
        .await;
    let after = newest.as_str().unwrap();
    let met = cluster
        .get(&format!(
            "{path}/{id}/wait?state=started&from_event_id={after}&timeout=10"
        ))
        .await;
    assert_eq!(met["state"], "started");
    assert_eq!(
        cluster.get(&format!("{path}/{id}")).await["state"],
        "stopped"
    );
}

#[tokio::test]
async fn a_start_is_refused_in_the_wrong_state() {
    let cluster = Cluster::start().await;
    cluster.app("wrong").await;
    cluster.host.freeze(true);
    let made = cluster
        .post("/v1/apps/wrong/machines", json!({"config": {"image": "x"}}))
        .await;
    let path = format!("/v1/apps/wrong/machines/{}", made["id"].as_str().unwrap());
    let (status, error) = cluster
        .call(Method::POST, &format!("{path}/start"), Value::Null)
        .await;
    assert_eq!(status, StatusCode::PRECONDITION_FAILED);
    assert_eq!(
        error["error"],
        "failed_precondition: unable to start machine from current state: 'created'"
    );
    let (status, error) = cluster
        .call(Method::POST, &format!("{path}/restart"), Value::Null)
        .await;
    assert_eq!(status, StatusCode::PRECONDITION_FAILED, "{error}");
    // What is asked of a Machine is bounded.
    let mut refused = 0;
    for _ in 0..20 {
        let (status, _) = cluster
            .call(Method::POST, &format!("{path}/stop"), Value::Null)
            .await;
        refused += usize::from(status == StatusCode::TOO_MANY_REQUESTS);
    }
    assert_eq!(refused, 20 - 15);
}

#[tokio::test]
async fn machines_are_listed_by_what_is_asked_for() {
    let cluster = Cluster::start().await;
    cluster.app("list").await;
    let path = "/v1/apps/list/machines";
    let web = json!({"image": "x", "metadata": {"fly_process_group": "web"}});
    cluster
        .post(
            path,
            json!({"config": web, "region": "gru", "name": "first"}),
        )
        .await;
    cluster.machine("list").await;
    let (status, error) = cluster
        .call(
            Method::POST,
            path,
            json!({"config": {"image": "x"}, "name": "first"}),
        )
        .await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(error["error"].as_str().unwrap().contains("unique"));
    let (status, error) = cluster
        .call(
            Method::POST,
            path,
            json!({"config": {"image": "x"}, "region": "mars"}),
        )
        .await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        error["error"].as_str().unwrap().contains("gru, iad"),
        "{error}"
    );
    let (status, error) = cluster
        .call(Method::POST, path, json!({"config": {"image": "missing"}}))
        .await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(
        error["error"].as_str().unwrap().contains("missing"),
        "{error}"
    );
    assert_eq!(cluster.get(path).await.as_array().unwrap().len(), 2);
    for (query, count) in [
        ("region=gru", 1),
        ("state=started,stopped", 2),
        ("state=stopped", 0),
        ("metadata.fly_process_group=web", 1),
        ("metadata.fly_process_group=web&region=iad", 0),
    ] {
        let path = format!("{path}?{query}");
        let as_many = |list: &Value| list.as_array().is_some_and(|list| list.len() == count);
        cluster.until(&path, as_many).await;
    }
    let summary = cluster.get(&format!("{path}?summary=true")).await;
    assert!(summary[0]["config"].is_null() && summary[0]["events"].is_null());
    assert!(summary[0]["id"].is_string());
}

#[tokio::test]
async fn metadata_changes_without_a_new_version() {
    let cluster = Cluster::start().await;
    cluster.app("meta").await;
    let id = cluster.machine("meta").await;
    let path = format!("/v1/apps/meta/machines/{id}");
    let before = cluster.get(&path).await;
    let (status, _) = cluster
        .call(
            Method::POST,
            &format!("{path}/metadata/a%2Fb"),
            json!({"value": "1"}),
        )
        .await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let merge = json!({"metadata": {"c": "2", "gone": null}});
    let (status, _) = cluster
        .call(Method::PATCH, &format!("{path}/metadata"), merge)
        .await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert_eq!(
        cluster.get(&format!("{path}/metadata")).await,
        json!({"a/b": "1", "c": "2"})
    );
    let (status, _) = cluster
        .call(Method::DELETE, &format!("{path}/metadata/c"), Value::Null)
        .await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let (status, _) = cluster
        .call(Method::GET, &format!("{path}/metadata/c"), Value::Null)
        .await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let stale = json!({"metadata": {"x": "y"}, "machine_version": "01ARZ3NDEKTSV4RRFFQ69G5FAV"});
    let (status, _) = cluster
        .call(Method::PATCH, &format!("{path}/metadata"), stale)
        .await;
    assert_eq!(status, StatusCode::PRECONDITION_FAILED);
    let after = cluster.get(&path).await;
    assert_eq!(after["instance_id"], before["instance_id"]);
}

#[tokio::test]
async fn bad_requests_are_answered_in_words() {
    let cluster = Cluster::start().await;
    cluster.app("bad").await;
    let (status, error) = cluster
        .call(Method::GET, "/v1/apps/bad/machines/xyz", Value::Null)
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(error["error"], "invalid machine ID, 'xyz'");
    let (status, error) = cluster
        .call(
            Method::GET,
            "/v1/apps/bad/machines/0123456789abcd",
            Value::Null,
        )
        .await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(error["error"], "machine not found");
    let (status, error) = cluster
        .call(Method::POST, "/v1/apps/bad/machines", Value::Null)
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(
        error["error"]
            .as_str()
            .unwrap()
            .contains("config.image is required")
    );
    let (status, error) = cluster
        .call(Method::POST, "/v1/apps/bad/machines", json!({"config": 7}))
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{error}");
    let (status, error) = cluster
        .call(Method::GET, "/v1/apps/..%2F..%2Fetc", Value::Null)
        .await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{error}");
    let long = "x".repeat(1024 * 1024 + 1);
    let (status, error) = cluster
        .call(Method::POST, "/v1/apps", json!({"name": long}))
        .await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{error}");
}

#[tokio::test]
async fn routes_follow_the_machines() {
    let cluster = Cluster::start().await;
    let mut routes = cluster.handle().routes();
    cluster.app("routed").await;
    let service = json!({"internal_port": 8080, "ports": [{"port": 80, "handlers": ["http"]}]});
    let config = json!({"image": "x", "services": [service]});
    let made = cluster
        .post("/v1/apps/routed/machines", json!({"config": config}))
        .await;
    let machine = id(made["id"].as_str().unwrap());
    let path = format!("/v1/apps/routed/machines/{machine}");
    let cordoned = |routes: &hangar_server::Routes, wanted: bool| {
        let app = routes.apps.get("routed");
        app.and_then(|app| app.machines.iter().find(|route| route.id == machine))
            .is_some_and(|route| route.cordoned == wanted && route.services.len() == 1)
    };
    routes
        .wait_for(|routes| cordoned(routes, false))
        .await
        .unwrap();
    cluster.post(&format!("{path}/cordon"), Value::Null).await;
    let now = routes
        .wait_for(|routes| cordoned(routes, true))
        .await
        .unwrap()
        .clone();
    assert_eq!(now.apps["routed"].hostnames, ["routed.localhost"]);
    cluster.post(&format!("{path}/uncordon"), Value::Null).await;
    routes
        .wait_for(|routes| cordoned(routes, false))
        .await
        .unwrap();
    cluster
        .call(Method::DELETE, &format!("{path}?force=true"), Value::Null)
        .await;
    let gone =
        |routes: &std::sync::Arc<hangar_server::Routes>| routes.apps["routed"].machines.is_empty();
    routes.wait_for(gone).await.unwrap();
    assert_eq!(
        cluster.get("/v1/apps/routed").await["app_url"],
        Value::Null,
        "no Machine, no URL"
    );
}
