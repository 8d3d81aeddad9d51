//! Machine leases: who may change a Machine (machines-api.md 10).
//!
//! A lease is a record with an expiry. Every write of a Machine checks it in its own transaction,
//! so that a lease taken in between is not overrun.

use hangar_api::Timestamp;
use hangar_api::id::{AppName, DeploymentId, MachineId};
use hangar_api::lease::{Lease, LeaseRequest};
use hangar_store::Txn;
use hangar_store::tables::Leases;

use crate::core::{Core, MAX_TRIES, too_contended};
use crate::error::Problem;
use crate::hex;
use crate::unit::Unit;

/// A lease that asks for no time lasts so many seconds.
const DEFAULT_TTL: i64 = 120;
/// No lease lasts longer, in seconds.
const MAX_TTL: i64 = 24 * 3600;
/// Random bytes of a nonce: 12 digits, as Fly's.
const NONCE_LEN: usize = 6;

/// Who writes, and what lease they can show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    /// The user.
    pub(crate) user: String,
    /// The nonce they sent.
    pub(crate) nonce: Option<String>,
    /// On whose behalf.
    pub(crate) acting: Acting,
}

/// On whose behalf something is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Acting {
    /// A client's: what it does to a Machine moves the formation of its group.
    Client,
    /// A deployment's: its leases are its own.
    Deployment(DeploymentId),
    /// The platform's own.
    Platform,
}

// === impl Holder ===

impl Holder {
    /// Returns the platform, which shows no lease.
    pub(crate) fn platform() -> Self {
        Self {
            user: "flyd".to_owned(),
            nonce: None,
            acting: Acting::Platform,
        }
    }

    /// Returns who acts, as ops and events name them.
    pub(crate) fn by(&self) -> &'static str {
        match self.acting {
            Acting::Client => "user",
            Acting::Deployment(_) => "deploy",
            Acting::Platform => "flyd",
        }
    }

    /// Returns whether it acts for a client.
    pub(crate) fn is_client(&self) -> bool {
        self.acting == Acting::Client
    }

    fn deployment(&self) -> Option<&DeploymentId> {
        match &self.acting {
            Acting::Deployment(id) => Some(id),
            Acting::Client | Acting::Platform => None,
        }
    }

    fn owns(&self, lease: &Lease) -> bool {
        let by_nonce = self
            .nonce
            .as_ref()
            .is_some_and(|nonce| *nonce == lease.nonce);
        let by_id = self.deployment();
        let by_id = by_id.is_some_and(|id| lease.owner == id.as_str());
        by_nonce || by_id
    }

    /// Refuses a write while somebody else holds the lease, and returns the checks that keep it
    /// so until the write.
    pub(crate) fn may_write(&self, unit: &Unit, now: Timestamp) -> Result<Txn, Problem> {
        if let Some(lease) = unit.lease(now)
            && !self.owns(lease)
        {
            return Err(held(unit.id(), lease));
        }
        Ok(unchanged(unit))
    }
}

/// Returns the checks that the lease record is still as it was read.
fn unchanged(unit: &Unit) -> Txn {
    match &unit.lease {
        Some(record) => Txn::new().check_same(record),
        None => Txn::new().check_absent::<Leases>(&unit.spec.key),
    }
}

fn held(machine: &MachineId, lease: &Lease) -> Problem {
    Problem::LeaseHeld {
        machine: machine.clone(),
        owner: lease.owner.clone(),
        expires: Timestamp::from_second(lease.expires_at).unwrap_or(Timestamp::MAX),
    }
}

/// Returns a new lease; fails when the time asked for is none.
pub(crate) fn new_lease(
    core: &Core,
    holder: &Holder,
    request: &LeaseRequest,
) -> Result<Lease, Problem> {
    let ttl = request.ttl.filter(|ttl| *ttl != 0).unwrap_or(DEFAULT_TTL);
    if !(1..=MAX_TTL).contains(&ttl) {
        return Err(Problem::Invalid(format!(
            "invalid_argument: the ttl of a lease is 1 to {MAX_TTL} seconds"
        )));
    }
    let mut nonce = [0; NONCE_LEN];
    core.env.secret_bytes(&mut nonce);
    let owner = match holder.deployment() {
        Some(id) => id.to_string(),
        None => holder.user.clone(),
    };
    Ok(Lease {
        nonce: hex::encode(&nonce),
        expires_at: whole_second(core.env.now()) + ttl,
        owner,
        description: request.description.clone().unwrap_or_default(),
        version: None,
    })
}

/// Returns the first whole second at or after a moment: a lease never lasts less than was asked.
fn whole_second(now: Timestamp) -> i64 {
    now.as_second() + i64::from(now.subsec_nanosecond() > 0)
}

/// Returns the lease that a holder gets: a new one, or its own for longer. Fails while somebody
/// else has it.
pub(crate) fn taken_over(
    core: &Core,
    unit: &Unit,
    holder: &Holder,
    request: &LeaseRequest,
) -> Result<Lease, Problem> {
    let mut lease = new_lease(core, holder, request)?;
    let Some(current) = unit.lease(core.env.now()) else {
        return Ok(lease);
    };
    if !holder.owns(current) {
        return Err(held(unit.id(), current));
    }
    lease.nonce.clone_from(&current.nonce);
    lease.owner.clone_from(&current.owner);
    lease.version.clone_from(&current.version);
    if request.description.is_none() {
        lease.description.clone_from(&current.description);
    }
    Ok(lease)
}

/// Takes the lease of a Machine, or refreshes the one that the holder shows.
pub(crate) async fn take(
    core: &Core,
    app: &AppName,
    id: &MachineId,
    holder: &Holder,
    request: &LeaseRequest,
) -> Result<Lease, Problem> {
    for _ in 0..MAX_TRIES {
        let unit = Unit::find(core, app, id)?;
        let mut lease = taken_over(core, &unit, holder, request)?;
        lease.version.get_or_insert(unit.spec().instance_id.clone());
        let txn = unchanged(&unit)
            .check_present::<hangar_store::tables::Specs>(&unit.spec.key)
            .put::<Leases>(&unit.spec.key, &lease);
        if core.try_commit(txn).await?.is_some() {
            return Ok(lease);
        }
    }
    Err(too_contended())
}

/// Gives a lease back.
pub(crate) async fn release(
    core: &Core,
    app: &AppName,
    id: &MachineId,
    holder: &Holder,
) -> Result<(), Problem> {
    for _ in 0..MAX_TRIES {
        let unit = Unit::find(core, app, id)?;
        let Some(current) = unit.lease(core.env.now()) else {
            return Err(Problem::LeaseNotFound);
        };
        if !holder.owns(current) {
            return Err(held(id, current));
        }
        if core
            .try_commit(unchanged(&unit).delete::<Leases>(&unit.spec.key))
            .await?
            .is_some()
        {
            return Ok(());
        }
    }
    Err(too_contended())
}
