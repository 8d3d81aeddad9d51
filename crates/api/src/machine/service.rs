//! `services`: what the proxy serves (machines-api.md 4.4).

pub mod handling;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::check::CheckConfig;
use crate::lenient::nullable;

/// A port inside the Machine and the external ports that lead to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Service {
    /// `tcp` or `udp`.
    #[serde(default = "tcp")]
    pub protocol: String,
    /// The port that the app listens on.
    #[serde(default)]
    pub internal_port: u16,
    /// The external ports.
    #[serde(default, deserialize_with = "nullable")]
    pub ports: Vec<Port>,
    /// Limits per Machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,
    /// Whether the proxy stops idle Machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autostop: Option<Autostop>,
    /// Whether a request starts a stopped Machine; absent means yes (5.8).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autostart: Option<bool>,
    /// How many stay up in the primary region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_machines_running: Option<u32>,
    /// Checks that steer the proxy.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub checks: Vec<CheckConfig>,
    /// Everything else, as sent.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

fn tcp() -> String {
    "tcp".to_owned()
}

/// An external port or a range of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Port {
    /// One port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// First of a range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_port: Option<u16>,
    /// Last of a range.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_port: Option<u16>,
    /// `http`, `tls`, `proxy_proto`, `pg_tls`; none passes TCP through.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub handlers: Vec<String>,
    /// Answer plain HTTP with a redirect to https.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force_https: bool,
    /// Options of the http handler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_options: Option<HttpOptions>,
    /// Options of the tls handler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_options: Option<TlsOptions>,
    /// Options of the proxy_proto handler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_proto_options: Option<ProxyProtoOptions>,
    /// Everything else, as sent.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Options of the http handler.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HttpOptions {
    /// Compress answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compress: Option<bool>,
    /// Speak HTTP/2 without TLS to the app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub h2_backend: Option<bool>,
    /// Seconds after which a connection to the app on which nothing moves is closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<u32>,
    /// Seconds that the app may take to begin its answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers_read_timeout: Option<u32>,
    /// What is done to answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<ResponseOptions>,
    /// Everything else, as sent.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// What the http handler does to answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResponseOptions {
    /// By header: false removes it, a text or a list of texts sets it.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub headers: BTreeMap<String, Value>,
    /// Leave the headers alone that the proxy would add.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pristine: Option<bool>,
    /// Everything else, as sent.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Options of the tls and pg_tls handlers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TlsOptions {
    /// Protocols offered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alpn: Option<Vec<String>>,
    /// Versions offered, such as `TLSv1.3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub versions: Option<Vec<String>>,
    /// Everything else, as sent.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Options of the proxy_proto handler.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProxyProtoOptions {
    /// `v1` (default) or `v2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Everything else, as sent.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Limits of one Machine for one service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Concurrency {
    /// `connections` (default) or `requests`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// From here on others are preferred; absent means 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soft_limit: Option<u32>,
    /// Never more than this; absent means none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hard_limit: Option<u32>,
}

/// Whether idle Machines are stopped. Reads a bool or a text; writes false, true or `"suspend"`.
/// The order is from careful to eager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Autostop {
    /// Never.
    Off,
    /// Suspended.
    Suspend,
    /// Stopped.
    Stop,
}

/// Most external ports of one app that are served, ranges counted out.
pub const MAX_PORTS_PER_APP: usize = 256;

// === impl Port ===

impl Port {
    /// Returns the external ports it covers; a range with one bound is open at the other.
    #[must_use]
    pub fn range(&self) -> std::ops::RangeInclusive<u16> {
        match (self.port, self.start_port, self.end_port) {
            (Some(port), _, _) => port..=port,
            (None, None, None) => std::ops::RangeInclusive::new(1, 0),
            (None, start, end) => start.unwrap_or(0)..=end.unwrap_or(u16::MAX),
        }
    }

    /// Returns whether it has this handler.
    #[must_use]
    pub fn has(&self, handler: &str) -> bool {
        self.handlers.iter().any(|h| h == handler)
    }
}

// === impl Concurrency ===

impl Service {
    /// Returns the soft limit, 20 where none is given.
    #[must_use]
    pub fn soft_limit(&self) -> u32 {
        self.concurrency
            .as_ref()
            .and_then(|c| c.soft_limit)
            .unwrap_or(20)
    }

    /// Returns the hard limit, or `None` for no limit.
    #[must_use]
    pub fn hard_limit(&self) -> Option<u32> {
        self.concurrency
            .as_ref()
            .and_then(|c| c.hard_limit)
            .filter(|limit| *limit > 0)
    }

    /// Returns whether requests are counted (and upstream connections pooled), not connections.
    #[must_use]
    pub fn counts_requests(&self) -> bool {
        self.concurrency
            .as_ref()
            .is_some_and(|c| c.kind.as_deref() == Some("requests"))
    }

    /// Returns whether a request may start a stopped Machine.
    #[must_use]
    pub fn allows_autostart(&self) -> bool {
        self.autostart.unwrap_or(true)
    }
}

// === impl Autostop ===

impl Autostop {
    /// Returns what holds for a Machine with these services: what the most careful one says,
    /// since all of them stop with it. Off without services.
    #[must_use]
    pub fn of<'a>(services: impl IntoIterator<Item = &'a Service>) -> Self {
        let each = services
            .into_iter()
            .map(|service| service.autostop.unwrap_or(Self::Off));
        each.min().unwrap_or(Self::Off)
    }
}

impl Serialize for Autostop {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_bool(false),
            Self::Stop => serializer.serialize_bool(true),
            Self::Suspend => serializer.serialize_str("suspend"),
        }
    }
}

impl<'de> Deserialize<'de> for Autostop {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Bool(false) => Ok(Self::Off),
            Value::Bool(true) => Ok(Self::Stop),
            Value::String(text) => match text.as_str() {
                "off" | "false" => Ok(Self::Off),
                "stop" | "true" => Ok(Self::Stop),
                "suspend" => Ok(Self::Suspend),
                _ => Err(serde::de::Error::custom(
                    "autostop must be off, stop, suspend, true or false",
                )),
            },
            _ => Err(serde::de::Error::custom(
                "autostop must be off, stop, suspend, true or false",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn autostop_is_read_from_a_boolean_or_a_word_and_written_in_the_older_form() {
        let read = |value: Value| serde_json::from_value::<Autostop>(value);
        for (given, wanted, written) in [
            (json!(false), Autostop::Off, json!(false)),
            (json!("off"), Autostop::Off, json!(false)),
            (json!(true), Autostop::Stop, json!(true)),
            (json!("stop"), Autostop::Stop, json!(true)),
            (json!("suspend"), Autostop::Suspend, json!("suspend")),
        ] {
            let autostop = read(given.clone()).unwrap();
            assert_eq!(autostop, wanted, "{given}");
            assert_eq!(json!(autostop), written, "{given}");
        }
        for bad in [json!("pause"), json!(1), json!(null)] {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
    }
}
