//! `/v1/apps` (machines-api.md 2.1).

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use hangar_api::app::{App, AppCreated, AppList, CreateApp};
use hangar_api::id::AppName;
use hangar_api::options::{ListApps, MAX_APP_PAGE};
use hangar_api::rights::Action;
use hangar_store::tables::Apps;

use super::extract::{AppPath, Asker};
use super::options::{self, Options};
use crate::apps;
use crate::auth::caller;
use crate::core::Core;
use crate::error::Problem;

/// How long a deletion is waited for before it is answered; it goes on afterwards.
const DELETION_SHOWN: Duration = Duration::from_secs(10);

/// Lists the apps that the caller may read: of one organisation where `org_slug` names it. There
/// are no apps of another `app_role` than none.
pub(super) async fn list(
    State(core): State<Arc<Core>>,
    Asker(caller): Asker,
    Options(query): Options<ListApps>,
) -> Result<Json<AppList>, Problem> {
    let size = options::page_size(query.limit, MAX_APP_PAGE)?.unwrap_or(usize::MAX);
    let after = options::cursor(query.cursor.as_deref(), |text| AppName::new(text).ok())?;
    let org = query.org_slug.as_deref().filter(|slug| !slug.is_empty());
    let role = query.app_role.as_deref().unwrap_or_default();
    let snapshot = core.cache.snapshot();
    let wanted: Vec<_> = snapshot
        .all::<Apps>()
        .filter(|record| !record.value.deleting && role.is_empty())
        .filter(|record| org.is_none_or(|org| record.value.org.as_str() == org))
        .filter(|record| caller.may(&caller::app(&snapshot, &record.value, Action::READ)))
        .collect();
    let behind = wanted
        .iter()
        .filter(|record| after.as_ref().is_none_or(|after| record.key > *after));
    let mut behind = behind.peekable();
    let page = behind.by_ref().take(size);
    let apps: Vec<App> = page
        .map(|record| apps::view(&core, &snapshot, record))
        .collect();
    let last = apps.last().map(|app| app.name.to_string());
    Ok(Json(AppList {
        total_apps: wanted.len(),
        next_cursor: last.filter(|_| behind.peek().is_some()),
        apps,
    }))
}

pub(super) async fn create(
    State(core): State<Arc<Core>>,
    Asker(caller): Asker,
    Options(input): Options<CreateApp>,
) -> Result<(StatusCode, Json<AppCreated>), Problem> {
    let created = apps::create(&core, &caller, input).await?;
    Ok((StatusCode::CREATED, Json(created)))
}

pub(super) async fn show(
    State(core): State<Arc<Core>>,
    AppPath(app): AppPath,
) -> Result<Json<App>, Problem> {
    let record = core.app(&app)?;
    let snapshot = core.cache.snapshot();
    Ok(Json(apps::view(&core, &snapshot, &record)))
}

pub(super) async fn destroy(
    State(core): State<Arc<Core>>,
    AppPath(app): AppPath,
) -> Result<StatusCode, Problem> {
    apps::destroy(&core, &app).await?;
    let mut changes = core.cache.changes();
    let gone = changes.wait_for(|_| core.cache.get::<Apps>(&app).is_none());
    // Most apps are gone at once, and their name can be used again; what takes longer goes on.
    let _ = tokio::time::timeout(DELETION_SHOWN, gone).await;
    Ok(StatusCode::ACCEPTED)
}
