//! Images as the API shows them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::Timestamp;

/// An image reference with its digest (machines-api.md 3).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImageRef {
    /// The registry's host, such as `registry-1.docker.io`.
    #[serde(default)]
    pub registry: String,
    /// The repository, such as `library/nginx`.
    #[serde(default)]
    pub repository: String,
    /// The tag, or "".
    #[serde(default)]
    pub tag: String,
    /// `sha256:...` of the manifest for this platform.
    #[serde(default)]
    pub digest: String,
    /// The image's labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// An image that is ready on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImageInfo {
    /// The name it was imported or pulled under.
    pub name: String,
    /// `sha256:...` of its manifest.
    pub digest: String,
    /// Size of its layers, compressed, in bytes.
    pub size: u64,
    /// When it came.
    #[schemars(with = "crate::schema::Time")]
    pub created_at: Timestamp,
    /// Whether a Machine or one of an app's last five releases needs it.
    pub in_use: bool,
}

/// What a prune removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pruned {
    /// Names of the images that are gone.
    pub images: Vec<String>,
    /// Bytes freed on disk.
    pub bytes: u64,
}
