//! The stream of what happens in an app.

use std::collections::BTreeSet;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::cluster::{Cluster, PATIENCE, read};

/// One server-sent event.
#[derive(Clone, Debug)]
struct Sent {
    id: String,
    kind: String,
    data: Value,
}

struct Stream {
    body: Incoming,
    text: String,
}

// === impl Stream ===

impl Stream {
    async fn open(cluster: &Cluster, app: &str, last: Option<&str>) -> Self {
        Self::open_over(cluster, cluster.connect().await, app, last).await
    }

    async fn open_over(
        cluster: &Cluster,
        connection: TcpStream,
        app: &str,
        last: Option<&str>,
    ) -> Self {
        let path = format!("/v1/apps/{app}/events");
        let mut request = cluster.request(Method::GET, &path, &Value::Null);
        if let Some(last) = last {
            let last = last.parse().unwrap();
            request.headers_mut().insert("last-event-id", last);
        }
        let response = Cluster::send_over(connection, request).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            body: response.into_body(),
            text: String::new(),
        }
    }

    /// Returns the next event, or `None` at the end.
    async fn next(&mut self) -> Option<Sent> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let line = event.lines().find_map(|line| line.strip_prefix(name));
                    line.unwrap_or_default().trim().to_owned()
                };
                let sent = Sent {
                    id: field("id:"),
                    kind: field("event:"),
                    data: serde_json::from_str(&field("data:")).unwrap_or_default(),
                };
                self.text = rest.to_owned();
                if !sent.kind.is_empty() {
                    return Some(sent);
                }
                continue;
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame());
            let frame = frame.await.expect("an event in time")?;
            let bytes = frame.ok()?.into_data().unwrap_or_default();
            self.text.push_str(&String::from_utf8_lossy(&bytes));
        }
    }

    /// Returns what comes up to a Machine's event of this status, that included.
    async fn until(&mut self, status: &str) -> Vec<Sent> {
        let mut all = Vec::new();
        loop {
            let sent = self.next().await.expect("the stream goes on");
            let is_last = sent.data["event"]["status"] == status;
            all.push(sent);
            if is_last {
                return all;
            }
        }
    }
}

fn events(sent: &[Sent]) -> Vec<String> {
    let of = |sent: &Sent| Some(sent.data["event"]["id"].as_str()?.to_owned());
    sent.iter().filter_map(of).collect()
}

#[tokio::test]
async fn what_happens_comes_in_order_and_goes_on_where_a_reader_left_off() {
    let cluster = Cluster::start().await;
    cluster.app("seen").await;
    cluster.app("other").await;
    let mut stream = Stream::open(&cluster, "seen", None).await;
    let ready = stream.next().await.unwrap();
    assert_eq!(
        (ready.kind.as_str(), &ready.data["app"]),
        ("ready", &json!("seen"))
    );
    cluster.machine("other").await;
    let id = cluster.machine("seen").await;
    let first = stream.until("started").await;
    assert!(
        first.iter().all(|sent| sent.data["machine"] == json!(id)),
        "{first:?}"
    );
    assert_eq!(first[0].data["event"]["type"], "launch");
    assert_eq!(first[0].data["group"], "app");

    // All that happened while nobody read, once, whichever event was the last one read.
    drop(stream);
    let path = format!("/v1/apps/seen/machines/{id}");
    cluster.post(&format!("{path}/stop"), Value::Null).await;
    cluster.wait("seen", &id, "stopped").await;
    cluster.post(&format!("{path}/start"), Value::Null).await;
    cluster.wait("seen", &id, "started").await;
    let all = cluster.get(&format!("{path}/events?limit=50")).await;
    let mut all: Vec<_> = all.as_array().unwrap().iter().collect();
    all.reverse();
    let all: Vec<_> = all
        .iter()
        .map(|event| event["id"].as_str().unwrap())
        .collect();
    for (read, last) in [
        (0, &ready),
        (1, &first[0]),
        (first.len(), &first[first.len() - 1]),
    ] {
        let mut again = Stream::open(&cluster, "seen", Some(&last.id)).await;
        assert_eq!(again.next().await.unwrap().kind, "ready");
        let mut got = Vec::new();
        while got.len() < all.len() - read {
            got.push(again.next().await.unwrap());
        }
        assert_eq!(events(&got), all[read..], "behind {}", last.id);
    }
}

#[tokio::test]
async fn releases_and_deployments_come_too() {
    let cluster = Cluster::start().await;
    cluster.app("dep").await;
    let mut stream = Stream::open(&cluster, "dep", None).await;
    let body = crate::deploys::config("x", &[("web", &[])]);
    let made = cluster.post("/v1/apps/dep/deployments", body).await;
    let mut told = BTreeSet::new();
    loop {
        let sent = stream.next().await.unwrap();
        if let ("release" | "deployment", Some(status)) =
            (sent.kind.as_str(), sent.data["status"].as_str())
        {
            assert_eq!(sent.data["version"], 1, "{sent:?}");
            assert!(sent.data.get("groups").is_none(), "{sent:?}");
            told.insert(format!("{} {status}", sent.kind));
            if sent.kind == "deployment" {
                assert_eq!(sent.data["id"], made["id"]);
            }
        }
        if told.contains("deployment complete") && told.contains("release complete") {
            break;
        }
    }
    assert!(told.contains("deployment running"), "{told:?}");
}

#[tokio::test]
async fn nothing_is_lost_when_the_server_is_started_anew() {
    let mut cluster = Cluster::start().await;
    cluster.app("again").await;
    let mut stream = Stream::open(&cluster, "again", None).await;
    let id = cluster.machine("again").await;
    let seen = stream.until("started").await;
    let last = seen.last().unwrap().id.clone();
    let path = format!("/v1/apps/again/machines/{id}");
    cluster.host.freeze(true);
    cluster.post(&format!("{path}/stop"), Value::Null).await;
    cluster.down().await;
    // The stream ends with its server.
    while stream.next().await.is_some() {}
    cluster.host.freeze(false);
    cluster.up().await;
    cluster.wait("again", &id, "stopped").await;
    let mut again = Stream::open(&cluster, "again", Some(&last)).await;
    let rest = again.until("stopped").await;
    let shown = cluster.get(&format!("{path}/events")).await;
    let all: BTreeSet<_> = shown
        .as_array()
        .unwrap()
        .iter()
        .collect::<Vec<_>>()
        .into_iter()
        .map(|event| event["id"].as_str().unwrap().to_owned())
        .collect();
    let got: BTreeSet<_> = [events(&seen), events(&rest)]
        .concat()
        .into_iter()
        .collect();
    assert_eq!(got, all);
}

#[tokio::test]
async fn the_end_of_an_app_and_a_wrong_place_are_told() {
    let cluster = Cluster::start().await;
    cluster.app("short").await;
    let mut stream = Stream::open(&cluster, "short", None).await;
    stream.next().await.unwrap();
    cluster
        .call(Method::DELETE, "/v1/apps/short", Value::Null)
        .await;
    let last = stream.next().await.unwrap();
    assert_eq!(last.kind, "gone", "{last:?}");
    assert!(stream.next().await.is_none());
    let (status, _) = cluster
        .call(Method::GET, "/v1/apps/short/events", Value::Null)
        .await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    cluster.app("short").await;
    for bad in ["1", "x", "1-2", "a-b-c"] {
        let path = format!("/v1/apps/short/events?last_event_id={bad}");
        let request = cluster.request(Method::GET, &path, &Value::Null);
        let (status, body) = read(cluster.send(request).await).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{bad}: {body}");
    }
}

#[tokio::test]
async fn a_reader_that_is_too_slow_is_told_and_can_go_on() {
    let cluster = Cluster::start().await;
    let app = "slow".repeat(15);
    cluster.app(&app).await;
    let connection = cluster.narrow().await;
    let mut slow = Stream::open_over(&cluster, connection, &app, None).await;
    slow.next().await.unwrap();
    let metadata = json!({"fly_process_group": "g".repeat(63)});
    let config = json!({"image": "x", "metadata": metadata});
    let body = json!({"config": config, "name": "n".repeat(63)});
    let base = format!("/v1/apps/{app}/machines");
    let made = cluster.post(&base, body).await;
    let id = made["id"].as_str().unwrap();
    slow.until("started").await;
    // Nobody reads, and the buffers of the connection fill: each restart is four events.
    let path = format!("{base}/{id}/restart");
    let restart = || cluster.call(Method::POST, &path, Value::Null);
    let mut asked = 0;
    while asked < 4_000 {
        let four = tokio::join!(restart(), restart(), restart(), restart());
        let taken = [four.0.0, four.1.0, four.2.0, four.3.0];
        asked += taken.iter().filter(|status| status.is_success()).count();
    }
    cluster.wait(&app, id, "started").await;
    let mut last = None;
    let rest = async {
        while let Some(sent) = slow.next().await {
            last = Some(sent);
        }
    };
    let ended = tokio::time::timeout(PATIENCE, rest).await;
    ended.expect("an end in time");
    let last = last.unwrap();
    assert_eq!(last.kind, "lagged", "{last:?}");
    let mut again = Stream::open(&cluster, &app, Some(&last.id)).await;
    assert_eq!(again.next().await.unwrap().kind, "ready");
    let rest = again.until("started").await;
    assert!(!rest.is_empty());
}
