//! `GET /v1/apps/{app}/events`: what happens in an app, as server-sent events, resumable.
//!
//! The first event is `ready`; then come `machine`, `release` and `deployment`
//! ([`hangar_api::watch`]). `Last-Event-ID`, or `?last_event_id=`, goes on behind an event. A reader
//! that is too slow is told with `lagged`, and one whose app has gone with `gone`.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::Stream;
use hangar_api::id::AppName;
use hangar_api::options::WatchApp;
use hangar_api::watch::{End, Ready};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::extract::AppPath;
use super::options::Options;
use crate::core::Core;
use crate::error::Problem;
use crate::watch::{News, Place, Watch};

/// A silent stream shows this often that it is alive.
const ALIVE_EVERY: Duration = Duration::from_secs(15);

pub(super) async fn follow(
    State(core): State<Arc<Core>>,
    AppPath(app): AppPath,
    headers: HeaderMap,
    Options(query): Options<WatchApp>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let header = headers.get("last-event-id").map(|value| value.to_str());
    let given = match header {
        Some(text) => Some(text.unwrap_or("?").to_owned()),
        None => query.last_event_id,
    };
    let given = given.filter(|text| !text.is_empty());
    let from = given.map(|text| {
        text.parse::<Place>()
            .map_err(|error| Problem::Invalid(format!("invalid_argument: Last-Event-ID: {error}")))
    });
    let from = from.transpose()?;
    let Watch {
        missed,
        place,
        live,
        room,
    } = core.watch.watch(&core, &app, from)?;
    let mut ready = VecDeque::from([first(&app, from.unwrap_or(place))]);
    ready.extend(missed.iter().map(|news| event(news)));
    let reader = Reader {
        core,
        app,
        ready,
        live,
        place,
        over: false,
        _room: room,
    };
    let events = futures_util::stream::unfold(reader, |mut reader| async move {
        let event = reader.next().await?;
        Some((Ok(event), reader))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(ALIVE_EVERY)))
}

struct Reader {
    core: Arc<Core>,
    app: AppName,
    ready: VecDeque<Event>,
    live: Receiver<Arc<News>>,
    /// Where it is.
    place: Place,
    over: bool,
    _room: OwnedSemaphorePermit,
}

// === impl Reader ===

impl Reader {
    async fn next(&mut self) -> Option<Event> {
        if let Some(event) = self.ready.pop_front() {
            return Some(event);
        }
        if self.over {
            return None;
        }
        tokio::select! {
            biased;
            // The client watches again from where it is, the server that comes next.
            () = self.core.stop.cancelled() => None,
            news = self.live.recv() => Some(match news {
                Ok(news) => {
                    self.place = news.place;
                    event(&news)
                }
                Err(RecvError::Lagged(_)) => self.end(
                    "lagged",
                    "this reader is too slow; connect again with the id of this event as Last-Event-ID",
                ),
                Err(RecvError::Closed) => {
                    let text = format!("app {} was destroyed", self.app);
                    self.end("gone", &text)
                }
            }),
        }
    }

    /// Returns the last event; its id is the place that the reader had come to.
    fn end(&mut self, kind: &str, text: &str) -> Event {
        self.over = true;
        let end = End {
            message: text.to_owned(),
        };
        let data = serde_json::to_string(&end).unwrap_or_default();
        sse(kind, self.place, &data)
    }
}

fn first(app: &AppName, place: Place) -> Event {
    let ready = Ready { app: app.clone() };
    sse(
        "ready",
        place,
        &serde_json::to_string(&ready).unwrap_or_default(),
    )
}

fn event(news: &News) -> Event {
    sse(news.kind, news.place, &news.data)
}

fn sse(kind: &str, place: Place, data: &str) -> Event {
    Event::default()
        .event(kind)
        .id(place.to_string())
        .data(data)
}
