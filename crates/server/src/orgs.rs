//! Organisations: they own apps, private networks and tokens. `personal` is always there.

use std::collections::BTreeMap;
use std::sync::Arc;

use hangar_api::app::Organization;
use hangar_api::env::Env;
use hangar_api::id::OrgSlug;
use hangar_api::org::{CreateOrg, Org, OrgKind};
use hangar_api::rights::Action;
use hangar_store::tables::{Apps, Counters, ORG_COUNTER, OrgNetworks, OrgRecord, Orgs};
use hangar_store::{Cache, Record, Snapshot, StoreError, Txn};

use crate::auth::{Caller, caller, tokens};
use crate::core::{Core, MAX_TRIES, too_contended};
use crate::error::Problem;

/// The organisation that is always there.
pub(crate) const PERSONAL: &str = "personal";
/// Most organisations.
const MAX_ORGS: usize = 1000;
/// Longest name of one.
const MAX_NAME: usize = 100;

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
        closing: false,
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

/// Returns where an app is made that names no organisation: `personal`, unless the caller may make
/// apps in one other only.
pub(crate) fn usual(core: &Core, caller: &Caller) -> String {
    let snapshot = core.cache.snapshot();
    let may = |org: &&Arc<Record<Orgs>>| caller.may(&caller::org(&org.value, Action::CREATE));
    let mut open = snapshot.all::<Orgs>().filter(may).map(|org| &org.key);
    match (open.next(), open.next()) {
        (Some(only), None) => only.to_string(),
        _ => PERSONAL.to_owned(),
    }
}

/// Returns an organisation that the caller may do this to, and that is not about to end. One that
/// may not be read is not there.
pub(crate) fn permitted(
    core: &Core,
    caller: &Caller,
    slug: &str,
    action: Action,
) -> Result<Arc<Record<Orgs>>, Problem> {
    let record = permitted_to_the_end(core, caller, slug, action)?;
    match record.value.closing {
        true => Err(Problem::OrgNotFound(slug.to_owned())),
        false => Ok(record),
    }
}

fn permitted_to_the_end(
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

/// Returns an organisation as clients see it.
pub(crate) fn view(snapshot: &Snapshot, record: &Record<Orgs>) -> Org {
    let apps = snapshot.all::<Apps>();
    let count = apps.filter(|app| app.value.org == record.key).count();
    with_count(record, count)
}

fn with_count(record: &Record<Orgs>, app_count: usize) -> Org {
    let org = &record.value;
    Org {
        id: org.id.clone(),
        internal_numeric_id: org.number,
        slug: record.key.clone(),
        name: org.name.clone(),
        kind: org.kind,
        created_at: org.created_at,
        app_count,
    }
}

/// Returns the organisations that the caller may read, by slug.
pub(crate) fn list(core: &Core, caller: &Caller) -> Vec<Org> {
    let snapshot = core.cache.snapshot();
    let mut counts: BTreeMap<&OrgSlug, usize> = BTreeMap::new();
    for app in snapshot.all::<Apps>() {
        *counts.entry(&app.value.org).or_default() += 1;
    }
    let readable = snapshot
        .all::<Orgs>()
        .filter(|org| caller.may(&caller::org(&org.value, Action::READ)));
    readable
        .map(|org| with_count(org, counts.get(&org.key).copied().unwrap_or_default()))
        .collect()
}

/// Makes an organisation, which only one of no organisation may.
pub(crate) async fn create(
    core: &Core,
    caller: &Caller,
    input: &CreateOrg,
) -> Result<Org, Problem> {
    caller.require(&caller::platform(Action::CREATE), "the platform")?;
    let name = input.name.as_deref().unwrap_or_default().trim();
    let slug = match input.slug.as_deref().unwrap_or_default() {
        "" => slug_of(name),
        given => given.to_owned(),
    };
    let invalid = |text: String| Problem::Unprocessable(format!("Validation failed: {text}"));
    let slug = OrgSlug::new(slug).map_err(|error| invalid(error.to_string()))?;
    let name = if name.is_empty() { slug.as_str() } else { name };
    if name.chars().count() > MAX_NAME || name.chars().any(char::is_control) {
        return Err(invalid(format!(
            "Name is at most {MAX_NAME} printable characters"
        )));
    }
    for _ in 0..MAX_TRIES {
        let snapshot = core.cache.snapshot();
        if snapshot.get::<Orgs>(&slug).is_some() {
            return Err(Problem::Unprocessable(format!(
                "Validation failed: Slug {slug} has already been taken"
            )));
        }
        if snapshot.count::<Orgs>() >= MAX_ORGS {
            return Err(Problem::Exhausted(format!(
                "there are {MAX_ORGS} organizations, the most there may be"
            )));
        }
        let (number, counted) = next_number(&snapshot);
        drop(snapshot);
        let record = OrgRecord {
            id: new_id(&core.env),
            number,
            name: name.to_owned(),
            kind: OrgKind::Shared,
            created_at: core.env.now(),
            closing: false,
        };
        let txn = counted.create::<Orgs>(&slug, &record);
        if core.try_commit(txn).await?.is_some() {
            tracing::info!(org = %slug, "organization made");
            let snapshot = core.cache.snapshot();
            let made = snapshot.get::<Orgs>(&slug).cloned();
            let made = made.ok_or_else(|| Problem::OrgNotFound(slug.to_string()))?;
            return Ok(view(&snapshot, &made));
        }
    }
    Err(too_contended())
}

/// Returns a slug for a name: its letters and digits, anything else a dash.
fn slug_of(name: &str) -> String {
    let dashed: String = name
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let parts: Vec<&str> = dashed.split('-').filter(|part| !part.is_empty()).collect();
    parts.join("-")
}

/// Removes an organisation that has no app, with its tokens and networks. May be repeated: one
/// whose removal was cut off is closed to all else.
pub(crate) async fn destroy(core: &Core, caller: &Caller, slug: &OrgSlug) -> Result<(), Problem> {
    permitted_to_the_end(core, caller, slug.as_str(), Action::DELETE)?;
    if slug.is_personal() {
        return Err(Problem::Unprocessable(
            "organization personal is always there and cannot be removed".to_owned(),
        ));
    }
    // While it closes, no app and no token begins in it: each is made against the record as it is.
    let close = |closing: bool| async move {
        for _ in 0..MAX_TRIES {
            let record = core.cache.get::<Orgs>(slug);
            let record = record.ok_or_else(|| Problem::OrgNotFound(slug.to_string()))?;
            let changed = OrgRecord {
                closing,
                ..record.value.clone()
            };
            let txn = Txn::new().update(&record, &changed);
            if core.try_commit(txn).await?.is_some() {
                return Ok(());
            }
        }
        Err(too_contended())
    };
    close(true).await?;
    let snapshot = core.cache.snapshot();
    let apps = snapshot.all::<Apps>();
    let left: Vec<&str> = apps
        .filter(|app| app.value.org == *slug)
        .map(|app| app.key.as_str())
        .take(3)
        .collect();
    if !left.is_empty() {
        let left = left.join(", ");
        drop(snapshot);
        close(false).await?;
        return Err(Problem::Precondition(format!(
            "organization {slug} still has apps ({left}); destroy them first"
        )));
    }
    let networks = snapshot.under::<OrgNetworks, _>(slug);
    let txns: Vec<Txn> = networks
        .map(|network| Txn::new().remove::<OrgNetworks>(network))
        .collect();
    drop(snapshot);
    for txn in txns {
        core.try_commit(txn).await?;
    }
    tokens::end_with(core, slug).await?;
    core.cache.commit(Txn::new().delete::<Orgs>(slug)).await?;
    tracing::info!(org = %slug, "organization removed");
    Ok(())
}
