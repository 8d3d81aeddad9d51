//! The Catalog, merged from what the server and the hosts know.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hangar_api::catalog::{Catalog, CatalogApp, CatalogMachine, Liveness, MachineRoute};
use hangar_api::id::MachineId;
use hangar_host::agent::{LivenessFeed, LivenessMap};
use hangar_server::{AppRoutes, Routes};
use tokio::sync::watch;
use tokio::time::Instant;

/// Changes that come closer together than this make one snapshot.
const PUBLISH_EVERY: Duration = Duration::from_millis(2);

/// Keeps the Catalog fresh until one side ends.
pub(crate) async fn keep(
    mut routes: watch::Receiver<Arc<Routes>>,
    mut live: LivenessFeed,
    out: watch::Sender<Arc<Catalog>>,
) {
    let mut published = Instant::now();
    loop {
        let (now_routes, now_live) = (
            routes.borrow_and_update().clone(),
            live.borrow_and_update().clone(),
        );
        let before = out.borrow().clone();
        let next = merge(&before, &now_routes, &now_live);
        if next.apps != before.apps || next.routes != before.routes {
            out.send_replace(Arc::new(next));
            published = Instant::now();
        }
        let changed = tokio::select! {
            biased;
            changed = live.changed() => changed,
            changed = routes.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
        // The first change after a while is known at once: a request may wait for it.
        tokio::time::sleep_until(published + PUBLISH_EVERY).await;
    }
}

/// Returns the next snapshot. Entries that did not change are those of the one before.
fn merge(before: &Catalog, routes: &Routes, live: &LivenessMap) -> Catalog {
    let mut apps = BTreeMap::new();
    for (name, route) in &routes.apps {
        let old = before.apps.get(name);
        let new = app(old.map(Arc::as_ref), route, live);
        let entry = match old {
            Some(old) if **old == new => Arc::clone(old),
            _ => Arc::new(new),
        };
        apps.insert(name.clone(), entry);
    }
    Catalog {
        revision: before.revision + 1,
        routes: routes.revision,
        apps,
    }
}

fn app(old: Option<&CatalogApp>, routes: &AppRoutes, live: &LivenessMap) -> CatalogApp {
    let known: BTreeMap<&MachineId, &Arc<CatalogMachine>> = old
        .map(|o| o.machines.iter().map(|m| (&m.route.id, m)).collect())
        .unwrap_or_default();
    let machines = routes
        .machines
        .iter()
        .map(|route| machine(known.get(&route.id).copied(), route, live.get(&route.id)));
    CatalogApp {
        name: routes.name.clone(),
        network: routes.network,
        primary_region: routes.primary_region.clone(),
        deploying_until: routes.deploying_until,
        hostnames: routes.hostnames.clone(),
        machines: machines.collect(),
    }
}

fn machine(
    old: Option<&Arc<CatalogMachine>>,
    route: &MachineRoute,
    live: Option<&Arc<Liveness>>,
) -> Arc<CatalogMachine> {
    let unknown = Liveness::default();
    let live = live.map_or(&unknown, Arc::as_ref);
    match old {
        Some(old) if old.route == *route && old.live == *live => Arc::clone(old),
        _ => Arc::new(CatalogMachine {
            route: route.clone(),
            live: live.clone(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hangar_api::catalog::Phase;
    use hangar_api::id::{AppName, GroupName, HostId, Region};
    use hangar_api::net::NetworkId;

    fn routes(names: &[&str]) -> Routes {
        let route = |index: usize| MachineRoute {
            id: MachineId::new(format!("{index:014x}")).unwrap(),
            host: HostId::new("local").unwrap(),
            group: GroupName::app(),
            region: Region::new("iad").unwrap(),
            private_ip: "fdaa::1".parse().unwrap(),
            metadata: BTreeMap::new(),
            skip_dns: false,
            cordoned: false,
            standby: false,
            services: Arc::new([]),
        };
        let app = |(index, name): (usize, &&str)| {
            let name = AppName::new(*name).unwrap();
            let routes = AppRoutes {
                name: name.clone(),
                network: NetworkId(1),
                primary_region: None,
                deploying_until: None,
                hostnames: Vec::new(),
                machines: vec![Arc::new(route(index))],
            };
            (name, Arc::new(routes))
        };
        Routes {
            revision: 1,
            apps: names.iter().enumerate().map(app).collect(),
        }
    }

    #[test]
    fn entries_of_apps_that_did_not_change_are_shared() {
        let routes = routes(&["a", "b"]);
        let first = merge(&Catalog::default(), &routes, &LivenessMap::new());
        let up = Arc::new(Liveness {
            phase: Phase::Up,
            ..Liveness::default()
        });
        let live = LivenessMap::from([(MachineId::new(format!("{:014x}", 1)).unwrap(), up)]);
        let second = merge(&first, &routes, &live);
        let entry =
            |catalog: &Catalog, name: &str| Arc::clone(&catalog.apps[&AppName::new(name).unwrap()]);
        assert!(Arc::ptr_eq(&entry(&first, "a"), &entry(&second, "a")));
        assert_eq!(entry(&second, "b").machines[0].live.phase, Phase::Up);
        assert!(second.revision > first.revision);
    }

    #[test]
    fn an_app_that_is_gone_from_the_routes_is_gone() {
        let first = merge(
            &Catalog::default(),
            &routes(&["a", "b"]),
            &LivenessMap::new(),
        );
        let second = merge(&first, &routes(&["a"]), &LivenessMap::new());
        assert_eq!(second.apps.len(), 1);
    }
}
