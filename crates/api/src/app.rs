//! Apps.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::id::{AppName, OrgSlug};
use crate::lenient;
use crate::net::NetworkId;

/// An app as the API shows it (machines-api.md 2.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct App {
    /// A stable id.
    pub id: String,
    /// Its name.
    pub name: AppName,
    /// Its number, which stays with it for life: tokens carry it.
    #[serde(default)]
    pub internal_numeric_id: u64,
    /// The private network's name, `default` unless asked otherwise.
    pub network: String,
    /// `pending` before its first Machine, `deployed`, `suspended`.
    pub status: String,
    /// Machines that are not destroyed.
    pub machine_count: u64,
    /// Volumes.
    pub volume_count: u64,
    /// Its organisation.
    pub organization: Organization,
    /// When it was created.
    #[schemars(with = "crate::schema::Time")]
    pub created_at: Timestamp,
    /// Names that lead to it, as `host:port` where the port is not the usual (Hangar's own).
    #[serde(default)]
    pub hostname: String,
    /// The URL to open, when it has a public service (Hangar's own).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_url: Option<String>,
}

/// Who owns an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Organization {
    /// Display name.
    pub name: String,
    /// Slug.
    pub slug: OrgSlug,
    /// Its number, which stays with it for life: tokens carry it.
    #[serde(default)]
    pub internal_numeric_id: u64,
}

/// The app record that the store keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AppRecord {
    /// A stable id.
    pub id: String,
    /// Its name.
    pub name: AppName,
    /// Its number: positive, of 31 bits, and no other app's. 0 in records of before there were
    /// numbers; the server gives them one when it starts.
    #[serde(default)]
    pub number: u64,
    /// Its organisation.
    #[serde(default)]
    pub org: OrgSlug,
    /// The network's name.
    pub network_name: String,
    /// The network.
    pub network: NetworkId,
    /// When it was created.
    #[schemars(with = "crate::schema::Time")]
    pub created_at: Timestamp,
    /// Version of its secrets; grows with every change.
    #[serde(default)]
    pub secrets_version: u64,
    /// Number of the last release made.
    #[serde(default)]
    pub last_release: u64,
    /// From the current release, where that names one.
    #[serde(default)]
    pub primary_region: Option<crate::id::Region>,
    /// Being destroyed.
    #[serde(default)]
    pub deleting: bool,
    /// What the client that made it would say again to get it instead of a refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

/// Body of `POST /v1/apps`; `name` and `app_name` are both accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CreateApp {
    /// The name.
    #[serde(deserialize_with = "lenient::text")]
    pub name: Option<String>,
    /// The name, as the docs spell it.
    #[serde(deserialize_with = "lenient::text")]
    pub app_name: Option<String>,
    /// The organisation's slug; `personal` when absent.
    #[serde(deserialize_with = "lenient::text")]
    pub org_slug: Option<String>,
    /// A private network of this name.
    #[serde(deserialize_with = "lenient::text")]
    pub network: Option<String>,
    /// A role, such as that of a builder; none is offered.
    #[serde(deserialize_with = "lenient::text")]
    pub app_role_id: Option<String>,
    /// The same key with the same name gives the same app, instead of a refusal.
    #[serde(deserialize_with = "lenient::text")]
    pub idempotency_key: Option<String>,
}

/// Answer of `POST /v1/apps`: Fly's clients read it like an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AppCreated {
    /// The app's id.
    pub id: String,
    /// Unix milliseconds.
    pub created_at: i64,
    /// Its name.
    pub name: AppName,
    /// Its number.
    pub internal_numeric_id: u64,
    /// The private network's name.
    pub network: String,
    /// `pending` while it has no release.
    pub status: String,
    /// Whose it is.
    pub organization: Organization,
}

/// Answer of `GET /v1/apps`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AppList {
    /// The apps, by name.
    pub apps: Vec<App>,
    /// How many, on all pages.
    pub total_apps: usize,
    /// Where the next page begins; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}
