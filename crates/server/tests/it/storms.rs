//! Deployments under a server that is killed again and again, on a store that merges what it
//! tells and does not always know whether it has written.

use std::sync::Arc;
use std::time::Duration;

use hangar_api::env::Env;
use hangar_store::{MemoryBackend, MemoryOptions, Store};
use hyper::{Method, StatusCode};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::deploys::config;

/// Begins a deployment, or finds the one that an answer which was lost has begun.
async fn begin(cluster: &Cluster, body: &Value) -> Value {
    let path = "/v1/apps/storm/deployments";
    loop {
        let (status, answer) = cluster.call(Method::POST, path, body.clone()).await;
        match status {
            StatusCode::CREATED => return answer,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::CONFLICT => {
                let newest = cluster.get(path).await[0].clone();
                if newest["finished_at"].is_null() && !newest.is_null() {
                    return newest;
                }
            }
            other => panic!("{other}: {answer}"),
        }
    }
}

async fn storm(seed: u64) {
    let env = Env::simulated(seed);
    let backend = Arc::new(MemoryBackend::new(MemoryOptions {
        seed,
        merge_watch: true,
        unknown_one_in: 0,
    }));
    let mut cluster = Cluster::start_on(Store::new(backend.clone())).await;
    cluster.app("storm").await;
    cluster.host.slow_down();
    backend.set_unknown_one_in(20);
    let mut good = String::new();
    for round in 0..5 {
        let image = format!("image{round}");
        // The first must be good, and afterwards every third is not.
        let bad = round > 0 && env.random_u64().is_multiple_of(3);
        let behaviour = if bad { "sick" } else { "fine" };
        let body = config(
            &image,
            &[("web", &[("BEHAVIOUR", behaviour)]), ("worker", &[])],
        );
        let made = begin(&cluster, &body).await;
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(env.random_u64() % 30)).await;
            cluster.down().await;
            cluster.up().await;
        }
        let id = made["id"].as_str().unwrap();
        let path = format!("/v1/apps/storm/deployments/{id}");
        let done = cluster.until(&path, |d| !d["finished_at"].is_null()).await;
        let wanted = if bad { "rolled_back" } else { "complete" };
        assert_eq!(done["status"], wanted, "seed {seed} round {round}: {done}");
        if !bad {
            good = image;
        }
        let list = cluster.get("/v1/apps/storm/machines").await;
        let list = list.as_array().unwrap();
        assert_eq!(list.len(), 2, "seed {seed} round {round}: {list:?}");
        for machine in list {
            assert_eq!(machine["state"], "started", "seed {seed} round {round}");
            assert_eq!(
                machine["image_ref"]["repository"], good,
                "seed {seed} round {round}"
            );
        }
        assert_eq!(cluster.host.done_twice(), 0, "seed {seed} round {round}");
    }
    backend.set_unknown_one_in(0);
    cluster.down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deploys_end_as_they_should_however_often_the_server_is_killed() {
    for seed in 0..4 {
        storm(seed).await;
    }
}
