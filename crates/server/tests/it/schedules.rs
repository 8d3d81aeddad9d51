//! Scheduled Machines on a simulated clock: hours and months pass in no time.

use std::sync::Arc;
use std::time::Duration;

use hangar_api::Timestamp;
use hangar_api::env::Env;
use hangar_store::{MemoryBackend, MemoryOptions, Store};
use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::cluster::{Cluster, id};

const HOUR: Duration = Duration::from_secs(3600);
/// A run comes within this after its hour: Machines are spread over a minute.
const SPREAD: Duration = Duration::from_secs(75);
const MACHINES: &str = "/v1/apps/cron/machines";

async fn start() -> Cluster {
    let cluster = Cluster::start_in(Env::simulated(11), Store::memory()).await;
    cluster.app("cron").await;
    cluster
}

impl Cluster {
    /// Makes a Machine that ends well as soon as it is started, unless it is to go on.
    async fn scheduled(&self, schedule: &str, behaviour: &str, skip_launch: bool) -> String {
        let config = json!({
            "image": "nginx", "schedule": schedule, "env": {"BEHAVIOUR": behaviour},
        });
        let body = json!({"config": config, "skip_launch": skip_launch});
        let made = self.post(MACHINES, body).await;
        let id = made["id"].as_str().unwrap().to_owned();
        let prepared = |machine: &Value| machine["state"] != "created";
        self.until(&format!("{MACHINES}/{id}"), prepared).await;
        id
    }

    /// Lets the clock run, so that every timer on the way comes at its time.
    async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    fn runs(&self, machine: &str) -> u64 {
        self.host.starts(&id(machine))
    }

    async fn next_run(&self, machine: &str) -> Option<Timestamp> {
        let shown = self.get(&format!("{MACHINES}/{machine}")).await;
        shown["next_run"].as_str().map(|text| text.parse().unwrap())
    }
}

#[tokio::test(start_paused = true)]
async fn a_scheduled_machine_runs_at_once_and_then_once_in_each_interval() {
    let cluster = start().await;
    let hourly = cluster.scheduled("hourly", "job", false).await;
    assert_eq!(cluster.runs(&hourly), 1);
    let path = format!("{MACHINES}/{hourly}");
    cluster.until(&path, |m| !m["next_run"].is_null()).await;
    let next = cluster.next_run(&hourly).await.unwrap();
    let left = next.duration_since(cluster.env.now());
    assert!((3500..=3660).contains(&left.as_secs()), "{left}");
    cluster.pass(HOUR - Duration::from_secs(30)).await;
    assert_eq!(cluster.runs(&hourly), 1, "not before its hour");
    cluster.pass(Duration::from_secs(30) + SPREAD).await;
    for run in 2..6 {
        assert_eq!(cluster.runs(&hourly), run);
        cluster.pass(HOUR).await;
    }
    let shown = cluster.get(&path).await;
    let starts = shown["events"].as_array().unwrap().iter();
    let starts: Vec<&Value> = starts.filter(|e| e["type"] == "start").collect();
    assert!(starts.len() >= 5, "{starts:?}");
    assert_eq!(shown["state"], "stopped");
    assert_eq!(cluster.host.done_twice(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_that_was_only_created_waits_for_its_first_start() {
    let cluster = start().await;
    let created = cluster.scheduled("hourly", "job", true).await;
    cluster.pass(3 * HOUR).await;
    assert_eq!(cluster.runs(&created), 0);
    assert_eq!(cluster.next_run(&created).await, None);
    let path = format!("{MACHINES}/{created}/start");
    let (status, _) = cluster.call(Method::POST, &path, Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    cluster.pass(HOUR + SPREAD).await;
    assert_eq!(cluster.runs(&created), 2);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_dies_neither_doubles_a_run_nor_forgets_one() {
    let mut cluster = start().await;
    let hourly = cluster.scheduled("hourly", "job", false).await;
    let daily = cluster.scheduled("daily", "job", false).await;
    let began = cluster.env.now();
    for round in 0..8 {
        // Dead at all moments of the hour, also at the one in which it is due.
        cluster.pass(HOUR - Duration::from_secs(round * 7)).await;
        cluster.pass(Duration::from_millis(round * 311)).await;
        cluster.down().await;
        cluster.pass(Duration::from_secs(round * 9)).await;
        cluster.up().await;
    }
    cluster.pass(SPREAD).await;
    let hours = cluster.env.now().duration_since(began).as_hours();
    assert_eq!(cluster.runs(&hourly), 1 + u64::try_from(hours).unwrap());
    assert_eq!(cluster.runs(&daily), 1);
    // One makes up for all that were missed.
    cluster.down().await;
    cluster.pass(50 * HOUR).await;
    cluster.up().await;
    cluster.pass(SPREAD).await;
    let hourly = cluster.runs(&hourly) - (1 + u64::try_from(hours).unwrap());
    assert_eq!((hourly, cluster.runs(&daily)), (1, 2));
    assert_eq!(cluster.host.done_twice(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_say_whether_it_has_written_doubles_no_run() {
    for seed in 0..4 {
        let backend = Arc::new(MemoryBackend::new(MemoryOptions {
            seed,
            merge_watch: true,
            unknown_one_in: 0,
        }));
        let store = Store::new(backend.clone());
        let mut cluster = Cluster::start_in(Env::simulated(seed), store).await;
        cluster.app("cron").await;
        let hourly = cluster.scheduled("hourly", "job", false).await;
        let path = format!("{MACHINES}/{hourly}");
        cluster.until(&path, |m| !m["next_run"].is_null()).await;
        let began = cluster.env.now();
        for _ in 0..6 {
            cluster.pass(HOUR / 2).await;
            backend.set_unknown_one_in(0);
            cluster.down().await;
            cluster.up().await;
            backend.set_unknown_one_in(3);
            cluster.pass(HOUR / 2).await;
            // What was left open is looked at again within ten seconds.
            cluster.pass(SPREAD).await;
            let hours = cluster.env.now().duration_since(began).as_hours();
            let runs = 1 + u64::try_from(hours).unwrap();
            assert_eq!(cluster.runs(&hourly), runs, "seed {seed}");
        }
        assert_eq!(cluster.host.done_twice(), 0, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_still_runs_is_left_and_a_lease_is_waited_for() {
    let cluster = start().await;
    let long = cluster.scheduled("hourly", "fine", false).await;
    cluster.pass(2 * HOUR + SPREAD).await;
    assert_eq!(cluster.runs(&long), 1);
    let next = cluster.next_run(&long).await.unwrap();
    assert!(next > cluster.env.now());
    let path = format!("{MACHINES}/{long}");
    cluster.post(&format!("{path}/stop"), json!({})).await;
    cluster.wait("cron", &long, "stopped").await;
    let lease = cluster
        .post(&format!("{path}/lease"), json!({"ttl": 7200}))
        .await;
    cluster.pass(HOUR + SPREAD).await;
    assert_eq!(cluster.runs(&long), 1, "somebody holds it");
    let nonce = lease["data"]["nonce"].as_str();
    let (status, _) = cluster
        .call_with(Method::DELETE, &format!("{path}/lease"), Value::Null, nonce)
        .await;
    assert_eq!(status, StatusCode::OK);
    cluster.until(&path, |m| m["state"] == "started").await;
    assert_eq!(cluster.runs(&long), 2);
}

#[tokio::test(start_paused = true)]
async fn another_schedule_begins_anew_and_none_ends_it() {
    let cluster = start().await;
    let machine = cluster.scheduled("monthly", "job", false).await;
    let path = format!("{MACHINES}/{machine}");
    let config = |schedule: Value| {
        json!({"config": {
            "image": "nginx", "schedule": schedule, "env": {"BEHAVIOUR": "job"},
        }})
    };
    cluster.post(&path, config(json!("hourly"))).await;
    cluster.until(&path, |m| m["state"] == "stopped").await;
    let before = cluster.runs(&machine);
    cluster.pass(HOUR + SPREAD).await;
    assert_eq!(cluster.runs(&machine), before + 1);
    cluster.post(&path, config(Value::Null)).await;
    cluster.until(&path, |m| m["next_run"].is_null()).await;
    cluster.pass(5 * HOUR).await;
    assert_eq!(cluster.runs(&machine), before + 1);
    let (status, error) = cluster
        .call(Method::POST, &path, config(json!("0 3 * * *")))
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(
        error["error"].as_str().unwrap().contains("weekly"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_suspended_machine_cannot_have_a_schedule_and_a_standby_is_not_started_by_one() {
    let cluster = start().await;
    let watched = cluster.scheduled("daily", "fine", false).await;
    let path = format!("{MACHINES}/{watched}/suspend");
    let (status, error) = cluster.call(Method::POST, &path, Value::Null).await;
    assert_eq!(status, StatusCode::PRECONDITION_FAILED);
    assert!(
        error["error"].as_str().unwrap().contains("schedule"),
        "{error}"
    );
    let config = json!({"image": "nginx", "schedule": "hourly", "standbys": [watched]});
    let made = cluster.post(MACHINES, json!({"config": config})).await;
    let standby = made["id"].as_str().unwrap();
    cluster
        .call(
            Method::POST,
            &format!("{MACHINES}/{standby}/stop"),
            json!({}),
        )
        .await;
    let stopped = |m: &Value| m["state"] == "stopped";
    cluster
        .until(&format!("{MACHINES}/{standby}"), stopped)
        .await;
    let before = cluster.runs(standby);
    cluster.pass(3 * HOUR).await;
    assert_eq!(cluster.runs(standby), before);
}
