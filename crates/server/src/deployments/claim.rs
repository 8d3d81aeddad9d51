//! The claim: who may deploy an app now (D2).

use hangar_api::id::AppName;
use hangar_api::machine::MachineConfig;
use hangar_api::machine::config::RELEASE_ID;
use hangar_api::release::ReleaseStatus;
use hangar_store::Txn;
use hangar_store::tables::{ClaimOwner, DeployClaim, DeployClaims, Releases};

use super::client;
use crate::core::Core;
use crate::error::Problem;

/// Refuses a Machine that a client makes or changes for a release of its own while somebody else
/// deploys. Copies of Machines that are there, and Machines of no release, are nobody's deploy.
pub(crate) fn refuse_other_release(
    core: &Core,
    app: &AppName,
    config: &MachineConfig,
) -> Result<(), Problem> {
    let Some(id) = config.metadata.get(RELEASE_ID) else {
        return Ok(());
    };
    let snapshot = core.cache.snapshot();
    let mut known = snapshot.under::<Releases, _>(app);
    let release = known.find(|record| record.value.id.as_str() == id);
    let Some(release) = release.map(|record| &record.value) else {
        return refuse_second(core, app);
    };
    // One that was carried out, or is the server's own, is only copied from.
    if release.deployment.is_some() || release.status == ReleaseStatus::Complete {
        return Ok(());
    }
    match core
        .cache
        .get::<DeployClaims>(app)
        .map(|claim| claim.value.owner.clone())
    {
        Some(ClaimOwner::Client { release: holder }) if holder == release.id => Ok(()),
        _ => refuse_second(core, app),
    }
}

/// Refuses a deployment while another one holds the claim, and says who does.
pub(crate) fn refuse_second(core: &Core, app: &AppName) -> Result<(), Problem> {
    match under_way(core, app) {
        None => Ok(()),
        Some(what) => Err(Problem::Conflict(format!(
            "app {app} is being deployed: {what}; wait until it has ended"
        ))),
    }
}

/// Returns the deployment that holds the claim, in words.
pub(crate) fn under_way(core: &Core, app: &AppName) -> Option<String> {
    let claim = core.cache.get::<DeployClaims>(app)?;
    let claim = &claim.value;
    if lapsed(core, claim) {
        return None;
    }
    let version = claim
        .version
        .map(|version| format!(" of release v{version}"));
    let what = match &claim.owner {
        ClaimOwner::Deployment { id } => format!("deployment {id}"),
        ClaimOwner::Client { release } => format!("a client's deploy {release}"),
    };
    Some(format!(
        "{what}{} by {} since {}",
        version.unwrap_or_default(),
        claim.user,
        seconds(claim.taken_at),
    ))
}

fn seconds(time: hangar_api::Timestamp) -> hangar_api::Timestamp {
    hangar_api::Timestamp::from_second(time.as_second()).unwrap_or(time)
}

fn lapsed(core: &Core, claim: &DeployClaim) -> bool {
    let now = core.env.now();
    claim.expires_at.is_some_and(|end| now >= end)
}

/// Returns the write that takes the claim: none is there, or one that has lapsed.
pub(super) fn take_claim(core: &Core, app: &AppName, claim: &DeployClaim) -> Txn {
    match core.cache.get::<DeployClaims>(app) {
        Some(old) if lapsed(core, &old.value) => {
            let former = match &old.value.owner {
                ClaimOwner::Client { release } => client::interrupted(core, app, release),
                ClaimOwner::Deployment { .. } => Txn::new(),
            };
            former.update(&old, claim)
        }
        _ => Txn::new().create::<DeployClaims>(app, claim),
    }
}

/// Returns the check that nobody begins to deploy until the write; none while somebody does.
pub(crate) fn none_begins(core: &Core, app: &AppName) -> Option<Txn> {
    match core.cache.get::<DeployClaims>(app) {
        None => Some(Txn::new().check_absent::<DeployClaims>(app)),
        Some(claim) => lapsed(core, &claim.value).then(|| Txn::new().check_same(&claim)),
    }
}
