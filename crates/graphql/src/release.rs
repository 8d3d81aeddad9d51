//! Releases: what an app was, from one deploy to the next.

use async_graphql::{Context, ID, Object, Result, SimpleObject};
use hangar_api::release::{Release as Record, ReleaseStatus};
use hangar_server::desk::image_text;

use crate::org::User;
use crate::scalar::{DateTime, Json, int};
use crate::session::Session;

/// A release.
#[derive(Clone, Debug)]
pub(crate) struct Release(pub(crate) Record);

/// A release, with its configuration as it was sent.
#[derive(Clone, Debug)]
pub(crate) struct ReleaseUnprocessed(pub(crate) Record);

/// An app's configuration.
#[derive(Clone, Debug, SimpleObject)]
pub(crate) struct AppConfig {
    /// `fly.toml` as JSON.
    pub(crate) definition: Json,
}

fn in_progress(release: &Record) -> bool {
    matches!(
        release.status,
        ReleaseStatus::Pending | ReleaseStatus::Running
    )
}

fn image_ref(release: &Record) -> Option<String> {
    let text = image_text(&release.image_ref);
    (!text.is_empty()).then_some(text)
}

/// A release.
#[Object(name = "Release")]
impl Release {
    /// Its id.
    async fn id(&self) -> ID {
        self.0.id.as_str().into()
    }
    /// Its number.
    async fn version(&self) -> i32 {
        int(self.0.version)
    }
    /// What it was made by.
    async fn description(&self) -> &str {
        &self.0.description
    }
    /// The same.
    async fn reason(&self) -> &str {
        &self.0.description
    }
    /// How far it is.
    async fn status(&self) -> String {
        self.0.status.to_string()
    }
    /// The image, with its digest.
    async fn image_ref(&self) -> Option<String> {
        image_ref(&self.0)
    }
    /// Whether it was carried out.
    async fn stable(&self) -> bool {
        self.0.status == ReleaseStatus::Complete
    }
    /// Whether it is being carried out.
    async fn in_progress(&self) -> bool {
        in_progress(&self.0)
    }
    /// Always null: there are no evaluations.
    async fn evaluation_id(&self) -> Option<ID> {
        None
    }
    /// Who made it.
    async fn user(&self, ctx: &Context<'_>) -> Result<User> {
        Ok(User(Session::of(ctx)?.desk.user(&self.0.user)))
    }
    /// When.
    async fn created_at(&self) -> DateTime {
        DateTime(self.0.created_at)
    }
}

/// A release, with its configuration as it was sent.
#[Object(name = "ReleaseUnprocessed")]
impl ReleaseUnprocessed {
    /// Its id.
    async fn id(&self) -> ID {
        self.0.id.as_str().into()
    }
    /// Its number.
    async fn version(&self) -> i32 {
        int(self.0.version)
    }
    /// What it was made by.
    async fn description(&self) -> &str {
        &self.0.description
    }
    /// The same.
    async fn reason(&self) -> &str {
        &self.0.description
    }
    /// How far it is.
    async fn status(&self) -> String {
        self.0.status.to_string()
    }
    /// The image, with its digest.
    async fn image_ref(&self) -> Option<String> {
        image_ref(&self.0)
    }
    /// Whether it was carried out.
    async fn stable(&self) -> bool {
        self.0.status == ReleaseStatus::Complete
    }
    /// Whether it is being carried out.
    async fn in_progress(&self) -> bool {
        in_progress(&self.0)
    }
    /// Always null: there are no evaluations.
    async fn evaluation_id(&self) -> Option<ID> {
        None
    }
    /// `fly.toml` as JSON; null for a release that was made without.
    async fn config_definition(&self) -> Option<Json> {
        let definition = &self.0.definition;
        (!definition.is_null()).then(|| async_graphql::Json(definition.clone()))
    }
    /// Who made it.
    async fn user(&self, ctx: &Context<'_>) -> Result<User> {
        Ok(User(Session::of(ctx)?.desk.user(&self.0.user)))
    }
    /// When.
    async fn created_at(&self) -> DateTime {
        DateTime(self.0.created_at)
    }
}
