//! Organisations: they own apps, private networks and tokens. `personal` is always there.

use std::sync::Arc;

use hangar_api::app::Organization;
use hangar_api::env::Env;
use hangar_api::id::OrgSlug;
use hangar_api::rights::Action;
use hangar_store::tables::{Counters, ORG_COUNTER, OrgKind, OrgRecord, Orgs};
use hangar_store::{Cache, Record, Snapshot, StoreError, Txn};

use crate::auth::{Caller, caller};
use crate::core::Core;
use crate::error::Problem;

/// The organisation that is always there.
pub(crate) const PERSONAL: &str = "personal";

/// Makes sure that there is `personal`. May be repeated.
pub(crate) async fn ensure_personal(cache: &Cache, env: &Env) -> Result<(), StoreError> {
    let slug = OrgSlug::personal();
    if cache.get::<Orgs>(&slug).is_some() {
        return Ok(());
    }
    let (number, counted) = next_number(&cache.snapshot());
    let record = OrgRecord {
        id: new_id(env),
        number,
        name: PERSONAL.to_owned(),
        kind: OrgKind::Personal,
        created_at: env.now(),
    };
    let txn = counted.create::<Orgs>(&slug, &record);
    cache.commit(txn).await.map(|_| ())
}

fn new_id(env: &Env) -> String {
    env.ulid().to_string().to_lowercase()
}

/// Returns the number of the next organisation, with the write that counts it: none is ever used
/// again, so that no old token fits a new organisation.
fn next_number(snapshot: &Snapshot) -> (u64, Txn) {
    let key = ORG_COUNTER.to_owned();
    match snapshot.get::<Counters>(&key) {
        Some(last) => (last.value + 1, Txn::new().update(last, &(last.value + 1))),
        None => (1, Txn::new().create::<Counters>(&key, &1)),
    }
}

/// Returns an organisation that the caller may do this to. One that may not be read is not there.
pub(crate) fn permitted(
    core: &Core,
    caller: &Caller,
    slug: &str,
    action: Action,
) -> Result<Arc<Record<Orgs>>, Problem> {
    let missing = || Problem::OrgNotFound(slug.to_owned());
    let key = OrgSlug::new(slug).map_err(|_| missing())?;
    let record = core.cache.get::<Orgs>(&key).ok_or_else(missing)?;
    let reading = caller::org(&record.value, Action::READ);
    if !caller.may(&reading) {
        return Err(missing());
    }
    let access = caller::org(&record.value, action);
    caller.require(&access, &format!("organization {slug}"))?;
    Ok(record)
}

/// Returns an organisation as apps show it.
pub(crate) fn of(snapshot: &Snapshot, slug: &OrgSlug) -> Organization {
    let record = snapshot.get::<Orgs>(slug);
    Organization {
        name: record.map_or_else(|| slug.to_string(), |record| record.value.name.clone()),
        slug: slug.clone(),
        internal_numeric_id: record.map_or(0, |record| record.value.number),
    }
}
