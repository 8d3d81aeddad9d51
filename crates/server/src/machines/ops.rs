//! What is asked of a Machine: its queue of ops, and when each may be asked.

use hangar_api::env::Env;
use hangar_api::id::{AppName, InstanceId, MachineId, OpId};
use hangar_api::machine::state::is_done;
use hangar_api::machine::{MAX_PENDING_OPS, MachineState, Op, OpKind};
use hangar_store::Txn;
use hangar_store::tables::Ops;

use crate::core::{Core, MAX_TRIES, too_contended};
use crate::error::Problem;
use crate::formations::wish;
use crate::lease::Holder;
use crate::unit::Unit;

/// What the request was answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The state before.
    pub(crate) previous: MachineState,
}

/// Returns an op id that sorts behind this one, whatever the clock does.
pub(crate) fn next_id(env: &Env, after: Option<&OpId>) -> OpId {
    let fresh = OpId::generate(env);
    match after {
        Some(after) if *after >= fresh => after
            .as_str()
            .parse::<ulid::Ulid>()
            .ok()
            .and_then(|ulid| ulid.increment().ok())
            .and_then(|ulid| OpId::new(ulid.to_string()).ok())
            .unwrap_or(fresh),
        _ => fresh,
    }
}

/// Returns the write that adds an op to a Machine's queue. Those that are done leave it, so that
/// nobody has to write the queue only to shorten it.
pub(crate) fn appended(core: &Core, unit: &Unit, kind: OpKind, by: &str) -> Result<Txn, Problem> {
    let observed = unit.observed();
    let mut queue: Vec<Op> = unit.undone().cloned().collect();
    // A Machine that must go goes, however much is asked of it.
    if queue.len() >= MAX_PENDING_OPS && kind != OpKind::Destroy {
        return Err(Problem::Exhausted(format!(
            "machine ID {} has {} requests waiting; wait for them",
            unit.id(),
            queue.len()
        )));
    }
    let last_queued = unit.queue().last().map(|op| &op.id);
    let last_done = observed.and_then(|o| o.last_op.as_ref()).map(|op| &op.id);
    let id = next_id(&core.env, last_queued.max(last_done));
    debug_assert!(!is_done(
        &Op {
            id: id.clone(),
            kind: OpKind::Start,
            by: String::new()
        },
        observed
    ));
    queue.push(Op {
        id,
        kind,
        by: by.to_owned(),
    });
    Ok(match &unit.ops {
        Some(record) => Txn::new().update(record, &queue),
        None => Txn::new().create::<Ops>(&unit.spec.key, &queue),
    })
}

/// Asks something of a Machine. `rule` decides from its state: ask it, or it is met already, or
/// it is refused. `expected` is the version it must have, when that matters.
pub(crate) async fn ask(
    core: &Core,
    (app, id): (&AppName, &MachineId),
    holder: &Holder,
    expected: Option<&InstanceId>,
    rule: impl Fn(&Unit) -> Result<Option<OpKind>, Problem>,
) -> Result<Asked, Problem> {
    for _ in 0..MAX_TRIES {
        let unit = Unit::find(core, app, id)?;
        let mut txn = holder.may_write(&unit, core.env.now())?;
        let asked = Asked {
            previous: unit.state(),
        };
        if let Some(expected) = expected {
            if *expected != unit.spec().instance_id {
                return Err(Problem::Conflict(format!(
                    "machine ID {id} has version {} now, not {expected}",
                    unit.spec().instance_id
                )));
            }
            txn = txn.check_same(&unit.spec);
        }
        let Some(kind) = rule(&unit)? else {
            return Ok(asked);
        };
        if kind == OpKind::Destroy && holder.is_client() {
            txn = txn.and(wish::gone(core, &unit));
        }
        txn = txn.and(appended(core, &unit, kind, holder.by())?);
        if core.try_commit(txn).await?.is_some() {
            return Ok(asked);
        }
    }
    Err(too_contended())
}

/// Decides on a start (machines-api.md 5.4).
pub(crate) fn start(unit: &Unit) -> Result<Option<OpKind>, Problem> {
    let state = unit.state();
    let prepared = unit.undone().next().is_none() && unit.observed().is_some();
    match state {
        MachineState::Started => Ok(None),
        MachineState::Stopped | MachineState::Suspended | MachineState::Failed => {
            Ok(Some(OpKind::Start))
        }
        MachineState::Created if prepared => Ok(Some(OpKind::Start)),
        MachineState::Replacing => Err(Problem::Precondition(
            "machine getting replaced, refusing to start".to_owned(),
        )),
        MachineState::Starting => Err(Problem::Precondition(
            "machine still attempting to start".to_owned(),
        )),
        _ => Err(Problem::Precondition(format!(
            "unable to start machine from current state: '{state}'"
        ))),
    }
}

/// Decides on a suspension: only what runs can be suspended, and not what is too large or has
/// swap, a schedule or a GPU (machines-api.md 5.4.9).
pub(crate) fn suspend(unit: &Unit) -> Result<Option<OpKind>, Problem> {
    let refused = |why: &dyn std::fmt::Display| {
        Err(Problem::Precondition(format!(
            "unable to suspend machine{why}"
        )))
    };
    match unit.state() {
        MachineState::Suspended | MachineState::Suspending => Ok(None),
        MachineState::Started => match unit.spec().config.no_suspend() {
            Some(reason) => refused(&format_args!(": {reason}")),
            None => Ok(Some(OpKind::Suspend)),
        },
        state => refused(&format_args!(" from current state: '{state}'")),
    }
}

/// Decides on a stop: one that is down already is met.
pub(crate) fn stop(unit: &Unit, kind: &OpKind) -> Result<Option<OpKind>, Problem> {
    let state = unit.state();
    let idle = unit.undone().next().is_none();
    // One that failed is down on purpose from now on, which is to be on record.
    let failed = unit.observed().is_some_and(|o| o.reason.is_some());
    match state {
        MachineState::Stopped | MachineState::Failed | MachineState::Stopping
            if idle && !failed =>
        {
            Ok(None)
        }
        MachineState::Destroying | MachineState::Destroyed => Err(Problem::Precondition(format!(
            "unable to stop machine from current state: '{state}'"
        ))),
        _ => Ok(Some(kind.clone())),
    }
}

/// Decides on a restart: only what runs can be restarted.
pub(crate) fn restart(unit: &Unit, kind: &OpKind) -> Result<Option<OpKind>, Problem> {
    match unit.state() {
        MachineState::Started | MachineState::Starting | MachineState::Restarting => {
            Ok(Some(kind.clone()))
        }
        state => Err(Problem::Precondition(format!(
            "unable to restart machine from current state: '{state}'"
        ))),
    }
}

/// Decides on a signal: it needs somebody to get it.
pub(crate) fn signal(unit: &Unit, signal: i32) -> Result<Option<OpKind>, Problem> {
    match unit.state() {
        MachineState::Started | MachineState::Stopping => Ok(Some(OpKind::Signal { signal })),
        state => Err(Problem::Precondition(format!(
            "unable to signal machine from current state: '{state}'"
        ))),
    }
}

/// Decides on a destruction: one that runs needs force.
pub(crate) fn destroy(unit: &Unit, force: bool) -> Result<Option<OpKind>, Problem> {
    match unit.state() {
        MachineState::Destroying | MachineState::Destroyed => Ok(None),
        MachineState::Stopped
        | MachineState::Suspended
        | MachineState::Failed
        | MachineState::Created => Ok(Some(OpKind::Destroy)),
        _ if force => Ok(Some(OpKind::Destroy)),
        _ => Err(Problem::Precondition(
            "unable to destroy machine, not currently stopped, suspended, failed or created"
                .to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_grow_even_within_a_millisecond() {
        let env = Env::simulated(7);
        let mut last = next_id(&env, None);
        for _ in 0..1000 {
            let next = next_id(&env, Some(&last));
            assert!(next > last);
            last = next;
        }
    }
}
