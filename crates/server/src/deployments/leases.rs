//! The leases that a deployment holds on the Machines of its app while it runs.
//!
//! They are owned by the deployment's id, so a restarted server goes on with them.

use hangar_api::deployment::Deployment;
use hangar_api::id::{AppName, DeploymentId};
use hangar_api::lease::{Lease, LeaseRequest};
use hangar_store::tables::{Leases, Specs};
use hangar_store::{Snapshot, Txn};

use super::is_managed;
use crate::core::Core;
use crate::error::Problem;
use crate::lease::{Holder, new_lease};
use crate::unit::Unit;

/// Leases that one transaction writes.
const BATCH: usize = 60;

/// Returns how many seconds a deployment's leases last; each is renewed in the second half of them.
pub(super) fn ttl(deployment: &Deployment) -> i64 {
    i64::try_from(deployment.options.lease_timeout_secs).unwrap_or(i64::MAX)
}

/// Takes and renews the leases of all Machines that deployments look at. Returns a lease of
/// somebody else that is in the way.
pub(super) async fn hold(
    core: &Core,
    deployment: &Deployment,
    holder: &Holder,
    units: &[Unit],
) -> Result<Option<Problem>, Problem> {
    let Deployment { id, version, .. } = deployment;
    let (now, ttl) = (core.env.now(), ttl(deployment));
    let mut in_the_way = None;
    let mut due = Vec::new();
    for unit in units.iter().filter(|unit| is_managed(unit)) {
        match unit.lease(now) {
            Some(lease) if lease.owner != id.as_str() => {
                // One that somebody makes meanwhile is theirs: the deployment leaves it alone.
                if unit.spec().created_at >= deployment.created_at {
                    continue;
                }
                in_the_way = in_the_way.or(holder.may_write(unit, now).err());
            }
            Some(lease) if lease.expires_at > now.as_second() + ttl / 2 => {}
            _ => due.push(unit),
        }
    }
    for batch in due.chunks(BATCH) {
        let mut txn = Txn::new();
        for unit in batch {
            let request = LeaseRequest {
                ttl: Some(ttl),
                description: Some(format!("deployment of release v{version}")),
            };
            let lease = Lease {
                version: Some(unit.spec().instance_id.clone()),
                ..new_lease(core, holder, &request)?
            };
            let key = &unit.spec.key;
            txn = match &unit.lease {
                Some(record) => txn.check_same(record),
                None => txn.check_absent::<Leases>(key),
            };
            txn = txn.check_present::<Specs>(key).put::<Leases>(key, &lease);
        }
        // Somebody was first with one of them: the next round looks again.
        core.try_commit(txn).await?;
    }
    Ok(in_the_way)
}

/// Returns the writes that give back, with the end of a deployment, the leases that it holds. Of a
/// big fleet the rest is given back by the next sweep.
pub(super) fn given_back(snapshot: &Snapshot, app: &AppName, id: &DeploymentId) -> Txn {
    snapshot
        .under::<Leases, _>(app)
        .filter(|record| record.value.owner == id.as_str())
        .take(BATCH)
        .fold(Txn::new(), |txn, record| txn.remove(record))
}
