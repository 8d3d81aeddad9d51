//! Machine leases: an exclusive lock for modification (machines-api.md 10).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::id::InstanceId;

/// A lease as clients decode it, inside an envelope `{"status","data"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Lease {
    /// The secret that writes must carry in `fly-machine-lease-nonce`.
    pub nonce: String,
    /// When it ends, Unix seconds.
    pub expires_at: i64,
    /// Who holds it.
    pub owner: String,
    /// What for.
    #[serde(default)]
    pub description: String,
    /// The Machine's version when it was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<InstanceId>,
}

// === impl Lease ===

impl Lease {
    /// Returns whether it still holds. An expired lease is no lease.
    #[must_use]
    pub fn holds(&self, now: Timestamp) -> bool {
        now.as_second() < self.expires_at
    }
}

/// Body of `POST .../lease`; both may come in the query instead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeaseRequest {
    /// Seconds until it ends.
    #[serde(default, deserialize_with = "crate::lenient::number")]
    pub ttl: Option<i64>,
    /// What for.
    #[serde(default, deserialize_with = "crate::lenient::text")]
    pub description: Option<String>,
}
