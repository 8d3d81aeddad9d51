//! Apps: making them, showing them, and asking for their end. Their end itself is carried out by
//! [`crate::tidy`].

use hangar_api::app::{App, AppCreated, AppRecord, CreateApp, Organization};
use hangar_api::id::AppName;
use hangar_api::machine::MachineState;
use hangar_api::net::NetworkId;
use hangar_store::tables::{Apps, Counters, NETWORK_COUNTER, Networks, Volumes};
use hangar_store::{Record, Snapshot, Txn};

use crate::core::{Core, MAX_TRIES, too_contended};
use crate::error::Problem;
use crate::unit::Unit;

/// The private network of apps that name none.
const DEFAULT_NETWORK: &str = "default";
/// Most apps.
const MAX_APPS: usize = 10_000;

/// Makes an app.
pub(crate) async fn create(core: &Core, input: CreateApp) -> Result<AppCreated, Problem> {
    let name = input.name.or(input.app_name).unwrap_or_default();
    let name = AppName::new(name).map_err(|_| Problem::AppNameInvalid)?;
    let network = input.network.filter(|name| !name.is_empty());
    let network = network.unwrap_or_else(|| DEFAULT_NETWORK.to_owned());
    if network.len() > 100 {
        return Err(Problem::Unprocessable(
            "Validation failed: Network is at most 100 characters".to_owned(),
        ));
    }
    for _ in 0..MAX_TRIES {
        let snapshot = core.cache.snapshot();
        if snapshot.get::<Apps>(&name).is_some() {
            return Err(Problem::AppNameTaken);
        }
        if snapshot.count::<Apps>() >= MAX_APPS {
            return Err(Problem::Exhausted(format!(
                "there are {MAX_APPS} apps, the most there may be"
            )));
        }
        let (id, networks) = network_for(&snapshot, &network);
        drop(snapshot);
        let record = fresh(core, &name, &network, id);
        let txn = Txn::new().create::<Apps>(&name, &record).and(networks);
        if core.try_commit(txn).await?.is_some() {
            tracing::info!(app = %name, "app created");
            return Ok(AppCreated {
                id: record.id,
                created_at: record.created_at.as_millisecond(),
            });
        }
    }
    Err(too_contended())
}

/// Returns the record of an app that has nothing yet.
fn fresh(core: &Core, name: &AppName, network_name: &str, network: NetworkId) -> AppRecord {
    AppRecord {
        id: core.env.ulid().to_string().to_lowercase(),
        name: name.clone(),
        network_name: network_name.to_owned(),
        network,
        created_at: core.env.now(),
        secrets_version: 0,
        last_release: 0,
        primary_region: None,
        deleting: false,
    }
}

/// Returns the record that an app would have, for a look at its first deployment.
pub(crate) fn imagined(core: &Core, name: &AppName) -> Record<Apps> {
    Record {
        key: name.clone(),
        value: fresh(core, name, DEFAULT_NETWORK, NetworkId(0)),
        mod_revision: 0,
        create_revision: 0,
    }
}

/// Returns a network's number, with the writes that make it when it is new.
fn network_for(snapshot: &Snapshot, name: &str) -> (NetworkId, Txn) {
    let key = name.to_owned();
    if let Some(known) = snapshot.get::<Networks>(&key) {
        return (known.value, Txn::new());
    }
    let counter = NETWORK_COUNTER.to_owned();
    match snapshot.get::<Counters>(&counter) {
        Some(last) => {
            let next = last.value + 1;
            let id = NetworkId(u32::try_from(next).unwrap_or(u32::MAX));
            let txn = Txn::new().update(last, &next);
            (id, txn.create::<Networks>(&key, &id))
        }
        None => {
            let txn = Txn::new().create::<Counters>(&counter, &1);
            (NetworkId(1), txn.create::<Networks>(&key, &NetworkId(1)))
        }
    }
}

/// Returns an app as clients see it.
pub(crate) fn view(core: &Core, snapshot: &Snapshot, record: &Record<Apps>) -> App {
    let app = &record.value;
    let units = Unit::all(snapshot, &app.name);
    let active = units.iter().filter(|unit| unit.state().is_active());
    let volumes = snapshot.under::<Volumes, _>(&app.name);
    let volumes = volumes.filter(|record| !record.value.state.is_gone());
    let deployed = app.last_release > 0 || !units.is_empty();
    App {
        id: app.id.clone(),
        name: app.name.clone(),
        network: app.network_name.clone(),
        status: if deployed { "deployed" } else { "pending" }.to_owned(),
        machine_count: active.count().try_into().unwrap_or(u64::MAX),
        volume_count: volumes.count().try_into().unwrap_or(u64::MAX),
        organization: Organization::default(),
        created_at: app.created_at,
        hostname: hostname(core, app, &units),
        app_url: url(core, app, &units),
    }
}

/// Returns the external port that a browser is best sent to, and whether it speaks TLS: plain HTTP
/// where that is not redirected, since the certificates are self-signed; the lowest number first.
fn best_port(core: &Core, units: &[Unit]) -> Option<(u16, bool)> {
    let edge = core.edge.borrow();
    let active = units.iter().filter(|unit| unit.state().is_active());
    let ports = active
        .flat_map(|unit| &unit.spec().config.services)
        .flat_map(|service| &service.ports)
        .filter(|port| port.has("http"));
    let bound = ports.flat_map(|port| {
        let (tls, moved) = (port.has("tls"), port.force_https);
        let open = edge
            .ports
            .keys()
            .filter(|external| port.range().contains(external));
        open.map(move |external| (moved, tls, *external))
            .collect::<Vec<_>>()
    });
    let (_, tls, external) = bound.min()?;
    Some((external, tls))
}

fn url(core: &Core, app: &AppRecord, units: &[Unit]) -> Option<String> {
    let (external, tls) = best_port(core, units)?;
    core.edge.borrow().url(app.name.as_str(), external, tls)
}

fn hostname(core: &Core, app: &AppRecord, units: &[Unit]) -> String {
    let host = core.hostname(app);
    let Some((external, tls)) = best_port(core, units) else {
        return host;
    };
    let usual = if tls { 443 } else { 80 };
    match core.edge.borrow().ports.get(&external) {
        Some(bound) if *bound != usual => format!("{host}:{bound}"),
        _ => host,
    }
}

/// Asks for the end of an app. Without force, one whose Machines run is refused.
pub(crate) async fn destroy(core: &Core, name: &AppName, force: bool) -> Result<(), Problem> {
    for _ in 0..MAX_TRIES {
        let record = core.app(name)?;
        let runs = |unit: &Unit| {
            let state = unit.state();
            state.is_active()
                && !matches!(
                    state,
                    MachineState::Stopped
                        | MachineState::Suspended
                        | MachineState::Created
                        | MachineState::Failed
                )
        };
        let snapshot = core.cache.snapshot();
        let running = Unit::all(&snapshot, name)
            .iter()
            .filter(|unit| runs(unit))
            .count();
        drop(snapshot);
        if running > 0 && !force {
            return Err(Problem::Precondition(format!(
                "app {name} has {running} machines that are not stopped; stop them or use force"
            )));
        }
        let going = AppRecord {
            deleting: true,
            ..record.value.clone()
        };
        if core
            .try_commit(Txn::new().update(&record, &going))
            .await?
            .is_some()
        {
            tracing::info!(app = %name, "app is being destroyed");
            return Ok(());
        }
    }
    Err(too_contended())
}
