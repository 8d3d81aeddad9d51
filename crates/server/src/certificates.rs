//! Host names of apps' own, and the certificates that are imported for them (machines-api.md 2.6).
//!
//! A host name is one app's: the claim to it is made in the transaction that adds it. It leads
//! requests to the app from then on, and whoever holds its certificate's key may have it served at
//! once; Hangar asks for no other proof. Private keys are kept encrypted under the keyring, go to
//! the edge by a stream of their own ([`feed`]), and are shown to nobody.

mod der;
pub(crate) mod feed;
mod names;
mod view;
mod x509;

use std::sync::Arc;
use std::time::Duration;

use hangar_api::certificate::{
    AddHostname, CertificateDetail, CertificateList, Hostname, ImportCertificate,
};
use hangar_api::id::AppName;
use hangar_store::tables::{
    Apps, CertificateRecord, Certificates, CustomCertificate, HostnameRecord, Hostnames,
};
use hangar_store::{Record, Revision, Txn};

use crate::core::{Core, MAX_TRIES, too_contended};
use crate::error::Problem;
use crate::keyring::Sealed;

/// Most host names of an app.
const MAX_HOSTNAMES: usize = 2_000;
/// Host names on a page of a list that asks for no number, and most on any.
const PAGE: usize = 25;
const MAX_PAGE: usize = 500;
/// How long an answer waits for the edge, so that what it says is served is served. What is stored
/// is served without it too, as soon as the edge hears of it.
const EDGE_TIME: Duration = Duration::from_secs(2);
/// Domains that mean something else here.
const RESERVED: [&str; 2] = ["internal", "flycast"];

/// What to remove of a host name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The imported certificate.
    Custom,
    /// The wish for an issued one.
    Acme,
}

/// Adds a host name, for a certificate to be issued once there is ACME. May be repeated.
pub(crate) async fn add(
    core: &Core,
    app: &AppName,
    input: AddHostname,
) -> Result<CertificateDetail, Problem> {
    let host = hostname(core, app, input.hostname)?;
    let change = |old: Option<&CertificateRecord>| {
        let now = core.env.now();
        Ok(CertificateRecord {
            acme_requested: true,
            custom: old.and_then(|old| old.custom.clone()),
            created_at: old.map_or(now, |old| old.created_at),
            updated_at: now,
        })
    };
    write(core, app, &host, change).await?;
    tracing::info!(app = %app, hostname = %host, "hostname added");
    show(core, app, &host)
}

/// Imports a certificate, in place of one that was imported before. It is served when this returns.
pub(crate) async fn import(
    core: &Core,
    app: &AppName,
    input: ImportCertificate,
) -> Result<CertificateDetail, Problem> {
    let host = hostname(core, app, input.hostname)?;
    let fullchain = given("fullchain", input.fullchain)?;
    let private_key = given("private_key", input.private_key)?;
    let now = core.env.now();
    let sound = x509::examine(&host, &fullchain, &private_key, now)
        .map_err(|refusal| Problem::Unprocessable(refusal.to_string()))?;
    let change = |old: Option<&CertificateRecord>| {
        let place = feed::place(app, &host, now);
        let Sealed { key, nonce, text } = core.keyring.seal(&core.env, &place, &private_key)?;
        Ok(CertificateRecord {
            acme_requested: old.is_some_and(|old| old.acme_requested),
            custom: Some(CustomCertificate {
                fullchain: sound.fullchain.clone(),
                key_id: key,
                nonce,
                sealed: text,
                issuer: sound.issuer.clone(),
                kind: sound.kind.to_owned(),
                expires_at: sound.expires_at,
                imported_at: now,
            }),
            created_at: old.map_or(now, |old| old.created_at),
            updated_at: now,
        })
    };
    write(core, app, &host, change).await?;
    tracing::info!(app = %app, hostname = %host, "certificate imported");
    show(core, app, &host)
}

/// Returns a page of an app's host names, in order, of those that hold `filter`.
pub(crate) fn list(
    core: &Core,
    app: &AppName,
    filter: &str,
    cursor: &str,
    limit: Option<usize>,
) -> Result<CertificateList, Problem> {
    core.app(app)?;
    let snapshot = core.cache.snapshot();
    let now = core.env.now();
    let filter = filter.to_ascii_lowercase();
    let mut found: Vec<&Arc<Record<Certificates>>> = snapshot
        .under::<Certificates, _>(app)
        .filter(|record| record.key.1.as_str().contains(&filter))
        .collect();
    found.sort_by(|a, b| a.key.1.cmp(&b.key.1));
    let total_count = u64::try_from(found.len()).unwrap_or(u64::MAX);
    found.retain(|record| record.key.1.as_str() > cursor);
    let limit = limit.unwrap_or(PAGE).clamp(1, MAX_PAGE);
    let more = found.len() > limit;
    found.truncate(limit);
    let last = found.last().map(|record| record.key.1.to_string());
    Ok(CertificateList {
        next_cursor: last.filter(|_| more).unwrap_or_default(),
        certificates: found
            .iter()
            .map(|record| view::summary(&record.key.1, &record.value, now))
            .collect(),
        total_count,
    })
}

/// Returns what is known of a host name.
pub(crate) fn show(
    core: &Core,
    app: &AppName,
    host: &Hostname,
) -> Result<CertificateDetail, Problem> {
    let record = find(core, app, host)?;
    let own = format!("{app}.{}", core.domain);
    let edge = core.edge.borrow().address;
    Ok(view::detail(host, &record.value, edge, own, core.env.now()))
}

/// Looks what DNS says of a host name, and returns that with what is known of it.
pub(crate) async fn check(
    core: &Core,
    app: &AppName,
    host: &Hostname,
) -> Result<CertificateDetail, Problem> {
    find(core, app, host)?;
    let found = names::look(host).await;
    // It may have been removed meanwhile.
    let detail = show(core, app, host)?;
    Ok(view::checked(detail, found, core.env.now()))
}

/// Removes a host name with its certificate: requests to it are nobody's then.
pub(crate) async fn remove(core: &Core, app: &AppName, host: &Hostname) -> Result<(), Problem> {
    for _ in 0..MAX_TRIES {
        let record = find(core, app, host)?;
        let txn = Txn::new()
            .remove::<Certificates>(&record)
            .delete::<Hostnames>(host);
        if let Some(revision) = core.try_commit(txn).await? {
            served(core, revision, Routes::Change).await;
            tracing::info!(app = %app, hostname = %host, "hostname removed");
            return Ok(());
        }
    }
    Err(too_contended())
}

/// Removes a part of what there is for a host name, which stays the app's.
pub(crate) async fn remove_part(
    core: &Core,
    app: &AppName,
    host: &Hostname,
    part: Part,
) -> Result<CertificateDetail, Problem> {
    for _ in 0..MAX_TRIES {
        let record = find(core, app, host)?;
        let (there, what) = match part {
            Part::Custom => (record.value.custom.is_some(), "custom certificate"),
            Part::Acme => (
                record.value.acme_requested,
                "request for an issued certificate",
            ),
        };
        if !there {
            return Err(Problem::NotFound(format!("there is no {what} for {host}")));
        }
        let mut left = record.value.clone();
        left.updated_at = core.env.now();
        match part {
            Part::Custom => left.custom = None,
            Part::Acme => left.acme_requested = false,
        }
        let txn = Txn::new().update(&record, &left);
        if let Some(revision) = core.try_commit(txn).await? {
            served(core, revision, Routes::Stay).await;
            let mut detail = show(core, app, host)?;
            if left.custom.is_none() {
                detail.warning = Some(view::without(host, app));
            }
            return Ok(detail);
        }
    }
    Err(too_contended())
}

/// Returns what a path's part names, or that there is no such host name.
pub(crate) fn named(text: &str) -> Result<Hostname, Problem> {
    Hostname::new(text).map_err(|_| not_found(text))
}

fn not_found(host: &str) -> Problem {
    let host: String = host.chars().take(80).collect();
    Problem::NotFound(format!("Could not find hostname {host:?} in this app"))
}

fn find(core: &Core, app: &AppName, host: &Hostname) -> Result<Arc<Record<Certificates>>, Problem> {
    core.app(app)?;
    core.cache
        .get::<Certificates>(&(app.clone(), host.clone()))
        .ok_or_else(|| not_found(host.as_str()))
}

fn given(field: &str, value: Option<String>) -> Result<String, Problem> {
    value
        .filter(|text| !text.trim().is_empty())
        .ok_or_else(|| Problem::Unprocessable(format!("{field} is required")))
}

/// Returns the host name of a request, unless it may not be an app's own.
fn hostname(core: &Core, app: &AppName, text: Option<String>) -> Result<Hostname, Problem> {
    let text = given("hostname", text)?;
    let host = Hostname::new(&text).map_err(|error| Problem::Unprocessable(error.to_string()))?;
    let own = format!("{app}.{}", core.domain).to_ascii_lowercase();
    let refused =
        |why: String| Problem::Unprocessable(format!("hostname {host} is not free: {why}"));
    if is_under(&host, &core.domain) && host.as_str() != own {
        let domain = &core.domain;
        return Err(refused(format!(
            "names of {domain} are those of apps; this one's is {own}"
        )));
    }
    if let Some(domain) = RESERVED.iter().find(|domain| is_under(&host, domain)) {
        return Err(refused(format!(
            "names of {domain} are those of the private network"
        )));
    }
    Ok(host)
}

/// Returns whether a host name is a domain, in lower case or not, or one below it.
pub(crate) fn is_under(host: &Hostname, domain: &str) -> bool {
    let name = host.below().unwrap_or(host.as_str());
    let domain = domain.to_ascii_lowercase();
    name.strip_suffix(&domain)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Writes a host name's record as `change` makes it from the one before, and claims it for the app.
async fn write(
    core: &Core,
    app: &AppName,
    host: &Hostname,
    change: impl Fn(Option<&CertificateRecord>) -> Result<CertificateRecord, Problem>,
) -> Result<(), Problem> {
    let key = (app.clone(), host.clone());
    for _ in 0..MAX_TRIES {
        let owner = core.app(app)?;
        let snapshot = core.cache.snapshot();
        if let Some(claim) = snapshot.get::<Hostnames>(host)
            && claim.value.app != *app
        {
            // Whose it is, is that app's to tell.
            return Err(Problem::Unprocessable(format!(
                "hostname {host} has already been taken by another app"
            )));
        }
        let old = snapshot.get::<Certificates>(&key).cloned();
        let count = snapshot.under::<Certificates, _>(app).count();
        if old.is_none() && count >= MAX_HOSTNAMES {
            return Err(Problem::Unprocessable(format!(
                "an app has at most {MAX_HOSTNAMES} hostnames of its own"
            )));
        }
        drop(snapshot);
        let new = change(old.as_deref().map(|record| &record.value))?;
        let claim = HostnameRecord { app: app.clone() };
        // An app that is being destroyed meanwhile gets nothing that would outlive it.
        let txn = Txn::new().check_same::<Apps>(&owner);
        let (txn, routes) = match &old {
            Some(record) => (txn.update(record, &new), Routes::Stay),
            None => {
                let txn = txn.create::<Certificates>(&key, &new);
                (txn.create::<Hostnames>(host, &claim), Routes::Change)
            }
        };
        if let Some(revision) = core.try_commit(txn).await? {
            served(core, revision, routes).await;
            return Ok(());
        }
    }
    Err(too_contended())
}

/// Whether a change shows in the routes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Routes {
    Change,
    Stay,
}

/// Waits until the edge answers by a change.
async fn served(core: &Core, revision: Revision, routes: Routes) {
    let (mut certificates, mut applied) = (core.served.clone(), core.applied.clone());
    let both = async {
        // An edge that has gone will hear of it when it is back.
        drop(
            certificates
                .wait_for(|at| at.is_some_and(|at| at >= revision))
                .await,
        );
        if routes == Routes::Change {
            drop(applied.wait_for(|at| *at >= revision).await);
        }
    };
    if tokio::time::timeout(EDGE_TIME, both).await.is_err() {
        tracing::warn!(
            revision,
            "the edge has not taken over a change of certificates yet"
        );
    }
}
