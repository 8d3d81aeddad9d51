//! What the host itself needs beside the firewall: forwarding, and the resolver's address.
//!
//! That address and the host's own in the pool are on the loopback interface: it is there on
//! every machine, which the kernel module for dummy interfaces is not, and nobody deletes it.
//! Synchronous; the keeper calls it off the runtime. Everything may be repeated.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use hangar_api::net::RESOLVER;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::netlink::{Autoconf, Netlink, enable_v6};
use super::pool::{self, HostRoute, V4Pool};
use super::{Finding, NetError, veth};

/// The interface that carries the resolver's address.
const INTERFACE: &str = "lo";

const V4_FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
const V6_CONF: &str = "/proc/sys/net/ipv6/conf";

/// Gives the host its addresses and turns forwarding on.
pub(super) fn ensure(pool: V4Pool) -> Result<(), NetError> {
    ensure_addresses(pool).map_err(|source| NetError::System {
        doing: "give this host the resolver's address (needs root)",
        source,
    })?;
    ensure_forwarding()
}

/// Returns whether everything that [`ensure`] makes is there.
pub(super) fn holds(pool: V4Pool) -> bool {
    let forwarding = [
        V4_FORWARDING.to_owned(),
        format!("{V6_CONF}/all/forwarding"),
    ];
    forwarding.iter().all(|path| is_on(path)) && addresses_hold(pool).unwrap_or(false)
}

/// Returns the pool in use, or the first that is free.
pub(super) fn choose_pool() -> Result<V4Pool, NetError> {
    let routes = routes().map_err(|source| NetError::System {
        doing: "read the host's routes",
        source,
    })?;
    pool::choose(&routes).ok_or(NetError::NoPool)
}

/// Returns what stands in the way of a private network on this machine.
pub(super) fn findings() -> Vec<Finding> {
    let mut found = Vec::new();
    let mut add = |problem: &str, remedy: &str| {
        found.push(Finding {
            problem: problem.to_owned(),
            remedy: remedy.to_owned(),
        });
    };
    if !is_on(V4_FORWARDING) && !may_write(V4_FORWARDING) {
        add(
            "IPv4 forwarding is off and may not be turned on: Machines have no way out",
            "sysctl -w net.ipv4.ip_forward=1",
        );
    }
    if !Path::new(V6_CONF).exists() {
        add(
            "the kernel has no IPv6: the private network needs it",
            "remove ipv6.disable=1 from the kernel's command line and boot again",
        );
    } else if !is_on(&format!("{V6_CONF}/all/forwarding"))
        && !may_write(&format!("{V6_CONF}/all/forwarding"))
    {
        add(
            "IPv6 forwarding is off and may not be turned on: Machines cannot reach each other",
            "sysctl -w net.ipv6.conf.all.forwarding=1",
        );
    }
    let legacy = fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default();
    if legacy.lines().any(|table| table == "filter") {
        add(
            "tables of iptables-legacy are in use, which Hangar cannot read: where their FORWARD \
             policy is DROP, Machines have no way out",
            "iptables-legacy -I FORWARD -i hg+ -j ACCEPT && iptables-legacy -I FORWARD -o hg+ -j ACCEPT",
        );
    }
    found
}

fn ensure_addresses(pool: V4Pool) -> io::Result<()> {
    let mut netlink = Netlink::open()?;
    let index = netlink
        .index_of(INTERFACE)?
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))?;
    enable_v6(INTERFACE);
    netlink.set_up(index, Autoconf::Usual)?;
    netlink.add_address(index, IpAddr::V6(RESOLVER), 128)?;
    netlink.add_address(index, IpAddr::V4(pool.host()), 32)
}

fn addresses_hold(pool: V4Pool) -> io::Result<bool> {
    let mut netlink = Netlink::open()?;
    let Some(index) = netlink.index_of(INTERFACE)? else {
        return Ok(false);
    };
    let (mut v6, mut v4) = (false, false);
    netlink.dump(
        RouteNetlinkMessage::GetAddress(AddressMessage::default()),
        |answer| {
            if let RouteNetlinkMessage::NewAddress(address) = answer
                && address.header.index == index
            {
                for attribute in &address.attributes {
                    if let AddressAttribute::Address(ip) = attribute {
                        v6 |= *ip == IpAddr::V6(RESOLVER);
                        v4 |= *ip == IpAddr::V4(pool.host());
                    }
                }
            }
        },
    )?;
    Ok(v6 && v4)
}

/// A host that forwards no longer listens to router advertisements, by which many have their own
/// way out: uplinks that did so are told to go on.
fn ensure_forwarding() -> Result<(), NetError> {
    turn_on(V4_FORWARDING)?;
    let v6 = format!("{V6_CONF}/all/forwarding");
    if !is_on(&v6) {
        for interface in fs::read_dir(V6_CONF).into_iter().flatten().flatten() {
            let name = interface.file_name();
            let of_the_host = !matches!(name.to_str(), None | Some("all" | "default" | "lo"));
            let accept = interface.path().join("accept_ra");
            if of_the_host && fs::read_to_string(&accept).is_ok_and(|value| value.trim() == "1") {
                write(&accept, "2")?;
            }
        }
    }
    turn_on(&v6)
}

fn turn_on(path: &str) -> Result<(), NetError> {
    if is_on(path) {
        return Ok(());
    }
    write(Path::new(path), "1")
}

fn write(path: &Path, value: &str) -> Result<(), NetError> {
    fs::write(path, value).map_err(|source| NetError::Setting {
        path: path.display().to_string(),
        value: value.to_owned(),
        source,
    })
}

fn is_on(path: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|value| value.trim() == "1")
}

fn may_write(path: &str) -> bool {
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok()
}

/// Reads the IPv4 routes of every table, and which of them are ours.
fn routes() -> io::Result<Vec<HostRoute>> {
    let mut netlink = Netlink::open()?;
    let mut cables = Vec::new();
    netlink.dump(
        RouteNetlinkMessage::GetLink(LinkMessage::default()),
        |answer| {
            if let RouteNetlinkMessage::NewLink(link) = answer {
                let ours = link.attributes.iter().any(
                    |attribute| matches!(attribute, LinkAttribute::IfName(name) if veth::is_ours(name)),
                );
                cables.extend(ours.then_some(link.header.index));
            }
        },
    )?;
    let own = netlink.index_of(INTERFACE)?;
    let mut routes = Vec::new();
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    netlink.dump(RouteNetlinkMessage::GetRoute(message), |answer| {
        if let RouteNetlinkMessage::NewRoute(route) = answer {
            routes.extend(host_route(&route, &cables, own));
        }
    })?;
    Ok(routes)
}

fn host_route(route: &RouteMessage, cables: &[u32], own: Option<u32>) -> Option<HostRoute> {
    if !matches!(route.header.kind, RouteType::Unicast | RouteType::Local) {
        return None;
    }
    let (mut to, mut by) = (None, None);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => to = Some(*address),
            RouteAttribute::Oif(index) => by = Some(*index),
            _ => {}
        }
    }
    let to = to?;
    let to_a_machine = by.is_some_and(|index| cables.contains(&index));
    Some(HostRoute {
        to,
        prefix: route.header.destination_prefix_length,
        ours: to_a_machine || (by == own && pool::is_hosts(to)),
    })
}
