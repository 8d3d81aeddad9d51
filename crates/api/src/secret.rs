//! Secrets as the API shows them: never their values.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// A secret without its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Secret {
    /// The environment variable it becomes.
    pub name: String,
    /// 16 hex digits that change with the value.
    pub digest: String,
    /// When it was first set.
    #[schemars(with = "crate::schema::Time")]
    pub created_at: Timestamp,
    /// When it was last set.
    #[schemars(with = "crate::schema::Time")]
    pub updated_at: Timestamp,
    /// Whether the app's Machines have it; only where secrets are listed (Hangar's own).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<SecretStatus>,
}

/// How many of an app's managed Machines have a secret as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SecretStatus {
    /// All of them.
    Deployed,
    /// None of them, or there is none.
    Staged,
    /// Some of them.
    Partial,
    /// It cannot be told.
    #[serde(other)]
    Unknown,
}

impl std::fmt::Display for SecretStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Deployed => "Deployed",
            Self::Staged => "Staged",
            Self::Partial => "Partial",
            Self::Unknown => "Unknown",
        })
    }
}

/// Answer of `GET .../secrets`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretList {
    /// The secrets, by name.
    pub secrets: Vec<Secret>,
}

/// Body of `POST .../secrets`: a value sets, null removes.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretsUpdate {
    /// Name to value, or null.
    #[serde(default, deserialize_with = "crate::lenient::text_map")]
    pub values: BTreeMap<String, Option<String>>,
}

impl std::fmt::Debug for SecretsUpdate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretsUpdate")
            .field("names", &self.values.keys().collect::<Vec<_>>())
            .finish()
    }
}

/// Body of `POST .../secrets/{name}`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SetSecret {
    /// The value.
    #[serde(default, deserialize_with = "crate::lenient::text")]
    pub value: Option<String>,
}

impl std::fmt::Debug for SetSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SetSecret").finish_non_exhaustive()
    }
}

/// Answer of `POST .../secrets`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretsUpdated {
    /// The secrets now.
    pub secrets: Vec<Secret>,
    /// The app-wide version that holds them.
    pub version: u64,
    /// The same once more, as old clients read it.
    #[serde(rename = "Version")]
    pub version_legacy: u64,
}

/// Secret values on their way to a Machine. Never printed, never stored in the clear.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretValues(pub BTreeMap<String, String>);

impl std::fmt::Debug for SecretValues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SecretValues({} hidden)", self.0.len())
    }
}
