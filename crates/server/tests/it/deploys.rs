//! Deployments that the server carries out.

use http_body_util::BodyExt as _;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::cluster::{Cluster, PATIENCE};

/// Returns a deployment of groups, each with its environment; `web` has a service and a check.
pub(crate) fn config(image: &str, groups: &[(&str, &[(&str, &str)])]) -> Value {
    let mut all = serde_json::Map::new();
    for (group, env) in groups {
        let env: serde_json::Map<_, _> = env
            .iter()
            .map(|(k, v)| ((*k).to_owned(), json!(v)))
            .collect();
        let metadata = json!({"fly_platform_version": "v2", "fly_process_group": group});
        let mut config = json!({"image": image, "env": env, "metadata": metadata});
        if *group == "web" {
            config["services"] = json!([{
                "protocol": "tcp",
                "internal_port": 8080,
                "ports": [{"port": 80, "handlers": ["http"]}],
                "checks": [{"type": "http", "path": "/"}],
            }]);
        }
        all.insert(
            (*group).to_owned(),
            json!({"config": config, "sets_guest": false}),
        );
    }
    json!({
        "source": {
            "kind": "config",
            "groups": all,
            "image": image,
            "primary_region": "gru",
            "definition": {"app": "x"},
        },
        "options": {"ha": false, "smoke_checks": false, "wait_timeout_secs": 2},
    })
}

pub(crate) async fn deploy(cluster: &Cluster, app: &str, body: Value) -> Value {
    let made = cluster
        .post(&format!("/v1/apps/{app}/deployments"), body)
        .await;
    finished(cluster, app, &made).await
}

pub(crate) async fn finished(cluster: &Cluster, app: &str, made: &Value) -> Value {
    let id = made["id"].as_str().unwrap();
    let over = |deployment: &Value| !deployment["finished_at"].is_null();
    cluster
        .until(&format!("/v1/apps/{app}/deployments/{id}"), over)
        .await
}

pub(crate) async fn machines(cluster: &Cluster, app: &str) -> Vec<Value> {
    let list = cluster.get(&format!("/v1/apps/{app}/machines")).await;
    list.as_array().unwrap().clone()
}

#[tokio::test]
async fn a_first_deploy_makes_every_group_and_the_next_one_updates_them() {
    let cluster = Cluster::start().await;
    cluster.app("roll").await;
    let body = config("one", &[("web", &[]), ("worker", &[])]);
    let done = deploy(&cluster, "roll", body).await;
    assert_eq!(done["status"], "complete", "{done}");
    let first = machines(&cluster, "roll").await;
    assert_eq!(first.len(), 2);
    for machine in &first {
        assert_eq!(
            (&machine["state"], &machine["region"]),
            (&json!("started"), &json!("gru"))
        );
        assert_eq!(machine["config"]["metadata"]["fly_release_version"], "1");
        assert_eq!(machine["config"]["guest"]["memory_mb"], 256);
    }
    let app = cluster.get("/v1/apps/roll").await;
    assert_eq!(app["app_url"], "http://roll.localhost:8080/");
    assert_eq!(app["hostname"], "roll.localhost:8080");

    let done = deploy(
        &cluster,
        "roll",
        config("two", &[("web", &[]), ("cron", &[])]),
    )
    .await;
    assert_eq!(done["status"], "complete", "{done}");
    let second = machines(&cluster, "roll").await;
    let group = |m: &Value| {
        m["config"]["metadata"]["fly_process_group"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let mut groups: Vec<_> = second.iter().map(group).collect();
    groups.sort();
    assert_eq!(groups, ["cron", "web"]);
    let web = |list: &[Value]| list.iter().find(|m| group(m) == "web").unwrap()["id"].clone();
    assert_eq!(web(&first), web(&second), "updated in place");
    assert!(second.iter().all(|m| m["image_ref"]["repository"] == "two"));

    let releases = cluster.get("/v1/apps/roll/releases").await;
    let shown: Vec<_> = releases
        .as_array()
        .unwrap()
        .iter()
        .map(|r| &r["status"])
        .collect();
    assert_eq!(shown, ["complete", "complete"]);
    assert_eq!(releases[0]["version"], 2);
    // Nothing is held any more.
    for machine in &second {
        let path = format!(
            "/v1/apps/roll/machines/{}/lease",
            machine["id"].as_str().unwrap()
        );
        cluster
            .until(&path, |body| body["error"] == "lease not found")
            .await;
    }
    assert_eq!(cluster.host.done_twice(), 0);
}

/// Whoever scales a group to nothing and back at once is not told that its volume is taken.
#[tokio::test]
async fn a_group_waits_for_the_volume_of_a_machine_that_is_on_its_way_out() {
    let cluster = Cluster::start().await;
    cluster.app("disk").await;
    let mut body = config("one", &[("db", &[]), ("web", &[])]);
    body["source"]["groups"]["db"]["config"]["mounts"] = json!([{"name": "data", "path": "/data"}]);
    let done = deploy(&cluster, "disk", body.clone()).await;
    assert_eq!(done["status"], "complete", "{done}");
    cluster.host.slow_down();
    for _ in 0..5 {
        let all = machines(&cluster, "disk").await;
        let has_disk = |m: &&Value| m["config"]["mounts"].is_array();
        let old = all.iter().find(has_disk).unwrap();
        let path = format!(
            "/v1/apps/disk/machines/{}?force=true",
            old["id"].as_str().unwrap()
        );
        cluster.call(Method::DELETE, &path, Value::Null).await;
        let back = json!({"groups": {"db": {"count": 1}}});
        let formation = "/v1/apps/disk/formation";
        let (status, answer) = cluster.call(Method::PUT, formation, back).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        cluster
            .until("/v1/apps/disk/volumes", |volumes| {
                let taken = &volumes[0]["attached_machine_id"];
                !taken.is_null() && *taken != old["id"]
            })
            .await;
        let volumes = cluster.get("/v1/apps/disk/volumes").await;
        assert_eq!(volumes.as_array().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_dry_run_tells_and_changes_nothing() {
    let cluster = Cluster::start().await;
    cluster.app("dry").await;
    let mut body = config("one", &[("web", &[])]);
    body["dry_run"] = json!(true);
    let preview = cluster.post("/v1/apps/dry/deployments", body).await;
    assert!(
        preview["steps"].to_string().contains("create 1"),
        "{preview}"
    );
    assert_eq!(cluster.get("/v1/apps/dry/releases").await, json!([]));
    assert_eq!(machines(&cluster, "dry").await.len(), 0);
}

#[tokio::test]
async fn a_deploy_that_fails_puts_the_former_version_back() {
    let cluster = Cluster::start().await;
    cluster.app("back").await;
    deploy(
        &cluster,
        "back",
        config("one", &[("web", &[("V", "1")]), ("worker", &[])]),
    )
    .await;
    let bad = config(
        "two",
        &[
            ("web", &[("V", "2"), ("BEHAVIOUR", "sick")]),
            ("worker", &[]),
        ],
    );
    let failed = deploy(&cluster, "back", bad).await;
    assert_eq!(failed["status"], "rolled_back", "{failed}");
    let error = failed["error"].as_str().unwrap();
    assert!(error.contains("the last words"), "{error}");
    for machine in machines(&cluster, "back").await {
        assert_eq!(machine["state"], "started");
        assert_eq!(machine["image_ref"]["repository"], "one", "{machine}");
    }
    let releases = cluster.get("/v1/apps/back/releases").await;
    assert_eq!(releases[0]["status"], "failed");
    // The claim is given back: the next one can begin.
    let good = deploy(
        &cluster,
        "back",
        config("three", &[("web", &[]), ("worker", &[])]),
    )
    .await;
    assert_eq!(good["status"], "complete");

    // A former release comes back as a new one.
    let body = json!({"source": {"kind": "release", "version": 1},
                      "options": {"ha": false, "smoke_checks": false}});
    let back = deploy(&cluster, "back", body).await;
    assert_eq!(
        (&back["status"], &back["version"]),
        (&json!("complete"), &json!(4))
    );
    let web = machines(&cluster, "back").await;
    assert!(web.iter().all(|m| m["image_ref"]["repository"] == "one"));
    assert_eq!(
        cluster.get("/v1/apps/back/releases/4").await["description"],
        "Rollback to v1"
    );
}

#[tokio::test]
async fn a_second_deploy_at_once_is_refused_with_who_holds_the_claim() {
    let cluster = Cluster::start().await;
    cluster.app("twice").await;
    cluster.host.freeze(true);
    let body = config("one", &[("web", &[])]);
    let first = cluster
        .post("/v1/apps/twice/deployments", body.clone())
        .await;
    let (status, error) = cluster
        .call(Method::POST, "/v1/apps/twice/deployments", body)
        .await;
    assert_eq!(status, StatusCode::CONFLICT);
    let text = error["error"].as_str().unwrap();
    assert!(text.contains(first["id"].as_str().unwrap()), "{text}");
    assert!(text.contains("of release v1 by admin since "), "{text}");
    // A client that drives a deploy of its own is kept out too; a copy is not its deploy.
    for (release, wanted) in [
        (json!("01ARZ3NDEKTSV4RRFFQ69G5FAV"), StatusCode::CONFLICT),
        (first["release"].clone(), StatusCode::OK),
    ] {
        let config = json!({"image": "x", "metadata": {"fly_release_id": release}});
        let (status, answer) = cluster
            .call(
                Method::POST,
                "/v1/apps/twice/machines",
                json!({"config": config, "name": "copy"}),
            )
            .await;
        assert_eq!(status, wanted, "{answer}");
    }
    // It holds the leases of its own.
    let ours = |list: &Value| {
        let all = list.as_array()?;
        all.iter().find(|m| m["name"] != "copy").cloned()
    };
    let list = cluster.until("/v1/apps/twice/machines", |list| ours(list).is_some());
    let machine = ours(&list.await).unwrap();
    let path = format!(
        "/v1/apps/twice/machines/{}/stop",
        machine["id"].as_str().unwrap()
    );
    let (status, error) = cluster.call(Method::POST, &path, Value::Null).await;
    assert_eq!(status, StatusCode::CONFLICT, "{error}");
}

#[tokio::test]
async fn a_server_that_is_killed_in_the_middle_goes_on_where_it_was() {
    let mut cluster = Cluster::start().await;
    cluster.app("kill").await;
    deploy(
        &cluster,
        "kill",
        config("one", &[("web", &[]), ("worker", &[])]),
    )
    .await;
    cluster.host.freeze(true);
    let body = config("two", &[("web", &[]), ("worker", &[]), ("cron", &[])]);
    let made = cluster.post("/v1/apps/kill/deployments", body).await;
    cluster
        .until("/v1/apps/kill/machines", |list| {
            list.as_array().is_some_and(|l| l.len() == 3)
        })
        .await;
    cluster.down().await;
    cluster.host.freeze(false);
    cluster.up().await;
    let done = finished(&cluster, "kill", &made).await;
    assert_eq!(done["status"], "complete", "{done}");
    let after = machines(&cluster, "kill").await;
    assert_eq!(after.len(), 3);
    assert!(
        after
            .iter()
            .all(|m| m["image_ref"]["repository"] == "two" && m["state"] == "started")
    );
    assert_eq!(cluster.host.done_twice(), 0);
}

#[tokio::test]
async fn an_image_that_is_missing_is_said_before_anything_begins() {
    let cluster = Cluster::start().await;
    cluster.app("noimage").await;
    let body = config("missing", &[("web", &[])]);
    let (status, error) = cluster
        .call(Method::POST, "/v1/apps/noimage/deployments", body)
        .await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(error["error"].as_str().unwrap().contains("missing"));
    for (option, value, word) in [
        ("strategy", json!("sideways"), "bluegreen"),
        ("signal", json!("SIGFOO"), "SIGFOO"),
        ("max_concurrent", json!(0), "at least 1"),
        ("lease_timeout_secs", json!(1), "5 to 86400 seconds"),
        (
            "filters",
            json!({"process_groups": ["db"]}),
            "there are web",
        ),
    ] {
        let mut body = config("one", &[("web", &[])]);
        body["options"][option] = value;
        let (status, error) = cluster
            .call(Method::POST, "/v1/apps/noimage/deployments", body)
            .await;
        assert!(status.is_client_error(), "{status} {error}");
        assert!(error.to_string().contains(word), "{error}");
    }
    let mut body = config("one", &[("web", &[])]);
    body["source"]["primary_region"] = json!("mars");
    let (status, error) = cluster
        .call(Method::POST, "/v1/apps/noimage/deployments", body)
        .await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{error}");
    assert_eq!(cluster.get("/v1/apps/noimage/releases").await, json!([]));
}

#[tokio::test]
async fn new_secrets_reach_every_machine_by_a_restart() {
    let cluster = Cluster::start().await;
    cluster.app("fresh").await;
    deploy(&cluster, "fresh", config("one", &[("web", &[])])).await;
    cluster
        .post("/v1/apps/fresh/secrets", json!({"values": {"KEY": "new"}}))
        .await;
    let body = json!({"source": {"kind": "restart", "description": "Secrets set"},
                      "options": {"ha": false, "smoke_checks": false}});
    let done = deploy(&cluster, "fresh", body).await;
    assert_eq!(done["status"], "complete", "{done}");
    let machine = machines(&cluster, "fresh").await[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        cluster.host.secrets(&crate::cluster::id(&machine))["KEY"],
        "new"
    );
    assert_eq!(
        cluster.get("/v1/apps/fresh/releases").await[0]["description"],
        "Secrets set"
    );
}

/// Reads server-sent events until the stream ends: id and kind of each.
async fn follow(cluster: &Cluster, path: &str, last: Option<&str>) -> Vec<(u64, String)> {
    let mut request = cluster.request(Method::GET, path, &Value::Null);
    if let Some(last) = last {
        request
            .headers_mut()
            .insert("last-event-id", last.parse().unwrap());
    }
    let response = cluster.send(request).await;
    assert_eq!(response.status(), StatusCode::OK);
    let body = tokio::time::timeout(PATIENCE, response.into_body().collect());
    let bytes = body.await.expect("the stream ends").unwrap().to_bytes();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let events = text.split("\n\n").filter_map(|event| {
        let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
        Some((field("id: ")?.parse().ok()?, field("event: ")?.to_owned()))
    });
    events.collect()
}

#[tokio::test]
async fn a_deployment_is_followed_to_its_end_and_again_from_the_middle() {
    let cluster = Cluster::start().await;
    cluster.app("tale").await;
    let made = cluster
        .post(
            "/v1/apps/tale/deployments",
            config("one", &[("web", &[("LISTEN", "127.0.0.1:8080")])]),
        )
        .await;
    let id = made["id"].as_str().unwrap();
    let path = format!("/v1/apps/tale/deployments/{id}/events");
    let all = follow(&cluster, &path, None).await;
    assert!(all.len() > 2, "{all:?}");
    assert_eq!(all.last().unwrap().1, "over");
    let ids: Vec<u64> = all[..all.len() - 1].iter().map(|(id, _)| *id).collect();
    assert_eq!(
        ids,
        (1..=u64::try_from(ids.len()).unwrap()).collect::<Vec<_>>()
    );
    let rest = follow(&cluster, &path, Some("2")).await;
    assert_eq!(rest, all[2..]);
    assert_eq!(
        follow(&cluster, &format!("{path}?from=2"), None).await,
        rest
    );
    // What nothing reachable listens on is said, and is no failure.
    let done = finished(&cluster, "tale", &made).await;
    assert_eq!(done["status"], "complete");
    let warning = done["events"]
        .as_array()
        .unwrap()
        .iter()
        .find(|e| e["level"] == "warning");
    let text = warning.unwrap()["message"].as_str().unwrap();
    assert!(
        text.contains("not listening on the expected address"),
        "{text}"
    );
}

#[tokio::test]
async fn an_app_that_goes_in_the_middle_of_its_deploy_takes_the_deploy_along() {
    let cluster = Cluster::start().await;
    cluster.app("gone").await;
    cluster.host.freeze(true);
    cluster
        .post("/v1/apps/gone/deployments", config("one", &[("web", &[])]))
        .await;
    cluster
        .until("/v1/apps/gone/machines", |list| {
            list.as_array().is_some_and(|l| l.len() == 1)
        })
        .await;
    cluster.host.freeze(false);
    let (status, _) = cluster
        .call(Method::DELETE, "/v1/apps/gone?force=true", Value::Null)
        .await;
    assert_eq!(status, StatusCode::ACCEPTED);
    cluster.app("gone").await;
    assert_eq!(cluster.get("/v1/apps/gone/deployments").await, json!([]));
    let done = deploy(&cluster, "gone", config("one", &[("web", &[])])).await;
    assert_eq!(done["version"], 1);
}

#[tokio::test]
async fn a_deploy_waits_for_a_lease_and_says_so() {
    let cluster = Cluster::start().await;
    cluster.app("patient").await;
    deploy(&cluster, "patient", config("one", &[("web", &[])])).await;
    let machine = machines(&cluster, "patient").await[0]["id"].clone();
    let lease = format!(
        "/v1/apps/patient/machines/{}/lease?ttl=4",
        machine.as_str().unwrap()
    );
    cluster.post(&lease, Value::Null).await;
    let done = deploy(&cluster, "patient", config("two", &[("web", &[])])).await;
    assert_eq!(done["status"], "complete", "{done}");
    let events = done["events"].to_string();
    assert!(events.contains("lease currently held by admin"), "{events}");
    let image = &machines(&cluster, "patient").await[0]["image_ref"];
    assert_eq!(image["repository"], "two");
}

#[tokio::test]
async fn what_is_made_from_a_release_later_is_of_the_image_that_was_deployed() {
    let cluster = Cluster::start().await;
    cluster.app("pinned").await;
    deploy(&cluster, "pinned", config("one", &[("web", &[])])).await;
    let machine = machines(&cluster, "pinned").await[0].clone();
    let digest = machine["image_ref"]["digest"].as_str().unwrap();
    let name = format!("one@{digest}");
    assert_eq!(machine["config"]["image"], name);
    let release = cluster.get("/v1/apps/pinned/releases/1").await;
    assert_eq!(release["groups"]["web"]["config"]["image"], name);
    let mut mixed = config("one", &[("web", &[])]);
    mixed["source"]["groups"]["web"]["config"]["image"] = json!("two");
    let (status, error) = cluster
        .call(Method::POST, "/v1/apps/pinned/deployments", mixed)
        .await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(error.to_string().contains("share one"), "{error}");
}

/// Gives each group of a deployment a file of so many bytes, told apart by `mark`.
fn with_files(mut body: Value, bytes: usize, mark: char) -> Value {
    for (_, group) in body["source"]["groups"].as_object_mut().unwrap() {
        let content = mark.to_string().repeat(bytes);
        group["config"]["files"] = json!([{"guest_path": "/data", "raw_value": content}]);
    }
    body
}

#[tokio::test]
async fn large_configurations_are_deployed_or_refused_and_never_leave_a_deployment_behind() {
    let cluster = Cluster::start().await;
    cluster.app("large").await;
    let groups: [(&str, &[(&str, &str)]); 3] = [("a", &[]), ("b", &[]), ("c", &[])];
    for mark in ['A', 'B', 'C'] {
        // The release, and the memory of what was there before, are each 600 KB.
        let body = with_files(config("one", &groups), 200_000, mark);
        let done = deploy(&cluster, "large", body).await;
        assert_eq!(done["status"], "complete", "{}", done["error"]);
    }
    let body = with_files(config("one", &groups), 230_000, 'D');
    let (status, error) = cluster
        .call(Method::POST, "/v1/apps/large/deployments", body)
        .await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{error}");
    assert!(error.to_string().contains("put large [[files]]"), "{error}");

    // Machines that differ are remembered one by one: too much, and said before any is touched.
    let first = machines(&cluster, "large").await;
    for _ in 0..4 {
        let mut copy = first[0]["config"].clone();
        copy["env"] = json!({"COPY": "differs"});
        let made = cluster
            .post("/v1/apps/large/machines", json!({"config": copy}))
            .await;
        let id = made["id"].as_str().unwrap();
        let path = format!("/v1/apps/large/machines/{id}");
        cluster.until(&path, |m| m["state"] == "started").await;
        let key = format!("{path}/metadata/copy");
        cluster.post(&key, json!({"value": id})).await;
    }
    let body = with_files(config("one", &groups), 1_000, 'E');
    let done = deploy(&cluster, "large", body).await;
    assert_eq!(done["status"], "failed", "{done}");
    let error = done["error"].as_str().unwrap();
    assert!(error.contains("more than the store takes"), "{error}");
    assert!(error.contains("no machine was changed"), "{error}");
    let after = machines(&cluster, "large").await;
    assert_eq!(after.len(), 7);
    for machine in &after {
        assert_ne!(machine["config"]["metadata"]["fly_release_version"], "5");
    }
    let (status, _) = cluster
        .call(
            Method::POST,
            "/v1/apps/large/deployments",
            json!({"dry_run": true, "source": {"kind": "release", "version": 1}}),
        )
        .await;
    assert_eq!(status, StatusCode::OK, "the claim is given back");
}
