//! The IPv4 addresses that a host gives its Machines: one /16, chosen so that it is in nobody's
//! way, and pure functions from an index to an address.
//!
//! IPv4 addresses mean something on their own host only. The ledger keeps each Machine's index;
//! the pool may be another after a boot.

use std::net::Ipv4Addr;

/// First address that a Machine gets: the network's own, and the host's, come before it.
const FIRST: u32 = 2;
/// How many Machines a host can number: all of a /16 but the first two and the last address.
pub const POOL_CAPACITY: u16 = 65_533;
/// Routes to more than this are default routes in parts, as VPNs make them, and overlap nothing.
const SHORTEST_PREFIX: u8 = 8;

/// A /16 of IPv4 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct V4Pool {
    base: u32,
}

/// An IPv4 route of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HostRoute {
    /// Where it leads.
    pub(super) to: Ipv4Addr,
    /// How many bits of `to` count.
    pub(super) prefix: u8,
    /// Whether it leads to a Machine, or is the host's own address in a pool.
    pub(super) ours: bool,
}

// === impl V4Pool ===

impl V4Pool {
    /// Returns the pools that may be used, best first: 172.30.0.0/16, 172.31.0.0/16, then all of
    /// 100.64.0.0/10.
    fn candidates() -> impl Iterator<Item = Self> {
        let private = [[172, 30], [172, 31]].into_iter();
        let carrier = (64..=127).map(|second| [100, second]);
        private.chain(carrier).map(|[a, b]| Self {
            base: u32::from_be_bytes([a, b, 0, 0]),
        })
    }

    /// Returns the host's own address in the pool, `.0.1`.
    #[must_use]
    pub fn host(self) -> Ipv4Addr {
        Ipv4Addr::from(self.base + 1)
    }

    /// Returns the address of the Machine with this index, or `None` past [`POOL_CAPACITY`].
    #[must_use]
    pub fn address(self, index: u16) -> Option<Ipv4Addr> {
        (index < POOL_CAPACITY).then(|| Ipv4Addr::from(self.base + FIRST + u32::from(index)))
    }

    /// Returns whether an address is in the pool.
    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) >> 16 == self.base >> 16
    }

    /// Returns the pool as `172.30.0.0/16`.
    #[must_use]
    pub fn cidr(self) -> String {
        format!("{}/16", Ipv4Addr::from(self.base))
    }

    fn overlaps(self, route: &HostRoute) -> bool {
        let bits = u32::from(route.prefix.min(16));
        let shift = 32 - bits;
        route.prefix >= SHORTEST_PREFIX && u32::from(route.to) >> shift == self.base >> shift
    }
}

/// Returns whether an address is the one that a host gives itself in one of the pools.
pub(super) fn is_hosts(address: Ipv4Addr) -> bool {
    V4Pool::candidates().any(|pool| pool.host() == address)
}

/// Returns the pool to use: the one that Machines use already, else the first that no route of
/// the host overlaps; `None` when every one is taken.
pub(super) fn choose(routes: &[HostRoute]) -> Option<V4Pool> {
    let in_use = V4Pool::candidates().find(|pool| {
        routes
            .iter()
            .any(|route| route.ours && pool.contains(route.to))
    });
    in_use.or_else(|| {
        V4Pool::candidates().find(|pool| !routes.iter().any(|route| pool.overlaps(route)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(to: [u8; 4], prefix: u8, ours: bool) -> HostRoute {
        HostRoute {
            to: to.into(),
            prefix,
            ours,
        }
    }

    #[test]
    fn the_first_pool_that_no_route_overlaps_is_taken() {
        let default = route([0, 0, 0, 0], 0, false);
        let lan = route([192, 168, 1, 0], 24, false);
        assert_eq!(choose(&[default, lan]).unwrap().cidr(), "172.30.0.0/16");
        let docker = route([172, 30, 4, 0], 24, false);
        assert_eq!(choose(&[docker]).unwrap().cidr(), "172.31.0.0/16");
        let company = route([172, 16, 0, 0], 12, false);
        assert_eq!(choose(&[company]).unwrap().cidr(), "100.64.0.0/16");
    }

    #[test]
    fn half_a_default_route_is_in_nobodys_way() {
        let vpn = [
            route([0, 0, 0, 0], 1, false),
            route([128, 0, 0, 0], 1, false),
        ];
        assert_eq!(choose(&vpn).unwrap().cidr(), "172.30.0.0/16");
    }

    #[test]
    fn machines_that_run_keep_their_pool_whatever_else_came() {
        let machine = route([172, 31, 0, 9], 32, true);
        let late = route([172, 31, 0, 0], 16, false);
        assert_eq!(choose(&[machine, late]).unwrap().cidr(), "172.31.0.0/16");
    }

    #[test]
    fn with_every_pool_taken_there_is_none() {
        let all = [
            route([172, 16, 0, 0], 12, false),
            route([100, 64, 0, 0], 10, false),
        ];
        assert_eq!(choose(&all), None);
    }

    #[test]
    fn an_index_is_an_address_and_the_last_ones_are_not() {
        let pool = choose(&[]).unwrap();
        assert_eq!(pool.host(), Ipv4Addr::new(172, 30, 0, 1));
        assert_eq!(pool.address(0), Some(Ipv4Addr::new(172, 30, 0, 2)));
        assert_eq!(
            pool.address(POOL_CAPACITY - 1),
            Some(Ipv4Addr::new(172, 30, 255, 254))
        );
        assert_eq!(pool.address(POOL_CAPACITY), None);
    }
}
