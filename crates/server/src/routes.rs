//! The server's part of the Catalog: which app has which Machines, host names and services.
//!
//! Published from the cache at most every [`PUBLISH_EVERY`]; the entries of apps that did not
//! change are shared between snapshots. The node adds what the hosts know.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use hangar_api::Timestamp;
use hangar_api::catalog::MachineRoute;
use hangar_api::id::{AppName, MachineId, Region};
use hangar_api::machine::MachineState;
use hangar_api::net::NetworkId;
use hangar_store::tables::{Apps, Certificates, DeployClaims, Observations, Specs};
use hangar_store::{Delta, Record, Snapshot};
use tokio::sync::watch;

use crate::certificates;
use crate::core::Core;

/// Snapshots come at most this often.
pub const PUBLISH_EVERY: Duration = Duration::from_millis(2);

/// The routing facts of all apps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    /// The revision of the store that they were read at.
    pub revision: u64,
    /// The apps by name.
    pub apps: BTreeMap<AppName, Arc<AppRoutes>>,
}

/// The routing facts of one app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppRoutes {
    /// Its name.
    pub name: AppName,
    /// Its private network.
    pub network: NetworkId,
    /// Where `min_machines_running` counts.
    pub primary_region: Option<Region>,
    /// Until when a deployment may be at work on it: without end for one of the server's own.
    pub deploying_until: Option<Timestamp>,
    /// Host names that lead to it, lower case; `*.DOMAIN` are all one label below.
    pub hostnames: Vec<String>,
    /// Its Machines by id, destroyed ones left out.
    pub machines: Vec<Arc<MachineRoute>>,
}

/// Keeps the routing facts fresh, until the server stops.
pub(crate) async fn publish(core: Arc<Core>, routes: watch::Sender<Arc<Routes>>) {
    let mut publisher = Publisher::default();
    let mut deltas = core.cache.deltas();
    let mut touched = None;
    loop {
        let snapshot = core.cache.snapshot();
        if let Some(next) = publisher.next(&core, &snapshot, touched) {
            routes.send_replace(Arc::new(next));
        }
        drop(snapshot);
        let mut apps = BTreeSet::new();
        let first = tokio::select! {
            biased;
            () = core.stop.cancelled() => return,
            delta = deltas.next() => delta,
        };
        let Some(first) = first else { return };
        let mut all = !gather(&core, &first, &mut apps);
        // What comes within a moment is published together.
        let until = tokio::time::Instant::now() + PUBLISH_EVERY;
        while let Ok(Some(delta)) = tokio::time::timeout_at(until, deltas.next()).await {
            all |= !gather(&core, &delta, &mut apps);
        }
        touched = (!all).then_some(apps);
    }
}

/// Collects the apps that a delta touches; returns false when that may be all of them.
fn gather(core: &Core, delta: &Delta, apps: &mut BTreeSet<AppName>) -> bool {
    let (Some(names), Some(claims), Some(specs), Some(seen), Some(hosts)) = (
        delta.keys::<Apps>(),
        delta.keys::<DeployClaims>(),
        delta.keys::<Specs>(),
        delta.keys::<Observations>(),
        delta.keys::<Certificates>(),
    ) else {
        return false;
    };
    apps.extend(names);
    apps.extend(claims);
    apps.extend(hosts.into_iter().map(|(app, _)| app));
    apps.extend(specs.into_iter().map(|(app, _)| app));
    // Of what a Machine does, only its end is a routing fact: the rest is its host's to tell.
    let ends = seen.into_iter().filter(|key| {
        let record = core.cache.get::<Observations>(key);
        record.is_none_or(|record| !record.value.state.is_active())
    });
    apps.extend(ends.map(|(app, _)| app));
    true
}

/// Returns the names under which an app is found: the one of the platform's first. One that was
/// added when the domain was another, and is now some other app's by its name, does not count.
fn hostnames(core: &Core, snapshot: &Snapshot, app: &AppName) -> Vec<String> {
    let own = format!("{app}.{}", core.domain).to_ascii_lowercase();
    let added = snapshot
        .under::<Certificates, _>(app)
        .map(|record| &record.key.1)
        .filter(|host| host.as_str() != own && !certificates::is_under(host, &core.domain))
        .map(ToString::to_string);
    let added: Vec<String> = added.collect();
    [vec![own], added].concat()
}

#[derive(Default)]
struct Publisher {
    apps: BTreeMap<AppName, Arc<AppRoutes>>,
    /// Each Machine's entry, with the revision of the spec that it was made from.
    machines: BTreeMap<MachineId, (u64, Arc<MachineRoute>)>,
    published: bool,
}

// === impl Publisher ===

impl Publisher {
    /// Returns the next snapshot, or `None` when nothing changed. `touched` are the apps to look
    /// at, all of them when absent.
    fn next(
        &mut self,
        core: &Core,
        snapshot: &Snapshot,
        touched: Option<BTreeSet<AppName>>,
    ) -> Option<Routes> {
        let touched = touched.unwrap_or_else(|| {
            let known = snapshot.all::<Apps>().map(|record| record.key.clone());
            known.chain(self.apps.keys().cloned()).collect()
        });
        let mut changed = !self.published;
        self.published = true;
        for name in touched {
            match self.app(core, snapshot, &name) {
                Some(routes) if self.apps.get(&name).is_some_and(|old| **old == routes) => {}
                Some(routes) => {
                    self.apps.insert(name, Arc::new(routes));
                    changed = true;
                }
                None => changed |= self.apps.remove(&name).is_some(),
            }
        }
        if self.machines.len() > 2 * snapshot.count::<Specs>() + 64 {
            self.machines.clear();
        }
        changed.then(|| Routes {
            revision: snapshot.revision(),
            apps: self.apps.clone(),
        })
    }

    fn app(&mut self, core: &Core, snapshot: &Snapshot, name: &AppName) -> Option<AppRoutes> {
        let record = snapshot.get::<Apps>(name)?;
        let app = &record.value;
        let mut machines = Vec::new();
        for spec in snapshot.under::<Specs, _>(name) {
            let seen = snapshot.get::<Observations>(&spec.key);
            if seen.is_none_or(|seen| seen.value.state != MachineState::Destroyed) {
                machines.push(self.machine(spec));
            }
        }
        Some(AppRoutes {
            name: name.clone(),
            network: app.network,
            primary_region: app.primary_region.clone(),
            deploying_until: snapshot
                .get::<DeployClaims>(name)
                .map(|claim| claim.value.expires_at.unwrap_or(Timestamp::MAX)),
            hostnames: hostnames(core, snapshot, name),
            machines,
        })
    }

    fn machine(&mut self, record: &Record<Specs>) -> Arc<MachineRoute> {
        let spec = &record.value;
        if let Some((revision, route)) = self.machines.get(&spec.id)
            && *revision == record.mod_revision
        {
            return Arc::clone(route);
        }
        let route = Arc::new(MachineRoute {
            id: spec.id.clone(),
            host: spec.host.clone(),
            group: spec.config.group_or_app(),
            region: spec.region.clone(),
            private_ip: spec.private_ip(),
            metadata: spec.config.metadata.clone(),
            skip_dns: spec.config.skips_dns(),
            cordoned: spec.cordoned,
            standby: !spec.config.standbys.is_empty(),
            services: spec.config.services.clone().into(),
        });
        let entry = (record.mod_revision, Arc::clone(&route));
        self.machines.insert(spec.id.clone(), entry);
        route
    }
}
