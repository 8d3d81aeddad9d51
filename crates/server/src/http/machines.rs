//! `/v1/apps/{app}/machines` and a Machine itself (machines-api.md 2.2).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use hangar_api::event::MachineEvent;
use hangar_api::id::MachineId;
use hangar_api::machine::{
    LaunchInput, Machine, MachineLease, MachineSpec, MachineState, MachineVersion,
};
use hangar_api::options::{DestroyMachine, ListEvents, ListMachines, MAX_PAGE, ShowMachine};
use hangar_api::rights::Action;
use serde_json::{Value, json};

use super::extract::{AppPath, Asker, MachinePath, Writer};
use super::options::{self, Options, WithFiles};
use crate::auth::caller;
use crate::core::Core;
use crate::error::Problem;
use crate::files;
use crate::images;
use crate::machines::{self, create, ops, versions};
use crate::unit::Unit;

/// Events that one answer gives when it is not told.
const EVENTS: usize = 20;
/// Most events that one answer gives.
const MAX_EVENTS: usize = 50;
/// Fields that a summary leaves out.
pub(super) const NOT_IN_SUMMARY: [&str; 5] = ["config", "checks", "events", "host_status", "nonce"];
/// The header with the cursor of the next page.
pub(super) const NEXT_CURSOR: &str = "fly-next-cursor";

pub(super) async fn list(
    State(core): State<Arc<Core>>,
    AppPath(app): AppPath,
    Asker(caller): Asker,
    Options(query): Options<ListMachines>,
) -> Result<(HeaderMap, Json<Vec<Value>>), Problem> {
    let record = core.app(&app)?;
    let size = options::page_size(query.limit, MAX_PAGE)?.unwrap_or(usize::MAX);
    let after = options::cursor(query.cursor.as_deref(), |text| MachineId::new(text).ok())?;
    let snapshot = core.cache.snapshot();
    // Most may read all of them or none.
    let all = caller.may(&caller::app(&snapshot, &record.value, Action::READ));
    let shown = |unit: &Unit| {
        let access = || caller::machine(&snapshot, &record.value, unit.id(), Action::READ);
        all || caller.may(&access())
    };
    let units = Unit::all(&snapshot, &app);
    let units: Vec<Unit> = units.into_iter().filter(shown).collect();
    let mut wanted = units.iter().filter(|unit| {
        let behind = after.as_ref().is_none_or(|after| unit.id() > after);
        behind && is_wanted(&query, unit.spec(), unit.state())
    });
    let mut rows = Vec::new();
    let mut last = None;
    for unit in wanted.by_ref().take(size) {
        rows.push(row(&core, unit, &query)?);
        last = Some(unit.id());
    }
    let mut headers = HeaderMap::new();
    if let (Some(last), true) = (last, wanted.next().is_some()) {
        let cursor = last.as_str().parse();
        headers.extend(cursor.map(|cursor| (NEXT_CURSOR.parse().ok(), cursor)));
    }
    Ok((headers, Json(rows)))
}

fn image_of(input: &LaunchInput) -> Option<&str> {
    let config = input.config.as_ref()?;
    Some(config.image.as_str())
}

fn is_wanted(query: &ListMachines, spec: &MachineSpec, state: MachineState) -> bool {
    let region = query.region.as_deref().filter(|region| !region.is_empty());
    let is_in_state = || query.state.iter().any(|wanted| wanted == state.as_str());
    (query.include_deleted || state != MachineState::Destroyed)
        && (query.state.is_empty() || is_in_state())
        && region.is_none_or(|region| spec.region.as_str() == region)
        && query.has_metadata(&spec.config.metadata)
}

fn row(core: &Core, unit: &Unit, query: &ListMachines) -> Result<Value, Problem> {
    let machine = Machine {
        lease: query.include_leases.then(|| lease_of(core, unit)).flatten(),
        ..whole(core, unit.view())
    };
    let mut row = serde_json::to_value(machine)
        .map_err(|error| Problem::Internal(format!("write a machine as JSON: {error}")))?;
    if let (true, Some(fields)) = (query.summary, row.as_object_mut()) {
        for field in NOT_IN_SUMMARY {
            fields.remove(field);
        }
    }
    Ok(row)
}

/// Returns a Machine with its files.
fn whole(core: &Core, mut machine: Machine) -> Machine {
    if files::has_marks(&machine.config) {
        files::put_back(&core.cache.snapshot(), &mut machine.config);
    }
    machine
}

fn lease_of(core: &Core, unit: &Unit) -> Option<MachineLease> {
    unit.lease(core.env.now()).map(|lease| MachineLease {
        description: lease.description.clone(),
        expires_at: lease.expires_at,
        owner: lease.owner.clone(),
    })
}

pub(super) async fn create(
    State(core): State<Arc<Core>>,
    AppPath(app): AppPath,
    Writer(holder): Writer,
    Asker(caller): Asker,
    WithFiles(input): WithFiles<LaunchInput>,
) -> Result<Json<Machine>, Problem> {
    images::require(&core, &caller, image_of(&input))?;
    let (unit, nonce) = create::create_from_input(&core, &app, &holder, input).await?;
    Ok(Json(Machine {
        nonce,
        ..whole(&core, unit.view())
    }))
}

pub(super) async fn show(
    State(core): State<Arc<Core>>,
    MachinePath { app, id }: MachinePath,
    Options(query): Options<ShowMachine>,
) -> Result<Json<Machine>, Problem> {
    let unit = Unit::find(&core, &app, &id)?;
    let shown = match &query.version {
        Some(version) => versions::view(&core.cache.snapshot(), &unit, version)?,
        None => unit.view(),
    };
    let lease = query.include_leases.then(|| lease_of(&core, &unit));
    Ok(Json(Machine {
        lease: lease.flatten(),
        ..whole(&core, shown)
    }))
}

pub(super) async fn versions(
    State(core): State<Arc<Core>>,
    MachinePath { app, id }: MachinePath,
) -> Result<Json<Vec<MachineVersion>>, Problem> {
    let unit = Unit::find(&core, &app, &id)?;
    let snapshot = core.cache.snapshot();
    let mut versions = versions::list(&snapshot, &unit)?;
    for version in &mut versions {
        files::put_back(&snapshot, &mut version.user_config);
    }
    Ok(Json(versions))
}

pub(super) async fn update(
    State(core): State<Arc<Core>>,
    MachinePath { app, id }: MachinePath,
    Writer(holder): Writer,
    Asker(caller): Asker,
    WithFiles(input): WithFiles<LaunchInput>,
) -> Result<Json<Machine>, Problem> {
    let current = Unit::find(&core, &app, &id)?.spec().config.image.clone();
    // What it runs already is no secret to who may update it.
    let image = image_of(&input).filter(|image| *image != current);
    images::require(&core, &caller, image)?;
    let (unit, nonce) = machines::update_from_input(&core, &app, &id, &holder, input).await?;
    Ok(Json(Machine {
        nonce,
        ..whole(&core, unit.view())
    }))
}

pub(super) async fn destroy(
    State(core): State<Arc<Core>>,
    MachinePath { app, id }: MachinePath,
    Writer(holder): Writer,
    Options(asked): Options<DestroyMachine>,
) -> Result<Json<Value>, Problem> {
    let force = asked.force || asked.kill;
    ops::ask(&core, (&app, &id), &holder, None, |unit| {
        ops::destroy(unit, force)
    })
    .await?;
    Ok(Json(json!({"ok": true})))
}

pub(super) async fn events(
    State(core): State<Arc<Core>>,
    MachinePath { app, id }: MachinePath,
    Options(query): Options<ListEvents>,
) -> Result<Json<Vec<MachineEvent>>, Problem> {
    let mut events = Unit::find(&core, &app, &id)?.events();
    events.truncate(query.limit.unwrap_or(EVENTS).min(MAX_EVENTS));
    Ok(Json(events))
}
