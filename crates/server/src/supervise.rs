//! Sees to it that every deployment that is not over has exactly one driver.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hangar_api::id::DeploymentId;
use hangar_store::tables::{Apps, Deployments};
use tokio::task::JoinHandle;

use crate::core::Core;
use crate::deployments::drive::drive;

/// A timer makes it true.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Starts drivers until the server stops, then waits for them.
pub(crate) async fn run(core: Arc<Core>) {
    let mut deltas = core.cache.deltas();
    let mut drivers: BTreeMap<DeploymentId, JoinHandle<()>> = BTreeMap::new();
    loop {
        drivers.retain(|_, driver| !driver.is_finished());
        let snapshot = core.cache.snapshot();
        for record in snapshot.all::<Deployments>() {
            let (app, id) = &record.key;
            let deleting = snapshot
                .get::<Apps>(app)
                .is_none_or(|app| app.value.deleting);
            if record.value.status.is_over() || deleting || drivers.contains_key(id) {
                continue;
            }
            let driver = drive(core.clone(), app.clone(), id.clone());
            drivers.insert(id.clone(), core.env.spawn(driver));
        }
        drop(snapshot);
        let until = tokio::time::Instant::now() + LOOK_EVERY;
        if !core
            .is_due(&mut deltas, until, |delta| delta.touches::<Deployments>())
            .await
        {
            for (_, driver) in drivers {
                // It ends with the same token; a panic was reported when it happened.
                let _ = driver.await;
            }
            return;
        }
    }
}
