//! What is asked of a Machine, and waiting for it (machines-api.md 2.2, 5.6).

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use hangar_api::duration::GoDuration;
use hangar_api::exec::{ExecRequest, ExecResponse};
use hangar_api::machine::{MachineState, OpKind};
use hangar_api::options::{RestartMachine, SignalMachine, StopMachine, WaitMachine};
use serde_json::{Value, json};

use super::extract::{Command, MachinePath, Writer};
use super::options::Options;
use crate::core::Core;
use crate::error::Problem;
use crate::lease::Holder;
use crate::machines::{self, ops};
use crate::unit::Unit;
use crate::wait::{Verdict, Wait, Wanted};

/// The signals that may be sent, by their Linux numbers.
const SIGNALS: [(&str, i32); 14] = [
    ("SIGHUP", 1),
    ("SIGINT", 2),
    ("SIGQUIT", 3),
    ("SIGILL", 4),
    ("SIGTRAP", 5),
    ("SIGABRT", 6),
    ("SIGFPE", 8),
    ("SIGKILL", 9),
    ("SIGUSR1", 10),
    ("SIGSEGV", 11),
    ("SIGUSR2", 12),
    ("SIGPIPE", 13),
    ("SIGALRM", 14),
    ("SIGTERM", 15),
];
/// Signals that may stop a Machine.
const STOP_SIGNALS: [&str; 7] = [
    "SIGHUP", "SIGINT", "SIGQUIT", "SIGKILL", "SIGUSR1", "SIGUSR2", "SIGTERM",
];
/// Longest time between a stop signal and the next harder one.
const MAX_STOP_TIMEOUT: Duration = Duration::from_secs(300);

pub(super) async fn start(
    State(core): State<Arc<Core>>,
    MachinePath { app, id }: MachinePath,
    Writer(holder): Writer,
) -> Result<Json<Value>, Problem> {
    let asked = ops::ask(&core, (&app, &id), &holder, None, ops::start).await?;
    Ok(Json(json!({
        "previous_state": asked.previous,
        "migrated": false,
        "new_host": "",
    })))
}

pub(super) async fn stop(
    State(core): State<Arc<Core>>,
    MachinePath { app, id }: MachinePath,
    Writer(holder): Writer,
    Options(asked): Options<StopMachine>,
) -> Result<Json<Value>, Problem> {
    let kind = OpKind::Stop {
        signal: stop_signal(asked.signal.as_ref())?,
        timeout: stop_timeout(asked.timeout.as_ref(), Number::Nanoseconds)?,
    };
    ops::ask(&core, (&app, &id), &holder, None, |unit| {
        ops::stop(unit, &kind)
    })
    .await?;
    Ok(ok())
}

pub(super) async fn suspend(
    State(core): State<Arc<Core>>,
    MachinePath { app, id }: MachinePath,
    Writer(holder): Writer,
) -> Result<Json<Value>, Problem> {
    ops::ask(&core, (&app, &id), &holder, None, ops::suspend).await?;
    Ok(ok())
}

pub(super) async fn restart(
    State(core): State<Arc<Core>>,
    MachinePath { app, id }: MachinePath,
    Writer(holder): Writer,
    Options(asked): Options<RestartMachine>,
) -> Result<Json<Value>, Problem> {
    let signal = if asked.force_stop {
        Some(Value::from("SIGKILL"))
    } else {
        asked.signal
    };
    let kind = OpKind::Restart {
        signal: stop_signal(signal.as_ref())?,
        timeout: stop_timeout(asked.timeout.as_ref(), Number::Seconds)?,
    };
    ops::ask(&core, (&app, &id), &holder, None, |unit| {
        ops::restart(unit, &kind)
    })
    .await?;
    Ok(ok())
}

pub(super) async fn signal(
    State(core): State<Arc<Core>>,
    MachinePath { app, id }: MachinePath,
    Writer(holder): Writer,
    Options(asked): Options<SignalMachine>,
) -> Result<Json<Value>, Problem> {
    let given = asked.signal.unwrap_or(Value::Null);
    let (_, number) = known_signal(&given)?;
    // A signal is not gated by leases (machines-api.md 10.5).
    let any = Holder {
        nonce: lease_nonce(&core, &app, &id),
        ..holder
    };
    ops::ask(&core, (&app, &id), &any, None, |unit| {
        ops::signal(unit, number)
    })
    .await?;
    Ok(ok())
}

fn lease_nonce(
    core: &Core,
    app: &hangar_api::id::AppName,
    id: &hangar_api::id::MachineId,
) -> Option<String> {
    let unit = Unit::find(core, app, id).ok()?;
    unit.lease(core.env.now()).map(|lease| lease.nonce.clone())
}

pub(super) async fn exec(
    State(core): State<Arc<Core>>,
    MachinePath { app, id }: MachinePath,
    Command(request): Command<ExecRequest>,
) -> Result<Json<ExecResponse>, Problem> {
    let state = Unit::find(&core, &app, &id)?.state();
    if state != MachineState::Started {
        return Err(Problem::Precondition(format!(
            "unable to exec in machine from current state: '{state}'"
        )));
    }
    let container = request.container.as_deref().unwrap_or_default();
    if !container.is_empty() {
        return Err(Problem::Unsupported(format!(
            "container {container:?}: several containers in one Machine are not offered by this \
             Hangar; leave container out"
        )));
    }
    if request.command.is_empty() && request.cmd.as_deref().unwrap_or_default().is_empty() {
        return Err(Problem::Invalid(
            "invalid_argument: command is required".to_owned(),
        ));
    }
    Ok(Json(core.calls.exec(id, request).await?))
}

pub(super) async fn cordon(
    State(core): State<Arc<Core>>,
    MachinePath { app, id }: MachinePath,
    Writer(holder): Writer,
) -> Result<Json<Value>, Problem> {
    set_cordon(&core, MachinePath { app, id }, &holder, true).await
}

pub(super) async fn uncordon(
    State(core): State<Arc<Core>>,
    MachinePath { app, id }: MachinePath,
    Writer(holder): Writer,
) -> Result<Json<Value>, Problem> {
    set_cordon(&core, MachinePath { app, id }, &holder, false).await
}

async fn set_cordon(
    core: &Core,
    MachinePath { app, id }: MachinePath,
    holder: &Holder,
    to: bool,
) -> Result<Json<Value>, Problem> {
    machines::amend(core, &app, &id, Some(holder), |spec| {
        spec.cordoned = to;
        Ok(())
    })
    .await?;
    Ok(ok())
}

pub(super) async fn wait(
    State(core): State<Arc<Core>>,
    MachinePath { app, id }: MachinePath,
    Options(asked): Options<WaitMachine>,
) -> Result<Json<Value>, Problem> {
    let timeout = wait_timeout(asked.timeout.as_deref())?;
    let mut bell = core.bells.listen(&id);
    let wanted = asked.state.join(", ");
    let mut wait = wait_of(asked)?;
    wait.baseline = Unit::find(&core, &app, &id)?.newest_event();
    let deadline = tokio::time::Instant::now() + timeout;
    loop {
        let unit = match Unit::find(&core, &app, &id) {
            // It was there when the wait began, and its records went with it.
            Err(Problem::MachineNotFound | Problem::AppNotFound(_)) if wait.is_for_the_end() => {
                return Ok(Json(json!({"ok": true, "state": MachineState::Destroyed})));
            }
            found => found?,
        };
        let current = match wait.judge(unit.state(), unit.spec(), unit.observed()) {
            Verdict::Met { state, event } => {
                let event_id = event.or_else(|| unit.newest_event());
                return Ok(Json(json!({
                    "ok": true,
                    "state": state,
                    "version": unit.spec().instance_id,
                    "event_id": event_id,
                })));
            }
            Verdict::Replaced => {
                return Err(Problem::Precondition(format!(
                    "machine version {} is currently replaced by {}",
                    wait.instance.as_deref().unwrap_or_default(),
                    unit.spec().instance_id
                )));
            }
            Verdict::Waiting(current) => current,
        };
        tokio::select! {
            biased;
            () = core.stop.cancelled() => {
                return Err(Problem::Failed(hangar_api::error::Failure::new(
                    hangar_api::error::ErrorKind::Unavailable,
                    "the server is shutting down; try again",
                )));
            }
            () = bell.changed() => {}
            () = tokio::time::sleep_until(deadline) => {
                let wanted = if wanted.is_empty() { "started".to_owned() } else { wanted };
                return Err(Problem::WaitElapsed { wanted, current });
            }
        }
    }
}

fn wait_timeout(given: Option<&str>) -> Result<Duration, Problem> {
    let text = given.filter(|text| !text.is_empty()).unwrap_or("60");
    let text = text.strip_suffix('s').unwrap_or(text);
    match text.parse::<u64>() {
        Ok(seconds @ 1..=60) => Ok(Duration::from_secs(seconds)),
        _ => Err(Problem::Invalid(
            "invalid_argument: invalid WaitMachineRequest.Timeout: value must be inside range \
             [1s, 1m0s]"
                .to_owned(),
        )),
    }
}

fn wait_of(asked: WaitMachine) -> Result<Wait, Problem> {
    let mut states = Vec::new();
    for word in &asked.state {
        match Wanted::parse(word) {
            Some(wanted) => states.push(wanted),
            None => {
                return Err(Problem::Invalid(format!(
                    "invalid_argument: unknown machine state {word:?}"
                )));
            }
        }
    }
    if states.is_empty() {
        states.push(Wanted::State(MachineState::Started));
    }
    let instance = asked.version.or(asked.instance_id);
    Ok(Wait {
        states,
        instance: instance.map(String::from),
        from_event: asked.from_event_id.map(String::from),
        baseline: None,
    })
}

fn ok() -> Json<Value> {
    Json(json!({"ok": true}))
}

/// Reads a signal: its name, with or without `SIG`, or its number.
fn known_signal(given: &Value) -> Result<(&'static str, i32), Problem> {
    let found = match given {
        Value::Number(number) => SIGNALS
            .into_iter()
            .find(|(_, known)| number.as_i64() == Some(i64::from(*known))),
        Value::String(text) => {
            let text = text.to_ascii_uppercase();
            let bare = text.strip_prefix("SIG").unwrap_or(&text).to_owned();
            SIGNALS
                .into_iter()
                .find(|(name, number)| name[3..] == bare || number.to_string() == bare)
        }
        _ => None,
    };
    found.ok_or_else(|| {
        Problem::Invalid(format!(
            "invalid_argument: signal {given} is not one of {}",
            SIGNALS.map(|(name, _)| name).join(", ")
        ))
    })
}

fn stop_signal(given: Option<&Value>) -> Result<Option<String>, Problem> {
    let Some(given) = given.filter(|value| !value.is_null() && value.as_str() != Some("")) else {
        return Ok(None);
    };
    let (name, _) = known_signal(given)?;
    if !STOP_SIGNALS.contains(&name) {
        return Err(Problem::Invalid(format!(
            "invalid_argument: a machine is stopped by one of {}",
            STOP_SIGNALS.join(", ")
        )));
    }
    Ok(Some(name.to_owned()))
}

/// What a bare number stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    /// As Go's durations are written.
    Nanoseconds,
    /// As the query of a restart has it.
    Seconds,
}

fn stop_timeout(given: Option<&Value>, number: Number) -> Result<Option<GoDuration>, Problem> {
    let invalid = |given: &Value| {
        let shown: String = given.to_string().chars().take(40).collect();
        Problem::Invalid(format!("invalid_argument: timeout cannot be {shown}"))
    };
    let timeout = match given {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) if text.is_empty() => return Ok(None),
        Some(value @ Value::String(text)) => match text.parse::<i64>() {
            Ok(seconds) => GoDuration::from_secs(seconds),
            Err(_) => text.parse().map_err(|_| invalid(value))?,
        },
        Some(value @ Value::Number(given)) => {
            let given = given.as_i64().ok_or_else(|| invalid(value))?;
            match number {
                Number::Nanoseconds => GoDuration::from_nanos(given),
                Number::Seconds => GoDuration::from_secs(given),
            }
        }
        Some(other) => return Err(invalid(other)),
    };
    if timeout.to_std() > MAX_STOP_TIMEOUT {
        let text = "invalid_argument: a stop timeout is at most 300 seconds";
        return Err(Problem::Invalid(text.to_owned()));
    }
    Ok(Some(timeout))
}
