//! Organisations: they own apps, private networks and tokens (`/v1/orgs`, Hangar's own).

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::id::OrgSlug;

/// What an organisation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrgKind {
    /// The one that is always there.
    Personal,
    /// Any other.
    Shared,
}

/// An organisation as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Org {
    /// A stable id.
    pub id: String,
    /// Its number: tokens carry it.
    pub internal_numeric_id: u64,
    /// Its slug.
    pub slug: OrgSlug,
    /// Display name.
    pub name: String,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: OrgKind,
    /// When it was made.
    pub created_at: Timestamp,
    /// How many apps it has.
    pub app_count: usize,
}

/// Answer of `GET /v1/orgs`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrgList {
    /// Those that the caller may read, by slug.
    pub organizations: Vec<Org>,
}

/// Body of `POST /v1/orgs`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateOrg {
    /// Display name.
    #[serde(default)]
    pub name: Option<String>,
    /// The slug; made of the name when absent.
    #[serde(default)]
    pub slug: Option<String>,
}
