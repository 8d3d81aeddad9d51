//! Which images are needed: by a Machine, or by one of an app's last releases.

use std::collections::BTreeSet;

use hangar_api::id::AppName;
use hangar_api::image::Pruned;
use hangar_api::machine::MachineState;
use hangar_api::release::ReleaseStatus;
use hangar_store::Snapshot;
use hangar_store::tables::{Apps, Deployments, Releases, Specs};

use crate::core::Core;
use crate::deployments::drive::read_progress;
use crate::error::Problem;
use crate::unit::Unit;

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
