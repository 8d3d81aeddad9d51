//! `/api/v1` as flyctl uses it beside the Machines API (flyctl-wire.md 5.2): organisations, builds,
//! and the releases of deploys that it drives itself.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use hangar_api::deployment::Strategy;
use hangar_api::fly::{
    BuildFinished, BuildStarted, FinishBuild, FlyOrganization, FlyOrganizations, FlyRelease,
    MadeRelease, MakeRelease, OneOrganization, ReportRelease, StartBuild,
};
use hangar_api::id::{AppName, ReleaseId};
use hangar_api::org::Org;
use hangar_api::release::{Release, ReleaseStatus};
use hangar_api::rights::Action;
use hangar_store::Record;
use hangar_store::tables::{Apps, Deployments, Releases};

use super::extract::{AppPath, Asker, LastPart, Lenient, Params, Strict};
use crate::auth::{Caller, caller};
use crate::core::Core;
use crate::deployments::client::{self, Driver, NewRelease};
use crate::deployments::newest_release;
use crate::desk;
use crate::error::Problem;
use crate::images;
use crate::orgs;

/// Releases that one answer gives, as Fly does.
const LISTED: usize = 25;
/// Most of them.
const MAX_LISTED: usize = 100;

pub(super) async fn organizations(
    State(core): State<Arc<Core>>,
    Asker(caller): Asker,
) -> Json<FlyOrganizations> {
    let all = orgs::list(&core, &caller);
    Json(FlyOrganizations {
        organizations: all.iter().map(organization_shown).collect(),
    })
}

pub(super) async fn organization(
    State(core): State<Arc<Core>>,
    Asker(caller): Asker,
    LastPart(slug): LastPart,
) -> Result<Json<OneOrganization>, Problem> {
    let found = orgs::permitted(&core, &caller, &slug, Action::READ)?;
    let found = orgs::view(&core.cache.snapshot(), &found);
    Ok(Json(OneOrganization {
        organization: organization_shown(&found),
    }))
}

/// A build is the client's own: it is given a number, and nothing is kept of it.
pub(super) async fn start_build(
    State(core): State<Arc<Core>>,
    Asker(caller): Asker,
    Lenient(build): Lenient<StartBuild>,
) -> Result<Json<BuildStarted>, Problem> {
    app_for(&core, &caller, &build.app_name, Action::WRITE)?;
    Ok(Json(BuildStarted {
        id: core.env.now().as_millisecond(),
        status: "started".to_owned(),
    }))
}

pub(super) async fn finish_build(
    State(core): State<Arc<Core>>,
    Asker(caller): Asker,
    Lenient(build): Lenient<FinishBuild>,
) -> Result<Json<BuildFinished>, Problem> {
    app_for(&core, &caller, &build.app_name, Action::WRITE)?;
    let now = core.env.now().as_millisecond();
    Ok(Json(BuildFinished {
        id: build.build_id,
        status: build.status,
        // The number says when it began.
        wallclock_time_ms: now.saturating_sub(build.build_id).max(0),
    }))
}

pub(super) async fn make_release(
    State(core): State<Arc<Core>>,
    Asker(caller): Asker,
    agent: UserAgent,
    Strict(input): Strict<MakeRelease>,
) -> Result<(StatusCode, Json<MadeRelease>), Problem> {
    let app = app_for(&core, &caller, &input.app_name, Action::WRITE)?;
    let driver = Driver {
        user: caller.user(),
        agent: agent.0.as_deref(),
    };
    let image = input.image.unwrap_or_default();
    images::require(&core, &caller, [image.as_str()])?;
    let new = NewRelease {
        image,
        definition: input.definition.unwrap_or_default(),
    };
    let release = client::begin(&core, &app, driver, new).await?;
    let shown = FlyRelease {
        strategy: input.strategy.unwrap_or_default(),
        ..shown(&core, &release)
    };
    Ok((StatusCode::CREATED, Json(MadeRelease { release: shown })))
}

pub(super) async fn report_release(
    State(core): State<Arc<Core>>,
    LastPart(id): LastPart,
    Asker(caller): Asker,
    agent: UserAgent,
    Strict(input): Strict<ReportRelease>,
) -> Result<Json<FlyRelease>, Problem> {
    let record = find(&core, &caller, &id)?;
    let driver = Driver {
        user: caller.user(),
        agent: agent.0.as_deref(),
    };
    let status = status_of(&input.status)?;
    let release = client::report(&core, &record, driver, status).await?;
    Ok(Json(shown(&core, &release)))
}

pub(super) async fn releases(
    State(core): State<Arc<Core>>,
    AppPath(app): AppPath,
    params: Params,
) -> Result<Json<hangar_api::fly::FlyReleases>, Problem> {
    core.app(&app)?;
    let limit = params.parsed::<usize>("limit")?.unwrap_or(LISTED);
    let releases = desk::releases(&core, &app, limit.min(MAX_LISTED));
    let shown = releases.iter().map(|release| shown(&core, release));
    Ok(Json(hangar_api::fly::FlyReleases {
        releases: shown.collect(),
    }))
}

pub(super) async fn current_release(
    State(core): State<Arc<Core>>,
    AppPath(app): AppPath,
) -> Result<Json<FlyRelease>, Problem> {
    core.app(&app)?;
    let release = newest_release(&core, &app);
    let release =
        release.ok_or_else(|| Problem::NotFound(format!("app {app} has no release yet")))?;
    Ok(Json(shown(&core, &release)))
}

pub(super) async fn current_releases(
    State(core): State<Arc<Core>>,
    Asker(caller): Asker,
) -> Json<Vec<FlyRelease>> {
    let apps: Vec<AppName> = {
        let snapshot = core.cache.snapshot();
        let apps = snapshot.all::<Apps>().filter(|app| !app.value.deleting);
        let apps = apps.filter(|app| {
            let access = caller::app(&snapshot, &app.value, Action::READ);
            caller.may(&access)
        });
        apps.map(|app| app.key.clone()).collect()
    };
    let newest = apps.iter().filter_map(|app| newest_release(&core, app));
    Json(newest.map(|release| shown(&core, &release)).collect())
}

/// Lets a client that drives a deploy be known to be alive by its calls about Machines: before and
/// after, since one that waits may take as long as it may be silent.
pub(super) async fn hear(State(core): State<Arc<Core>>, request: Request, next: Next) -> Response {
    let app = deploying(request.method(), request.uri().path());
    let caller = request.extensions().get::<Caller>().cloned();
    let (Some(app), Some(caller)) = (app, caller) else {
        return next.run(request).await;
    };
    let agent = agent_of(request.headers()).map(str::to_owned);
    let driver = Driver {
        user: caller.user(),
        agent: agent.as_deref(),
    };
    client::heard(&core, &app, driver).await;
    let response = next.run(request).await;
    client::heard(&core, &app, driver).await;
    response
}

/// Returns the app of a call that changes or follows one of its Machines, or makes one.
fn deploying(method: &Method, path: &str) -> Option<AppName> {
    let (app, rest) = path.strip_prefix("/v1/apps/")?.split_once('/')?;
    let one = rest
        .strip_prefix("machines/")
        .is_some_and(|id| !id.is_empty());
    let made = rest == "machines" && *method == Method::POST;
    (one || made).then(|| AppName::new(app).ok()).flatten()
}

/// What the client calls itself.
#[derive(Debug)]
pub(super) struct UserAgent(Option<String>);

impl<S: Send + Sync> axum::extract::FromRequestParts<S> for UserAgent {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(
        parts: &mut axum::http::request::Parts,
        _: &S,
    ) -> Result<Self, Self::Rejection> {
        Ok(Self(agent_of(&parts.headers).map(str::to_owned)))
    }
}

/// Returns what the client calls itself.
fn agent_of(headers: &axum::http::HeaderMap) -> Option<&str> {
    let value = headers.get(axum::http::header::USER_AGENT)?;
    value.to_str().ok()
}

/// Returns an organisation as flyctl reads it.
fn organization_shown(org: &Org) -> FlyOrganization {
    FlyOrganization {
        id: org.slug.to_string(),
        internal_numeric_id: org.internal_numeric_id,
        slug: org.slug.to_string(),
        raw_slug: org.slug.to_string(),
        name: org.name.clone(),
        personal: org.slug.is_personal(),
        paid_plan: true,
        billable: true,
        billing_status: "CURRENT".to_owned(),
        provisions_beta_extensions: false,
        remote_builder_image: String::new(),
    }
}

/// Returns the app that a body names, to which the caller may do this.
fn app_for(core: &Core, caller: &Caller, name: &str, action: Action) -> Result<AppName, Problem> {
    // No app can have such a name, so there is none.
    let name = AppName::new(name).map_err(|error| Problem::AppNotFound(error.value))?;
    let record = core.app(&name)?;
    let access = caller::app(&core.cache.snapshot(), &record.value, action);
    caller.require(&access, &format!("app {name}"))?;
    Ok(name)
}

fn status_of(text: &str) -> Result<ReleaseStatus, Problem> {
    let value = serde_json::Value::String(text.to_ascii_lowercase());
    serde_json::from_value(value).map_err(|_| {
        Problem::Invalid(format!(
            "a release cannot be {text:?}; it is pending, running, complete, failed or interrupted"
        ))
    })
}

/// Returns a release that the caller may report on. One of an app that it may not change is not
/// there.
fn find(core: &Core, caller: &Caller, id: &str) -> Result<Arc<Record<Releases>>, Problem> {
    let missing = || Problem::NotFound(format!("there is no release {id:?}"));
    let id = ReleaseId::new(id).map_err(|_| missing())?;
    let snapshot = core.cache.snapshot();
    let mut all = snapshot.all::<Releases>();
    let found = all.find(|record| record.value.id == id).cloned();
    let found = found.ok_or_else(missing)?;
    let app = core.app(&found.key.0)?;
    let access = caller::app(&snapshot, &app.value, Action::WRITE);
    caller.may(&access).then_some(found).ok_or_else(missing)
}

/// Returns a release as flyctl reads it.
fn shown(core: &Core, release: &Release) -> FlyRelease {
    let running = matches!(
        release.status,
        ReleaseStatus::Pending | ReleaseStatus::Running
    );
    FlyRelease {
        id: release.id.to_string(),
        version: release.version,
        stable: release.status == ReleaseStatus::Complete,
        in_progress: running,
        status: release.status.to_string(),
        strategy: strategy_of(core, release).as_str().to_ascii_uppercase(),
        user: release.user.clone(),
        created_at: release.created_at,
        image_ref: desk::image_text(&release.image_ref),
    }
}

/// Returns how a release was, or is, carried out.
fn strategy_of(core: &Core, release: &Release) -> Strategy {
    let deployment = release.deployment.as_ref().and_then(|id| {
        let key = (release.app.clone(), id.clone());
        core.cache.get::<Deployments>(&key)
    });
    let named = || release.definition.get("deploy")?.get("strategy")?.as_str();
    match deployment {
        Some(deployment) => deployment.value.options.strategy,
        None => named()
            .and_then(|name| name.parse().ok())
            .unwrap_or_default(),
    }
}
