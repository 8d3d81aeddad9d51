//! Formations: what the server does about drift, and what it leaves to whoever asked for it.

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::deploys::{config, deploy, finished, machines};

const FORMATION: &str = "/v1/apps/a/formation";
const MACHINES: &str = "/v1/apps/a/machines";

impl Cluster {
    /// Starts a server with an app of these groups, one Machine each, in gru.
    async fn of(groups: &[&str]) -> Self {
        let cluster = Self::start().await;
        cluster.app("a").await;
        cluster.deploy_groups(groups).await;
        cluster
    }

    async fn deploy_groups(&self, groups: &[&str]) {
        let groups: Vec<(&str, &[(&str, &str)])> = groups.iter().map(|g| (*g, &[][..])).collect();
        let done = deploy(self, "a", config("one", &groups)).await;
        assert_eq!(done["status"], "complete", "{done}");
    }

    async fn put(&self, groups: Value) -> (StatusCode, Value) {
        self.call(Method::PUT, FORMATION, json!({"groups": groups}))
            .await
    }

    async fn change(&self, groups: Value) {
        let (status, answer) = self.put(groups).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
    }

    /// Waits until a group has just these Machines, by region, and its formation says so.
    async fn comes_to(&self, group: &str, counts: Value) -> Value {
        let shown = self
            .until(FORMATION, |all| {
                let this = &all["groups"][group];
                let seats = this["machines"].as_array().map_or(0, Vec::len);
                this["regions"] == counts
                    && this["retiring"] == json!([])
                    && this["count"] == json!(seats)
            })
            .await;
        let here = of_group(&machines(self, "a").await, group);
        let mut now = serde_json::Map::new();
        for machine in &here {
            let region = machine["region"].as_str().unwrap();
            let n = now.get(region).and_then(Value::as_u64).unwrap_or(0) + 1;
            now.insert(region.to_owned(), json!(n));
        }
        let wanted = counts.as_object().unwrap().clone();
        let wanted: serde_json::Map<_, _> = wanted.into_iter().filter(|(_, n)| *n != 0).collect();
        assert_eq!(now, wanted, "{shown}");
        shown["groups"][group].clone()
    }

    /// Waits until the reconciler has seen all that was done so far, and returns the ids of a
    /// group's Machines.
    async fn settled(&self, group: &str) -> Vec<String> {
        // A change that changes nothing goes through the same hands, behind all the others.
        self.change(json!({group: {"max_per_region": 0}})).await;
        self.until(FORMATION, |all| {
            let this = &all["groups"][group];
            let seats = this["machines"].as_array().map_or(0, Vec::len);
            this["count"] == json!(seats) && this["retiring"] == json!([])
        })
        .await;
        ids(&of_group(&machines(self, "a").await, group))
    }

    async fn mark(&self, slot: &str, mark: &str) {
        self.post(&format!("/v1/platform/slots/{slot}/{mark}"), Value::Null)
            .await;
    }

    async fn destroy(&self, id: &str) {
        let path = format!("{MACHINES}/{id}?force=true");
        let (status, answer) = self.call(Method::DELETE, &path, Value::Null).await;
        assert!(status.is_success(), "{answer}");
        self.wait("a", id, "destroyed").await;
    }

    /// Makes a copy of a Machine, as `machine clone` does.
    async fn clone_to(&self, machine: &Value, region: &str) -> String {
        let body = json!({"config": machine["config"], "region": region});
        let made = self.post(MACHINES, body).await;
        made["id"].as_str().unwrap().to_owned()
    }
}

fn of_group(list: &[Value], group: &str) -> Vec<Value> {
    let of = |m: &&Value| {
        let gone = ["destroying", "destroyed"].contains(&m["state"].as_str().unwrap());
        let metadata = &m["config"]["metadata"];
        metadata["fly_process_group"] == group && metadata["fly_platform_version"] == "v2" && !gone
    };
    list.iter().filter(of).cloned().collect()
}

fn ids(list: &[Value]) -> Vec<String> {
    list.iter()
        .map(|m| m["id"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_count_is_kept_and_the_server_says_where() {
    let cluster = Cluster::of(&["web", "worker"]).await;
    let first = cluster.comes_to("web", json!({"gru": 1})).await;
    assert_eq!(first["guest"]["memory_mb"], 256);
    cluster
        .change(json!({"web": {"count": 4, "regions": ["gru", "iad"]}}))
        .await;
    cluster.comes_to("web", json!({"gru": 2, "iad": 2})).await;
    let web = of_group(&machines(&cluster, "a").await, "web");
    assert!(web.iter().all(|m| m["image_ref"]["repository"] == "one"));
    let slots: std::collections::BTreeSet<_> = web.iter().map(|m| m["slot"].to_string()).collect();
    assert_eq!(slots.len(), 4, "spread over the slots of each region");
    // Fewer, and another group is not touched by any of it.
    cluster.change(json!({"web": {"count": 1}})).await;
    let shown = cluster
        .until(FORMATION, |all| all["groups"]["web"]["count"] == 1)
        .await;
    assert_eq!(shown["groups"]["worker"]["count"], 1);
    cluster
        .until(MACHINES, |list| {
            of_group(list.as_array().unwrap(), "web").len() == 1
        })
        .await;
    assert_eq!(of_group(&machines(&cluster, "a").await, "worker").len(), 1);
    assert_eq!(cluster.host.done_twice(), 0);
}

#[tokio::test]
async fn a_region_taken_out_of_the_pool_is_left_and_a_backup_is_used_when_nothing_else_is_there() {
    let cluster = Cluster::of(&["worker"]).await;
    cluster
        .change(json!({"worker": {"count": 2, "regions": {"gru": 1, "iad": 1}}}))
        .await;
    cluster
        .comes_to("worker", json!({"gru": 1, "iad": 1}))
        .await;
    cluster
        .change(json!({"worker": {"remove_regions": ["iad"], "backup_regions": ["iad"]}}))
        .await;
    let shown = cluster.comes_to("worker", json!({"gru": 2})).await;
    assert_eq!(shown["backup_regions"], json!(["iad"]));
    cluster.mark("gru-a", "lost").await;
    cluster.mark("gru-b", "lost").await;
    cluster
        .until(MACHINES, |list| {
            let here = of_group(list.as_array().unwrap(), "worker");
            here.len() == 2 && here.iter().all(|m| m["region"] == "iad")
        })
        .await;
    let shown = cluster.get(FORMATION).await;
    assert_eq!(shown["groups"]["worker"]["regions"], json!({"gru": 2}));
}

#[tokio::test]
async fn what_is_on_a_lost_slot_is_made_anew_once_and_a_slot_that_comes_back_changes_nothing() {
    let cluster = Cluster::of(&["web", "worker"]).await;
    let before = of_group(&machines(&cluster, "a").await, "web");
    let slot = before[0]["slot"].as_str().unwrap().to_owned();
    cluster.mark(&slot, "lost").await;
    cluster
        .until(MACHINES, |list| {
            let web = of_group(list.as_array().unwrap(), "web");
            web.len() == 1 && web[0]["id"] != before[0]["id"]
        })
        .await;
    let after = of_group(&machines(&cluster, "a").await, "web");
    assert_eq!(after[0]["region"], "gru", "in its region, on another slot");
    assert_ne!(after[0]["slot"], slot.as_str());
    cluster.mark(&slot, "back").await;
    assert_eq!(cluster.settled("web").await, ids(&after));
}

#[tokio::test]
async fn a_client_that_does_everything_by_itself_is_never_fought() {
    let cluster = Cluster::of(&["web", "worker"]).await;
    let web = of_group(&machines(&cluster, "a").await, "web")[0].clone();
    // Many at once, of one group.
    let clones = (0..40).map(|n| cluster.clone_to(&web, if n % 2 == 0 { "gru" } else { "iad" }));
    let made = futures_util::future::join_all(clones).await;
    cluster.comes_to("web", json!({"gru": 21, "iad": 20})).await;
    // One is moved to another group by its metadata, and one out of all of them.
    let path = format!("{MACHINES}/{}/metadata/fly_process_group", made[0]);
    cluster.post(&path, json!({"value": "worker"})).await;
    let path = format!("{MACHINES}/{}/metadata/fly_platform_version", made[1]);
    let (status, _) = cluster.call(Method::DELETE, &path, Value::Null).await;
    assert!(status.is_success());
    cluster.comes_to("web", json!({"gru": 20, "iad": 19})).await;
    cluster.comes_to("worker", json!({"gru": 2})).await;
    // One is stopped, which is no drift.
    cluster
        .post(&format!("{MACHINES}/{}/stop", made[2]), Value::Null)
        .await;
    cluster.wait("a", &made[2], "stopped").await;
    let ends = made[3..].iter().map(|id| cluster.destroy(id));
    futures_util::future::join_all(ends).await;
    cluster.comes_to("web", json!({"gru": 2})).await;
    let left = cluster.settled("web").await;
    assert_eq!(left.len(), 2);
    assert!(left.contains(&made[2]));
    // Nobody but the client has made or destroyed any Machine.
    let all = cluster
        .get(&format!("{MACHINES}?include_deleted=true"))
        .await;
    assert_eq!(all.as_array().unwrap().len(), 42);
    assert_eq!(cluster.host.done_twice(), 0);
}

#[tokio::test]
async fn a_group_scaled_to_0_stays_there_through_deploys_and_comes_back_when_asked() {
    let cluster = Cluster::of(&["web", "worker"]).await;
    cluster.change(json!({"worker": {"count": 0}})).await;
    cluster.comes_to("worker", json!({"gru": 0})).await;
    for _ in 0..2 {
        let done = deploy(
            &cluster,
            "a",
            config("two", &[("web", &[]), ("worker", &[])]),
        )
        .await;
        assert_eq!(done["status"], "complete", "{done}");
        let told = done["events"].to_string();
        assert!(told.contains("hangar scale count worker=1"), "{told}");
        assert!(of_group(&machines(&cluster, "a").await, "worker").is_empty());
    }
    cluster.change(json!({"worker": {"count": 2}})).await;
    cluster.comes_to("worker", json!({"gru": 2})).await;
    let workers = of_group(&machines(&cluster, "a").await, "worker");
    assert!(
        workers
            .iter()
            .all(|m| m["image_ref"]["repository"] == "two")
    );
    // And so does one whose last Machine a client has destroyed.
    for id in ids(&workers) {
        cluster.destroy(&id).await;
    }
    cluster.deploy_groups(&["web", "worker"]).await;
    assert!(of_group(&machines(&cluster, "a").await, "worker").is_empty());
}

#[tokio::test]
async fn a_group_that_lost_its_last_machine_to_another_gets_a_new_one_with_the_next_deploy() {
    let cluster = Cluster::of(&["web", "worker"]).await;
    cluster.settled("worker").await;
    let worker = ids(&of_group(&machines(&cluster, "a").await, "worker"));
    let path = format!("{MACHINES}/{}/metadata/fly_process_group", worker[0]);
    cluster.post(&path, json!({"value": "web"})).await;
    cluster.comes_to("web", json!({"gru": 2})).await;
    cluster.deploy_groups(&["web", "worker"]).await;
    cluster.comes_to("web", json!({"gru": 2})).await;
    cluster.comes_to("worker", json!({"gru": 1})).await;
}

#[tokio::test]
async fn each_change_of_processes_takes_the_formation_of_its_group_along() {
    let cluster = Cluster::of(&["app"]).await;
    let names = |all: &Value| -> Vec<String> {
        all["groups"].as_object().unwrap().keys().cloned().collect()
    };
    cluster
        .change(json!({"app": {"count": 2, "regions": ["gru", "iad"]}}))
        .await;
    cluster.comes_to("app", json!({"gru": 1, "iad": 1})).await;

    // [processes] is added: `app` is no group any more.
    cluster.deploy_groups(&["web", "worker"]).await;
    let shown = cluster
        .until(FORMATION, |all| names(all) == ["web", "worker"])
        .await;
    assert_eq!(shown["groups"]["web"]["regions"], json!({"gru": 1}));
    cluster
        .change(json!({"worker": {"count": 3, "regions": ["iad"], "backup_regions": ["gru"]}}))
        .await;
    cluster.comes_to("worker", json!({"iad": 3})).await;

    // A group is renamed: it is another one.
    cluster.deploy_groups(&["web", "jobs"]).await;
    cluster
        .until(FORMATION, |all| names(all) == ["jobs", "web"])
        .await;
    assert!(of_group(&machines(&cluster, "a").await, "worker").is_empty());
    assert_eq!(of_group(&machines(&cluster, "a").await, "jobs").len(), 1);

    // One is removed, and brought back: nothing of what it was steers it.
    cluster.deploy_groups(&["web"]).await;
    cluster.until(FORMATION, |all| names(all) == ["web"]).await;
    cluster.deploy_groups(&["web", "worker"]).await;
    let shown = cluster.comes_to("worker", json!({"gru": 1})).await;
    assert_eq!(shown["backup_regions"], json!([]));

    // The whole section is deleted.
    cluster
        .change(json!({"web": {"count": 2, "regions": ["gru", "iad"]}}))
        .await;
    cluster.comes_to("web", json!({"gru": 1, "iad": 1})).await;
    cluster.deploy_groups(&["app"]).await;
    cluster.until(FORMATION, |all| names(all) == ["app"]).await;
    cluster.comes_to("app", json!({"gru": 1})).await;
    assert_eq!(machines(&cluster, "a").await.len(), 1);
}

#[tokio::test]
async fn nothing_is_repaired_during_a_deploy_or_under_a_foreign_lease() {
    let cluster = Cluster::of(&["worker"]).await;
    let worker = of_group(&machines(&cluster, "a").await, "worker")[0].clone();
    let id = worker["id"].as_str().unwrap();
    let lease = cluster
        .post(&format!("{MACHINES}/{id}/lease"), json!({"ttl": 600}))
        .await;
    cluster.mark(worker["slot"].as_str().unwrap(), "lost").await;
    let paused = cluster
        .until(FORMATION, |all| !all["paused"].is_null())
        .await;
    assert!(paused["paused"].to_string().contains("leases"), "{paused}");
    cluster.change(json!({"worker": {"count": 2}})).await;
    assert_eq!(ids(&machines(&cluster, "a").await), [id]);

    // A deploy that hangs: the formation cannot be changed, and nothing is repaired.
    let nonce = lease["data"]["nonce"].as_str().unwrap();
    let path = format!("{MACHINES}/{id}/lease");
    cluster.host.freeze(true);
    let mut body = config("two", &[("worker", &[])]);
    body["options"]["wait_timeout_secs"] = json!(300);
    let made = cluster.post("/v1/apps/a/deployments", body).await;
    let (status, _) = cluster
        .call_with(Method::DELETE, &path, Value::Null, Some(nonce))
        .await;
    assert!(status.is_success());
    let (status, answer) = cluster.put(json!({"worker": {"count": 5}})).await;
    assert_eq!(status, StatusCode::CONFLICT, "{answer}");
    assert!(answer.to_string().contains("being deployed"), "{answer}");
    cluster.host.freeze(false);
    // The next message wakes the host that was frozen.
    cluster.app("b").await;
    cluster.machine("b").await;
    let done = finished(&cluster, "a", &made).await;
    assert_eq!(done["status"], "complete", "{done}");
    cluster.comes_to("worker", json!({"gru": 2})).await;
}

#[tokio::test]
async fn a_server_that_is_killed_goes_on_with_what_was_asked_for() {
    let mut cluster = Cluster::of(&["web", "worker"]).await;
    for round in 1..8 {
        let count = 1 + (round * 5) % 9;
        let pool = if round % 2 == 0 {
            json!(["gru"])
        } else {
            json!(["gru", "iad"])
        };
        cluster
            .change(json!({"web": {"count": count, "regions": pool}}))
            .await;
        cluster.down().await;
        cluster.up().await;
        let here = cluster.settled("web").await;
        assert_eq!(here.len(), count);
    }
    assert_eq!(cluster.host.done_twice(), 0);
}

#[tokio::test]
async fn what_cannot_be_is_refused_whole() {
    let cluster = Cluster::of(&["web", "worker"]).await;
    let before = cluster.get(FORMATION).await;
    let cases = [
        (
            json!({"worker": {"count": 2}, "wroker": {"count": 1}}),
            "no process group wroker; there are web, worker",
        ),
        (
            json!({"worker": {"count": 2}, "web": {"add_regions": ["mars"]}}),
            "region mars is not offered here; there are gru, iad",
        ),
        (
            json!({"web": {"remove_regions": ["gru"]}}),
            "at least one region",
        ),
        (
            json!({"web": {"count": 3, "max_per_region": 1}}),
            "do not fit",
        ),
        (
            json!({"web": {"guest": {"cpu_kind": "tiny", "cpus": 1, "memory_mb": 256}}}),
            "invalid CPU kind",
        ),
    ];
    for (body, text) in cases {
        let (status, answer) = cluster.put(body).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
        assert!(answer.to_string().contains(text), "{answer}");
        assert_eq!(cluster.get(FORMATION).await, before);
    }
    for body in [
        json!({"web": {"cuont": 2}}),
        json!({"web": {"count": -1}}),
        json!([]),
    ] {
        let (status, answer) = cluster.put(body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
    }
    // And a look changes nothing.
    let body = json!({"groups": {"web": {"count": 7}}, "dry_run": true});
    let (status, answer) = cluster.call(Method::PUT, FORMATION, body).await;
    assert_eq!(
        (status, &answer["groups"]["web"]["count"]),
        (StatusCode::OK, &json!(7))
    );
    assert_eq!(cluster.get(FORMATION).await, before);
    let (status, _) = cluster
        .call(Method::GET, "/v1/apps/none/formation", Value::Null)
        .await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}
