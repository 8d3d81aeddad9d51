//! Answering a log query: the newest lines of all Machines it is about, then new ones as they come.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::stream;
use hangar_api::Timestamp;
use hangar_api::error::{ErrorKind, Failure};
use hangar_api::id::MachineId;
use hangar_api::logs::{LogLine, LogQuery, Provider};
use hangar_api::seam::BoxStream;
use hangar_init::logfile::{self, Cursor, Line, Source};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::{Labels, LogStore};

/// Time between two looks for new lines.
const POLL: Duration = Duration::from_millis(100);
/// With more Machines than this, looks are rarer in proportion.
const MACHINES_PER_POLL: u32 = 50;
/// Lines on their way to a reader.
const IN_FLIGHT: usize = 256;
/// Most lines that a query may ask for.
const MAX_TAIL: usize = 10_000;

/// Where a query is in each Machine's log.
type Cursors = BTreeMap<MachineId, Cursor>;

impl LogStore {
    /// Answers a query; see `HostCalls::logs`.
    pub async fn query(&self, query: LogQuery) -> Result<BoxStream<LogLine>, Failure> {
        let (store, asked) = (self.clone(), query.clone());
        let newest = tokio::task::spawn_blocking(move || store.newest(&asked)).await;
        let (lines, cursors) = newest
            .map_err(|error| Failure::new(ErrorKind::Internal, error.to_string()))?
            .map_err(|error| Failure::new(ErrorKind::Internal, format!("read logs: {error}")))?;
        let first = stream::iter(lines);
        if !query.follow {
            return Ok(Box::pin(first));
        }
        let (sender, receiver) = mpsc::channel(IN_FLIGHT);
        let task = self.env.spawn(self.clone().follow(query, cursors, sender));
        // The task ends with the stream that owns it.
        let owned = (receiver, AbortOnDropHandle::new(task));
        let rest = stream::unfold(owned, |mut owned| async move {
            owned.0.recv().await.map(|line| (line, owned))
        });
        Ok(Box::pin(stream::StreamExt::chain(first, rest)))
    }

    fn matching(&self, query: &LogQuery) -> Vec<(MachineId, Labels, PathBuf)> {
        let all = self.lock();
        let found = all.iter().filter(|(id, labels)| labels.matches(id, query));
        found
            .map(|(id, labels)| (id.clone(), labels.clone(), self.dir(id)))
            .collect()
    }

    fn newest(&self, query: &LogQuery) -> std::io::Result<(Vec<LogLine>, Cursors)> {
        let tail = query.tail.min(MAX_TAIL);
        let mut lines = Vec::new();
        let mut cursors = Cursors::new();
        for (id, labels, dir) in self.matching(query) {
            let (found, cursor) = logfile::tail(&dir, tail)?;
            let shown = found.into_iter().map(|line| line_of(line, &id, &labels));
            lines.extend(shown.filter(|line| is_wanted(line, query)));
            cursors.insert(id, cursor);
        }
        lines.sort_by_key(|line| line.timestamp);
        lines.drain(..lines.len().saturating_sub(tail));
        Ok((lines, cursors))
    }

    /// Returns the lines after the cursors, and moves them on. A Machine that is new is read from
    /// its beginning.
    fn later(&self, query: &LogQuery, cursors: &mut Cursors) -> std::io::Result<Vec<LogLine>> {
        let mut lines = Vec::new();
        for (id, labels, dir) in self.matching(query) {
            let cursor = cursors.entry(id.clone()).or_default();
            let found = logfile::read_from(&dir, cursor)?;
            let shown = found.into_iter().map(|line| line_of(line, &id, &labels));
            lines.extend(shown.filter(|line| is_wanted(line, query)));
        }
        lines.sort_by_key(|line| line.timestamp);
        Ok(lines)
    }

    async fn follow(self, query: LogQuery, mut cursors: Cursors, sender: mpsc::Sender<LogLine>) {
        while !sender.is_closed() {
            let machines = u32::try_from(cursors.len()).unwrap_or(u32::MAX);
            tokio::time::sleep(POLL.saturating_mul(1 + machines / MACHINES_PER_POLL)).await;
            let (store, asked) = (self.clone(), query.clone());
            let read = tokio::task::spawn_blocking(move || {
                let lines = store.later(&asked, &mut cursors);
                (lines, cursors)
            });
            let Ok((lines, moved)) = read.await else {
                return;
            };
            cursors = moved;
            let lines = lines.unwrap_or_else(|error| {
                tracing::warn!(app = %query.app, %error, "logs not read");
                Vec::new()
            });
            for line in lines {
                if sender.send(line).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn is_wanted(line: &LogLine, query: &LogQuery) -> bool {
    query.since.is_none_or(|since| line.timestamp > since)
}

fn line_of(line: Line, machine: &MachineId, labels: &Labels) -> LogLine {
    let provider = match line.source {
        Source::App => Provider::App,
        Source::Runner => Provider::Runner,
        Source::Health => Provider::Health,
        Source::Proxy => Provider::Proxy,
    };
    // Fly shows both streams of an app as info (14.1).
    let error = line.error && provider != Provider::App;
    let micros = i64::try_from(line.at_us).unwrap_or(i64::MAX);
    LogLine {
        timestamp: Timestamp::from_microsecond(micros).unwrap_or(Timestamp::MAX),
        provider,
        level: if error { "error" } else { "info" }.to_owned(),
        instance: machine.clone(),
        group: labels.group.clone(),
        region: labels.region.clone(),
        message: line.text,
    }
}
