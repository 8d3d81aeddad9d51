//! Deploys that a client drives itself, as flyctl does (D2): it makes a release here, changes the
//! Machines, and says how that ended.
//!
//! The release takes the deploy claim of its app. Each of the client's calls about a Machine of the
//! app renews it; silence of [`SILENCE`] ends it, and the release is then `interrupted`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hangar_api::Timestamp;
use hangar_api::id::{AppName, GroupName, ReleaseId};
use hangar_api::image::ImageRef;
use hangar_api::release::{GroupSpec, Release, ReleaseCommand, ReleaseStatus};
use hangar_config::{Format, Inputs};
use hangar_store::tables::{Apps, ClaimOwner, DeployClaim, DeployClaims, Releases};
use hangar_store::{Record, Txn};
use jiff::SignedDuration;
use serde_json::Value;

use super::claim::{self, refuse_second};
use super::{newest_release, pinned, primary_region, refuse_large};
use crate::core::{Core, MAX_TRIES, too_contended};
use crate::error::Problem;
use crate::formations;
use crate::images;

/// A client that was silent for so long no longer deploys.
const SILENCE: SignedDuration = SignedDuration::from_secs(60);
/// A claim is written anew once so much of that time has gone: not with every call.
const RENEWED_AFTER: SignedDuration = SignedDuration::from_secs(15);
/// A look for clients that are silent comes at least this often.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// A release as a client makes it.
#[derive(Clone, Debug, Default)]
pub(crate) struct NewRelease {
    /// The image's name; empty for the one of the release before.
    pub(crate) image: String,
    /// fly.toml as JSON.
    pub(crate) definition: Value,
}

/// Who drives: the token's user, and the program that calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Driver<'a> {
    /// The user.
    pub(crate) user: &'a str,
    /// What the program calls itself, by its `User-Agent`.
    pub(crate) agent: Option<&'a str>,
}

/// What a definition says of the groups, as `hangar deploy` of the same file would have it.
#[derive(Debug, Default)]
struct Read {
    groups: BTreeMap<GroupName, GroupSpec>,
    release_command: Option<ReleaseCommand>,
}

/// Makes a release and takes the claim for it. Refused while anybody else deploys.
pub(crate) async fn begin(
    core: &Core,
    app: &AppName,
    driver: Driver<'_>,
    input: NewRelease,
) -> Result<Release, Problem> {
    core.app(app)?;
    refuse_second(core, app)?;
    let image_ref = image_of(core, app, &input.image).await?;
    let read = read(app, &input, &image_ref);
    for _ in 0..MAX_TRIES {
        let record = core.app(app)?;
        refuse_second(core, app)?;
        let release = Release {
            id: ReleaseId::generate(&core.env),
            app: app.clone(),
            version: record.value.last_release + 1,
            status: ReleaseStatus::Pending,
            description: "Deploy".to_owned(),
            user: driver.user.to_owned(),
            created_at: core.env.now(),
            deployment: None,
            image_ref: image_ref.clone(),
            secrets_version: record.value.secrets_version,
            groups: read.groups.clone(),
            release_command: read.release_command.clone(),
            definition: input.definition.clone(),
        };
        refuse_large(&release)?;
        let mut app_record = record.value.clone();
        app_record.last_release = release.version;
        let txn = Txn::new()
            .update(&record, &app_record)
            .create::<Releases>(&(app.clone(), release.version), &release)
            .and(taken(core, &release, driver));
        if core.try_commit(txn).await?.is_some() {
            tracing::info!(app = %app, release = release.version, "client's release made");
            return Ok(release);
        }
    }
    Err(too_contended())
}

async fn image_of(core: &Core, app: &AppName, name: &str) -> Result<ImageRef, Problem> {
    if name.is_empty() {
        let before = newest_release(core, app);
        return Ok(before.map(|release| release.image_ref).unwrap_or_default());
    }
    images::resolve(core, app, name.to_owned()).await
}

/// Reads the groups out of a definition. One that cannot be read makes a release without groups:
/// the client decides what it deploys, and only a rollback to that release is not to be had.
fn read(app: &AppName, input: &NewRelease, image_ref: &ImageRef) -> Read {
    match groups(input, image_ref) {
        Ok(read) => read,
        Err(reason) => {
            tracing::warn!(app = %app, reason, "client's definition not read");
            Read::default()
        }
    }
}

fn groups(input: &NewRelease, image_ref: &ImageRef) -> Result<Read, String> {
    let text = input.definition.to_string();
    let raw = hangar_config::parse(text.as_bytes(), Format::Json).map_err(|p| p.to_string())?;
    let loaded = raw.load();
    let problem = || {
        let first = loaded.problems.first().map(ToString::to_string);
        first.unwrap_or_else(|| "the definition is empty".to_owned())
    };
    let config = loaded.config.as_ref().ok_or_else(problem)?;
    let inputs = Inputs {
        image: pinned(&input.image, image_ref),
        ..Inputs::default()
    };
    let told = |error: hangar_config::MachineError| error.to_string();
    Ok(Read {
        groups: config.machine_configs(&inputs).map_err(told)?,
        release_command: config.release_command(&inputs).map_err(told)?,
    })
}

/// Returns the claim of a client's release from now on.
fn claim_of(core: &Core, release: &Release, driver: Driver<'_>) -> DeployClaim {
    let now = core.env.now();
    DeployClaim {
        owner: ClaimOwner::Client {
            release: release.id.clone(),
        },
        user: driver.user.to_owned(),
        agent: driver.agent.map(str::to_owned),
        version: Some(release.version),
        taken_at: now,
        expires_at: Some(later(now)),
        cancelled_by: None,
    }
}

fn later(now: Timestamp) -> Timestamp {
    now.checked_add(SILENCE).unwrap_or(Timestamp::MAX)
}

/// Returns the write that takes the claim; a client that has lapsed is interrupted by it.
fn taken(core: &Core, release: &Release, driver: Driver<'_>) -> Txn {
    let claim = claim_of(core, release, driver);
    claim::take_claim(core, &release.app, &claim)
}

/// Writes down how far a client's release is, as the client says, and returns it. Its end gives the
/// claim back.
pub(crate) async fn report(
    core: &Core,
    release: &Record<Releases>,
    driver: Driver<'_>,
    status: ReleaseStatus,
) -> Result<Release, Problem> {
    let key = release.key.clone();
    for _ in 0..MAX_TRIES {
        let current = core.cache.get::<Releases>(&key).ok_or_else(missing)?;
        let app = core.app(&key.0)?;
        let next = Release {
            status,
            ..current.value.clone()
        };
        let txn = reported(core, &app, &current, &next, driver)?;
        if core.try_commit(txn).await?.is_some() {
            tracing::info!(app = %key.0, release = key.1, status = %status, "client's release");
            return Ok(next);
        }
    }
    Err(too_contended())
}

fn missing() -> Problem {
    Problem::NotFound("this release is not kept any more".to_owned())
}

fn reported(
    core: &Core,
    app: &Record<Apps>,
    current: &Record<Releases>,
    next: &Release,
    driver: Driver<'_>,
) -> Result<Txn, Problem> {
    let old = &current.value;
    if old.deployment.is_some() {
        return Err(Problem::Conflict(format!(
            "release v{} is carried out by the server, which alone says how far it is",
            old.version
        )));
    }
    let claim = core.cache.get::<DeployClaims>(&app.key);
    let own = claim.as_ref().filter(|claim| is_of(&claim.value, old));
    if own.is_none() && is_over(old.status) && old.status != ReleaseStatus::Interrupted {
        // Said before, perhaps by an answer that got lost.
        return match old.status == next.status {
            true => Ok(Txn::new().check_same(current)),
            false => Err(Problem::Conflict(format!(
                "release v{} is {} already",
                old.version, old.status
            ))),
        };
    }
    if own.is_none() {
        // It was silent for too long. While nobody else came, what it says still holds.
        refuse_second(core, &app.key)?;
        if app.value.last_release != old.version {
            return Err(Problem::Conflict(format!(
                "release v{} was given up after {} seconds without a call, and v{} has followed",
                old.version,
                SILENCE.as_secs(),
                app.value.last_release
            )));
        }
    }
    let txn = Txn::new().update(current, next);
    Ok(match (is_over(next.status), own) {
        (true, Some(claim)) => txn.remove(claim).and(ended(core, app, next)),
        (true, None) => txn.and(ended(core, app, next)),
        (false, Some(claim)) => txn.update(claim, &renewed(core, &claim.value)),
        (false, None) => txn.and(taken(core, next, driver)),
    })
}

fn is_over(status: ReleaseStatus) -> bool {
    !matches!(status, ReleaseStatus::Pending | ReleaseStatus::Running)
}

fn is_of(claim: &DeployClaim, release: &Release) -> bool {
    matches!(&claim.owner, ClaimOwner::Client { release: id } if *id == release.id)
}

fn renewed(core: &Core, claim: &DeployClaim) -> DeployClaim {
    DeployClaim {
        expires_at: Some(later(core.env.now())),
        ..claim.clone()
    }
}

/// Returns what ends with a release that was carried out: formations of groups that it does not
/// have, and where new Machines of the app go.
fn ended(core: &Core, app: &Record<Apps>, release: &Release) -> Txn {
    let mut txn = Txn::new();
    if release.status != ReleaseStatus::Complete {
        return txn;
    }
    if !release.groups.is_empty() {
        txn = txn.and(formations::ended(&core.cache.snapshot(), release));
    }
    let region = primary_region(release);
    if region.is_some() && region != app.value.primary_region {
        let mut next = app.value.clone();
        next.primary_region = region;
        txn = txn.update(app, &next);
    }
    txn
}

/// Takes notice of a call about a Machine of an app: the client that deploys it is alive.
pub(crate) async fn heard(core: &Core, app: &AppName, driver: Driver<'_>) {
    let Some(claim) = core.cache.get::<DeployClaims>(app) else {
        return;
    };
    let value = &claim.value;
    let is_driver = matches!(value.owner, ClaimOwner::Client { .. })
        && value.user == driver.user
        && value.agent.as_deref() == driver.agent;
    let fresh = core.env.now() + (SILENCE - RENEWED_AFTER);
    if !is_driver || value.expires_at.is_none_or(|end| end > fresh) {
        return;
    }
    let txn = Txn::new().update(&claim, &renewed(core, value));
    // Where somebody else was first, it is renewed or over; the next call looks again.
    if let Err(error) = core.try_commit(txn).await {
        tracing::warn!(app = %app, error = %error, "client's deploy claim not renewed");
    }
}

/// Interrupts the releases of clients that have gone silent, until the server stops.
pub(crate) async fn run(core: Arc<Core>) {
    let mut deltas = core.cache.deltas();
    loop {
        let rest = interrupt(&core).await;
        let until = tokio::time::Instant::now() + rest;
        let matters = |delta: &hangar_store::Delta| delta.touches::<DeployClaims>();
        if !core.is_due(&mut deltas, until, matters).await {
            return;
        }
    }
}

/// Interrupts those that are due, and returns how long none will be.
async fn interrupt(core: &Core) -> Duration {
    let mut rest = LOOK_EVERY;
    let now = core.env.now();
    let claims: Vec<Arc<Record<DeployClaims>>> = core
        .cache
        .snapshot()
        .all::<DeployClaims>()
        .cloned()
        .collect();
    for claim in claims {
        let (ClaimOwner::Client { release }, Some(end)) =
            (&claim.value.owner, claim.value.expires_at)
        else {
            continue;
        };
        if end > now {
            let left = end.duration_since(now);
            rest = rest.min(Duration::try_from(left).unwrap_or(LOOK_EVERY));
            continue;
        }
        let txn = Txn::new()
            .remove(&claim)
            .and(interrupted(core, &claim.key, release));
        match core.try_commit(txn).await {
            Ok(_) => tracing::info!(app = %claim.key, "a client's deploy has lapsed"),
            Err(error) => tracing::warn!(app = %claim.key, error = %error, "lapsed claim stays"),
        }
    }
    rest.max(Duration::from_millis(50))
}

/// Returns the write that marks a client's release as interrupted, unless it is over.
pub(super) fn interrupted(core: &Core, app: &AppName, id: &ReleaseId) -> Txn {
    let snapshot = core.cache.snapshot();
    let mut releases = snapshot.under::<Releases, _>(app);
    let open = releases.find(|record| record.value.id == *id && !is_over(record.value.status));
    match open {
        Some(record) => Txn::new().update(
            record,
            &Release {
                status: ReleaseStatus::Interrupted,
                ..record.value.clone()
            },
        ),
        None => Txn::new(),
    }
}
