//! Where the proxy listens, as the rest of Hangar needs to know it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where external ports are really bound, and under which domain apps are found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EdgeMap {
    /// The address that the proxy listens on.
    pub address: IpAddr,
    /// Apps are `APP.DOMAIN`.
    pub domain: String,
    /// External port of a service to the port that is bound for it. Stable across restarts.
    pub ports: BTreeMap<u16, u16>,
    /// The same for datagrams.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub udp: BTreeMap<u16, u16>,
    /// Ports that could not be bound: external port to the reason, in words.
    #[serde(default)]
    pub refused: BTreeMap<u16, String>,
    /// The same for datagrams.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub udp_refused: BTreeMap<u16, String>,
}

// === impl EdgeMap ===

impl Default for EdgeMap {
    fn default() -> Self {
        Self {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            domain: "localhost".to_owned(),
            ports: BTreeMap::new(),
            udp: BTreeMap::new(),
            refused: BTreeMap::new(),
            udp_refused: BTreeMap::new(),
        }
    }
}

impl EdgeMap {
    /// Returns the URL at which an app's service on this external port is found from here, or
    /// `None` where the port is not bound.
    #[must_use]
    pub fn url(&self, app: &str, external: u16, tls: bool) -> Option<String> {
        let bound = *self.ports.get(&external)?;
        let scheme = if tls { "https" } else { "http" };
        let usual = if tls { 443 } else { 80 };
        let host = format!("{app}.{}", self.domain);
        Some(if bound == usual {
            format!("{scheme}://{host}/")
        } else {
            format!("{scheme}://{host}:{bound}/")
        })
    }
}
