//! What happens in apps, for those who watch: Machines' events, releases, deployments.
//!
//! One task follows the store for all watchers. An app that somebody watches has a channel: what was
//! last known of it, and the last news. News of one app are made once, however many watch.
//!
//! ```text
//! store ─► deltas ─► channel of the app: known ─► news ─┬─► ring: those who come back
//!                                                       └─► broadcast: those who are there
//! ```
//!
//! A place in the stream is (revision, number, time). Who comes back with one gets what the ring
//! holds behind it. Where the ring does not reach, after a restart or a long absence, news are made
//! from the records that changed since that revision: an event may come twice then, and of each
//! Machine the last 20 are there.

mod news;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hangar_api::Timestamp;
use hangar_api::id::{AppName, MachineId};
use hangar_store::tables::{Apps, Deployments, Observations, Releases};
use hangar_store::{Delta, Revision, Snapshot};
use jiff::SignedDuration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};

use crate::core::Core;
use crate::error::Problem;

use self::news::Known;
pub(crate) use self::news::News;

/// Most watchers at the same time.
const MAX_WATCHERS: usize = 10_000;
/// News that an app's channel keeps for those who come back, and that a watcher may be behind.
const KEPT: usize = 256;
/// How long the channel of an app that nobody watches any more is kept for those who come back.
const KEPT_IDLE: SignedDuration = SignedDuration::from_secs(60);

/// A place in the stream of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The revision of the store whose news it stands behind.
    pub(crate) revision: Revision,
    /// Which of them.
    pub(crate) number: u64,
    /// When that was, Unix milliseconds.
    pub(crate) millis: i64,
}

/// Those who watch.
#[derive(Debug)]
pub(crate) struct Hub {
    channels: Mutex<BTreeMap<AppName, Channel>>,
    room: Arc<Semaphore>,
}

#[derive(Debug)]
struct Channel {
    known: Known,
    /// The place before the oldest news of the ring.
    begin: Place,
    /// The place of the newest.
    end: Place,
    ring: VecDeque<Arc<News>>,
    live: broadcast::Sender<Arc<News>>,
    /// Since when nobody watches.
    idle: Option<Timestamp>,
}

/// What a watcher gets.
#[derive(Debug)]
pub(crate) struct Watch {
    /// What it has missed.
    pub(crate) missed: Vec<Arc<News>>,
    /// Where it is then.
    pub(crate) place: Place,
    /// What comes.
    pub(crate) live: broadcast::Receiver<Arc<News>>,
    /// Its room.
    pub(crate) room: OwnedSemaphorePermit,
}

// === impl Place ===

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}-{}", self.revision, self.number, self.millis)
    }
}

impl std::str::FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let mut parts = text.splitn(3, '-');
            Some(Self {
                revision: parts.next()?.parse().ok()?,
                number: parts.next()?.parse().ok()?,
                millis: parts.next()?.parse().ok()?,
            })
        };
        read().ok_or_else(|| "it is not the id of an event of this stream".to_owned())
    }
}

// === impl Hub ===

impl Default for Hub {
    fn default() -> Self {
        Self {
            channels: Mutex::default(),
            room: Arc::new(Semaphore::new(MAX_WATCHERS)),
        }
    }
}

impl Hub {
    fn channels(&self) -> MutexGuard<'_, BTreeMap<AppName, Channel>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to watch an app, from a place on where one is named.
    pub(crate) fn watch(
        &self,
        core: &Core,
        app: &AppName,
        from: Option<Place>,
    ) -> Result<Watch, Problem> {
        core.app(app)?;
        let room = Arc::clone(&self.room).try_acquire_owned().map_err(|_| {
            Problem::Exhausted(format!(
                "{MAX_WATCHERS} streams of events are open, the most there may be"
            ))
        })?;
        let mut channels = self.channels();
        let snapshot = core.cache.snapshot();
        let channel = channels
            .entry(app.clone())
            .or_insert_with(|| Channel::new(core, &snapshot, app));
        // What came since the task last looked is for everybody.
        channel.look(core, &snapshot, app, None);
        let missed = match from {
            None => Vec::new(),
            Some(from) if from >= channel.begin => channel.behind(from),
            Some(from) => news::since(&snapshot, app, from, channel.end),
        };
        Ok(Watch {
            missed,
            place: channel.end,
            live: channel.live.subscribe(),
            room,
        })
    }

    /// Takes a change over to those who watch.
    fn take(&self, core: &Core, delta: &Delta) {
        let mut channels = self.channels();
        if channels.is_empty() {
            return;
        }
        let touched = touched(delta);
        let snapshot = core.cache.snapshot();
        let now = core.env.now();
        channels.retain(|app, channel| {
            // Dropping the channel ends its streams.
            snapshot.get::<Apps>(app).is_some() && !channel.is_over(now)
        });
        match touched {
            None => {
                for (app, channel) in channels.iter_mut() {
                    channel.look(core, &snapshot, app, None);
                }
            }
            Some(touched) => {
                for (app, machines) in touched {
                    if let Some(channel) = channels.get_mut(&app) {
                        channel.look(core, &snapshot, &app, Some(&machines));
                    }
                }
            }
        }
    }
}

/// Follows the store for those who watch, until the server stops.
pub(crate) async fn run(core: Arc<Core>) {
    let mut deltas = core.cache.deltas();
    loop {
        tokio::select! {
            biased;
            () = core.stop.cancelled() => return,
            delta = deltas.next() => match delta {
                Some(delta) => core.watch.take(&core, &delta),
                None => return,
            },
        }
    }
}

/// Returns the apps of which something changed, and which of their Machines did; `None` when
/// anything may have.
fn touched(delta: &Delta) -> Option<BTreeMap<AppName, BTreeSet<MachineId>>> {
    let mut touched: BTreeMap<AppName, BTreeSet<MachineId>> = BTreeMap::new();
    for (app, machine) in delta.keys::<Observations>()? {
        touched.entry(app).or_default().insert(machine);
    }
    for (app, _) in delta.keys::<Releases>()? {
        touched.entry(app).or_default();
    }
    for (app, _) in delta.keys::<Deployments>()? {
        touched.entry(app).or_default();
    }
    Some(touched)
}

// === impl Channel ===

impl Channel {
    fn new(core: &Core, snapshot: &Snapshot, app: &AppName) -> Self {
        let here = Place {
            revision: snapshot.revision(),
            number: 0,
            millis: core.env.now().as_millisecond(),
        };
        Self {
            known: Known::of(snapshot, app),
            begin: here,
            end: here,
            ring: VecDeque::new(),
            live: broadcast::Sender::new(KEPT),
            idle: None,
        }
    }

    /// Returns whether nobody has watched for so long that nobody will come back.
    fn is_over(&mut self, now: Timestamp) -> bool {
        if self.live.receiver_count() > 0 {
            self.idle = None;
            return false;
        }
        now.duration_since(*self.idle.get_or_insert(now)) > KEPT_IDLE
    }

    /// Makes news of what is not known yet, of these Machines or of all.
    fn look(
        &mut self,
        core: &Core,
        snapshot: &Snapshot,
        app: &AppName,
        machines: Option<&BTreeSet<MachineId>>,
    ) {
        for (kind, data) in self.known.catch_up(snapshot, app, machines) {
            let revision = snapshot.revision().max(self.end.revision);
            let number = match revision == self.end.revision {
                true => self.end.number + 1,
                false => 0,
            };
            let millis = core.env.now().as_millisecond().max(self.end.millis);
            self.end = Place {
                revision,
                number,
                millis,
            };
            let news = Arc::new(News {
                place: self.end,
                kind,
                data,
            });
            self.ring.push_back(Arc::clone(&news));
            if self.ring.len() > KEPT {
                self.begin = self.ring.pop_front().map_or(self.begin, |old| old.place);
            }
            // Nobody is there: it is for those who come back.
            let _ = self.live.send(news);
        }
    }

    fn behind(&self, from: Place) -> Vec<Arc<News>> {
        let behind = self.ring.iter().filter(|news| news.place > from);
        behind.cloned().collect()
    }
}
