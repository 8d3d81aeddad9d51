//! The Machines API to the letter: what its specification says, row by row (machines-api.md 2, 12).

use hangar_api::id::AppName;
use hangar_store::tables::Versions;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::cluster::{Cluster, read};

/// Returns the answer's `fly-next-cursor` and body.
async fn page(cluster: &Cluster, path: &str) -> (Option<String>, Value) {
    let request = cluster.request(Method::GET, path, &Value::Null);
    let response = cluster.send(request).await;
    let cursor = response.headers().get("fly-next-cursor");
    let cursor = cursor.map(|value| value.to_str().unwrap().to_owned());
    let (status, body) = read(response).await;
    assert_eq!(status, StatusCode::OK, "{path}: {body}");
    (cursor, body)
}

fn ids(rows: &Value) -> Vec<String> {
    let rows = rows.as_array().unwrap();
    rows.iter()
        .map(|row| row["id"].as_str().unwrap().to_owned())
        .collect()
}

async fn error(cluster: &Cluster, method: Method, path: &str, body: Value) -> (u16, String) {
    let (status, body) = cluster.call(method, path, body).await;
    assert!(!status.is_success(), "{path}: {status} {body}");
    (
        status.as_u16(),
        body["error"].as_str().unwrap_or_default().to_owned(),
    )
}

#[tokio::test]
async fn machines_are_listed_by_all_filters_and_page_by_page() {
    let cluster = Cluster::start().await;
    cluster.app("list").await;
    let base = "/v1/apps/list/machines";
    let mut made = Vec::new();
    for (region, role, skip) in [
        ("iad", "db", false),
        ("gru", "db", true),
        ("iad", "web", true),
    ] {
        let config = json!({"image": "x", "metadata": {"role": role, "region": region}});
        let body = json!({"config": config, "region": region, "skip_launch": skip});
        let machine = cluster.post(base, body).await;
        let id = machine["id"].as_str().unwrap().to_owned();
        let state = if skip { "stopped" } else { "started" };
        cluster.wait("list", &id, state).await;
        made.push(id);
    }
    for (query, wanted) in [
        ("region=iad", vec![0, 2]),
        ("metadata.role=db", vec![0, 1]),
        ("metadata.role=db&metadata.region=gru", vec![1]),
        ("metadata.role=db&metadata.role=web", vec![]),
        ("state=started", vec![0]),
        ("state=started,stopped", vec![0, 1, 2]),
        ("state=started&state=stopped&region=iad", vec![0, 2]),
        ("state=suspended", vec![]),
        ("region=&state=", vec![0, 1, 2]),
    ] {
        let mut wanted: Vec<_> = wanted.iter().map(|at: &usize| made[*at].clone()).collect();
        wanted.sort();
        let found = cluster.get(&format!("{base}?{query}")).await;
        assert_eq!(ids(&found), wanted, "{query}");
    }
    let summary = cluster.get(&format!("{base}?summary=true")).await;
    for left_out in ["config", "events", "checks", "host_status", "nonce"] {
        assert!(summary[0].get(left_out).is_none(), "{left_out}");
    }

    let (cursor, first) = page(&cluster, &format!("{base}?limit=2")).await;
    let cursor = cursor.expect("there is more");
    let (last, second) = page(&cluster, &format!("{base}?limit=2&cursor={cursor}")).await;
    assert_eq!(last, None);
    let mut all = [ids(&first), ids(&second)].concat();
    all.sort();
    made.sort();
    assert_eq!(all, made);
    assert_eq!(page(&cluster, &format!("{base}?limit=3")).await.0, None);
    for bad in ["limit=0", "limit=x", "cursor=nonsense", "summary=perhaps"] {
        let (status, _) = error(&cluster, Method::GET, &format!("{base}?{bad}"), Value::Null).await;
        assert_eq!(status, 400, "{bad}");
    }
}

#[tokio::test]
async fn a_lease_is_shown_to_who_asks_and_never_its_nonce() {
    let cluster = Cluster::start().await;
    cluster.app("leased").await;
    let id = cluster.machine("leased").await;
    let path = format!("/v1/apps/leased/machines/{id}");
    let body = json!({"ttl": "40", "description": "deploy"});
    let taken = cluster.post(&format!("{path}/lease"), body).await;
    let expected = json!({
        "description": "deploy", "owner": "admin", "expires_at": taken["data"]["expires_at"],
    });
    let shown = cluster.get(&format!("{path}?include_leases=true")).await;
    assert_eq!(shown["lease"], expected);
    let listed = cluster.get("/v1/apps/leased/machines?include_leases").await;
    assert_eq!(listed[0]["lease"], expected);
    assert_eq!(cluster.get(&path).await.get("lease"), None);
    let nonce = taken["data"]["nonce"].as_str().unwrap();
    assert!(!shown.to_string().contains(nonce));

    // Whoever holds it may have it for longer with an update, under the nonce that it has.
    let update = json!({"config": {"image": "x"}, "lease_ttl": 500});
    let (status, updated) = cluster
        .call_with(Method::POST, &path, update, Some(nonce))
        .await;
    assert_eq!(status, StatusCode::OK, "{updated}");
    assert_eq!(updated["nonce"], nonce);
    let later = cluster.get(&format!("{path}/lease")).await;
    assert!(later["data"]["expires_at"].as_i64() > taken["data"]["expires_at"].as_i64());
    assert_eq!(later["data"]["version"], taken["data"]["version"]);
}

#[tokio::test]
async fn a_lease_lasts_no_less_than_it_was_asked_for() {
    let cluster = Cluster::start().await;
    cluster.app("short").await;
    let id = cluster.machine("short").await;
    let lease = format!("/v1/apps/short/machines/{id}/lease");
    for _ in 0..20 {
        let before = cluster.env.now();
        let taken = cluster.post(&format!("{lease}?ttl=1"), Value::Null).await;
        let ends = taken["data"]["expires_at"].as_i64().unwrap();
        assert!(i128::from(ends) * 1_000_000_000 >= before.as_nanosecond() + 1_000_000_000);
        let nonce = taken["data"]["nonce"].as_str();
        let (status, _) = cluster
            .call_with(Method::DELETE, &lease, Value::Null, nonce)
            .await;
        assert_eq!(status, StatusCode::OK);
    }
}

#[tokio::test]
async fn versions_are_kept_and_an_old_one_is_replaced_for_ever() {
    let cluster = Cluster::start().await;
    cluster.app("ver").await;
    let id = cluster.machine("ver").await;
    let path = format!("/v1/apps/ver/machines/{id}");
    let first = cluster.get(&path).await;
    let old = first["instance_id"].as_str().unwrap().to_owned();
    let update = json!({"config": {"image": "y", "env": {"A": "1"}}, "current_version": old});
    let second = cluster.post(&path, update.clone()).await;
    assert_eq!(second["id"], first["id"]);
    let new = second["instance_id"].as_str().unwrap();
    assert_ne!(old, new);
    let (status, text) = error(&cluster, Method::POST, &path, update).await;
    assert_eq!(status, 409, "{text}");

    let versions = cluster.get(&format!("{path}/versions")).await;
    let named: Vec<_> = versions.as_array().unwrap().iter().collect();
    assert_eq!(named.len(), 2);
    assert_eq!(
        (&named[0]["version"], &named[1]["version"]),
        (&json!(new), &json!(old))
    );
    assert_eq!(named[0]["user_config"]["env"], json!({"A": "1"}));
    assert_eq!(named[1]["user_config"]["image"], "nginx");

    cluster.wait("ver", &id, "started").await;
    let former = cluster.get(&format!("{path}?version={old}")).await;
    assert_eq!(
        (&former["state"], &former["config"]["image"]),
        (&json!("replaced"), &json!("nginx"))
    );
    assert_eq!(former["image_ref"], first["image_ref"]);
    let now = cluster.get(&format!("{path}?version={new}")).await;
    assert_eq!(now["state"], "started");
    let unknown = format!("{path}?version=01ARZ3NDEKTSV4RRFFQ69G5FAV");
    assert_eq!(
        error(&cluster, Method::GET, &unknown, Value::Null).await.0,
        404
    );
    let odd = format!("{path}?version=one");
    assert_eq!(error(&cluster, Method::GET, &odd, Value::Null).await.0, 400);
    let (status, text) = error(
        &cluster,
        Method::GET,
        &format!("{path}/wait?version={old}"),
        Value::Null,
    )
    .await;
    assert!(text.contains("currently replaced"), "{status} {text}");

    // A bounded number of them, the newest; all go with the Machine.
    for number in 0..12 {
        let config = json!({"image": "z", "env": {"N": number.to_string()}});
        cluster.post(&path, json!({"config": config})).await;
    }
    let versions = cluster.get(&format!("{path}/versions")).await;
    assert_eq!(versions.as_array().unwrap().len(), 11);
    assert_eq!(versions[0]["user_config"]["env"]["N"], "11");
    let (status, _) = cluster
        .call(Method::DELETE, "/v1/apps/ver?force=true", Value::Null)
        .await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let key = (AppName::new("ver").unwrap(), crate::cluster::id(&id), 12);
    let left = cluster.store.get::<Versions>(&key).await.unwrap();
    assert!(left.is_none(), "{left:?}");
}

#[tokio::test]
async fn what_two_clients_write_at_once_shows_in_versions_and_events() {
    let cluster = Cluster::start().await;
    cluster.app("both").await;
    let id = cluster.machine("both").await;
    let path = format!("/v1/apps/both/machines/{id}");
    let write = |who: &str| {
        let config = json!({"image": "x", "env": {"WHO": who}});
        cluster.call(Method::POST, &path, json!({"config": config}))
    };
    let ((one, _), (other, _)) = tokio::join!(write("one"), write("other"));
    assert_eq!((one, other), (StatusCode::OK, StatusCode::OK));
    let versions = cluster.get(&format!("{path}/versions")).await;
    let mut who: Vec<_> = versions.as_array().unwrap()[..2]
        .iter()
        .map(|version| version["user_config"]["env"]["WHO"].as_str().unwrap())
        .collect();
    who.sort_unstable();
    assert_eq!(who, ["one", "other"]);
    let events = cluster
        .until(&format!("{path}/events?limit=50"), |events| {
            let all = events.as_array().unwrap();
            all.iter().filter(|e| e["status"] == "replacing").count() == 2
        })
        .await;
    assert!(events.as_array().unwrap().len() >= 4);
}

#[tokio::test]
async fn metadata_is_guarded_by_version_and_time() {
    let cluster = Cluster::start().await;
    cluster.app("meta").await;
    let id = cluster.machine("meta").await;
    let machine = format!("/v1/apps/meta/machines/{id}");
    let path = format!("{machine}/metadata");
    let before = cluster.get(&machine).await;
    let version = before["instance_id"].clone();
    let patch = |body: Value| cluster.call(Method::PATCH, &path, body);
    let (status, _) =
        patch(json!({"metadata": {"a": "1", "n": 5, "gone": ""}, "machine_version": version}))
            .await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let (status, _) = patch(json!({"metadata": {"a": "2"}, "machine_version": "other"})).await;
    assert_eq!(status, StatusCode::PRECONDITION_FAILED);
    let old = json!({"metadata": {"a": "2"}, "updated_at": before["updated_at"]});
    let (status, error) = patch(old).await;
    assert_eq!(status, StatusCode::PRECONDITION_FAILED, "{error}");
    let now = cluster.get(&machine).await;
    let fresh = json!({"metadata": {"b": "2", "a": null}, "updated_at": now["updated_at"]});
    assert_eq!(patch(fresh).await.0, StatusCode::NO_CONTENT);
    let (status, _) = patch(json!({"metadata": {"a": "2"}, "updated_at": "noon"})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, _) = cluster
        .call(
            Method::DELETE,
            &format!("{path}/b?machine_version=other"),
            Value::Null,
        )
        .await;
    assert_eq!(status, StatusCode::PRECONDITION_FAILED);
    assert_eq!(cluster.get(&path).await, json!({"b": "2", "n": "5"}));
    // No version comes of it.
    assert_eq!(cluster.get(&machine).await["instance_id"], version);
}

#[tokio::test]
async fn processes_are_sorted_as_asked_and_memory_is_not_made_up() {
    let cluster = Cluster::start().await;
    cluster.app("ps").await;
    let id = cluster.machine("ps").await;
    let path = format!("/v1/apps/ps/machines/{id}");
    for (query, wanted) in [
        ("", [1, 7, 9]),
        ("?sort_by=rss", [7, 9, 1]),
        ("?sort_by=rss&order=desc", [1, 9, 7]),
        ("?sort_by=command", [9, 7, 1]),
    ] {
        let rows = cluster.get(&format!("{path}/ps{query}")).await;
        let pids: Vec<_> = rows.as_array().unwrap().iter().collect();
        let pids: Vec<_> = pids
            .iter()
            .map(|row| row["pid"].as_i64().unwrap())
            .collect();
        assert_eq!(pids, wanted, "{query}");
        assert_eq!(rows[0]["listen_sockets"], json!([]));
    }
    for bad in ["sort_by=age", "order=up"] {
        let (status, _) = error(
            &cluster,
            Method::GET,
            &format!("{path}/ps?{bad}"),
            Value::Null,
        )
        .await;
        assert_eq!(status, 400, "{bad}");
    }
    // This host counts no memory, and says so.
    let memory = format!("{path}/memory");
    let (status, text) = error(&cluster, Method::GET, &memory, Value::Null).await;
    assert_eq!(status, 501, "{text}");
    let (status, text) = error(&cluster, Method::PUT, &memory, json!({"limit_mb": 257})).await;
    assert_eq!(status, 400);
    assert!(text.contains("32 to 256"), "{text}");
    let reclaim = format!("{memory}/reclaim");
    assert_eq!(
        error(&cluster, Method::POST, &reclaim, Value::Null).await.0,
        400
    );
    let some = json!({"amount_mb": 1});
    assert_eq!(error(&cluster, Method::POST, &reclaim, some).await.0, 501);
}

#[tokio::test]
async fn an_organisation_shows_all_of_its_machines_and_volumes() {
    let cluster = Cluster::start().await;
    for app in ["one", "two"] {
        cluster.app(app).await;
        cluster.machine(app).await;
        let volume = json!({"name": "data", "region": "iad", "size_gb": 1});
        cluster
            .post(&format!("/v1/apps/{app}/volumes"), volume)
            .await;
    }
    let base = "/v1/orgs/personal/machines";
    let all = cluster.get(base).await;
    assert_eq!(all["machines"].as_array().unwrap().len(), 2);
    let row = &all["machines"][0];
    assert_eq!(row["state"], "started");
    assert_eq!(row["version"], row["instance_id"]);
    assert_eq!(row["config"]["image"], "nginx");
    assert_eq!(row["config"]["guest"]["memory_mb"], 256);
    assert_eq!(all["last_machine_id"], all["machines"][1]["id"]);
    assert_eq!(all["last_updated_at"], all["machines"][1]["updated_at"]);
    assert!(all["machines"][0]["updated_at"].as_str() <= all["machines"][1]["updated_at"].as_str());
    let first = cluster.get(&format!("{base}?limit=1&summary=true")).await;
    assert_eq!(first["machines"][0].get("config"), None);
    let cursor = first["next_cursor"].as_str().unwrap();
    let rest = cluster
        .get(&format!("{base}?limit=5&cursor={cursor}"))
        .await;
    assert_eq!(rest["machines"][0]["id"], all["machines"][1]["id"]);
    assert_eq!(rest.get("next_cursor"), None);
    let since = all["last_updated_at"].as_str().unwrap().replace('+', "%2B");
    let none = cluster.get(&format!("{base}?updated_after={since}")).await;
    assert_eq!(none["machines"], json!([]));
    let stopped = cluster.get(&format!("{base}?state=stopped")).await;
    assert_eq!(stopped["machines"], json!([]));
    let id = all["machines"][0]["id"].as_str().unwrap();
    let app = all["machines"][0]["app_name"].as_str().unwrap();
    let path = format!("/v1/apps/{app}/machines/{id}?force=true");
    assert_eq!(
        cluster.call(Method::DELETE, &path, Value::Null).await.0,
        StatusCode::OK
    );
    cluster.wait(app, id, "destroyed").await;
    let left = cluster.get(base).await;
    assert_eq!(
        ids(&left["machines"]),
        [all["machines"][1]["id"].as_str().unwrap()]
    );
    let both = cluster.get(&format!("{base}?include_deleted=1")).await;
    assert_eq!(both["machines"][1]["state"], "destroyed");

    let volumes = cluster.get("/v1/orgs/personal/volumes?limit=1").await;
    assert_eq!(volumes["volumes"][0]["app_name"], "one");
    let cursor = volumes["next_cursor"].as_str().unwrap();
    let rest = cluster
        .get(&format!("/v1/orgs/personal/volumes?cursor={cursor}"))
        .await;
    assert_eq!(rest["volumes"][0]["app_name"], "two");
    assert_eq!(rest["volumes"].as_array().unwrap().len(), 1);
    for bad in ["limit=0", "cursor=1.x", "updated_after=noon"] {
        let (status, _) = error(&cluster, Method::GET, &format!("{base}?{bad}"), Value::Null).await;
        assert_eq!(status, 400, "{bad}");
    }
    let other = "/v1/orgs/nobody/machines";
    assert_eq!(
        error(&cluster, Method::GET, other, Value::Null).await.0,
        404
    );
}

#[tokio::test]
async fn apps_volumes_and_secrets_are_listed_as_asked() {
    let cluster = Cluster::start().await;
    for app in ["a", "b", "c"] {
        cluster.app(app).await;
    }
    let first = cluster.get("/v1/apps?org_slug=personal&limit=2").await;
    assert_eq!(first["total_apps"], 3);
    assert_eq!(first["apps"].as_array().unwrap().len(), 2);
    let cursor = first["next_cursor"].as_str().unwrap();
    let rest = cluster
        .get(&format!("/v1/apps?limit=2&cursor={cursor}"))
        .await;
    assert_eq!(rest["apps"][0]["name"], "c");
    assert_eq!(rest.get("next_cursor"), None);
    let builders = cluster.get("/v1/apps?app_role=remote-docker-builder").await;
    assert_eq!(builders["apps"], json!([]));
    let app = cluster.get("/v1/apps/a").await;
    assert!(app["internal_numeric_id"].as_u64().unwrap() < 1 << 31);
    assert!(app["organization"]["internal_numeric_id"].is_u64());

    let builder = json!({"name": "builder", "app_role_id": "remote-docker-builder"});
    assert_eq!(
        error(&cluster, Method::POST, "/v1/apps", builder).await.0,
        422
    );
    let twice = json!({"name": "twice", "org_slug": "personal", "idempotency_key": "k"});
    let one = cluster.post("/v1/apps", twice.clone()).await;
    assert_eq!(cluster.post("/v1/apps", twice).await, one);
    let other = json!({"name": "twice", "idempotency_key": "other"});
    assert_eq!(
        error(&cluster, Method::POST, "/v1/apps", other).await.0,
        422
    );

    let base = "/v1/apps/a/volumes";
    for name in ["one", "two"] {
        cluster
            .post(base, json!({"name": name, "region": "iad"}))
            .await;
    }
    let (cursor, first) = page(&cluster, &format!("{base}?limit=1&summary=1")).await;
    assert_eq!(first[0].get("blocks"), None);
    let (last, second) = page(
        &cluster,
        &format!("{base}?limit=1&cursor={}", cursor.unwrap()),
    )
    .await;
    assert_eq!((last, &second[0]["name"]), (None, &json!("two")));
    assert_eq!(second[0]["block_size"], 4096);
    let gone = format!("{base}?cursor=vol_0123456789abcdef");
    assert_eq!(
        error(&cluster, Method::GET, &gone, Value::Null).await.0,
        400
    );

    let secrets = "/v1/apps/a/secrets";
    let set = cluster.post(secrets, json!({"values": {"K": "v"}})).await;
    let version = set["version"].as_u64().unwrap();
    let listed = cluster
        .get(&format!("{secrets}?min_version={version}&show_secrets=1"))
        .await;
    assert_eq!(listed["secrets"][0]["name"], "K");
    assert_eq!(listed["secrets"][0].get("value"), None);
    for name in ["min_version", "version"] {
        let later = format!("{secrets}?{name}={}", version + 1);
        assert_eq!(
            error(&cluster, Method::GET, &later, Value::Null).await.0,
            412
        );
    }
}

#[tokio::test]
async fn a_wait_is_told_what_it_waits_for_in_every_way() {
    let cluster = Cluster::start().await;
    cluster.app("wait").await;
    let body = json!({"config": {"image": "x"}, "skip_launch": true});
    let made = cluster.post("/v1/apps/wait/machines", body).await;
    let id = made["id"].as_str().unwrap();
    let path = format!("/v1/apps/wait/machines/{id}");
    let stopped = cluster.wait("wait", id, "stopped").await;
    assert_eq!(
        (&stopped["ok"], &stopped["state"], &stopped["version"]),
        (&json!(true), &json!("stopped"), &made["instance_id"])
    );
    cluster.wait("wait", id, "settled").await;
    for query in [
        "state=started,stopped",
        "state=started&state=stopped",
        &format!(
            "state=stopped&version={}",
            made["instance_id"].as_str().unwrap()
        ),
        &format!(
            "state=stopped&instance_id={}",
            made["instance_id"].as_str().unwrap()
        ),
    ] {
        let met = cluster.get(&format!("{path}/wait?{query}&timeout=5")).await;
        assert_eq!(met["state"], "stopped", "{query}");
    }
    let (status, _) = cluster.call(Method::DELETE, &path, Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    let gone = cluster.wait("wait", id, "destroyed").await;
    assert_eq!(gone["state"], "destroyed");
}

#[tokio::test]
async fn a_wait_that_is_not_met_says_what_is_and_one_that_cannot_be_is_refused() {
    let cluster = Cluster::start().await;
    cluster.app("wait").await;
    let body = json!({"config": {"image": "x"}, "skip_launch": true});
    let made = cluster.post("/v1/apps/wait/machines", body).await;
    let id = made["id"].as_str().unwrap();
    let path = format!("/v1/apps/wait/machines/{id}/wait");
    let stopped = cluster.wait("wait", id, "stopped").await;
    let ask = async |query: &str| {
        let path = format!("{path}?{query}");
        error(&cluster, Method::GET, &path, Value::Null).await
    };
    let began = std::time::Instant::now();
    let (status, text) = ask("timeout=1").await;
    assert_eq!(status, 408);
    assert_eq!(
        text,
        "machine failed to reach desired state, started, currently stopped"
    );
    assert!(began.elapsed() >= std::time::Duration::from_secs(1));
    // What has been does not count from an event on.
    let event = stopped["event_id"].as_str().unwrap();
    let after = format!("state=stopped&from_event_id={event}&timeout=1");
    assert_eq!(ask(&after).await.0, 408);
    for bad in [
        "timeout=0",
        "timeout=soon",
        "state=running",
        "version=1",
        "from_event_id=x",
    ] {
        assert_eq!(ask(bad).await.0, 400, "{bad}");
    }
    let (status, text) = ask("timeout=61").await;
    assert_eq!(status, 400);
    assert_eq!(
        text,
        "invalid_argument: invalid WaitMachineRequest.Timeout: value must be inside range [1s, 1m0s]"
    );
}

#[tokio::test]
async fn an_organisation_shows_the_states_that_the_machines_show_themselves() {
    let cluster = Cluster::start().await;
    // Names that are in another order as keys than as names.
    for (app, wanted) in [
        ("a", ["started", "stopped", "created"]),
        ("a-b", ["stopped", "started", "started"]),
        ("a1", ["created", "started", "stopped"]),
    ] {
        cluster.app(app).await;
        for state in wanted {
            // One that its host has not heard of has a spec alone.
            cluster.host.freeze(state == "created");
            let body = json!({"config": {"image": "x"}, "skip_launch": state == "stopped"});
            let made = cluster
                .post(&format!("/v1/apps/{app}/machines"), body)
                .await;
            if state != "created" {
                cluster.wait(app, made["id"].as_str().unwrap(), state).await;
            }
        }
    }
    let all = cluster.get("/v1/orgs/personal/machines").await;
    let all = all["machines"].as_array().unwrap();
    assert_eq!(all.len(), 9);
    for row in all {
        let (app, id) = (row["app_name"].as_str(), row["id"].as_str());
        let path = format!("/v1/apps/{}/machines/{}", app.unwrap(), id.unwrap());
        assert_eq!(cluster.get(&path).await["state"], row["state"], "{row}");
    }
}
