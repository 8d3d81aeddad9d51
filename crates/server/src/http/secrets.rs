//! `/v1/apps/{app}/secrets` (machines-api.md 2.4). Values go in and never come out.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use hangar_api::id::AppName;
use hangar_api::options::ListSecrets;
use hangar_api::secret::{Secret, SecretList, SecretsUpdate, SecretsUpdated, SetSecret};
use serde_json::{Value, json};

use super::extract::{AppPath, LastPart, Lenient};
use super::options::Options;
use crate::core::Core;
use crate::error::Problem;
use crate::machines::validate;
use crate::secrets;

/// Returns the version of an app's secrets, which must have come as far as the client knows of.
fn version_of(core: &Core, app: &AppName, query: ListSecrets) -> Result<u64, Problem> {
    let version = core.app(app)?.value.secrets_version;
    validate::secrets_version(version, query.min_version.max(query.version))
}

pub(super) async fn list(
    State(core): State<Arc<Core>>,
    AppPath(app): AppPath,
    Options(query): Options<ListSecrets>,
) -> Result<Json<SecretList>, Problem> {
    let version = version_of(&core, &app, query)?;
    let secrets = secrets::with_status(&core.cache.snapshot(), &app, version);
    Ok(Json(SecretList { secrets }))
}

pub(super) async fn show(
    State(core): State<Arc<Core>>,
    AppPath(app): AppPath,
    LastPart(name): LastPart,
    Options(query): Options<ListSecrets>,
) -> Result<Json<Secret>, Problem> {
    let version = version_of(&core, &app, query)?;
    let secrets = secrets::list(&core.cache.snapshot(), &app, version);
    let found = secrets.into_iter().find(|secret| secret.name == name);
    found
        .map(Json)
        .ok_or_else(|| Problem::NotFound("secret not found".to_owned()))
}

pub(super) async fn update(
    State(core): State<Arc<Core>>,
    AppPath(app): AppPath,
    Lenient(body): Lenient<SecretsUpdate>,
) -> Result<Json<SecretsUpdated>, Problem> {
    secrets::update(&core, &app, &body.values).await.map(Json)
}

pub(super) async fn set(
    State(core): State<Arc<Core>>,
    AppPath(app): AppPath,
    LastPart(name): LastPart,
    Lenient(body): Lenient<SetSecret>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let value = body
        .value
        .ok_or_else(|| Problem::Invalid("invalid_argument: value is required".to_owned()))?;
    let changes = BTreeMap::from([(name.clone(), Some(value))]);
    let updated = secrets::update(&core, &app, &changes).await?;
    let secret = updated.secrets.iter().find(|secret| secret.name == name);
    let mut answer = serde_json::to_value(secret).unwrap_or_default();
    answer["version"] = updated.version.into();
    answer["Version"] = updated.version.into();
    Ok((StatusCode::CREATED, Json(answer)))
}

pub(super) async fn unset(
    State(core): State<Arc<Core>>,
    AppPath(app): AppPath,
    LastPart(name): LastPart,
) -> Result<Json<Value>, Problem> {
    let changes = BTreeMap::from([(name, None)]);
    let updated = secrets::update(&core, &app, &changes).await?;
    Ok(Json(
        json!({"version": updated.version, "Version": updated.version}),
    ))
}
