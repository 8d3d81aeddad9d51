//! Addresses of the private network (proxy-network-runtime.md 9.1).

use std::net::Ipv6Addr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::MachineId;

/// The resolver that every Machine asks.
pub const RESOLVER: Ipv6Addr = Ipv6Addr::new(0xfdaa, 0, 0, 0, 0, 0, 0, 3);
/// The API's port, on the host and at `_api.internal`.
pub const API_PORT: u16 = 4280;
/// The MTU of a Machine's interface.
pub const MTU: u32 = 1420;

/// A private network: apps on different ones cannot reach each other. Never 0: `fdaa:0:0:` is
/// the platform's own.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub struct NetworkId(pub u32);

/// The host part of the 6PN addresses of one slot (D17).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub struct HostPart(pub u16);

/// Returns a Machine's 6PN address: `fdaa : network(32) : a7b host(16) : machine(32) : 2`.
#[must_use]
pub fn address(network: NetworkId, host: HostPart, machine: &MachineId) -> Ipv6Addr {
    let (net, low) = (network.0.to_be_bytes(), machine.low32().to_be_bytes());
    let pair = |bytes: [u8; 4], at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    Ipv6Addr::new(
        0xfdaa,
        pair(net, 0),
        pair(net, 2),
        0xa7b,
        host.0,
        pair(low, 0),
        pair(low, 2),
        2,
    )
}

/// Returns the network that an address belongs to, or `None` outside `fdaa::/16`.
#[must_use]
pub fn network_of(address: Ipv6Addr) -> Option<NetworkId> {
    let s = address.segments();
    (s[0] == 0xfdaa).then(|| NetworkId(u32::from(s[1]) << 16 | u32::from(s[2])))
}
