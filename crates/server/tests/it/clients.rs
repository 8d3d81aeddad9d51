//! Deploys that a client drives itself (D2): the claim, who keeps it, and what stays of them.

use std::time::Duration;

use hangar_api::env::Env;
use hangar_store::Store;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::cluster::{Cluster, read};
use crate::deploys::{config, deploy, finished};

const RELEASES: &str = "/api/v1/releases";
const AGENT: &str = "flyctl/0.3";

/// fly.toml as a client sends it: two groups.
fn definition() -> Value {
    json!({
        "app": "both",
        "primary_region": "gru",
        "env": {"A": "1"},
        "processes": {"web": "serve", "worker": "work"},
        "http_service": {"internal_port": 8080, "processes": ["web"]},
    })
}

fn release(app: &str) -> Value {
    json!({
        "app_name": app, "build_id": 7, "image": "one", "strategy": "ROLLING",
        "definition": definition(),
    })
}

impl Cluster {
    /// Calls as the program that drives.
    async fn as_client(&self, method: Method, path: &str, body: Value) -> (StatusCode, Value) {
        let mut request = self.request(method, path, &body);
        let agent = AGENT.parse().unwrap();
        request.headers_mut().insert("user-agent", agent);
        read(self.send(request).await).await
    }

    /// Makes a client's release and returns its id.
    async fn begin(&self, app: &str) -> String {
        let (status, made) = self.as_client(Method::POST, RELEASES, release(app)).await;
        assert_eq!(status, StatusCode::CREATED, "{made}");
        made["release"]["id"].as_str().unwrap().to_owned()
    }

    async fn report(&self, id: &str, status: &str) -> (StatusCode, Value) {
        let path = format!("{RELEASES}/{id}");
        let body = json!({"status": status, "metadata": {"post_deployment_info": {}}});
        self.as_client(Method::PATCH, &path, body).await
    }

    /// Makes a Machine of a release and waits until it runs.
    async fn machine_of(&self, app: &str, release: &str, group: &str) -> String {
        let metadata = json!({
            "fly_platform_version": "v2", "fly_process_group": group,
            "fly_release_id": release, "fly_release_version": "1",
        });
        let body = json!({"region": "gru", "config": {"image": "one", "metadata": metadata}});
        let path = format!("/v1/apps/{app}/machines");
        let (status, made) = self.as_client(Method::POST, &path, body).await;
        assert_eq!(status, StatusCode::OK, "{made}");
        let id = made["id"].as_str().unwrap().to_owned();
        self.wait(app, &id, "started").await;
        id
    }
}

#[tokio::test]
async fn a_clients_release_is_one_like_ours() {
    let cluster = Cluster::start().await;
    cluster.app("both").await;
    let id = cluster.begin("both").await;
    let (status, shown) = cluster.report(&id, "running").await;
    assert_eq!(
        (status, &shown["in_progress"]),
        (StatusCode::OK, &json!(true))
    );
    for group in ["web", "worker"] {
        cluster.machine_of("both", &id, group).await;
    }
    let (status, shown) = cluster.report(&id, "complete").await;
    assert_eq!(status, StatusCode::OK, "{shown}");
    assert_eq!(
        (&shown["version"], &shown["status"], &shown["stable"]),
        (&json!(1), &json!("complete"), &json!(true))
    );
    // Said once more, after an answer that was lost.
    assert_eq!(cluster.report(&id, "complete").await.0, StatusCode::OK);
    assert_eq!(cluster.report(&id, "failed").await.0, StatusCode::CONFLICT);

    let ours = cluster.get("/v1/apps/both/releases/1").await;
    assert_eq!(ours["definition"], definition());
    assert_eq!(ours["image_ref"]["digest"], shown_digest(&shown));
    let worker = &ours["groups"]["worker"]["config"];
    assert_eq!(worker["init"]["cmd"], json!(["work"]));
    assert_eq!(worker["env"]["A"], "1");
    let current = cluster.get("/api/v1/apps/both/releases/current").await;
    assert_eq!(current["id"], json!(id));
    let formation = cluster
        .until("/v1/apps/both/formation", |f| {
            f["groups"]["web"]["count"] == 1 && f["groups"]["worker"]["count"] == 1
        })
        .await;
    assert!(formation["paused"].is_null(), "{formation}");

    // What the server deploys next follows, and can go back to what the client deployed.
    let body = config("two", &[("web", &[])]);
    let done = deploy(&cluster, "both", body).await;
    assert_eq!(done["status"], "complete", "{done}");
    let back = json!({"source": {"kind": "release", "version": 1}, "options": {"ha": false, "smoke_checks": false}});
    let done = deploy(&cluster, "both", back).await;
    assert_eq!(done["status"], "complete", "{done}");
    let machines = cluster.get("/v1/apps/both/machines").await;
    let groups = machines.as_array().unwrap().iter();
    let mut groups: Vec<&Value> = groups
        .map(|m| &m["config"]["metadata"]["fly_process_group"])
        .collect();
    groups.sort_by_key(|group| group.to_string());
    assert_eq!(groups, ["web", "worker"]);
}

fn shown_digest(shown: &Value) -> Value {
    let text = shown["image_ref"].as_str().unwrap();
    json!(text.split_once('@').unwrap().1)
}

#[tokio::test]
async fn either_way_to_deploy_keeps_the_other_out() {
    let cluster = Cluster::start().await;
    cluster.app("claim").await;
    let id = cluster.begin("claim").await;
    let body = config("one", &[("web", &[])]);
    let deployments = "/v1/apps/claim/deployments";
    let refused = |answer: (StatusCode, Value), holder: &str| {
        assert_eq!(answer.0, StatusCode::CONFLICT, "{}", answer.1);
        let text = answer.1["error"].as_str().unwrap().to_owned();
        assert!(text.contains(holder), "{text}");
    };
    // A client deploys: neither the server nor another client may.
    let by = format!("a client's deploy {id} of release v1 by admin since ");
    refused(
        cluster.call(Method::POST, deployments, body.clone()).await,
        &by,
    );
    refused(
        cluster.call(Method::POST, RELEASES, release("claim")).await,
        &by,
    );
    assert_eq!(cluster.report(&id, "failed").await.0, StatusCode::OK);
    // The server deploys: no client may, and the one before makes no Machine any more.
    cluster.host.freeze(true);
    let made = cluster.post(deployments, body).await;
    let ours = made["id"].as_str().unwrap();
    refused(
        cluster.call(Method::POST, RELEASES, release("claim")).await,
        ours,
    );
    let late = json!({"config": {"image": "one", "metadata": {"fly_release_id": id}}});
    let late = cluster.as_client(Method::POST, "/v1/apps/claim/machines", late);
    refused(late.await, ours);
    // And it is not a client that says how that ended.
    let release = made["release"].as_str().unwrap();
    assert_eq!(
        cluster.report(release, "complete").await.0,
        StatusCode::CONFLICT
    );
    finished(&cluster, "claim", &made).await;
    cluster.begin("claim").await;
}

#[tokio::test(start_paused = true)]
async fn a_client_is_alive_while_it_calls_and_lapses_when_it_is_silent() {
    let cluster = Cluster::start_in(Env::simulated(5), Store::memory()).await;
    cluster.app("slow").await;
    let id = cluster.begin("slow").await;
    let machine = cluster.machine_of("slow", &id, "app").await;
    let path = format!("/v1/apps/slow/machines/{machine}");
    let holds = async || {
        let refused = cluster.call(Method::POST, RELEASES, release("slow")).await;
        refused.0 == StatusCode::CONFLICT
    };
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_secs(40)).await;
        cluster.as_client(Method::GET, &path, Value::Null).await;
        assert!(holds().await, "it calls");
    }
    // Somebody else's look at the Machine is no sign of life, nor is the client's own of the list.
    tokio::time::sleep(Duration::from_secs(40)).await;
    cluster.get(&path).await;
    let list = "/v1/apps/slow/machines";
    cluster.as_client(Method::GET, list, Value::Null).await;
    assert!(holds().await, "not yet a minute");
    tokio::time::sleep(Duration::from_secs(25)).await;
    let current = cluster.get("/api/v1/apps/slow/releases/current").await;
    assert_eq!(current["status"], "interrupted");
    // Nobody came: what it says still holds.
    let (status, _) = cluster.report(&id, "running").await;
    assert_eq!(status, StatusCode::OK);
    assert!(holds().await, "it is back");
    tokio::time::sleep(Duration::from_secs(65)).await;
    let next = cluster.begin("slow").await;
    let (status, error) = cluster.report(&id, "complete").await;
    assert_eq!(status, StatusCode::CONFLICT, "{error}");
    assert_eq!(cluster.report(&next, "complete").await.0, StatusCode::OK);
    let (status, error) = cluster.report(&id, "complete").await;
    assert_eq!(status, StatusCode::CONFLICT, "{error}");
    let text = error["error"].as_str().unwrap();
    assert!(text.contains("v2 has followed"), "{text}");
}

#[tokio::test]
async fn what_is_no_release_is_refused_in_words() {
    let cluster = Cluster::start().await;
    cluster.app("bad").await;
    let (status, error) = cluster.call(Method::POST, RELEASES, release("none")).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{error}");
    let missing = cluster
        .report("01ARZ3NDEKTSV4RRFFQ69G5FAV", "complete")
        .await;
    assert_eq!(missing.0, StatusCode::NOT_FOUND);
    let id = cluster.begin("bad").await;
    let (status, error) = cluster.report(&id, "splendid").await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{error}");
    assert_eq!(cluster.report(&id, "interrupted").await.0, StatusCode::OK);
    // A definition that nobody understands is the client's own business: it is kept as it is, and
    // only a rollback to it is not to be had.
    let mut odd = release("bad");
    odd["definition"] = json!({"app": "bad", "http_service": 7});
    let (status, made) = cluster.as_client(Method::POST, RELEASES, odd).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let kept = cluster.get("/v1/apps/bad/releases/2").await;
    assert_eq!(kept["definition"]["http_service"], 7);
    let id = made["release"]["id"].as_str().unwrap();
    assert_eq!(cluster.report(id, "complete").await.0, StatusCode::OK);
    let back = json!({"source": {"kind": "release", "version": 2}});
    let path = "/v1/apps/bad/deployments";
    let (status, error) = cluster.call(Method::POST, path, back).await;
    assert_eq!(status, StatusCode::PRECONDITION_FAILED, "{error}");
}
