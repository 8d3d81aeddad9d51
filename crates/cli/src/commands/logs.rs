//! `hangar logs`.

use std::time::Duration;

use anyhow::Result;
use hangar_api::logs::{LogLine, LogQuery, Provider};

use crate::args::LogsArgs;
use crate::context::Context;
use crate::error::Exit;
use crate::output;

/// Lines shown before new ones.
const TAIL: usize = 100;
/// Pause before the server is asked again after the connection broke.
const PAUSE: Duration = Duration::from_millis(500);

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
    loop {
        let mut lines = context.client.logs(&query).await?;
        loop {
            match lines.next().await {
                Ok(Some(line)) => {
                    query.since = Some(line.timestamp);
                    show(&line, args.show.json)?;
                }
                Ok(None) if args.no_tail => return Ok(Exit::Done),
                Err(error) if args.no_tail => return Err(error.into()),
                Ok(None) | Err(_) => break,
            }
        }
        output::say("The connection to the server broke; asking again");
        tokio::time::sleep(PAUSE).await;
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
