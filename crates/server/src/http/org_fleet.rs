//! `/v1/orgs/{slug}`: what an organisation has, over all of its apps (machines-api.md 2.7).

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use hangar_api::Timestamp;
use hangar_api::id::{AppName, MachineId, OrgSlug, VolumeId};
use hangar_api::machine::MachineState;
use hangar_api::options::{ListOfOrg, MAX_PAGE};
use hangar_api::org::{OrgMachine, OrgMachines, OrgVolume, OrgVolumes, OverviewConfig};
use hangar_api::rights::Action;
use hangar_store::Snapshot;
use hangar_store::tables::{Apps, Observations, VolumeRecord, Volumes};

use super::extract::{Asker, SlugPath};
use super::options::{self, Options};
use crate::auth::{Caller, caller};
use crate::core::Core;
use crate::error::Problem;
use crate::unit::Unit;
use crate::volumes;

/// Where a row stands: what changed longest ago comes first.
type Place<I> = (Timestamp, I);

pub(super) async fn machines(
    State(core): State<Arc<Core>>,
    SlugPath(slug): SlugPath,
    Asker(caller): Asker,
    Options(query): Options<ListOfOrg>,
) -> Result<Json<OrgMachines>, Problem> {
    let size = options::page_size(query.limit, MAX_PAGE)?.unwrap_or(MAX_PAGE);
    let begin = options::cursor(query.cursor.as_deref(), place::<MachineId>)?;
    let snapshot = core.cache.snapshot();
    let apps = readable(&snapshot, &caller, &slug);
    let region = query.region.as_deref().filter(|region| !region.is_empty());
    let mut places = Vec::new();
    for (record, state) in Unit::states(&snapshot) {
        let named = query.state.iter().any(|wanted| wanted == state.as_str());
        if (state == MachineState::Destroyed && !query.include_deleted)
            || !(query.state.is_empty() || named)
        {
            continue;
        }
        let seen = snapshot.get::<Observations>(&record.key);
        let seen = seen.map_or(Timestamp::MIN, |seen| seen.value.updated_at);
        let at = (record.value.updated_at.max(seen), &record.value.id);
        if is_behind(&at, begin.as_ref(), query.updated_after)
            && region.is_none_or(|region| record.value.region.as_str() == region)
            && apps.contains(&record.value.app)
        {
            places.push((at, record));
        }
    }
    places.sort_unstable_by_key(|(at, _)| *at);
    let more = places.len() > size;
    places.truncate(size);
    let last = places.last().map(|((at, id), _)| (*at, (*id).clone()));
    let shown = places
        .iter()
        .map(|(_, record)| row(&Unit::around(&snapshot, record), &query));
    Ok(Json(OrgMachines {
        next_cursor: last.as_ref().filter(|_| more).map(written),
        last_updated_at: last.as_ref().map(|(at, _)| *at),
        last_machine_id: last.map(|(_, id)| id),
        machines: shown.collect(),
        error_regions: Vec::new(),
    }))
}

fn row(unit: &Unit, query: &ListOfOrg) -> OrgMachine {
    let spec = unit.spec();
    let shown = unit.view();
    let config = OverviewConfig {
        guest: spec.config.guest.clone(),
        image: spec.config.image.clone(),
        metadata: spec.config.metadata.clone(),
    };
    OrgMachine {
        app_name: spec.app.clone(),
        id: shown.id,
        name: shown.name,
        state: shown.state,
        region: shown.region,
        version: shown.instance_id.clone(),
        instance_id: shown.instance_id,
        private_ip: shown.private_ip,
        config: (!query.summary).then_some(config),
        created_at: shown.created_at,
        updated_at: shown.updated_at,
    }
}

pub(super) async fn volumes(
    State(core): State<Arc<Core>>,
    SlugPath(slug): SlugPath,
    Asker(caller): Asker,
    Options(query): Options<ListOfOrg>,
) -> Result<Json<OrgVolumes>, Problem> {
    let size = options::page_size(query.limit, MAX_PAGE)?.unwrap_or(MAX_PAGE);
    let begin = options::cursor(query.cursor.as_deref(), place::<VolumeId>)?;
    let snapshot = core.cache.snapshot();
    let apps = readable(&snapshot, &caller, &slug);
    let region = query.region.as_deref().filter(|region| !region.is_empty());
    let mut wanted: Vec<_> = snapshot
        .all::<Volumes>()
        .map(|record| ((changed(&record.value), &record.value.id), record))
        .filter(|(at, record)| {
            let volume = &record.value;
            let named = query
                .state
                .iter()
                .any(|wanted| wanted == volume.state.as_str());
            is_behind(at, begin.as_ref(), query.updated_after)
                && (query.include_deleted || !volume.state.is_gone())
                && (query.state.is_empty() || named)
                && region.is_none_or(|region| volume.region.as_str() == region)
                && apps.contains(&record.key.0)
        })
        .collect();
    wanted.sort_unstable_by_key(|(at, _)| *at);
    let more = wanted.len() > size;
    wanted.truncate(size);
    let last = wanted.last().map(|((at, id), _)| (*at, (*id).clone()));
    let volumes = wanted.iter().map(|((at, _), record)| OrgVolume {
        app_name: record.key.0.clone(),
        updated_at: *at,
        volume: volumes::view(&record.value, None),
    });
    Ok(Json(OrgVolumes {
        volumes: volumes.collect(),
        next_cursor: last.as_ref().filter(|_| more).map(written),
        last_updated_at: last.as_ref().map(|(at, _)| *at),
        last_volume_id: last.map(|(_, id)| id),
    }))
}

fn changed(volume: &VolumeRecord) -> Timestamp {
    volume.destroyed_at.unwrap_or(volume.created_at)
}

/// Returns the apps of the organisation that the caller may read, and that are there to be seen:
/// one that is being destroyed is not.
fn readable(snapshot: &Snapshot, caller: &Caller, org: &OrgSlug) -> BTreeSet<AppName> {
    let apps = snapshot.all::<Apps>();
    apps.filter(|app| !app.value.deleting && app.value.org == *org)
        .filter(|app| caller.may(&caller::app(snapshot, &app.value, Action::READ)))
        .map(|app| app.key.clone())
        .collect()
}

fn is_behind<I: Ord>(
    at: &(Timestamp, &I),
    begin: Option<&Place<I>>,
    updated_after: Option<Timestamp>,
) -> bool {
    match (begin, updated_after) {
        (Some((time, id)), _) => *at > (*time, id),
        (None, Some(after)) => at.0 > after,
        (None, None) => true,
    }
}

fn written<I: std::fmt::Display>((at, id): &Place<I>) -> String {
    format!("{}.{id}", at.as_nanosecond())
}

fn place<I: std::str::FromStr>(text: &str) -> Option<Place<I>> {
    let (at, id) = text.split_once('.')?;
    let at = Timestamp::from_nanosecond(at.parse().ok()?).ok()?;
    Some((at, id.parse().ok()?))
}
