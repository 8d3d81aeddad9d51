//! `GET /v1/apps/{app}/deployments/{id}/events`: a deployment's events as they come, as
//! server-sent events, resumable.
//!
//! An event's id is how many events the deployment had with it; `Last-Event-ID` or `?from=` goes
//! on behind it. The last one is of type `over` and holds the Deployment.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::Stream;
use hangar_api::deployment::Deployment;
use hangar_api::id::AppName;
use hangar_store::tables::Deployments;
use serde::Serialize;

use super::deployments::{find, shown};
use super::extract::{AppPath, LastPart, Params};
use crate::core::Core;
use crate::error::Problem;

/// A silent stream shows this often that it is alive.
const ALIVE_EVERY: Duration = Duration::from_secs(15);

pub(super) async fn follow(
    State(core): State<Arc<Core>>,
    AppPath(app): AppPath,
    LastPart(id): LastPart,
    params: Params,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let record = find(&core, &app, &id)?;
    let last = headers
        .get("last-event-id")
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let seen = last.or(params.parsed::<u64>("from")?).unwrap_or(0);
    let follower = Follower {
        changes: core.cache.changes(),
        key: (app, record.value.id.clone()),
        core,
        seen,
        ready: VecDeque::new(),
        over: false,
    };
    let events = futures_util::stream::unfold(follower, |mut follower| async move {
        let event = follower.next().await?;
        Some((Ok(event), follower))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(ALIVE_EVERY)))
}

struct Follower {
    core: Arc<Core>,
    changes: tokio::sync::watch::Receiver<u64>,
    key: (AppName, hangar_api::id::DeploymentId),
    seen: u64,
    ready: VecDeque<Event>,
    over: bool,
}

// === impl Follower ===

impl Follower {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.over {
                return None;
            }
            self.changes.borrow_and_update();
            let record = self.core.cache.get::<Deployments>(&self.key)?;
            self.take(&record.value);
            if !self.ready.is_empty() {
                continue;
            }
            tokio::select! {
                biased;
                // The client follows again from where it is, the server that comes next.
                () = self.core.stop.cancelled() => return None,
                changed = self.changes.changed() => changed.ok()?,
            }
        }
    }

    fn take(&mut self, deployment: &Deployment) {
        for (index, event) in (deployment.events_from + 1..).zip(&deployment.events) {
            if index > self.seen {
                self.seen = index;
                self.ready.extend(sse("event", index, event));
            }
        }
        if deployment.status.is_over() {
            self.over = true;
            self.ready
                .extend(sse("over", self.seen, &shown(deployment)));
        }
    }
}

fn sse(kind: &str, id: u64, data: &impl Serialize) -> Option<Event> {
    let event = Event::default().event(kind).id(id.to_string());
    event.json_data(data).ok()
}
