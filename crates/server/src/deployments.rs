//! Deployments: making one (D1 to D3), and its record. [`drive`] carries it out.

mod claim;
pub(crate) mod client;
pub(crate) mod drive;
mod first;
pub(crate) mod fleet;
mod leases;
mod listen;
mod steps;
mod test_machines;

use std::collections::BTreeMap;

use hangar_api::deployment::{
    CreateDeployment, DeployEvent, DeployOptions, DeployPreview, Deployment, DeploymentSource,
    DeploymentStatus, Strategy,
};
use hangar_api::id::{AppName, DeploymentId, GroupName, Region, ReleaseId};
use hangar_api::image::ImageRef;
use hangar_api::release::{GroupSpec, Release, ReleaseCommand, ReleaseStatus};
use hangar_deploy::changes::group_previews;
use hangar_deploy::{Desired, Kind, preview, refuse};
use hangar_store::backend::MAX_TXN_BYTES;
use hangar_store::tables::{
    Apps, ClaimOwner, DeployClaim, DeployClaims, Deployments, Releases, SecretSets,
};
use hangar_store::{Record, Txn};
use serde_json::Value;

use crate::apps;
use crate::core::{Core, MAX_TRIES, too_contended};
use crate::error::Problem;
use crate::images;
use crate::machines::validate;
use crate::placement;
use crate::slots;
use crate::unit::Unit;

use self::claim::take_claim;
pub(crate) use self::claim::{none_begins, refuse_other_release, refuse_second, under_way};

/// Most events that a deployment's record keeps.
const MAX_EVENTS: usize = 200;
/// Most characters of one of them.
const MAX_EVENT_LENGTH: usize = 6_000;
/// Most bytes of all of them.
const MAX_EVENTS_LENGTH: usize = 50_000;
/// Most bytes of a release. The transaction that ends a deployment holds the release, the
/// deployment's record and its leases, and is to be sure to fit.
const MAX_RELEASE: usize = MAX_TXN_BYTES - 384 * 1024;
/// Where a release's definition says where new Machines go.
const PRIMARY_REGION: &str = "primary_region";
/// Most process groups of a release.
const MAX_GROUPS: usize = 100;

/// The answer to a request for a deployment.
#[derive(Debug)]
pub(crate) enum Made {
    /// It has begun.
    Begun(Box<Deployment>),
    /// It would do this.
    Preview(DeployPreview),
}

/// What a release is made of.
#[derive(Debug)]
struct Content {
    description: String,
    image_ref: ImageRef,
    /// `None` for the app's own, as they are when the release is made.
    secrets_version: Option<u64>,
    groups: BTreeMap<GroupName, GroupSpec>,
    release_command: Option<ReleaseCommand>,
    definition: Value,
    restart_only: bool,
}

/// Begins a deployment, or says what it would do.
pub(crate) async fn create(
    core: &Core,
    app: &AppName,
    user: &str,
    request: CreateDeployment,
) -> Result<Made, Problem> {
    check_options(&request.options)?;
    if request.dry_run {
        let preview = dry_run(core, app, user, request).await?;
        return Ok(Made::Preview(preview));
    }
    let record = core.app(app)?;
    refuse_second(core, app)?;
    let content = content(core, &record, request.source, Unbuilt::Refused).await?;
    let (release, mut deployment) = records(core, &record, user, &content, &request.options);
    refuse_large(&release)?;
    refuse_impossible(core, &record, &release, &mut deployment)?;
    let told = first::make_volumes(core, &record, &release, &deployment).await?;
    for _ in 0..MAX_TRIES {
        let record = core.app(app)?;
        refuse_second(core, app)?;
        let (release, mut deployment) = records(core, &record, user, &content, &request.options);
        refuse_impossible(core, &record, &release, &mut deployment)?;
        for event in &told {
            push_event(&mut deployment, event.clone());
        }
        let mut app_record = record.value.clone();
        app_record.last_release = release.version;
        let claim = DeployClaim {
            owner: ClaimOwner::Deployment {
                id: deployment.id.clone(),
            },
            user: user.to_owned(),
            agent: None,
            version: Some(release.version),
            taken_at: deployment.created_at,
            expires_at: None,
            cancelled_by: None,
        };
        let txn = Txn::new()
            .update(&record, &app_record)
            .create::<Releases>(&(app.clone(), release.version), &release)
            .create::<Deployments>(&(app.clone(), deployment.id.clone()), &deployment)
            .and(take_claim(core, app, &claim));
        if core.try_commit(txn).await?.is_some() {
            tracing::info!(app = %app, release = release.version, "deployment begun");
            return Ok(Made::Begun(Box::new(deployment)));
        }
    }
    Err(too_contended())
}

/// Asks a deployment to turn back: what it has done is undone, unless its options leave the fleet
/// as it is. One that removes the Machines of old groups already goes on to its end.
pub(crate) async fn cancel(
    core: &Core,
    app: &AppName,
    deployment: &Record<Deployments>,
    user: &str,
) -> Result<(), Problem> {
    for _ in 0..MAX_TRIES {
        let claim = core.cache.get::<DeployClaims>(app);
        let Some(claim) = claim.filter(|claim| claim.value.is_of(&deployment.value.id)) else {
            return Err(Problem::Precondition(format!(
                "deployment {} is over",
                deployment.value.id
            )));
        };
        if claim.value.cancelled_by.is_some() {
            return Ok(());
        }
        let mut next = claim.value.clone();
        next.cancelled_by = Some(user.to_owned());
        let txn = Txn::new().update(&claim, &next);
        if core.try_commit(txn).await?.is_some() {
            return Ok(());
        }
    }
    Err(too_contended())
}

fn refuse_large(release: &Release) -> Result<(), Problem> {
    let bytes = serde_json::to_vec(release).map_or(usize::MAX, |json| json.len());
    if bytes <= MAX_RELEASE {
        return Ok(());
    }
    Err(Problem::Unprocessable(format!(
        "the configurations of all process groups are {} KiB together, and a release holds {}: \
         put large [[files]] into the image",
        bytes.div_ceil(1024),
        MAX_RELEASE / 1024
    )))
}

/// Refuses what the planner could only begin and then give up. New secrets are not held up by a
/// strategy that the app cannot have: they restart it by rolling.
fn refuse_impossible(
    core: &Core,
    app: &Record<Apps>,
    release: &Release,
    deployment: &mut Deployment,
) -> Result<(), Problem> {
    let desired = desired(core, app, release, deployment);
    let fleet = fleet::Fleet::observe(core, &app.key, &deployment.id);
    let strategy = deployment.options.strategy;
    let Some(reason) = refuse(&desired, &fleet.view(), &deployment.options) else {
        return Ok(());
    };
    if !deployment.restart_only || strategy == Strategy::Rolling {
        return Err(Problem::Unprocessable(reason));
    }
    deployment.options.strategy = Strategy::Rolling;
    let told = DeployEvent {
        at: deployment.created_at,
        message: format!("Restarting by rolling instead of {strategy}: {reason}"),
        machine: None,
        group: None,
        level: "warning".to_owned(),
    };
    push_event(deployment, told);
    Ok(())
}

fn check_options(options: &DeployOptions) -> Result<(), Problem> {
    if !(options.max_unavailable.is_finite() && options.max_unavailable > 0.0) {
        return Err(Problem::Unprocessable(
            "max_unavailable must be greater than 0".to_owned(),
        ));
    }
    if options.max_concurrent == 0 {
        return Err(Problem::Unprocessable(
            "max_concurrent must be at least 1".to_owned(),
        ));
    }
    let leases = DeployOptions::LEASE_TIMEOUTS;
    if !leases.contains(&options.lease_timeout_secs) {
        return Err(Problem::Unprocessable(format!(
            "lease_timeout must be {} to {} seconds",
            leases.start(),
            leases.end()
        )));
    }
    if let Some(signal) = &options.signal
        && hangar_api::signal::number(signal).is_none()
    {
        return Err(Problem::Unprocessable(format!(
            "no signal is called {signal:?}; use SIGINT, SIGTERM or another one of Linux"
        )));
    }
    if let Some(guest) = &options.guest {
        guest
            .validate()
            .map_err(|error| Problem::Unprocessable(error.to_string()))?;
    }
    Ok(())
}

/// What becomes of a source without an image, which is yet to be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unbuilt {
    Refused,
    /// Enough for a look at the plan.
    Imagined,
}

async fn content(
    core: &Core,
    app: &Record<Apps>,
    source: DeploymentSource,
    unbuilt: Unbuilt,
) -> Result<Content, Problem> {
    match source {
        DeploymentSource::Config {
            groups,
            release_command,
            image,
            primary_region,
            definition,
        } => {
            let imagined = image.is_empty() && unbuilt == Unbuilt::Imagined;
            let name = if imagined { "to-be-built" } else { &image };
            let mut groups = checked(groups, name)?;
            let mut release_command = checked_command(release_command, name)?;
            let definition = placed(core, definition, primary_region)?;
            let image_ref = if imagined {
                ImageRef::default()
            } else {
                images::resolve(core, &app.key, image.clone()).await?
            };
            // What the name means may change, also by a deploy that then fails; all that is made
            // from this release later is to be of the image that was deployed.
            for group in groups.values_mut() {
                group.config.image = pinned(&image, &image_ref);
                if !imagined {
                    test_machines::resolve(core, &app.key, group).await?;
                }
            }
            if let Some(command) = &mut release_command {
                command.config.image = pinned(&image, &image_ref);
            }
            Ok(Content {
                description: "Deploy".to_owned(),
                image_ref,
                secrets_version: None,
                groups,
                release_command,
                definition,
                restart_only: false,
            })
        }
        DeploymentSource::Release { version } => rolled_back(core, app, version),
        DeploymentSource::Restart { description } => {
            let newest = newest_release(core, &app.key);
            Ok(Content {
                description,
                image_ref: newest
                    .as_ref()
                    .map(|r| r.image_ref.clone())
                    .unwrap_or_default(),
                secrets_version: None,
                groups: newest
                    .as_ref()
                    .map(|r| r.groups.clone())
                    .unwrap_or_default(),
                release_command: newest.as_ref().and_then(|r| r.release_command.clone()),
                definition: newest.map_or(Value::Null, |release| release.definition),
                restart_only: true,
            })
        }
    }
}

fn checked(
    groups: BTreeMap<GroupName, GroupSpec>,
    image: &str,
) -> Result<BTreeMap<GroupName, GroupSpec>, Problem> {
    if groups.is_empty() || groups.len() > MAX_GROUPS {
        return Err(Problem::Unprocessable(format!(
            "a deployment has 1 to {MAX_GROUPS} process groups, this one has {}",
            groups.len()
        )));
    }
    let mut out = BTreeMap::new();
    for (name, mut group) in groups {
        // Where fly.toml sets no size, existing Machines keep theirs and new ones take the
        // options' size: none is filled in here.
        let guest = group.config.guest.clone();
        if group.config.image.is_empty() {
            image.clone_into(&mut group.config.image);
        }
        if group.config.image != image {
            return Err(Problem::Unprocessable(format!(
                "process group {name} has image {:?} and the deployment {image:?}: the groups of \
                 an app share one",
                group.config.image
            )));
        }
        let mut config = validate::config(Some(group.config)).map_err(|problem| {
            Problem::Unprocessable(format!("process group {name}: {problem}"))
        })?;
        config.guest = guest;
        group.config = config;
        out.insert(name, group);
    }
    Ok(out)
}

/// Returns the release command after a look at its configuration.
fn checked_command(
    command: Option<ReleaseCommand>,
    image: &str,
) -> Result<Option<ReleaseCommand>, Problem> {
    let Some(mut command) = command else {
        return Ok(None);
    };
    let guest = command.config.guest.clone();
    image.clone_into(&mut command.config.image);
    let mut config = validate::config(Some(command.config))
        .map_err(|problem| Problem::Unprocessable(format!("release command: {problem}")))?;
    config.guest = guest;
    command.config = config;
    Ok(Some(command))
}

/// Returns an image's name with the digest that it means now.
fn pinned(name: &str, means: &ImageRef) -> String {
    if means.digest.is_empty() || name.contains('@') {
        return name.to_owned();
    }
    format!("{name}@{}", means.digest)
}

/// Writes the region of new Machines into the definition, after making sure that there is one.
fn placed(core: &Core, mut definition: Value, region: Option<Region>) -> Result<Value, Problem> {
    let Some(region) = region else {
        return Ok(definition);
    };
    placement::place(Some(region.as_str()), &slots::now(core), &BTreeMap::new())?;
    if definition.is_null() {
        definition = Value::Object(serde_json::Map::new());
    }
    if let Some(object) = definition.as_object_mut() {
        object.insert(PRIMARY_REGION.to_owned(), region.as_str().into());
    }
    Ok(definition)
}

/// Returns the newest release that was carried out, else the newest.
pub(crate) fn newest_release(core: &Core, app: &AppName) -> Option<Release> {
    let snapshot = core.cache.snapshot();
    let all: Vec<_> = snapshot.under::<Releases, _>(app).collect();
    let complete = all
        .iter()
        .rev()
        .find(|release| release.value.status == ReleaseStatus::Complete);
    complete.or(all.last()).map(|release| release.value.clone())
}

fn rolled_back(core: &Core, app: &Record<Apps>, version: u64) -> Result<Content, Problem> {
    let name = &app.key;
    let Some(old) = core.cache.get::<Releases>(&(name.clone(), version)) else {
        return Err(Problem::NotFound(format!(
            "app {name} has no release v{version}"
        )));
    };
    let old = old.value.clone();
    if old.groups.is_empty() {
        return Err(Problem::Precondition(format!(
            "release v{version} only restarted machines and has no process groups to go back to; \
             name an earlier one"
        )));
    }
    let secrets = (name.clone(), old.secrets_version);
    if old.secrets_version > 0 && core.cache.get::<SecretSets>(&secrets).is_none() {
        return Err(Problem::Precondition(format!(
            "the secrets of release v{version} are not kept any more; deploy it anew"
        )));
    }
    Ok(Content {
        description: format!("Rollback to v{version}"),
        image_ref: old.image_ref,
        secrets_version: Some(old.secrets_version),
        groups: old.groups,
        release_command: old.release_command,
        definition: old.definition,
        restart_only: false,
    })
}

fn records(
    core: &Core,
    app: &Record<Apps>,
    user: &str,
    content: &Content,
    options: &DeployOptions,
) -> (Release, Deployment) {
    let now = core.env.now();
    let id = DeploymentId::generate(&core.env);
    let release = Release {
        id: ReleaseId::generate(&core.env),
        app: app.key.clone(),
        version: app.value.last_release + 1,
        status: ReleaseStatus::Running,
        description: content.description.clone(),
        user: user.to_owned(),
        created_at: now,
        deployment: Some(id.clone()),
        image_ref: content.image_ref.clone(),
        secrets_version: content.secrets_version.unwrap_or(app.value.secrets_version),
        groups: content.groups.clone(),
        release_command: content.release_command.clone(),
        definition: content.definition.clone(),
    };
    let mut deployment = Deployment {
        id,
        app: app.key.clone(),
        release: release.id.clone(),
        version: release.version,
        status: DeploymentStatus::Running,
        options: options.clone(),
        restart_only: content.restart_only,
        progress: Value::Null,
        user: user.to_owned(),
        created_at: now,
        finished_at: None,
        error: None,
        events: Vec::new(),
        events_from: 0,
    };
    let message = format!("Release v{}: {}", release.version, release.description);
    push_event(
        &mut deployment,
        DeployEvent {
            at: now,
            message,
            machine: None,
            group: None,
            level: "info".to_owned(),
        },
    );
    (release, deployment)
}

/// Adds an event; the oldest go when there are too many.
fn push_event(deployment: &mut Deployment, mut event: DeployEvent) {
    if let Some((end, _)) = event.message.char_indices().nth(MAX_EVENT_LENGTH) {
        event.message.truncate(end);
    }
    deployment.events.push(event);
    let mut room = MAX_EVENTS_LENGTH;
    let newest = deployment.events.iter().rev().take(MAX_EVENTS);
    let kept = newest.take_while(|event| {
        let fits = event.message.len() <= room;
        room = room.saturating_sub(event.message.len());
        fits
    });
    let surplus = deployment.events.len() - kept.count();
    deployment.events.drain(..surplus);
    deployment.events_from += u64::try_from(surplus).unwrap_or(0);
}

/// Returns what a deployment of a release wants.
fn desired(core: &Core, app: &Record<Apps>, release: &Release, deployment: &Deployment) -> Desired {
    let kind = if deployment.restart_only {
        Kind::RestartOnly
    } else {
        Kind::Full
    };
    let region = primary_region(release)
        .or_else(|| app.value.primary_region.clone())
        .or_else(|| core.slots.first().map(|slot| slot.region.clone()))
        .unwrap_or_else(|| Region::new("iad").expect("iad is a region"));
    Desired::new(release, deployment.id.clone(), region, kind)
}

/// Returns the region that a release puts new Machines in.
pub(crate) fn primary_region(release: &Release) -> Option<Region> {
    let text = release.definition.get(PRIMARY_REGION)?.as_str()?;
    Region::new(text).ok()
}

/// Says what a deployment would do. The app need not exist yet.
async fn dry_run(
    core: &Core,
    app: &AppName,
    user: &str,
    request: CreateDeployment,
) -> Result<DeployPreview, Problem> {
    let known = core.cache.get::<Apps>(app);
    let record = known.map_or_else(|| apps::imagined(core, app), |known| (*known).clone());
    let content = content(core, &record, request.source, Unbuilt::Imagined).await?;
    let (release, deployment) = records(core, &record, user, &content, &request.options);
    refuse_large(&release)?;
    let desired = desired(core, &record, &release, &deployment);
    let fleet = fleet::Fleet::observe(core, app, &deployment.id);
    if let Some(reason) = refuse(&desired, &fleet.view(), &request.options) {
        return Err(Problem::Unprocessable(reason));
    }
    Ok(DeployPreview {
        steps: preview(&desired, &fleet.view(), &request.options),
        groups: group_previews(&desired, &fleet.view(), &request.options),
    })
}

/// Returns whether a Machine is one that deployments look at.
fn is_managed(unit: &Unit) -> bool {
    unit.state().is_active() && unit.spec().config.is_managed()
}
