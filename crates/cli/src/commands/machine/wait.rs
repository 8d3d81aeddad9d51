//! Waiting for a Machine to get where it was asked to go, bounded.

use std::cell::Cell;
use std::time::Duration;

use anyhow::Result;
use hangar_api::check::Health;
use hangar_api::duration::GoDuration;
use hangar_api::event::MachineEvent;
use hangar_api::id::{AppName, EventId, MachineId};
use hangar_api::machine::{Machine, MachineState};
use hangar_client::WaitFor;

use crate::context::Context;
use crate::error::Exit;
use crate::output::Progress;

/// Longest wait for one Machine.
pub(super) const LIMIT: Duration = Duration::from_secs(300);
/// Pause between looks.
const PAUSE: Duration = Duration::from_millis(100);

/// How far to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Settle {
    /// Until it has started.
    Started,
    /// Until it has started and passes its checks, if it has any.
    Healthy,
}

/// Reads a time such as `90s` or `5m`; a bare number is seconds.
pub(crate) fn duration(flag: &str, text: &str) -> Result<Duration> {
    let read = match text.parse::<u64>() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => text.parse::<GoDuration>().ok().map(GoDuration::to_std),
    };
    read.filter(|time| !time.is_zero())
        .ok_or_else(|| Exit::Usage.with(format!("{flag} {text:?}: write a time such as 90s or 5m")))
}

/// Waits until a Machine is in a state.
pub(crate) async fn state(
    context: &Context,
    app: &AppName,
    id: &MachineId,
    state: &str,
) -> Result<()> {
    state_within(context, app, id, state, LIMIT).await
}

/// Waits until a Machine is in a state, in steps that the API allows.
pub(crate) async fn state_within(
    context: &Context,
    app: &AppName,
    id: &MachineId,
    state: &str,
    limit: Duration,
) -> Result<()> {
    let until = tokio::time::Instant::now() + limit;
    let _waiting = Progress::start(format!("Waiting for Machine {id} to be {state}"));
    loop {
        let left = until.saturating_duration_since(tokio::time::Instant::now());
        // The API counts whole seconds.
        let step = Duration::from_secs(left.as_secs().clamp(1, 60));
        let wanted = WaitFor {
            state,
            version: None,
            timeout: step,
        };
        match context.client.wait(app, id, &wanted).await {
            Ok(_) => return Ok(()),
            Err(error) if error.status() == Some(408) && left > step => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits until a Machine that was just asked to start is up, and healthy if asked.
pub(crate) async fn settle(
    context: &Context,
    app: &AppName,
    id: &MachineId,
    how: Settle,
) -> Result<()> {
    settle_within(context, app, id, how, LIMIT).await
}

/// The same, within a limit of one's own.
pub(crate) async fn settle_within(
    context: &Context,
    app: &AppName,
    id: &MachineId,
    how: Settle,
    limit: Duration,
) -> Result<()> {
    let seen = Cell::new(false);
    look(context, app, id, limit, |machine| match machine.state {
        // A program that is not there ends right after its start: one look is not enough where
        // no check has passed.
        MachineState::Started if how == Settle::Started || !machine.config.has_checks() => {
            if seen.replace(true) {
                Look::Done
            } else {
                Look::Again
            }
        }
        MachineState::Started if is_healthy(machine) => Look::Done,
        MachineState::Failed => Look::Failed,
        // One that destroys itself may have done its work already.
        MachineState::Destroying | MachineState::Destroyed if ended_well(&machine.events) => {
            Look::Done
        }
        MachineState::Destroying | MachineState::Destroyed => Look::Failed,
        MachineState::Stopped if ended_well(&machine.events) => Look::Done,
        MachineState::Stopped if machine.events.iter().any(|e| e.kind == "exit") => Look::Failed,
        _ => Look::Again,
    })
    .await
}

/// Waits until a Machine has started anew since the event that was its newest. A job may have
/// ended well meanwhile.
pub(crate) async fn restarted(
    context: &Context,
    app: &AppName,
    id: &MachineId,
    since: Option<&EventId>,
) -> Result<()> {
    look(context, app, id, LIMIT, |machine| {
        let news = machine
            .events
            .iter()
            .take_while(|event| Some(&event.id) != since);
        let news: Vec<&MachineEvent> = news.collect();
        let started = news
            .iter()
            .any(|event| event.kind == "start" && event.status == "started");
        match machine.state {
            MachineState::Started if started => Look::Done,
            MachineState::Stopped if started && ended_well(news.iter().copied()) => Look::Done,
            MachineState::Stopped if started => Look::Failed,
            MachineState::Failed => Look::Failed,
            _ => Look::Again,
        }
    })
    .await
}

/// Returns whether the newest exit among events was one with code 0.
fn ended_well<'a>(news: impl IntoIterator<Item = &'a MachineEvent>) -> bool {
    let exits = news.into_iter();
    let exits = exits.filter_map(|event| event.request.as_ref());
    let mut exits = exits.filter_map(|request| request.exit_event.as_ref());
    exits.next().is_some_and(|exit| exit.exit_code == 0)
}

enum Look {
    Done,
    Failed,
    Again,
}

async fn look(
    context: &Context,
    app: &AppName,
    id: &MachineId,
    limit: Duration,
    judge: impl Fn(&Machine) -> Look,
) -> Result<()> {
    let until = tokio::time::Instant::now() + limit;
    let _waiting = Progress::start(format!("Waiting for Machine {id}"));
    loop {
        let machine = context.client.machine(app, id).await?;
        match judge(&machine) {
            Look::Done => return Ok(()),
            Look::Failed => return Err(Exit::Failed.with(trouble(&machine))),
            Look::Again if tokio::time::Instant::now() > until => {
                let text = format!(
                    "Machine {id} did not come up within {} s: {}",
                    limit.as_secs(),
                    trouble(&machine)
                );
                return Err(Exit::Failed.with(text));
            }
            Look::Again => tokio::time::sleep(PAUSE).await,
        }
    }
}

fn is_healthy(machine: &Machine) -> bool {
    !machine.checks.is_empty() && machine.checks.iter().all(|c| c.status == Health::Passing)
}

/// Returns what is known about a Machine that is not well, in a sentence.
pub(crate) fn trouble(machine: &Machine) -> String {
    let failing: Vec<String> = machine
        .checks
        .iter()
        .filter(|c| c.status != Health::Passing)
        .map(|c| format!("check {} says {}", c.name, c.output))
        .collect();
    let reason = machine
        .reason
        .clone()
        .into_iter()
        .chain(failing)
        .collect::<Vec<_>>()
        .join("; ");
    let reason = if reason.is_empty() {
        String::new()
    } else {
        format!(": {reason}")
    };
    format!(
        "Machine {} is {}{reason}; see `hangar logs --machine {}`",
        machine.id, machine.state, machine.id
    )
}
