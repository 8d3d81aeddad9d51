//! Suspend: Machines are frozen with their memory.

use std::time::Duration;

use anyhow::Result;
use hangar_api::duration::GoDuration;
use hangar_api::id::AppName;
use hangar_api::machine::{Machine, MachineState};
use hangar_client::WaitFor;

use super::lease::holding;
use super::select::{self, app_of};
use crate::args::MachineIds;
use crate::context::Context;
use crate::error::Exit;
use crate::output;

/// The longest and the shortest wait that the API takes at a time.
const STEP: Duration = Duration::from_secs(60);
const SHORTEST: Duration = Duration::from_secs(1);

pub(super) async fn suspend(
    context: &Context,
    ids: &MachineIds,
    wait: Option<GoDuration>,
) -> Result<Exit> {
    let wait = wait.map(GoDuration::to_std).filter(|wait| !wait.is_zero());
    for id in &select::many(context, ids).await? {
        let app = app_of(context, &ids.app, id).await?;
        let machine = context.client.machine(&app, id).await?;
        holding(context, &app, id, async |nonce| {
            context.client.suspend_machine(&app, id, nonce).await?;
            Ok(())
        })
        .await?;
        let text = match wait {
            Some(limit) => {
                if machine.state != MachineState::Suspended {
                    until_suspended(context, &app, &machine, limit).await?;
                }
                format!("{id} has been suspended")
            }
            None => format!("{id} is being suspended"),
        };
        output::data(&text)?;
    }
    Ok(Exit::Done)
}

async fn until_suspended(
    context: &Context,
    app: &AppName,
    before: &Machine,
    limit: Duration,
) -> Result<()> {
    let (id, newest) = (&before.id, before.events.first().map(|event| &event.id));
    let until = tokio::time::Instant::now() + limit;
    loop {
        let left = until.saturating_duration_since(tokio::time::Instant::now());
        let wait_for = WaitFor {
            state: "settled",
            version: None,
            timeout: left.clamp(SHORTEST, STEP),
        };
        match context.client.wait(app, id, &wait_for).await {
            Ok(_) => {}
            Err(error) if error.status() == Some(408) => {}
            Err(error) => return Err(error.into()),
        }
        let machine = context.client.machine(app, id).await?;
        // A request may have woken it since.
        let mut news = machine
            .events
            .iter()
            .take_while(|event| Some(&event.id) != newest);
        if news.any(|event| event.status == MachineState::Suspended.as_str()) {
            return Ok(());
        }
        match machine.state {
            state if state.is_settled() => {
                let text = format!("Machine {id} was not suspended: it is {state}; see its logs");
                return Err(Exit::Failed.with(text));
            }
            state if left <= SHORTEST => {
                let text = format!(
                    "Machine {id} was not suspended within {} s: it is {state}",
                    limit.as_secs_f64()
                );
                return Err(Exit::Failed.with(text));
            }
            _ => {}
        }
    }
}
