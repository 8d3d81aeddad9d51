//! `hangar logs`.

use std::time::Duration;

use anyhow::Result;
use hangar_api::Timestamp;
use hangar_api::logs::{LogLine, LogQuery, Provider};
use hangar_client::ClientError;

use crate::args::LogsArgs;
use crate::context::Context;
use crate::error::Exit;
use crate::output;

/// Lines shown before new ones.
const TAIL: usize = 100;
/// Lines asked for after the connection broke: what was written meanwhile. A server gives no more.
const MISSED: usize = 10_000;
/// Pause before the server is asked again after the connection broke.
const PAUSE: Duration = Duration::from_millis(500);
/// Tries in a row before giving up on a server that is away: about a minute.
const TRIES: u32 = 120;

/// Where a log has been followed to.
#[derive(Default)]
struct Place {
    /// The lines of the newest time that were shown. There may be more of that time: `init` gives
    /// one time to all that it reads at once.
    newest: Vec<LogLine>,
    /// Those of them that come again after the connection broke.
    again: Vec<LogLine>,
    /// Tries that are left; none before the first answer.
    tries: u32,
}

// === impl Place ===

impl Place {
    /// Returns whether a line is to be shown, and takes it down.
    fn take(&mut self, line: &LogLine) -> bool {
        if let Some(at) = self.again.iter().position(|shown| shown == line) {
            self.again.remove(at);
            return false;
        }
        if self.time().is_none_or(|newest| newest < line.timestamp) {
            self.newest.clear();
        }
        if self.time().is_none_or(|newest| newest == line.timestamp) {
            self.newest.push(line.clone());
        }
        true
    }

    fn time(&self) -> Option<Timestamp> {
        self.newest.first().map(|line| line.timestamp)
    }

    /// Asks for what was not shown yet; the lines of the newest time come again.
    fn go_on(&mut self, query: &mut LogQuery) {
        let just_before = |time: Timestamp| time.checked_sub(Duration::from_micros(1)).ok();
        if let Some(since) = self.time().and_then(just_before) {
            query.since = Some(since);
            query.tail = MISSED;
            self.again.clone_from(&self.newest);
        }
    }
}

pub(super) async fn run(context: &Context, args: &LogsArgs) -> Result<Exit> {
    let app = context.app(&args.show.app).await?.name;
    let mut query = LogQuery {
        app,
        group: args.group.clone(),
        machine: args.machine.clone(),
        // As with flyctl, a Machine says where it is: its region adds nothing.
        region: args.region.clone().filter(|_| args.machine.is_none()),
        tail: TAIL,
        follow: !args.no_tail,
        since: None,
    };
    let mut place = Place::default();
    loop {
        match read(context, &query, &mut place, args.show.json).await? {
            Ok(()) if args.no_tail => return Ok(Exit::Done),
            Err(error) if args.no_tail || place.tries == 0 || !error.may_pass() => {
                return Err(error.into());
            }
            Ok(()) | Err(_) => {}
        }
        if place.tries == TRIES {
            output::say("The connection to the server broke; asking again");
        }
        place.tries -= 1;
        tokio::time::sleep(PAUSE).await;
        place.go_on(&mut query);
    }
}

/// Shows lines until they end or the server is gone.
async fn read(
    context: &Context,
    query: &LogQuery,
    place: &mut Place,
    json: bool,
) -> Result<Result<(), ClientError>> {
    let mut lines = match context.client.logs(query).await {
        Ok(lines) => lines,
        Err(error) => return Ok(Err(error)),
    };
    place.tries = TRIES;
    loop {
        match lines.next().await {
            Ok(Some(line)) if place.take(&line) => show(&line, json)?,
            Ok(Some(_)) => {}
            Ok(None) => return Ok(Ok(())),
            Err(error) => return Ok(Err(error)),
        }
    }
}

/// Prints one line in flyctl's form, with the process group beside the Machine.
pub(super) fn show(line: &LogLine, json: bool) -> Result<()> {
    if json {
        let mut text = serde_json::to_string(line)?;
        text.retain(|c| c != '\n');
        return output::data(&text);
    }
    let provider = match line.provider {
        Provider::App => "app",
        Provider::Runner => "runner",
        Provider::Proxy => "proxy",
        Provider::Health => "health",
    };
    output::data(&format!(
        "{} {provider}[{}] {} {} [{}] {}",
        output::rfc3339(line.timestamp),
        line.instance,
        line.region,
        line.group,
        line.level,
        line.message
    ))
}
