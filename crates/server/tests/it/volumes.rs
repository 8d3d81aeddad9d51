//! Volumes as clients see them: who has one, what is refused, and what a killed server goes on with.

use std::sync::Arc;

use hangar_store::{SqliteBackend, SqliteOptions, Store};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::cluster::Cluster;

const VOLUMES: &str = "/v1/apps/a/volumes";
const MACHINES: &str = "/v1/apps/a/machines";

async fn start() -> Cluster {
    let cluster = Cluster::start().await;
    cluster.app("a").await;
    cluster
}

impl Cluster {
    async fn volume(&self, body: Value) -> String {
        let made = self.post(VOLUMES, body).await;
        assert_eq!(made["state"], "created", "{made}");
        made["id"].as_str().unwrap().to_owned()
    }

    async fn refused(&self, method: Method, path: &str, body: Value) -> (u16, String) {
        let (status, answer) = self.call(method, path, body).await;
        assert!(!status.is_success(), "{path}: {answer}");
        (
            status.as_u16(),
            answer["error"].as_str().unwrap().to_owned(),
        )
    }

    /// Makes a Machine with a volume and waits until it is started.
    async fn machine_on(&self, volume: &str) -> String {
        let config = json!({"image": "nginx", "mounts": [{"volume": volume, "path": "/data"}]});
        let made = self.post(MACHINES, json!({"config": config})).await;
        let id = made["id"].as_str().unwrap().to_owned();
        self.wait("a", &id, "started").await;
        id
    }

    async fn destroy_machine(&self, id: &str) {
        let path = format!("{MACHINES}/{id}?force=true");
        let (status, _) = self.call(Method::DELETE, &path, Value::Null).await;
        assert_eq!(status, StatusCode::OK);
        self.wait("a", id, "destroyed").await;
    }
}

fn data(region: &str) -> Value {
    json!({"name": "data", "region": region, "size_gb": 2})
}

#[tokio::test]
async fn a_volume_is_created_shown_listed_updated_extended_and_destroyed() {
    let cluster = start().await;
    let made = cluster
        .post(VOLUMES, json!({"name": "data", "region": "gru"}))
        .await;
    for (key, value) in [
        ("name", json!("data")),
        ("state", json!("created")),
        ("size_gb", json!(3)),
        ("region", json!("gru")),
        ("zone", json!("a")),
        ("encrypted", json!(false)),
        ("attached_machine_id", Value::Null),
        ("block_size", json!(4096)),
        ("fstype", json!("ext4")),
        ("snapshot_retention", json!(5)),
        ("auto_backup_enabled", json!(true)),
        ("host_status", json!("ok")),
    ] {
        assert_eq!(made[key], value, "{key}");
    }
    let path = format!("{VOLUMES}/{}", made["id"].as_str().unwrap());
    let shown = cluster.get(&path).await;
    assert_eq!(shown["bytes_total"], 3_u64 << 30);
    assert_eq!(cluster.get(VOLUMES).await.as_array().unwrap().len(), 1);
    assert_eq!(cluster.get("/v1/apps/a").await["volume_count"], 1);
    let body = json!({"snapshot_retention": 60, "auto_backup_enabled": false});
    let (_, changed) = cluster.call(Method::PUT, &path, body).await;
    assert_eq!(changed["snapshot_retention"], 60);
    assert_eq!(changed["auto_backup_enabled"], false);
    let extend = format!("{path}/extend");
    let (_, grown) = cluster
        .call(Method::PUT, &extend, json!({"size_gb": 4}))
        .await;
    assert_eq!(grown["volume"]["size_gb"], 4, "{grown}");
    assert_eq!(grown["needs_restart"], false);
    assert_eq!(cluster.disk.sizes(), [4 << 30]);
    let (status, gone) = cluster.call(Method::DELETE, &path, Value::Null).await;
    assert_eq!(
        (status, &gone["state"]),
        (StatusCode::OK, &json!("pending_destroy"))
    );
    assert_eq!(cluster.disk.sizes(), [0; 0]);
    // Listed for a day yet, in a state that clients hide.
    assert_eq!(cluster.get(VOLUMES).await[0]["state"], "pending_destroy");
    assert_eq!(cluster.get("/v1/apps/a").await["volume_count"], 0);
}

#[tokio::test]
async fn what_no_volume_can_be_is_refused_in_words() {
    let cluster = start().await;
    for (body, status, word) in [
        (json!({}), 400, "volume name"),
        (json!({"name": "../x"}), 400, "volume name"),
        (json!({"name": "d", "size_gb": 0}), 400, "1 to 500"),
        (json!({"name": "d", "size_gb": 501}), 400, "1 to 500"),
        (json!({"name": "d", "fstype": "raw"}), 400, "ext4"),
        (
            json!({"name": "d", "snapshot_retention": 61}),
            400,
            "1 to 60",
        ),
        (json!({"name": "d", "region": "mars"}), 422, "mars"),
        (json!({"name": "d", "snapshot_id": "vs_1"}), 404, "snapshot"),
        (
            json!({"name": "d", "source_volume_id": "vol_1"}),
            404,
            "volume not found",
        ),
        (json!({"name": "d", "size_gb": "x"}), 400, "not valid"),
    ] {
        let (found, text) = cluster.refused(Method::POST, VOLUMES, body.clone()).await;
        assert_eq!(found, status, "{body}: {text}");
        assert!(text.contains(word), "{body}: {text}");
    }
    let (status, _) = cluster
        .call(
            Method::GET,
            &format!("{VOLUMES}/vol_0123456789abcdef"),
            Value::Null,
        )
        .await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(cluster.get(VOLUMES).await, json!([]));
}

#[tokio::test]
async fn a_full_disk_refuses_in_words_and_leaves_what_there_is() {
    let cluster = start().await;
    let id = cluster.volume(data("iad")).await;
    cluster.disk.fill();
    let (status, text) = cluster.refused(Method::POST, VOLUMES, data("iad")).await;
    assert_eq!((status, text.as_str()), (429, "the disk is full"));
    let path = format!("{VOLUMES}/{id}");
    let extend = format!("{path}/extend");
    let (_, text) = cluster
        .refused(Method::PUT, &extend, json!({"size_gb": 9}))
        .await;
    assert_eq!(text, "the disk is full");
    let shown = cluster.get(&path).await;
    assert_eq!(shown["state"], "created");
    assert_eq!(shown["size_gb"], 2);
    cluster
        .post(&format!("{path}/snapshots"), Value::Null)
        .await;
    let list = format!("{path}/snapshots");
    let failed = cluster
        .until(&list, |list| list[0]["status"] == "failed")
        .await;
    assert_eq!(failed[0]["reason"], "the disk is full");
}

#[tokio::test]
async fn volumes_of_a_name_are_kept_apart_unless_they_may_share() {
    let cluster = start().await;
    let mut zones = Vec::new();
    for _ in 0..2 {
        let made = cluster.post(VOLUMES, data("iad")).await;
        zones.push(made["zone"].as_str().unwrap().to_owned());
    }
    assert_eq!(zones, ["a", "b"]);
    let (status, text) = cluster.refused(Method::POST, VOLUMES, data("iad")).await;
    assert_eq!(status, 422, "{text}");
    assert!(text.contains("zone"), "{text}");
    let shared = json!({"name": "data", "region": "iad", "require_unique_zone": false});
    cluster.post(VOLUMES, shared).await;
}

#[tokio::test]
async fn a_machine_is_where_its_volume_is_and_shows_what_is_known_of_it() {
    let cluster = start().await;
    let id = cluster.volume(data("gru")).await;
    let machine = cluster.machine_on(&id).await;
    let path = format!("{MACHINES}/{machine}");
    let shown = cluster.get(&path).await;
    assert_eq!(shown["region"], "gru");
    let mount =
        json!({"volume": id, "path": "/data", "name": "data", "size_gb": 2, "encrypted": false});
    assert_eq!(shown["config"]["mounts"], json!([mount]));
    let volume = format!("{VOLUMES}/{id}");
    assert_eq!(
        cluster.get(&volume).await["attached_machine_id"],
        machine.as_str()
    );
    let (_, grown) = cluster
        .call(
            Method::PUT,
            &format!("{volume}/extend"),
            json!({"size_gb": 7}),
        )
        .await;
    assert_eq!(grown["volume"]["size_gb"], 7, "{grown}");
    // The echo follows, and is no new version.
    let after = cluster.get(&path).await;
    assert_eq!(after["config"]["mounts"][0]["size_gb"], 7);
    assert_eq!(after["instance_id"], shown["instance_id"]);
}

#[tokio::test]
async fn a_volume_is_never_attached_twice_nor_destroyed_while_attached() {
    let cluster = start().await;
    let id = cluster.volume(data("iad")).await;
    let mount = json!([{"volume": id, "path": "/data"}]);
    let body = json!({"config": {"image": "nginx", "mounts": mount}});
    // All at once: one has it.
    let tries = (0..8).map(|_| cluster.call(Method::POST, MACHINES, body.clone()));
    let answers = futures_util::future::join_all(tries).await;
    let (made, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|(s, _)| s.is_success());
    assert_eq!(made.len(), 1, "{answers:?}");
    let machine = made[0].1["id"].as_str().unwrap().to_owned();
    for (status, answer) in lost {
        assert_eq!(*status, StatusCode::PRECONDITION_FAILED, "{answer}");
        let expected = format!("volume already claimed by machine {machine}");
        assert_eq!(answer["error"], expected);
    }
    let volume = format!("{VOLUMES}/{id}");
    let (status, text) = cluster.refused(Method::DELETE, &volume, Value::Null).await;
    assert_eq!(status, 412);
    assert!(
        text.contains(&format!("bound to machine: {machine}")),
        "{text}"
    );
    cluster.wait("a", &machine, "started").await;
    // It is kept when its Machine goes, and free for the next one.
    cluster.destroy_machine(&machine).await;
    cluster
        .until(&volume, |volume| volume["attached_machine_id"].is_null())
        .await;
    let next = cluster.machine_on(&id).await;
    assert_ne!(next, machine);
}

#[tokio::test]
async fn destroying_and_attaching_at_once_ends_in_one_of_the_two() {
    let cluster = start().await;
    for round in 0..12 {
        let shared = json!({"name": "data", "region": "iad", "require_unique_zone": false});
        let id = cluster.volume(shared).await;
        let volume = format!("{VOLUMES}/{id}");
        let mounts = json!([{"volume": id, "path": "/data"}]);
        let body = json!({"config": {"image": "nginx", "mounts": mounts}});
        let (made, gone) = tokio::join!(
            cluster.call(Method::POST, MACHINES, body),
            cluster.call(Method::DELETE, &volume, Value::Null),
        );
        assert_ne!(
            made.0.is_success(),
            gone.0.is_success(),
            "{round}: {made:?} {gone:?}"
        );
        let shown = cluster.get(&volume).await;
        let attached = shown["attached_machine_id"].as_str();
        assert_eq!(attached.is_some(), made.0.is_success(), "{shown}");
    }
}

/// A client that goes on with its lease just then does not keep the volume of a Machine that is
/// gone: what is overtaken is done again at once.
#[tokio::test]
async fn a_volume_is_free_soon_after_its_machine_whatever_is_written_meanwhile() {
    // On disk a write takes its time, in which others are written.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store.db");
    let store = SqliteBackend::open(&file, SqliteOptions::default()).unwrap();
    let cluster = Cluster::start_on(Store::new(Arc::new(store))).await;
    cluster.app("a").await;
    for _ in 0..8 {
        let shared = json!({"name": "data", "region": "iad", "require_unique_zone": false});
        let id = cluster.volume(shared).await;
        let machine = format!("{MACHINES}/{}", cluster.machine_on(&id).await);
        let lease = format!("{machine}/lease");
        let taken = cluster.post(&lease, json!({"ttl": 60})).await;
        let nonce = taken["data"]["nonce"].as_str();
        let renews = async {
            for ttl in 0..40 {
                let body = json!({"ttl": 60 + ttl});
                cluster.call_with(Method::POST, &lease, body, nonce).await;
            }
            cluster
                .call_with(Method::DELETE, &lease, Value::Null, nonce)
                .await;
        };
        let gone = format!("{machine}?force=true");
        let destroys = cluster.call_with(Method::DELETE, &gone, Value::Null, nonce);
        tokio::join!(destroys, renews);
        let is_free = |volume: &Value| volume["attached_machine_id"].is_null();
        cluster.until(&format!("{VOLUMES}/{id}"), is_free).await;
    }
}

#[tokio::test]
async fn a_volume_can_be_named_by_its_name_where_one_is_free() {
    let cluster = start().await;
    let id = cluster.volume(data("gru")).await;
    let named = |region: &str| {
        let mounts = json!([{"name": "data", "path": "/data"}]);
        json!({"region": region, "config": {"image": "nginx", "mounts": mounts}})
    };
    let (status, text) = cluster.refused(Method::POST, MACHINES, named("iad")).await;
    assert_eq!(status, 412);
    assert!(
        text.contains("no unattached volume named 'data' in region 'iad'"),
        "{text}"
    );
    let made = cluster.post(MACHINES, named("gru")).await;
    assert_eq!(made["config"]["mounts"][0]["volume"], id.as_str());
    let (status, _) = cluster.refused(Method::POST, MACHINES, named("gru")).await;
    assert_eq!(status, 412);
}

#[tokio::test]
async fn an_update_keeps_the_volume_and_cannot_change_it() {
    let cluster = start().await;
    let id = cluster.volume(data("iad")).await;
    let machine = cluster.machine_on(&id).await;
    let path = format!("{MACHINES}/{machine}");
    let body = |mounts: Value| json!({"config": {"image": "nginx", "mounts": mounts}});
    let moved = body(json!([{"name": "data", "path": "/elsewhere"}]));
    let updated = cluster.post(&path, moved).await;
    assert_eq!(updated["config"]["mounts"][0]["volume"], id.as_str());
    assert_eq!(updated["config"]["mounts"][0]["path"], "/elsewhere");
    for mounts in [json!([]), json!([{"name": "other", "path": "/data"}])] {
        let (status, text) = cluster.refused(Method::POST, &path, body(mounts)).await;
        assert_eq!(status, 400);
        assert!(text.contains("update cannot"), "{text}");
    }
}

#[tokio::test]
async fn snapshots_outlive_their_volume_and_are_restored() {
    let cluster = start().await;
    let id = cluster.volume(data("iad")).await;
    let list = format!("{VOLUMES}/{id}/snapshots");
    assert_eq!(cluster.get(&list).await, json!([]));
    let asked = cluster.post(&list, Value::Null).await;
    assert_eq!(asked["status"], "waiting");
    let done = cluster
        .until(&list, |list| list[0]["status"] == "created")
        .await;
    for (key, value) in [
        ("id", asked["id"].clone()),
        ("size", json!(4096)),
        ("volume_size", json!(2_u64 << 30)),
        ("retention_days", json!(5)),
    ] {
        assert_eq!(done[0][key], value, "{key}");
    }
    cluster
        .call(Method::DELETE, &format!("{VOLUMES}/{id}"), Value::Null)
        .await;
    assert_eq!(cluster.get(&list).await, done);
    let snapshot = asked["id"].as_str().unwrap();
    let too_small = json!({"name": "data", "region": "iad", "size_gb": 1, "snapshot_id": snapshot});
    let (status, text) = cluster.refused(Method::POST, VOLUMES, too_small).await;
    assert_eq!(status, 400);
    assert!(text.contains("2 GB"), "{text}");
    let restored = json!({"name": "data", "region": "gru", "snapshot_id": snapshot});
    let made = cluster.post(VOLUMES, restored).await;
    assert_eq!(
        (&made["state"], &made["size_gb"]),
        (&json!("created"), &json!(2))
    );
    let one = format!("{list}/{snapshot}");
    let (status, _) = cluster.call(Method::DELETE, &one, Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    cluster.until(&list, |list| list == &json!([])).await;
    cluster
        .until(VOLUMES, |_| cluster.disk.snapshots() == 0)
        .await;
}

#[tokio::test]
async fn a_fork_takes_size_and_region_of_its_source_and_another_zone() {
    let cluster = start().await;
    let source = cluster.post(VOLUMES, data("gru")).await;
    let id = source["id"].as_str().unwrap();
    let fork = cluster
        .post(VOLUMES, json!({"name": "other", "source_volume_id": id}))
        .await;
    assert_eq!(
        (&fork["size_gb"], &fork["region"]),
        (&json!(2), &json!("gru"))
    );
    assert_ne!(fork["zone"], source["zone"]);
    assert_ne!(fork["id"], source["id"]);
}

#[tokio::test]
async fn a_server_that_was_killed_goes_on_with_what_it_had_begun() {
    let mut cluster = start().await;
    let id = cluster.volume(data("iad")).await;
    let volume = format!("{VOLUMES}/{id}");
    cluster.disk.hold(true);
    let snapshots = format!("{volume}/snapshots");
    cluster.post(&snapshots, Value::Null).await;
    // Answers that nobody waits for.
    for (method, path, body) in [
        (Method::POST, VOLUMES.to_owned(), data("iad")),
        (
            Method::PUT,
            format!("{volume}/extend"),
            json!({"size_gb": 5}),
        ),
    ] {
        let request = cluster.request(method, &path, &body);
        let answer = cluster.send(request);
        let soon = std::time::Duration::from_millis(300);
        assert!(
            tokio::time::timeout(soon, answer).await.is_err(),
            "it waits"
        );
    }
    cluster.down().await;
    cluster.disk.hold(false);
    cluster.up().await;
    cluster
        .until(VOLUMES, |list| {
            let all = list.as_array().unwrap();
            all.len() == 2 && all.iter().all(|volume| volume["state"] == "created")
        })
        .await;
    assert_eq!(cluster.get(&volume).await["size_gb"], 5);
    cluster
        .until(&snapshots, |list| list[0]["status"] == "created")
        .await;
    let mut sizes = cluster.disk.sizes();
    sizes.sort_unstable();
    assert_eq!(sizes, [2 << 30, 5 << 30]);
}

#[tokio::test]
async fn an_app_takes_its_volumes_and_snapshots_with_it() {
    let cluster = start().await;
    let id = cluster.volume(data("iad")).await;
    let machine = cluster.machine_on(&id).await;
    let snapshots = format!("{VOLUMES}/{id}/snapshots");
    cluster.post(&snapshots, Value::Null).await;
    cluster
        .until(&snapshots, |list| list[0]["status"] == "created")
        .await;
    let (status, _) = cluster
        .call(Method::DELETE, "/v1/apps/a?force=true", Value::Null)
        .await;
    assert_eq!(status, StatusCode::ACCEPTED, "{machine}");
    cluster
        .until("/v1/apps/a", |answer| answer["error"].is_string())
        .await;
    cluster.app("a").await;
    assert_eq!(cluster.get(VOLUMES).await, json!([]));
    assert_eq!(
        (cluster.disk.sizes().len(), cluster.disk.snapshots()),
        (0, 0)
    );
}
