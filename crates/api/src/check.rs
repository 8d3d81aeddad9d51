//! Health checks: their configuration and their results (machines-api.md 8).

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::duration::GoDuration;

/// A check of a service or of the Machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckConfig {
    /// `tcp` or `http`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The port; a service check without one uses the service's internal port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Time between probes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<GoDuration>,
    /// Time one probe may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<GoDuration>,
    /// Time after the start during which failures do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_period: Option<GoDuration>,
    /// HTTP method, default GET.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// HTTP path, default `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// `http` (default) or `https`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Accept any certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_skip_verify: Option<bool>,
    /// Name sent by SNI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_server_name: Option<String>,
    /// Headers sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<CheckHeader>,
    /// `informational` (default) or `readiness`; Machine checks only.
    #[serde(rename = "kind", default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
}

/// A header with its values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckHeader {
    /// Its name.
    pub name: String,
    /// Its values.
    #[serde(default)]
    pub values: Vec<String>,
}

/// What a check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// The last probe passed.
    Passing,
    /// Not known yet.
    Warning,
    /// The last probe failed.
    Critical,
}

/// The result of one check of one Machine. `updated_at` moves only when the status does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckStatus {
    /// `servicecheck-NN-<type>-<port>` or the name in `[checks]`.
    pub name: String,
    /// Passing or not.
    pub status: Health,
    /// A short text: the answer or the error.
    #[serde(default)]
    pub output: String,
    /// When the status last changed.
    pub updated_at: Timestamp,
}

/// Returns the name of a service check: index among the Machine's service checks, type, port.
#[must_use]
pub fn service_check_name(index: usize, kind: &str, port: u16) -> String {
    format!("servicecheck-{index:02}-{kind}-{port}")
}
