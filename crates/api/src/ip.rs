//! Addresses at which an app is found from outside (machines-api.md 2.5).
//!
//! A single platform has one address: that at which its proxy listens, for all apps. Allocating one
//! writes down that the app is to be found there, and in which form.

use std::net::{IpAddr, Ipv6Addr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::id::Region;
use crate::lenient;

/// The form of an address.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum IpKind {
    /// IPv4.
    V4,
    /// IPv4 that other apps have too: all of them do.
    SharedV4,
    /// IPv6; where the proxy listens on IPv4 alone, the IPv6 form of that address.
    V6,
}

/// An address of an app, as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IpAssignment {
    /// The address.
    pub ip: IpAddr,
    /// The region of the platform's first slot.
    pub region: Region,
    /// The service that it is for; "" for all.
    #[serde(default)]
    pub service_name: String,
    /// Always false: clients look for a name of Fly's in the public DNS where it is true.
    #[serde(default)]
    pub shared: bool,
    /// When it was allocated.
    #[schemars(with = "crate::schema::Time")]
    pub created_at: Timestamp,
    /// Its form (Hangar's own).
    pub kind: IpKind,
}

/// The record of an allocation that the store keeps, by app and form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IpRecord {
    /// The form.
    pub kind: IpKind,
    /// The service that it is for.
    #[serde(default)]
    pub service_name: String,
    /// When it was allocated.
    #[schemars(with = "crate::schema::Time")]
    pub created_at: Timestamp,
}

/// Body of `POST .../ip_assignments`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct AssignIp {
    /// `v4`, `shared_v4` or `v6`. `private_v6` and the egress kinds are not offered.
    #[serde(rename = "type", deserialize_with = "lenient::text")]
    pub kind: Option<String>,
    /// Accepted; there is one address.
    #[serde(deserialize_with = "lenient::text")]
    pub region: Option<String>,
    /// Accepted; apps are of the only organisation.
    #[serde(deserialize_with = "lenient::text")]
    pub org_slug: Option<String>,
    /// For `private_v6`.
    #[serde(deserialize_with = "lenient::text")]
    pub network: Option<String>,
    /// The service that it is for.
    #[serde(deserialize_with = "lenient::text")]
    pub service_name: Option<String>,
}

/// Answer of `GET .../ip_assignments`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IpAssignments {
    /// The addresses.
    pub ips: Vec<IpAssignment>,
}

// === impl IpKind ===

impl IpKind {
    /// Returns the name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "v4",
            Self::SharedV4 => "shared_v4",
            Self::V6 => "v6",
        }
    }

    /// Returns the proxy's address in this form; none where it listens on IPv6 alone and IPv4 is
    /// asked for.
    #[must_use]
    pub fn of(self, edge: IpAddr) -> Option<IpAddr> {
        match (self, edge) {
            (Self::V4 | Self::SharedV4, IpAddr::V4(_)) | (Self::V6, IpAddr::V6(_)) => Some(edge),
            // A socket of IPv6 that connects to this reaches the same listener.
            (Self::V6, IpAddr::V4(v4)) => Some(v4.to_ipv6_mapped().into()),
            (Self::V4 | Self::SharedV4, IpAddr::V6(v6)) => {
                // One that listens on everything listens on IPv4 too.
                (v6 == Ipv6Addr::UNSPECIFIED).then_some(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED))
            }
        }
    }
}

impl std::str::FromStr for IpKind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Self::V4, Self::SharedV4, Self::V6]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxys_address_is_given_in_the_form_that_is_asked_for() {
        let of = |kind: IpKind, edge: &str| kind.of(edge.parse().unwrap()).map(|ip| ip.to_string());
        assert_eq!(of(IpKind::V4, "10.0.0.1").as_deref(), Some("10.0.0.1"));
        assert_eq!(
            of(IpKind::V6, "10.0.0.1").as_deref(),
            Some("::ffff:10.0.0.1")
        );
        assert_eq!(
            of(IpKind::V6, "2001:db8::1").as_deref(),
            Some("2001:db8::1")
        );
        assert_eq!(of(IpKind::SharedV4, "2001:db8::1"), None);
        assert_eq!(of(IpKind::SharedV4, "::").as_deref(), Some("0.0.0.0"));
    }
}
