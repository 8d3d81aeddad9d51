//! What flyctl says and reads beside the Machines API, under `/api/v1` (flyctl-wire.md 5.2, 7).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// An organisation as flyctl reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FlyOrganization {
    /// Its id.
    pub id: String,
    /// Its number, as macaroons name it.
    pub internal_numeric_id: u64,
    /// Its slug.
    pub slug: String,
    /// The same: Hangar has no alias for it.
    pub raw_slug: String,
    /// Its name.
    pub name: String,
    /// Whether it is the one that there is without being made.
    pub personal: bool,
    /// Always true: Hangar bills nobody, and clients hold features back where it is false.
    pub paid_plan: bool,
    /// Always true, for the same reason.
    pub billable: bool,
    /// Always `CURRENT`, for the same reason.
    pub billing_status: String,
    /// Always false: there are no extensions.
    pub provisions_beta_extensions: bool,
    /// Always empty: images are built where the client runs.
    pub remote_builder_image: String,
}

/// Answer of `GET /api/v1/organizations`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FlyOrganizations {
    /// Those that the caller may see.
    pub organizations: Vec<FlyOrganization>,
}

/// Answer of `GET /api/v1/organizations/{slug}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OneOrganization {
    /// It.
    pub organization: FlyOrganization,
}

/// Body of `POST /api/v1/builds`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct StartBuild {
    /// The app that is built for.
    pub app_name: String,
}

/// Answer of `POST /api/v1/builds`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BuildStarted {
    /// The build's number: Unix milliseconds of its start.
    pub id: i64,
    /// `started`.
    pub status: String,
}

/// Body of `POST /api/v1/builds/finish`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct FinishBuild {
    /// The build's number.
    pub build_id: i64,
    /// The app that was built for.
    pub app_name: String,
    /// How it ended: `completed` or `failed`.
    pub status: String,
}

/// Answer of `POST /api/v1/builds/finish`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BuildFinished {
    /// The build's number.
    pub id: i64,
    /// How it ended, as it was said.
    pub status: String,
    /// Milliseconds since it began.
    pub wallclock_time_ms: i64,
}

/// Body of `POST /api/v1/releases`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct MakeRelease {
    /// The app.
    pub app_name: String,
    /// The image's name.
    pub image: Option<String>,
    /// fly.toml as JSON.
    pub definition: Option<serde_json::Value>,
    /// `ROLLING`, `IMMEDIATE`, `CANARY`, `BLUEGREEN`: only told back, the client carries it out.
    pub strategy: Option<String>,
}

/// Answer of `POST /api/v1/releases`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MadeRelease {
    /// It.
    pub release: FlyRelease,
}

/// Body of `PATCH /api/v1/releases/{id}`. What else clients send of their deploy is not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ReportRelease {
    /// `running`, `complete`, `failed` or `interrupted`.
    pub status: String,
}

/// A release as flyctl reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FlyRelease {
    /// Its id.
    pub id: String,
    /// Its number.
    pub version: u64,
    /// Whether it was carried out.
    pub stable: bool,
    /// Whether it is being carried out.
    pub in_progress: bool,
    /// How far it is.
    pub status: String,
    /// How it is carried out, in capitals.
    pub strategy: String,
    /// Who made it.
    pub user: String,
    /// When.
    #[schemars(with = "crate::schema::Time")]
    pub created_at: Timestamp,
    /// The image, with its digest.
    pub image_ref: String,
}

/// Answer of `GET /api/v1/apps/{app}/releases`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FlyReleases {
    /// The newest first.
    pub releases: Vec<FlyRelease>,
}

/// Answer of `GET /api/v1/apps/{app}/logs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FlyLogs {
    /// Lines, oldest first.
    pub data: Vec<FlyLogEntry>,
    /// How to ask for the next ones.
    pub meta: FlyLogsMeta,
}

/// How to ask for the next lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FlyLogsMeta {
    /// To be sent with the next request.
    pub next_token: String,
}

/// One line as flyctl reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FlyLogEntry {
    /// Tells it from others of the page.
    pub id: String,
    /// Always `log`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The line.
    pub attributes: FlyLogLine,
}

/// A line itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FlyLogLine {
    /// When it was read.
    #[schemars(with = "crate::schema::Time")]
    pub timestamp: Timestamp,
    /// The text.
    pub message: String,
    /// `info` or `error`.
    pub level: String,
    /// The Machine.
    pub instance: String,
    /// Its region.
    pub region: String,
    /// The same with who wrote it.
    pub meta: FlyLogMeta,
}

/// Where a line is from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FlyLogMeta {
    /// The Machine.
    pub instance: String,
    /// Its region.
    pub region: String,
    /// Who wrote it.
    pub event: FlyLogEvent,
}

/// Who wrote a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FlyLogEvent {
    /// `app`, `runner`, `proxy` or `health`.
    pub provider: crate::logs::Provider,
}
