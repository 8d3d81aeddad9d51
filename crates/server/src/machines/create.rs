//! Making a Machine: placement, an id, a name, spec and first op in one transaction.

use std::collections::BTreeMap;

use hangar_api::id::{AppName, InstanceId, MachineId, SlotId};
use hangar_api::image::ImageRef;
use hangar_api::lease::{Lease, LeaseRequest};
use hangar_api::machine::{LaunchInput, MachineConfig, MachineSpec, Op, OpKind};
use hangar_api::placement::{Placements, PlacementsRequest};
use hangar_api::region::Slot;
use hangar_deploy::LaunchKey;
use hangar_store::tables::{
    Apps, Claim, ClaimRecord, Claims, Leases, MachineHome, MachineHomes, Ops, Specs,
};
use hangar_store::{Record, Snapshot, Txn};

use super::{app_stays, ops, validate};
use crate::core::{Core, MAX_TRIES, too_contended};
use crate::deployments;
use crate::error::Problem;
use crate::files;
use crate::formations::wish;
use crate::images;
use crate::lease::{self, Holder};
use crate::names;
use crate::placement::{self, Load};
use crate::secrets;
use crate::slots;
use crate::unit::Unit;
use crate::volumes::attach;

/// Most Machines of one app that are not destroyed.
const MAX_MACHINES: usize = 10_000;

/// A Machine to be made.
#[derive(Debug)]
pub(crate) struct NewMachine {
    /// Its configuration, checked.
    pub(crate) config: MachineConfig,
    /// Its image.
    pub(crate) image_ref: ImageRef,
    /// The version of the secrets.
    pub(crate) secrets_version: u64,
    /// Where, as clients write it.
    pub(crate) region: Option<String>,
    /// Its name; made up when absent.
    pub(crate) name: Option<String>,
    /// Prepare it only.
    pub(crate) skip_launch: bool,
    /// Born cordoned.
    pub(crate) cordoned: bool,
    /// A lease to take with it, in seconds.
    pub(crate) lease_ttl: Option<i64>,
    /// What makes it unique among those of a deployment.
    pub(crate) launch_key: Option<LaunchKey>,
}

/// Makes a Machine as a client asks for it. Returns it with the nonce of the lease that was
/// taken with it.
pub(crate) async fn create_from_input(
    core: &Core,
    app: &AppName,
    holder: &Holder,
    mut input: LaunchInput,
) -> Result<(Unit, Option<String>), Problem> {
    core.app(app)?;
    input.region = input.region.filter(|region| !region.is_empty());
    let stowed = match &mut input.config {
        Some(config) => files::take_out(config)?,
        None => Vec::new(),
    };
    let config = validate::config(input.config.take())?;
    let name = input.name.take().filter(|name| !name.is_empty());
    if let Some(rule) = name.as_deref().and_then(names::refuse) {
        return Err(Problem::Unprocessable(format!(
            "invalid machine name: {rule}"
        )));
    }
    deployments::refuse_other_release(core, app, &config)?;
    // Refused before the image is looked up, which may take long.
    placement::place(input.region.as_deref(), &slots::now(core), &BTreeMap::new())?;
    let mut wanted = config.clone();
    attach::claim(
        &core.cache.snapshot(),
        app,
        &mut wanted,
        input.region.as_deref(),
    )?;
    let image_ref = images::resolve(core, app, config.image.clone()).await?;
    files::keep(core, &stowed).await?;
    // Read after the registry has answered: secrets may have been set meanwhile.
    let newest = core.app(app)?.value.secrets_version;
    let secrets_version = validate::secrets_for(newest, &input)?;
    let new = NewMachine {
        config,
        image_ref,
        secrets_version,
        region: input.region,
        name,
        skip_launch: input.skip_launch,
        cordoned: input.skip_service_registration,
        lease_ttl: input.lease_ttl,
        launch_key: None,
    };
    create(core, app, holder, &new).await
}

/// Makes a Machine; one with a launch key that is taken is there already, and is returned.
pub(crate) async fn create(
    core: &Core,
    app: &AppName,
    holder: &Holder,
    new: &NewMachine,
) -> Result<(Unit, Option<String>), Problem> {
    for _ in 0..MAX_TRIES {
        if let Some(unit) = already_made(&core.cache.snapshot(), new) {
            return Ok((unit, None));
        }
        let prepared = prepare(core, app, holder, new)?;
        let (id, nonce) = (prepared.id, prepared.nonce);
        if core.try_commit(prepared.txn).await?.is_some() {
            return Ok((made(core, app, &id)?, nonce));
        }
    }
    Err(too_contended())
}

/// Returns a Machine as it was made: what its host has done meanwhile is for the next look.
fn made(core: &Core, app: &AppName, id: &MachineId) -> Result<Unit, Problem> {
    let unit = Unit {
        seen: None,
        ..Unit::find(core, app, id)?
    };
    tracing::info!(app = %app, machine = %id, region = %unit.spec().region, "machine created");
    Ok(unit)
}

/// A Machine that is yet to be written.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// Its id.
    pub(crate) id: MachineId,
    /// All that it leaves in the store.
    pub(crate) txn: Txn,
    /// The nonce of the lease that is taken with it.
    pub(crate) nonce: Option<String>,
}

/// Places a Machine, and returns the transaction that makes it.
pub(crate) fn prepare(
    core: &Core,
    app: &AppName,
    holder: &Holder,
    new: &NewMachine,
) -> Result<Prepared, Problem> {
    secrets::ensure_open(core, app, new.secrets_version)?;
    let record = core.app(app)?;
    let snapshot = core.cache.snapshot();
    let units = Unit::all(&snapshot, app);
    let active = units.iter().filter(|u| u.state().is_active()).count();
    if active >= MAX_MACHINES {
        return Err(Problem::Exhausted(format!(
            "app {app} has {active} machines, the most there may be"
        )));
    }
    let mut config = new.config.clone();
    let volume = attach::claim(&snapshot, app, &mut config, new.region.as_deref())?;
    // A Machine is where its volume is.
    let slot = match &volume {
        Some(volume) => volume.slot(core)?,
        None => place(core, &snapshot, app, new)?,
    };
    let spec = spec_of(core, &record, new, config, &slot);
    if let Some(name) = &new.name {
        let claim = Claim::MachineName(app.clone(), name.clone());
        if snapshot.get::<Claims>(&claim).is_some() {
            return Err(Problem::MachineNameTaken(name.clone()));
        }
    }
    let lease = match new.lease_ttl.filter(|ttl| *ttl > 0) {
        Some(ttl) => {
            let request = LeaseRequest {
                ttl: Some(ttl),
                description: None,
            };
            Some(lease::new_lease(core, holder, &request)?)
        }
        None => None,
    };
    let mut txn = app_stays(&record).and(written(core, holder, new, &spec, lease.as_ref()));
    if let Some(volume) = volume {
        txn = txn.and(volume.taken_by(&spec.id));
    }
    if holder.is_client() {
        txn = txn.and(wish::come(&spec));
    }
    Ok(Prepared {
        id: spec.id,
        txn,
        nonce: lease.map(|lease| lease.nonce),
    })
}

fn already_made(snapshot: &Snapshot, new: &NewMachine) -> Option<Unit> {
    let claim = snapshot.get::<Claims>(&launch_claim(new.launch_key.as_ref()?))?;
    let key = (claim.value.app.clone(), claim.value.machine.clone());
    Unit::of(snapshot, &key)
}

fn launch_claim(key: &LaunchKey) -> Claim {
    Claim::Launch(key.deployment.clone(), key.group.clone(), key.ordinal)
}

/// Returns what stands on each slot; `is_same` says which Machines are of the group in question.
fn loads(snapshot: &Snapshot, is_same: impl Fn(&MachineSpec) -> bool) -> BTreeMap<SlotId, Load> {
    let mut loads = BTreeMap::new();
    for (record, state) in Unit::states(snapshot) {
        let spec = &record.value;
        if !state.is_active() {
            continue;
        }
        let load: &mut Load = loads.entry(spec.slot.clone()).or_default();
        load.all += 1;
        load.group += usize::from(is_same(spec));
    }
    loads
}

/// Returns where Machines of a group of their own would be put.
pub(crate) fn placements(core: &Core, asked: &PlacementsRequest) -> Result<Placements, Problem> {
    let guest = asked.compute.clone().unwrap_or_default();
    if guest.wants_gpu() {
        let text = "compute: GPUs are not offered by this Hangar";
        return Err(Problem::Unsupported(text.to_owned()));
    }
    guest
        .validate()
        .map_err(|error| Problem::Invalid(format!("invalid_argument: compute: {error}")))?;
    let count = asked.count.unwrap_or(0);
    if count > MAX_MACHINES {
        return Err(Problem::Invalid(format!(
            "invalid_argument: count is at most {MAX_MACHINES}, the Machines that an app may have"
        )));
    }
    let slots = slots::now(core);
    let region = asked.region.as_deref().filter(|region| !region.is_empty());
    let near = slots.first().map(|slot| format!("{},any", slot.region));
    let wanted = region.or(near.as_deref());
    let loads = loads(&core.cache.snapshot(), |_| false);
    let regions = placement::simulate(wanted, &slots, loads, count, MAX_MACHINES)?;
    Ok(Placements { regions })
}

fn place(
    core: &Core,
    snapshot: &Snapshot,
    app: &AppName,
    new: &NewMachine,
) -> Result<Slot, Problem> {
    let group = new.config.process_group();
    let loads = loads(snapshot, |spec| {
        spec.app == *app && spec.config.process_group() == group
    });
    let slots = slots::now(core);
    Ok(placement::place(new.region.as_deref(), &slots, &loads)?.clone())
}

fn spec_of(
    core: &Core,
    app: &Record<Apps>,
    new: &NewMachine,
    config: MachineConfig,
    slot: &Slot,
) -> MachineSpec {
    let now = core.env.now();
    MachineSpec {
        id: MachineId::generate(&core.env),
        name: new
            .name
            .clone()
            .unwrap_or_else(|| names::generate(&core.env)),
        app: app.key.clone(),
        network: app.value.network,
        slot: slot.id.clone(),
        host: slot.host.clone(),
        host_part: slot.host_part,
        region: slot.region.clone(),
        generation: 1,
        instance_id: InstanceId::generate(&core.env),
        config,
        image_ref: new.image_ref.clone(),
        secrets_version: new.secrets_version,
        cordoned: new.cordoned,
        created_at: now,
        updated_at: now,
    }
}

/// Returns all that a new Machine leaves in the store.
fn written(
    core: &Core,
    holder: &Holder,
    new: &NewMachine,
    spec: &MachineSpec,
    lease: Option<&Lease>,
) -> Txn {
    let key = (spec.app.clone(), spec.id.clone());
    let op = Op {
        id: ops::next_id(&core.env, None),
        kind: OpKind::Create {
            skip_launch: new.skip_launch,
        },
        by: holder.by().to_owned(),
    };
    let home = MachineHome {
        app: spec.app.clone(),
        host: spec.host.clone(),
    };
    let owner = ClaimRecord {
        app: spec.app.clone(),
        machine: spec.id.clone(),
    };
    let name = Claim::MachineName(spec.app.clone(), spec.name.clone());
    let low = Claim::Low32(spec.host.clone(), spec.id.low32());
    let mut txn = Txn::new()
        .create::<Specs>(&key, spec)
        .create::<Ops>(&key, &vec![op])
        .create::<MachineHomes>(&spec.id, &home)
        .create::<Claims>(&name, &owner)
        .create::<Claims>(&low, &owner);
    if let Some(launch) = &new.launch_key {
        txn = txn.create::<Claims>(&launch_claim(launch), &owner);
    }
    if let Some(lease) = lease {
        let lease = Lease {
            version: Some(spec.instance_id.clone()),
            ..lease.clone()
        };
        txn = txn.put::<Leases>(&key, &lease);
    }
    txn
}
