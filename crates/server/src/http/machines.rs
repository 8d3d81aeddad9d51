//! `/v1/apps/{app}/machines` and a Machine itself (machines-api.md 2.2).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use hangar_api::event::MachineEvent;
use hangar_api::machine::{LaunchInput, Machine, MachineState};
use hangar_api::rights::Action;
use serde_json::{Value, json};

use super::extract::{AppPath, Asker, Lenient, MachinePath, Params, Writer};
use crate::auth::caller;
use crate::core::Core;
use crate::error::Problem;
use crate::images;
use crate::machines::{self, create, ops};
use crate::unit::Unit;

/// Events that one answer gives when it is not told.
const EVENTS: usize = 20;
/// Most events that one answer gives.
const MAX_EVENTS: usize = 50;
/// Fields that a summary leaves out.
const NOT_IN_SUMMARY: [&str; 5] = ["config", "checks", "events", "host_status", "nonce"];

pub(super) async fn list(
    State(core): State<Arc<Core>>,
    AppPath(app): AppPath,
    Asker(caller): Asker,
    params: Params,
) -> Result<Json<Vec<Value>>, Problem> {
    let record = core.app(&app)?;
    let states = params.list("state");
    let summary = params.flag("summary");
    let snapshot = core.cache.snapshot();
    // Most may read all of them or none.
    let all = caller.may(&caller::app(&snapshot, &record.value, Action::READ));
    let shown = |unit: &Unit| {
        let access = || caller::machine(&snapshot, &record.value, unit.id(), Action::READ);
        all || caller.may(&access())
    };
    let units = Unit::all(&snapshot, &app);
    let units: Vec<Unit> = units.into_iter().filter(shown).collect();
    drop(snapshot);
    let wanted = units.iter().filter(|unit| {
        let state = unit.state();
        let metadata = &unit.spec().config.metadata;
        (params.flag("include_deleted") || state != MachineState::Destroyed)
            && (states.is_empty() || states.contains(&state.as_str()))
            && params
                .get("region")
                .is_none_or(|region| unit.spec().region.as_str() == region)
            && params
                .beginning("metadata.")
                .all(|(key, value)| metadata.get(key).is_some_and(|is| is == value))
    });
    let shown = wanted.map(|unit| {
        let mut row = serde_json::to_value(unit.view()).map_err(unwritable)?;
        if let (true, Some(fields)) = (summary, row.as_object_mut()) {
            for field in NOT_IN_SUMMARY {
                fields.remove(field);
            }
        }
        Ok(row)
    });
    shown.collect::<Result<Vec<_>, Problem>>().map(Json)
}

fn image_of(input: &LaunchInput) -> Option<&str> {
    let config = input.config.as_ref()?;
    Some(config.image.as_str())
}

fn unwritable(error: serde_json::Error) -> Problem {
    Problem::Internal(format!("write a machine as JSON: {error}"))
}

pub(super) async fn create(
    State(core): State<Arc<Core>>,
    AppPath(app): AppPath,
    Writer(holder): Writer,
    Asker(caller): Asker,
    Lenient(input): Lenient<LaunchInput>,
) -> Result<Json<Machine>, Problem> {
    images::require(&core, &caller, image_of(&input))?;
    let (unit, nonce) = create::create_from_input(&core, &app, &holder, input).await?;
    Ok(Json(Machine {
        nonce,
        ..unit.view()
    }))
}

pub(super) async fn show(
    State(core): State<Arc<Core>>,
    MachinePath { app, id }: MachinePath,
) -> Result<Json<Machine>, Problem> {
    Ok(Json(Unit::find(&core, &app, &id)?.view()))
}

pub(super) async fn update(
    State(core): State<Arc<Core>>,
    MachinePath { app, id }: MachinePath,
    Writer(holder): Writer,
    Asker(caller): Asker,
    Lenient(input): Lenient<LaunchInput>,
) -> Result<Json<Machine>, Problem> {
    images::require(&core, &caller, image_of(&input))?;
    let (unit, nonce) = machines::update_from_input(&core, &app, &id, &holder, input).await?;
    Ok(Json(Machine {
        nonce,
        ..unit.view()
    }))
}

pub(super) async fn destroy(
    State(core): State<Arc<Core>>,
    MachinePath { app, id }: MachinePath,
    params: Params,
    Writer(holder): Writer,
) -> Result<Json<Value>, Problem> {
    let force = params.flag("force") || params.flag("kill");
    ops::ask(&core, (&app, &id), &holder, None, |unit| {
        ops::destroy(unit, force)
    })
    .await?;
    Ok(Json(json!({"ok": true})))
}

pub(super) async fn events(
    State(core): State<Arc<Core>>,
    MachinePath { app, id }: MachinePath,
    params: Params,
) -> Result<Json<Vec<MachineEvent>>, Problem> {
    let limit = params.parsed::<usize>("limit")?.unwrap_or(EVENTS);
    let mut events = Unit::find(&core, &app, &id)?.events();
    events.truncate(limit.min(MAX_EVENTS));
    Ok(Json(events))
}
