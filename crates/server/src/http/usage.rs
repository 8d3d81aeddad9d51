//! What a Machine's programs use (machines-api.md 2.2): processes and memory, as its host sees them.

use std::cmp::Ordering;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use hangar_api::options::ListProcesses;
use hangar_api::process::{Memory, Process, ReclaimMemory, Reclaimed, SetMemory};

use super::extract::MachinePath;
use super::options::Options;
use crate::core::Core;
use crate::error::Problem;
use crate::unit::Unit;

/// The lowest limit of a Machine's memory: below, not even `init` has room.
const LEAST_MB: u64 = 32;

/// How two processes stand to each other.
type Compare = fn(&Process, &Process) -> Ordering;

/// What processes are sorted by, and how two compare.
const ORDERS: [(&str, Compare); 7] = [
    ("pid", |a, b| a.pid.cmp(&b.pid)),
    ("stime", |a, b| a.stime.cmp(&b.stime)),
    ("rtime", |a, b| a.rtime.cmp(&b.rtime)),
    ("command", |a, b| a.command.cmp(&b.command)),
    ("directory", |a, b| a.directory.cmp(&b.directory)),
    ("cpu", |a, b| a.cpu.cmp(&b.cpu)),
    ("rss", |a, b| a.rss.cmp(&b.rss)),
];

pub(super) async fn processes(
    State(core): State<Arc<Core>>,
    MachinePath { app, id }: MachinePath,
    Options(query): Options<ListProcesses>,
) -> Result<Json<Vec<Process>>, Problem> {
    Unit::find(&core, &app, &id)?;
    let wanted = query.sort_by.as_deref().filter(|text| !text.is_empty());
    let wanted = wanted.unwrap_or("pid");
    let order = ORDERS.iter().find(|(name, _)| *name == wanted);
    let Some((_, compare)) = order else {
        return Err(Problem::Invalid(format!(
            "invalid_argument: sort_by is one of {}",
            ORDERS.map(|(name, _)| name).join(", ")
        )));
    };
    let word = query.order.as_deref().unwrap_or_default();
    let downwards = match word.to_ascii_lowercase().as_str() {
        "" | "asc" => false,
        "desc" => true,
        _ => {
            let text = "invalid_argument: order is asc or desc";
            return Err(Problem::Invalid(text.to_owned()));
        }
    };
    let mut processes = core.calls.processes(id).await?;
    processes.sort_by(|a, b| compare(a, b).then(a.pid.cmp(&b.pid)));
    if downwards {
        processes.reverse();
    }
    Ok(Json(processes))
}

pub(super) async fn memory(
    State(core): State<Arc<Core>>,
    MachinePath { app, id }: MachinePath,
) -> Result<Json<Memory>, Problem> {
    Unit::find(&core, &app, &id)?;
    Ok(Json(core.calls.memory(id).await?))
}

pub(super) async fn set_memory(
    State(core): State<Arc<Core>>,
    MachinePath { app, id }: MachinePath,
    Options(body): Options<SetMemory>,
) -> Result<Json<Memory>, Problem> {
    let unit = Unit::find(&core, &app, &id)?;
    let guest = unit.spec().config.guest.clone().unwrap_or_default();
    let most = guest.max_memory_mb().unwrap_or(guest.memory_mb);
    let limit = body.limit_mb.unwrap_or(0);
    if !(LEAST_MB..=most).contains(&limit) {
        return Err(Problem::Invalid(format!(
            "invalid_argument: limit_mb is {LEAST_MB} to {most}: more needs a larger guest.max_memory_mb"
        )));
    }
    Ok(Json(core.calls.set_memory(id, limit).await?))
}

pub(super) async fn reclaim(
    State(core): State<Arc<Core>>,
    MachinePath { app, id }: MachinePath,
    Options(body): Options<ReclaimMemory>,
) -> Result<Json<Reclaimed>, Problem> {
    Unit::find(&core, &app, &id)?;
    let amount = body.amount_mb.unwrap_or(0);
    if amount == 0 {
        let text = "invalid_argument: amount_mb is how much to take back, 1 or more";
        return Err(Problem::Invalid(text.to_owned()));
    }
    Ok(Json(core.calls.reclaim_memory(id, amount).await?))
}
