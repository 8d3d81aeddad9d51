//! Health checks: their configuration and their results (machines-api.md 8).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::duration::GoDuration;

/// A check of a service or of the Machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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

// === impl CheckConfig ===

impl CheckConfig {
    /// Returns what the check asks for and that is not done, with its key; nothing when all of it
    /// is.
    #[must_use]
    pub fn refusals(&self) -> Vec<(&'static str, String)> {
        let mut all = Vec::new();
        let kind = self.kind.as_deref().unwrap_or_default();
        if !["", "tcp", "http"].contains(&kind) {
            all.push(("type", format!("{kind:?} is not offered; use tcp or http")));
        }
        let protocol = self.protocol.as_deref().unwrap_or_default();
        if !["", "http", "https"].contains(&protocol) {
            let text = format!("{protocol:?} is not offered; use http or https");
            all.push(("protocol", text));
        }
        let name = self.tls_server_name.as_deref().unwrap_or_default();
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._:".contains(&b);
        if name.len() > 253 || !name.bytes().all(fits) {
            let text = format!("{name:?} is no name of a host");
            all.push(("tls_server_name", text));
        }
        let is_word = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
        if !self.method.as_deref().is_none_or(is_word) {
            all.push(("method", "is no method of HTTP".to_owned()));
        }
        if !self.path.as_deref().is_none_or(is_word) {
            let text = "holds spaces or other characters that a path cannot have; write %20";
            all.push(("path", text.to_owned()));
        }
        let is_value = |text: &String| !text.contains(['\r', '\n', '\0']);
        let is_header = |header: &&CheckHeader| {
            let name = header.name.as_str();
            let named = !name.is_empty() && is_word(name) && !name.contains(':');
            named && header.values.iter().all(is_value)
        };
        if let Some(header) = self.headers.iter().find(|header| !is_header(header)) {
            let text = format!("{:?} is no header of HTTP", header.name);
            all.push(("headers", text));
        }
        all
    }
}

/// A header with its values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckHeader {
    /// Its name.
    pub name: String,
    /// Its values.
    #[serde(default)]
    pub values: Vec<String>,
}

/// What a check says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckStatus {
    /// `servicecheck-NN-<type>-<port>` or the name in `[checks]`.
    pub name: String,
    /// Passing or not.
    pub status: Health,
    /// A short text: the answer or the error.
    #[serde(default)]
    pub output: String,
    /// When the status last changed.
    #[schemars(with = "crate::schema::Time")]
    pub updated_at: Timestamp,
}

/// Returns the name of a service check: index among the Machine's service checks, type, port.
#[must_use]
pub fn service_check_name(index: usize, kind: &str, port: u16) -> String {
    format!("servicecheck-{index:02}-{kind}-{port}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn keys(check: serde_json::Value) -> Vec<&'static str> {
        let check: CheckConfig = serde_json::from_value(check).unwrap();
        check.refusals().into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn what_a_check_cannot_ask_for_is_refused_with_its_key() {
        let fine = json!({
            "type": "http", "protocol": "https", "method": "", "path": "up?a=b%20c",
            "tls_server_name": "app.example", "tls_skip_verify": true,
            "headers": [{"name": "Host", "values": ["a b"]}],
        });
        assert!(keys(fine).is_empty());
        for (key, value) in [
            ("type", json!("script")),
            ("protocol", json!("ftp")),
            ("tls_server_name", json!("a b")),
            ("method", json!("GET /")),
            ("path", json!("/a b")),
            ("headers", json!([{"name": "a:", "values": []}])),
            ("headers", json!([{"name": "a", "values": ["x\r\ny: z"]}])),
        ] {
            assert_eq!(keys(json!({ key: value })), [key]);
        }
    }
}
