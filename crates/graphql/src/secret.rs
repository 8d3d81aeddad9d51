//! Secrets as older clients set them; newer ones use the Machines API, and both set the same.

use std::collections::BTreeMap;

use async_graphql::{Context, ID, InputObject, Result, SimpleObject};

use crate::app::App;
use crate::query::app;
use crate::release::Release;
use crate::session::{Session, refused};

/// A secret to be set.
#[derive(Clone, Debug, InputObject)]
pub(crate) struct SecretInput {
    /// Its name.
    key: String,
    /// Its value.
    value: String,
}

/// Secrets to be set.
#[derive(Clone, Debug, InputObject)]
pub(crate) struct SetSecretsInput {
    /// Told back.
    client_mutation_id: Option<String>,
    /// The app, by name.
    app_id: ID,
    /// The secrets.
    secrets: Vec<SecretInput>,
    /// Whether all others go.
    replace_all: Option<bool>,
}

/// Secrets that go.
#[derive(Clone, Debug, InputObject)]
pub(crate) struct UnsetSecretsInput {
    /// Told back.
    client_mutation_id: Option<String>,
    /// The app, by name.
    app_id: ID,
    /// Their names.
    keys: Vec<String>,
}

/// What became of it.
#[derive(Clone, Debug, SimpleObject)]
pub(crate) struct SetSecretsPayload {
    /// As it was told.
    client_mutation_id: Option<String>,
    /// The app.
    app: App,
    /// Always null: Machines get new secrets when they are updated, not by a release of their own.
    release: Option<Release>,
}

/// What became of it.
#[derive(Clone, Debug, SimpleObject)]
pub(crate) struct UnsetSecretsPayload {
    /// As it was told.
    client_mutation_id: Option<String>,
    /// The app.
    app: App,
    /// Always null, as for those that are set.
    release: Option<Release>,
}

/// Sets secrets.
pub(crate) async fn set(ctx: &Context<'_>, input: SetSecretsInput) -> Result<SetSecretsPayload> {
    let session = Session::of(ctx)?;
    let named = app(ctx, &input.app_id)?;
    let mut changes = BTreeMap::new();
    if input.replace_all.unwrap_or_default() {
        let all = session.desk.secrets(&named.0.name).into_iter();
        changes.extend(all.map(|secret| (secret.name, None)));
    }
    let given = input.secrets.into_iter();
    changes.extend(given.map(|secret| (secret.key, Some(secret.value))));
    let done = session
        .desk
        .set_secrets(session.caller, &input.app_id, &changes)
        .await;
    done.map_err(refused)?;
    Ok(SetSecretsPayload {
        client_mutation_id: input.client_mutation_id,
        app: named,
        release: None,
    })
}

/// Removes secrets.
pub(crate) async fn unset(
    ctx: &Context<'_>,
    input: UnsetSecretsInput,
) -> Result<UnsetSecretsPayload> {
    let session = Session::of(ctx)?;
    let changes: BTreeMap<_, _> = input.keys.into_iter().map(|key| (key, None)).collect();
    let done = session
        .desk
        .set_secrets(session.caller, &input.app_id, &changes)
        .await;
    done.map_err(refused)?;
    Ok(UnsetSecretsPayload {
        client_mutation_id: input.client_mutation_id,
        app: app(ctx, &input.app_id)?,
        release: None,
    })
}
