//! What a Machine should be, and what is asked of it: the only writer of specs and ops (D6).
//!
//! Every write reads the view, puts a transaction together that holds only while what was read
//! still stands, and tries again when somebody else was first.

pub(crate) mod create;
pub(crate) mod ops;
pub(crate) mod validate;
pub(crate) mod versions;

use hangar_api::id::{AppName, InstanceId, MachineId};
use hangar_api::image::ImageRef;
use hangar_api::machine::{LaunchInput, MachineConfig, MachineSpec, MachineState, OpKind};
use hangar_store::Txn;
use hangar_store::tables::{Apps, Leases, Specs};

use crate::core::{Core, MAX_TRIES, too_contended};
use crate::deployments;
use crate::error::Problem;
use crate::files;
use crate::formations::wish;
use crate::images;
use crate::lease::{self, Holder};
use crate::secrets;
use crate::unit::Unit;
use crate::volumes::attach;

/// A new version of a Machine.
#[derive(Debug)]
pub(crate) struct NewVersion {
    /// The whole configuration, checked.
    pub(crate) config: MachineConfig,
    /// Its image.
    pub(crate) image_ref: ImageRef,
    /// The version of the secrets.
    pub(crate) secrets_version: u64,
    /// Do not start it, even if it ran.
    pub(crate) skip_launch: bool,
    /// Refused unless this is the version now.
    pub(crate) expected: Option<String>,
    /// A lease to take with it, in seconds.
    pub(crate) lease_ttl: Option<i64>,
    /// Keep it out of the proxy.
    pub(crate) cordon: bool,
}

/// Returns the machine's spec after an update asked for by a client.
pub(crate) async fn update_from_input(
    core: &Core,
    app: &AppName,
    id: &MachineId,
    holder: &Holder,
    mut input: LaunchInput,
) -> Result<(Unit, Option<String>), Problem> {
    let unit = Unit::find(core, app, id)?;
    // Refused before the image is looked up, and again in the transaction.
    let _ = holder.may_write(&unit, core.env.now())?;
    let stowed = match &mut input.config {
        Some(config) => files::take_out(config)?,
        None => Vec::new(),
    };
    let config = validate::config(input.config.take())?;
    deployments::refuse_other_release(core, app, &config)?;
    let image_ref = images::resolve(core, app, config.image.clone()).await?;
    files::keep(core, &stowed).await?;
    // Read after the registry has answered: secrets may have been set meanwhile.
    let newest = core.app(app)?.value.secrets_version;
    let secrets_version = validate::secrets_for(newest, &input)?;
    let version = NewVersion {
        config,
        image_ref,
        secrets_version,
        skip_launch: input.skip_launch,
        expected: input.current_version.filter(|text| !text.is_empty()),
        lease_ttl: input.lease_ttl,
        cordon: input.skip_service_registration,
    };
    update(core, app, id, holder, version).await
}

/// Gives a Machine a new version and asks for the change. Returns it with the nonce of the lease
/// that was taken with it.
pub(crate) async fn update(
    core: &Core,
    app: &AppName,
    id: &MachineId,
    holder: &Holder,
    version: NewVersion,
) -> Result<(Unit, Option<String>), Problem> {
    secrets::ensure_open(core, app, version.secrets_version)?;
    for _ in 0..MAX_TRIES {
        let unit = Unit::find(core, app, id)?;
        let mut txn = holder.may_write(&unit, core.env.now())?;
        let state = unit.state();
        if !state.is_active() {
            return Err(Problem::Precondition(format!(
                "unable to update machine from current state: '{state}'"
            )));
        }
        let current = &unit.spec().instance_id;
        if let Some(expected) = &version.expected
            && expected != current.as_str()
        {
            return Err(Problem::Conflict(format!(
                "machine ID {id} has version {current} now, not {expected}; read it again"
            )));
        }
        let mut spec = next_spec(core, unit.spec(), &version);
        attach::keep(&unit.spec().config, &mut spec.config)?;
        let kind = OpKind::Update {
            generation: spec.generation,
            skip_launch: version.skip_launch,
        };
        let mut nonce = None;
        if let Some(ttl) = version.lease_ttl.filter(|ttl| *ttl > 0) {
            let request = hangar_api::lease::LeaseRequest {
                ttl: Some(ttl),
                description: None,
            };
            // The holder's own goes on under the same nonce, as a refresh would.
            let mut lease = lease::taken_over(core, &unit, holder, &request)?;
            lease.version.get_or_insert(spec.instance_id.clone());
            txn = txn.put::<Leases>(&unit.spec.key, &lease);
            nonce = Some(lease.nonce);
        }
        if holder.is_client() {
            txn = txn.and(wish::changed(core, &unit, &spec.config));
        }
        txn = txn
            .update(&unit.spec, &spec)
            .and(versions::keep(core, unit.spec()).await?)
            .and(ops::appended(core, &unit, kind, holder.by())?);
        if core.try_commit(txn).await?.is_some() {
            return Ok((Unit::find(core, app, id)?, nonce));
        }
    }
    Err(too_contended())
}

fn next_spec(core: &Core, old: &MachineSpec, version: &NewVersion) -> MachineSpec {
    MachineSpec {
        generation: old.generation + 1,
        instance_id: InstanceId::generate(&core.env),
        config: version.config.clone(),
        image_ref: version.image_ref.clone(),
        secrets_version: version.secrets_version,
        cordoned: old.cordoned || version.cordon,
        updated_at: core.env.now(),
        ..old.clone()
    }
}

/// Changes the spec of a Machine without a new version: cordon and metadata. `gated` says
/// whether a lease of somebody else is in the way.
pub(crate) async fn amend(
    core: &Core,
    app: &AppName,
    id: &MachineId,
    gate: Option<&Holder>,
    change: impl Fn(&mut MachineSpec) -> Result<(), Problem>,
) -> Result<(), Problem> {
    for _ in 0..MAX_TRIES {
        let unit = Unit::find(core, app, id)?;
        if unit.state() == MachineState::Destroyed {
            return Err(Problem::MachineNotFound);
        }
        let mut txn = match gate {
            Some(holder) => holder.may_write(&unit, core.env.now())?,
            None => Txn::new(),
        };
        let mut spec = unit.spec().clone();
        change(&mut spec)?;
        if spec == *unit.spec() {
            return Ok(());
        }
        spec.updated_at = core.env.now();
        if unit.state().is_active() && gate.is_none_or(Holder::is_client) {
            txn = txn.and(wish::changed(core, &unit, &spec.config));
        }
        txn = txn.update::<Specs>(&unit.spec, &spec);
        if core.try_commit(txn).await?.is_some() {
            return Ok(());
        }
    }
    Err(too_contended())
}

/// Returns the check that an app is not being destroyed meanwhile.
fn app_stays(record: &hangar_store::Record<Apps>) -> Txn {
    Txn::new().check_same(record)
}
