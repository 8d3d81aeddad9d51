//! What is new in an app, given what is known of it. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hangar_api::deployment::{Deployment, DeploymentStatus};
use hangar_api::event::MachineEvent;
use hangar_api::id::{AppName, DeploymentId, EventId, MachineId};
use hangar_api::machine::Observed;
use hangar_api::release::{Release, ReleaseStatus};
use hangar_api::watch::{DeploymentNews, MachineNews, ReleaseNews};
use hangar_store::Snapshot;
use hangar_store::tables::{Deployments, Observations, Releases, Specs};
use serde::Serialize;

use super::Place;

/// How much older than the place that somebody comes back with an event may be and still be new to
/// them, in milliseconds: it may have been on its way from its host.
const ON_ITS_WAY: i64 = 10_000;

/// Most news that somebody gets who was away for long, the newest.
const MAX_MISSED: usize = 10_000;

/// One piece of news, written once for all who watch.
#[derive(Debug)]
pub(crate) struct News {
    /// Its place.
    pub(crate) place: Place,
    /// Which of `hangar_api::watch` the data is.
    pub(crate) kind: &'static str,
    /// JSON.
    pub(crate) data: String,
}

/// News without a place.
type Told = (&'static str, String);

/// What was last told of an app.
#[derive(Debug, Default)]
pub(super) struct Known {
    machines: BTreeMap<MachineId, EventId>,
    releases: BTreeMap<u64, ReleaseStatus>,
    deployments: BTreeMap<DeploymentId, DeploymentStatus>,
}

// === impl Known ===

impl Known {
    /// Returns an app as it is now.
    pub(super) fn of(snapshot: &Snapshot, app: &AppName) -> Self {
        let mut known = Self::default();
        known.catch_up(snapshot, app, None);
        known
    }

    /// Returns what is new since the last time, in the order in which it happened: of these Machines
    /// or of all, and of releases and deployments.
    pub(super) fn catch_up(
        &mut self,
        snapshot: &Snapshot,
        app: &AppName,
        machines: Option<&BTreeSet<MachineId>>,
    ) -> Vec<Told> {
        let mut told = Vec::new();
        match machines {
            Some(some) => {
                for id in some {
                    let record = snapshot.get::<Observations>(&(app.clone(), id.clone()));
                    let observed = record.map(|record| &record.value);
                    self.machine(snapshot, app, id, observed, &mut told);
                }
            }
            None => {
                for record in snapshot.under::<Observations, _>(app) {
                    let observed = Some(&record.value);
                    self.machine(snapshot, app, &record.key.1, observed, &mut told);
                }
            }
        }
        let releases = snapshot.under::<Releases, _>(app);
        let releases: Vec<_> = releases.map(|record| &record.value).collect();
        for release in &releases {
            if self.releases.get(&release.version) != Some(&release.status) {
                told.extend(of_release(release));
            }
        }
        self.releases = releases.iter().map(|r| (r.version, r.status)).collect();
        let deployments = snapshot.under::<Deployments, _>(app);
        let deployments: Vec<_> = deployments.map(|record| &record.value).collect();
        for deployment in &deployments {
            if self.deployments.get(&deployment.id) != Some(&deployment.status) {
                told.extend(of_deployment(deployment));
            }
        }
        let now = deployments.iter().map(|d| (d.id.clone(), d.status));
        self.deployments = now.collect();
        in_order(told)
    }
}

impl Known {
    fn machine(
        &mut self,
        snapshot: &Snapshot,
        app: &AppName,
        id: &MachineId,
        observed: Option<&Observed>,
        told: &mut Vec<Dated>,
    ) {
        let events = observed.map_or(&[][..], |observed| &observed.events);
        let last = self.machines.get(id);
        // Of one moment, the older comes first.
        let new = events.iter().take_while(|event| Some(&event.id) != last);
        let new: Vec<_> = new.collect();
        told.extend(
            new.iter()
                .rev()
                .filter_map(|event| of_event(snapshot, app, id, event)),
        );
        match events.first() {
            Some(newest) if Some(&newest.id) != last => {
                self.machines.insert(id.clone(), newest.id.clone());
            }
            Some(_) => {}
            None => {
                self.machines.remove(id);
            }
        }
    }
}

/// News with the moment at which it happened, as far as that is known.
struct Dated(i64, Told);

fn in_order(mut told: Vec<Dated>) -> Vec<Told> {
    // What has no moment of its own comes after what led to it.
    told.sort_by_key(|dated| dated.0);
    told.into_iter().map(|Dated(_, told)| told).collect()
}

/// Returns the news behind a place that nobody remembers, from the records that changed since. All
/// have that place, so that who loses them in the middle gets them again, but for the last one.
pub(super) fn since(snapshot: &Snapshot, app: &AppName, from: Place, now: Place) -> Vec<Arc<News>> {
    let mut told = Vec::new();
    for record in snapshot.under::<Observations, _>(app) {
        if record.mod_revision > from.revision {
            let oldest = from.millis.saturating_sub(ON_ITS_WAY);
            let new = record.value.events.iter().rev();
            let new = new.filter(|event| event.timestamp >= oldest);
            told.extend(new.filter_map(|event| of_event(snapshot, app, &record.key.1, event)));
        }
    }
    let releases = snapshot.under::<Releases, _>(app);
    let releases = releases.filter(|record| record.mod_revision > from.revision);
    told.extend(releases.filter_map(|record| of_release(&record.value)));
    let deployments = snapshot.under::<Deployments, _>(app);
    let deployments = deployments.filter(|record| record.mod_revision > from.revision);
    told.extend(deployments.filter_map(|record| of_deployment(&record.value)));
    let mut told = in_order(told);
    told.drain(..told.len().saturating_sub(MAX_MISSED));
    let last = told.len().saturating_sub(1);
    let each = told.into_iter().enumerate().map(|(at, (kind, data))| {
        let place = if at == last { now } else { from };
        Arc::new(News { place, kind, data })
    });
    each.collect()
}

fn written(at: i64, kind: &'static str, data: &impl Serialize) -> Option<Dated> {
    // These are plain data.
    let data = serde_json::to_string(data).ok()?;
    Some(Dated(at, (kind, data)))
}

fn of_event(
    snapshot: &Snapshot,
    app: &AppName,
    id: &MachineId,
    event: &MachineEvent,
) -> Option<Dated> {
    let key = (app.clone(), id.clone());
    let observed = &snapshot.get::<Observations>(&key)?.value;
    let spec = &snapshot.get::<Specs>(&key)?.value;
    let news = MachineNews {
        app: app.clone(),
        machine: id.clone(),
        name: spec.name.clone(),
        group: spec.config.group_or_app(),
        region: spec.region.clone(),
        instance_id: observed.instance_id.clone(),
        state: observed.state,
        event: event.clone(),
    };
    written(event.timestamp, "machine", &news)
}

fn of_release(release: &Release) -> Option<Dated> {
    let news = ReleaseNews {
        app: release.app.clone(),
        id: release.id.clone(),
        version: release.version,
        status: release.status,
        description: release.description.clone(),
        user: release.user.clone(),
        created_at: release.created_at,
        image_ref: release.image_ref.clone(),
    };
    let is_new = matches!(
        release.status,
        ReleaseStatus::Pending | ReleaseStatus::Running
    );
    let at = if is_new {
        release.created_at.as_millisecond()
    } else {
        i64::MAX
    };
    written(at, "release", &news)
}

fn of_deployment(deployment: &Deployment) -> Option<Dated> {
    let news = DeploymentNews {
        app: deployment.app.clone(),
        id: deployment.id.clone(),
        version: deployment.version,
        status: deployment.status,
        user: deployment.user.clone(),
        created_at: deployment.created_at,
        error: deployment.error.clone(),
    };
    let at = match deployment.finished_at {
        Some(at) => at.as_millisecond(),
        None => deployment.created_at.as_millisecond(),
    };
    written(at, "deployment", &news)
}
