//! Apps: making them, showing them, and asking for their end. Their end itself is carried out by
//! [`crate::tidy`].

use hangar_api::app::{App, AppCreated, AppRecord, CreateApp};
use hangar_api::id::{AppName, OrgSlug};
use hangar_api::net::NetworkId;
use hangar_api::rights::Action;
use hangar_store::tables::{
    AppNumbers, Apps, Counters, NETWORK_COUNTER, Networks, OrgNetworks, Orgs, Volumes,
};
use hangar_store::{Record, Snapshot, StoreError, Txn};

use crate::auth::Caller;
use crate::core::{Core, MAX_TRIES, too_contended};
use crate::error::Problem;
use crate::orgs;
use crate::unit::Unit;

/// The private network of apps that name none.
const DEFAULT_NETWORK: &str = "default";
/// Most apps.
const MAX_APPS: usize = 10_000;

/// Makes an app.
pub(crate) async fn create(
    core: &Core,
    caller: &Caller,
    input: CreateApp,
) -> Result<AppCreated, Problem> {
    let role = input.app_role_id.as_deref().unwrap_or_default();
    if !role.is_empty() {
        return Err(Problem::Unprocessable(format!(
            "Validation failed: apps of role {role:?} are not offered by this Hangar; images are \
             built where the client is"
        )));
    }
    let given = |name: Option<String>| name.filter(|name| !name.is_empty());
    let name = given(input.name)
        .or(given(input.app_name))
        .unwrap_or_default();
    let name = AppName::new(name).map_err(|_| Problem::AppNameInvalid)?;
    let slug = input.org_slug.filter(|slug| !slug.is_empty());
    let slug = slug.unwrap_or_else(|| orgs::usual(core, caller));
    let network = input.network.filter(|name| !name.is_empty());
    let network = network.unwrap_or_else(|| DEFAULT_NETWORK.to_owned());
    if network.len() > 100 {
        return Err(Problem::Unprocessable(
            "Validation failed: Network is at most 100 characters".to_owned(),
        ));
    }
    for _ in 0..MAX_TRIES {
        let org = orgs::permitted(core, caller, &slug, Action::CREATE)?;
        let snapshot = core.cache.snapshot();
        if let Some(there) = snapshot.get::<Apps>(&name) {
            let key = input.idempotency_key.as_ref().filter(|key| !key.is_empty());
            return match key.is_some() && there.value.idempotency_key.as_ref() == key {
                true => Ok(created(core, &there.value)),
                false => Err(Problem::AppNameTaken),
            };
        }
        if snapshot.count::<Apps>() >= MAX_APPS {
            return Err(Problem::Exhausted(format!(
                "there are {MAX_APPS} apps, the most there may be"
            )));
        }
        let (id, networks) = network_for(&snapshot, &org.key, &network);
        drop(snapshot);
        let record = AppRecord {
            number: app_number(core),
            org: org.key.clone(),
            idempotency_key: input.idempotency_key.clone(),
            ..fresh(core, &name, &network, id)
        };
        let txn = Txn::new()
            .create::<Apps>(&name, &record)
            // Taken by another app once in a long while: then another number is drawn.
            .create::<AppNumbers>(&record.number, &name)
            // An organisation that ends is changed first.
            .check_same::<Orgs>(&org)
            .and(networks);
        if core.try_commit(txn).await?.is_some() {
            tracing::info!(app = %name, "app created");
            return Ok(created(core, &record));
        }
    }
    Err(too_contended())
}

fn created(core: &Core, record: &AppRecord) -> AppCreated {
    let is_new = record.last_release == 0;
    AppCreated {
        id: record.id.clone(),
        created_at: record.created_at.as_millisecond(),
        name: record.name.clone(),
        internal_numeric_id: record.number,
        network: record.network_name.clone(),
        status: if is_new { "pending" } else { "deployed" }.to_owned(),
        organization: orgs::of(&core.cache.snapshot(), &record.org),
    }
}

/// Returns a number that an app may have: positive, of 31 bits, as clients store it.
fn app_number(core: &Core) -> u64 {
    (core.env.random_u64() >> 33).max(1)
}

/// Gives every app of before there were numbers its number.
pub(crate) async fn ensure_numbers(core: &Core) -> Result<(), StoreError> {
    let snapshot = core.cache.snapshot();
    let without = snapshot.all::<Apps>().filter(|app| app.value.number == 0);
    let without: Vec<_> = without.cloned().collect();
    drop(snapshot);
    for app in without {
        let mut tries = 0..MAX_TRIES;
        // One that is left without a number is nobody's but the admin's, until the next start.
        while tries.next().is_some() {
            let record = AppRecord {
                number: app_number(core),
                ..app.value.clone()
            };
            let txn = Txn::new()
                .update(&app, &record)
                .create::<AppNumbers>(&record.number, &app.key);
            if core.try_commit(txn).await?.is_some() {
                break;
            }
        }
    }
    Ok(())
}

/// Returns the record of an app that has nothing yet.
fn fresh(core: &Core, name: &AppName, network_name: &str, network: NetworkId) -> AppRecord {
    AppRecord {
        id: core.env.ulid().to_string().to_lowercase(),
        name: name.clone(),
        number: 0,
        org: OrgSlug::personal(),
        network_name: network_name.to_owned(),
        network,
        created_at: core.env.now(),
        secrets_version: 0,
        last_release: 0,
        primary_region: None,
        deleting: false,
        idempotency_key: None,
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

/// Returns the number of an organisation's network, with the writes that make it when it is new.
fn network_for(snapshot: &Snapshot, org: &OrgSlug, name: &str) -> (NetworkId, Txn) {
    let plain = name.to_owned();
    let key = (org.clone(), plain.clone());
    let known = match org.is_personal() {
        true => snapshot.get::<Networks>(&plain).map(|known| known.value),
        false => snapshot.get::<OrgNetworks>(&key).map(|known| known.value),
    };
    if let Some(known) = known {
        return (known, Txn::new());
    }
    let counter = NETWORK_COUNTER.to_owned();
    let (next, txn) = match snapshot.get::<Counters>(&counter) {
        Some(last) => (last.value + 1, Txn::new().update(last, &(last.value + 1))),
        None => (1, Txn::new().create::<Counters>(&counter, &1)),
    };
    let id = NetworkId(u32::try_from(next).unwrap_or(u32::MAX));
    let txn = match org.is_personal() {
        true => txn.create::<Networks>(&plain, &id),
        false => txn.create::<OrgNetworks>(&key, &id),
    };
    (id, txn)
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
        internal_numeric_id: app.number,
        organization: orgs::of(snapshot, &app.org),
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

/// Asks for the end of an app, and of what runs in it: Fly's client asks for that without force.
pub(crate) async fn destroy(core: &Core, name: &AppName) -> Result<(), Problem> {
    for _ in 0..MAX_TRIES {
        let record = core.app(name)?;
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
