//! Which images are needed: by a Machine, or by one of an app's last releases; and who may use
//! those that were pushed.

use std::collections::BTreeSet;
use std::sync::Arc;

use hangar_api::error::Failure;
use hangar_api::id::AppName;
use hangar_api::image::{ImageRef, Pruned};
use hangar_api::machine::MachineState;
use hangar_api::release::ReleaseStatus;
use hangar_api::rights::{Access, Action, FEATURE_IMAGES};
use hangar_api::seam::MayUse;
use hangar_store::tables::{Apps, Deployments, Releases, Specs};
use hangar_store::{Record, Snapshot};

use crate::auth::{Caller, caller};
use crate::core::Core;
use crate::deployments::drive::read_progress;
use crate::error::Problem;
use crate::unit::Unit;

/// What may stand before the name of an image that is an app's own.
const OWN_REGISTRIES: [&str; 2] = ["registry.fly.io/", "localhost/"];
/// So many of an app's newest releases keep their images, and the newest complete one, which
/// new Machines are made from.
const RELEASES_KEPT: usize = 5;

/// Returns the digests of all manifests that are needed.
pub(crate) fn needed(snapshot: &Snapshot) -> BTreeSet<String> {
    let machines = snapshot
        .all::<Specs>()
        .filter(|record| Unit::around(snapshot, record).state() != MachineState::Destroyed)
        .map(|record| record.value.image_ref.digest.clone());
    let mut digests: BTreeSet<String> = machines.collect();
    for app in snapshot.all::<Apps>() {
        digests.extend(of_releases(snapshot, &app.key));
    }
    // What Machines were before a deployment that runs: it may have to put that back.
    let running = snapshot.all::<Deployments>();
    for deployment in running.filter(|record| !record.value.status.is_over()) {
        let progress = read_progress(&deployment.value).unwrap_or_default();
        let formers = progress.formers.into_iter();
        digests.extend(formers.map(|former| former.image_ref.digest));
    }
    digests.remove("");
    digests
}

fn of_releases(snapshot: &Snapshot, app: &AppName) -> Vec<String> {
    let mut newest: Vec<_> = snapshot.under::<Releases, _>(app).collect();
    newest.reverse();
    let complete = newest
        .iter()
        .find(|release| release.value.status == ReleaseStatus::Complete);
    newest
        .iter()
        .take(RELEASES_KEPT)
        .chain(complete)
        .map(|release| release.value.image_ref.digest.clone())
        .collect()
}

/// Returns the app whose own an image is by its name: `APP`, `APP:TAG`, `APP/...`, with or without
/// `localhost/` or `registry.fly.io/` before it, where there is such an app.
pub(crate) fn owner<'a>(snapshot: &'a Snapshot, name: &str) -> Option<&'a Record<Apps>> {
    let path = OWN_REGISTRIES
        .iter()
        .find_map(|registry| name.strip_prefix(registry))
        .unwrap_or(name);
    let first = path.split(['/', ':', '@']).next()?;
    let app = AppName::new(first).ok()?;
    snapshot.get::<Apps>(&app).map(|record| &**record)
}

/// Refuses the use of another app's own images by one who may not read that app's: whoever runs an
/// image reads it.
pub(crate) fn require<'a>(
    core: &Core,
    caller: &Caller,
    names: impl IntoIterator<Item = &'a str>,
) -> Result<(), Problem> {
    let snapshot = core.cache.snapshot();
    for name in names {
        // What was imported wins over what was pushed.
        if core.images.is_imported(name)
            && let Some(app) = owner(&snapshot, name)
        {
            let access = access(&snapshot, app, Action::READ);
            caller.require(&access, &format!("image {name} of app {}", app.key))?;
        }
        let pushed_to = core.images.pushed_to(name);
        let mut readable = pushed_to.iter().filter(|app| may_pull(core, caller, app));
        if let Some(app) = pushed_to.first()
            && readable.next().is_none()
        {
            return Err(Problem::Forbidden(format!(
                "this token may not use image {name}, which was pushed to app {app}: it may not \
                 read that app, or there is none"
            )));
        }
    }
    Ok(())
}

/// Refuses bringing an image under a name that is none of an app whose images the caller may
/// write: what a plain name means is the same for all.
pub(crate) fn require_import(core: &Core, caller: &Caller, name: &str) -> Result<(), Problem> {
    let snapshot = core.cache.snapshot();
    let access = match owner(&snapshot, name) {
        Some(app) => access(&snapshot, app, Action::WRITE),
        None => caller::platform(Action::WRITE),
    };
    caller.require(&access, &format!("the image name {name}"))
}

/// Returns the access to the images of an app.
pub(crate) fn access(snapshot: &Snapshot, app: &Record<Apps>, action: Action) -> Access {
    Access {
        app_feature: Some(FEATURE_IMAGES.to_owned()),
        ..caller::app(snapshot, &app.value, action)
    }
}

/// Returns what a name means to an app: of what was pushed, only what belongs to its organisation.
pub(crate) async fn resolve(core: &Core, app: &AppName, name: String) -> Result<ImageRef, Problem> {
    let (cache, own) = (core.cache.clone(), app.clone());
    let may_use: MayUse = Arc::new(move |other: &AppName| {
        let org = |name| {
            cache
                .get::<Apps>(name)
                .map(|record| record.value.org.clone())
        };
        // An app that does not exist yet has no organisation, and its plan is only looked at.
        org(&own).is_none_or(|mine| org(other) == Some(mine))
    });
    Ok(core.images.resolve_for(name, may_use).await?)
}

/// Returns what a name means to a caller: of what was pushed, only what it may read.
pub(crate) async fn resolve_as(
    core: &Arc<Core>,
    caller: &Caller,
    name: String,
) -> Result<ImageRef, Failure> {
    let (core_of, caller) = (core.clone(), caller.clone());
    let may_use: MayUse = Arc::new(move |app| may_pull(&core_of, &caller, app));
    core.images.resolve_for(name, may_use).await
}

/// Returns whether a caller may read what was pushed to an app.
pub(crate) fn may_pull(core: &Core, caller: &Caller, app: &AppName) -> bool {
    may(core, caller, app, Action::READ)
}

/// Returns whether a caller may do this to what was pushed to an app, which must exist. The one
/// place that decides it.
pub(crate) fn may(core: &Core, caller: &Caller, app: &AppName, action: Action) -> bool {
    let Ok(record) = core.app(app) else {
        return false;
    };
    caller.may(&access(&core.cache.snapshot(), &record, action))
}

/// Removes what is not needed, but for what was imported: the daily collection.
pub(crate) async fn collect(core: &Core) -> Result<Pruned, Problem> {
    let keep = needed(&core.cache.snapshot()).into_iter().collect();
    let pruned = core.images.collect(keep).await?;
    tracing::info!(
        images = pruned.images.len(),
        bytes = pruned.bytes,
        "images collected"
    );
    Ok(pruned)
}

/// Removes what is not needed, imported images too: somebody asked for it.
pub(crate) async fn prune(core: &Core) -> Result<Pruned, Problem> {
    let keep = needed(&core.cache.snapshot()).into_iter().collect();
    let pruned = core.images.prune(keep).await?;
    tracing::info!(
        images = pruned.images.len(),
        bytes = pruned.bytes,
        "images pruned"
    );
    Ok(pruned)
}
