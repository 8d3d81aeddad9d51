//! Carrying out one wave: all steps at once, those of one Machine in their order.

use std::collections::BTreeMap;

use futures_util::StreamExt as _;
use hangar_api::id::{AppName, GroupName, MachineId};
use hangar_api::machine::{MachineSpec, OpKind};
use hangar_deploy::Step;
use hangar_deploy::progress::Failure;
use hangar_store::StoreError;

use crate::core::Core;
use crate::error::Problem;
use crate::lease::Holder;
use crate::machines::create::{NewMachine, create};
use crate::machines::{NewVersion, amend, ops, update};
use crate::unit::Unit;

/// Steps that are in flight at once; the store commits them in groups.
const AT_ONCE: usize = 64;

/// How a wave went.
#[derive(Debug, Default)]
pub(super) struct Wave {
    /// Steps that were done.
    pub(super) done: usize,
    /// Steps that were refused because the world had moved: plan again.
    pub(super) refused: Vec<Refusal>,
    /// Steps that cannot be done.
    pub(super) failed: Vec<Failure>,
}

/// A step that was refused because the world had moved.
#[derive(Debug)]
pub(super) struct Refusal {
    /// The Machine it is about, if there is one yet.
    pub(super) machine: Option<MachineId>,
    pub(super) problem: Problem,
}

/// On whose behalf a wave is carried out.
#[derive(Debug)]
pub(super) struct By<'a> {
    pub(super) holder: &'a Holder,
    /// Seconds that the lease of a new Machine lasts.
    pub(super) lease_ttl: i64,
}

/// Carries out a wave.
pub(super) async fn carry_out(core: &Core, app: &AppName, by: &By<'_>, steps: Vec<Step>) -> Wave {
    let mut lanes: BTreeMap<MachineId, Vec<Step>> = BTreeMap::new();
    let mut creates = Vec::new();
    for step in steps {
        match step.machine() {
            Some(machine) => lanes.entry(machine.clone()).or_default().push(step),
            None => creates.push(vec![step]),
        }
    }
    let lanes = creates.into_iter().chain(lanes.into_values());
    let outcomes = futures_util::stream::iter(lanes)
        .map(|lane| carry_out_lane(core, app, by, lane))
        .buffer_unordered(AT_ONCE);
    outcomes
        .fold(Wave::default(), |mut wave, lane| async move {
            wave.done += lane.done;
            wave.refused.extend(lane.refused);
            wave.failed.extend(lane.failed);
            wave
        })
        .await
}

async fn carry_out_lane(core: &Core, app: &AppName, by: &By<'_>, lane: Vec<Step>) -> Wave {
    let mut wave = Wave::default();
    for step in lane {
        let machine = step.machine().cloned();
        let group = match &step {
            Step::Create { group, .. } => Some(group.clone()),
            _ => None,
        };
        match carry_out_step(core, app, by, step).await {
            Ok(()) => wave.done += 1,
            Err(problem) => {
                sort_out(&mut wave, problem, machine, group);
                return wave;
            }
        }
    }
    wave
}

/// Tells a moved world from what will not become better by trying again.
fn sort_out(
    wave: &mut Wave,
    problem: Problem,
    machine: Option<MachineId>,
    group: Option<GroupName>,
) {
    match problem {
        Problem::Store(StoreError::Limit { .. }) => wave.failed.push(Failure {
            machine,
            group,
            reason: problem.text(),
        }),
        Problem::Conflict(_)
        | Problem::Precondition(_)
        | Problem::LeaseHeld { .. }
        | Problem::MachineNotFound
        | Problem::Exhausted(_)
        | Problem::Store(_) => wave.refused.push(Refusal { machine, problem }),
        other => wave.failed.push(Failure {
            machine,
            group,
            reason: other.text(),
        }),
    }
}

async fn carry_out_step(
    core: &Core,
    app: &AppName,
    by: &By<'_>,
    step: Step,
) -> Result<(), Problem> {
    let holder = by.holder;
    match step {
        Step::Create { .. } => create_machine(core, app, by, step).await,
        Step::Update { .. } => update_machine(core, app, holder, step).await,
        Step::Start { machine, expected } => {
            let asked = ops::ask(core, (app, &machine), holder, Some(&expected), ops::start);
            asked.await.map(drop)
        }
        Step::Cordon { machine } => {
            let cordon = |spec: &mut MachineSpec| {
                spec.cordoned = true;
                Ok(())
            };
            amend(core, app, &machine, Some(holder), cordon).await
        }
        Step::Uncordon { machine } => {
            let uncordon = |spec: &mut MachineSpec| {
                spec.cordoned = false;
                Ok(())
            };
            amend(core, app, &machine, Some(holder), uncordon).await
        }
        Step::Stop {
            machine,
            expected,
            signal,
        } => {
            let kind = OpKind::Stop {
                signal,
                timeout: None,
            };
            let rule = |unit: &Unit| ops::stop(unit, &kind);
            let asked = ops::ask(core, (app, &machine), holder, Some(&expected), rule);
            asked.await.map(drop)
        }
        Step::Destroy { machine, expected } => {
            let rule = |unit: &Unit| ops::destroy(unit, true);
            let asked = ops::ask(core, (app, &machine), holder, Some(&expected), rule);
            asked.await.map(drop)
        }
    }
}

async fn create_machine(
    core: &Core,
    app: &AppName,
    by: &By<'_>,
    step: Step,
) -> Result<(), Problem> {
    let By { holder, lease_ttl } = *by;
    let Step::Create {
        launch_key,
        region,
        mut config,
        image_ref,
        secrets_version,
        skip_launch,
        cordoned,
        ..
    } = step
    else {
        return Ok(());
    };
    config.guest.get_or_insert_default();
    let new = NewMachine {
        config: *config,
        image_ref,
        secrets_version,
        region: Some(region.to_string()),
        name: None,
        skip_launch,
        cordoned,
        lease_ttl: Some(lease_ttl),
        launch_key: Some(launch_key),
    };
    create(core, app, holder, &new).await.map(drop)
}

async fn update_machine(
    core: &Core,
    app: &AppName,
    holder: &Holder,
    step: Step,
) -> Result<(), Problem> {
    let Step::Update {
        machine,
        expected,
        mut config,
        image_ref,
        secrets_version,
        skip_launch,
    } = step
    else {
        return Ok(());
    };
    config.guest.get_or_insert_default();
    let version = NewVersion {
        config: *config,
        image_ref,
        secrets_version,
        skip_launch,
        expected: Some(expected.to_string()),
        lease_ttl: None,
        cordon: false,
    };
    update(core, app, &machine, holder, version).await.map(drop)
}
