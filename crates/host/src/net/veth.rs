//! A Machine's own cable: a veth pair between its network namespace and the host.
//!
//! Called by the container runtime's helper ([`attach`]) and by whoever cleans up ([`detach`],
//! [`interfaces`]). Synchronous, on netlink sockets, no process is started: connecting a Machine
//! takes a millisecond and a half.
//!
//! There is no bridge and nothing is ever looked up on the cable: both ends have fixed hardware
//! addresses, and each side pins the other's as a permanent neighbour. The Machine sends
//! everything to `fe80::1` or `169.254.1.1`, and the host routes its `/128` and `/32` back.
//! Nothing about isolation is decided here: that is the table of [`super::rules`].

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd as _;

use hangar_api::net::MTU;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo, LinkMessage,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::netlink::{Autoconf, Netlink, enable_v6, is_absent};
use crate::runtime::{RunKey, RunNet};

/// What every host-side interface of a Machine begins with; the firewall matches it.
pub const INTERFACE_PREFIX: &str = "hg";
/// The interface inside a Machine.
pub const INSIDE: &str = "eth0";
/// Where a Machine sends IPv6 that is not its own.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// Where a Machine sends IPv4 that is not its own.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// Hardware address of every host end. Each cable is a link of its own, so they may be equal.
const HOST_MAC: [u8; 6] = [0x02, 0x68, 0x67, 0, 0, 1];
/// Hardware address of every inner end.
const INSIDE_MAC: [u8; 6] = [0x02, 0x68, 0x67, 0, 0, 2];
/// Starts told apart by an interface's name: five digits of base 36.
const STARTS_IN_A_NAME: u64 = 36_u64.pow(5);

/// Why a Machine could not be connected.
#[derive(Debug, thiserror::Error)]
#[error("{step} {interface}: {source}")]
pub struct VethError {
    /// What we were doing: "make interface".
    pub step: &'static str,
    /// Which interface.
    pub interface: String,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

/// Returns the host-side interface of a run: `hg`, the low 32 bits of the Machine's id (unique on
/// a host) and the start, so that a quick restart never meets the name of the run before.
#[must_use]
pub fn interface_name(key: &RunKey) -> String {
    let mut name = format!("{INTERFACE_PREFIX}{:08x}", key.machine.low32());
    let mut start = key.start % STARTS_IN_A_NAME;
    let mut digits = Vec::new();
    loop {
        let digit = u32::try_from(start % 36).unwrap_or_default();
        digits.push(char::from_digit(digit, 36).unwrap_or('0'));
        start /= 36;
        if start == 0 {
            break;
        }
    }
    name.extend(digits.iter().rev());
    name
}

/// Connects the network namespace of a process to the host: makes the pair, sets up its inside
/// and then routes both addresses to it. Called in the host's namespace by a thread that may
/// change its own.
///
/// The routes come last: who connects too early is told at once that nobody is there, instead of
/// losing a packet to a half-made inside and trying again a second later.
///
/// May be repeated: an interface of the same name is removed first, and routes of an earlier run
/// that has not quite gone are taken over. After an error nothing is left.
pub fn attach(child_pid: u32, net: &RunNet, ifname: &str) -> Result<(), VethError> {
    let mut netlink = open(ifname)?;
    remove(&mut netlink, ifname)?;
    make_pair(&mut netlink, child_pid, ifname).at("make interface", ifname)?;
    let connected = set_up_host_end(&mut netlink, ifname).and_then(|host_end| {
        inside(child_pid, || configure_inside(net))?;
        route(&mut netlink, net, host_end, ifname)
    });
    if connected.is_err() {
        // The first error is the one worth telling.
        let _removed = remove(&mut netlink, ifname);
    }
    connected
}

/// Does something in the network namespace of a process and comes back.
fn inside(child_pid: u32, work: impl FnOnce() -> Result<(), VethError>) -> Result<(), VethError> {
    let enter = |place: &File| {
        let moved = move_into_link_name_space(place.as_fd(), Some(LinkNameSpaceType::Network));
        moved.map_err(io::Error::from)
    };
    let home = File::open("/proc/thread-self/ns/net").at("find the host's network for", INSIDE)?;
    let there =
        File::open(format!("/proc/{child_pid}/ns/net")).at("find the network of", INSIDE)?;
    enter(&there).at("enter the network of", INSIDE)?;
    let worked = work();
    enter(&home).at("come back from the network of", INSIDE)?;
    worked
}

/// Sets up the inside of a Machine's network: loopback, `eth0` with its addresses, and the way
/// out.
fn configure_inside(net: &RunNet) -> Result<(), VethError> {
    let mut netlink = open(INSIDE)?;
    enable_v6("lo");
    enable_v6(INSIDE);
    let lo = index(&mut netlink, "lo")?;
    netlink.set_up(lo, Autoconf::Usual).at("set up", "lo")?;
    let eth0 = index(&mut netlink, INSIDE)?;
    netlink.set_up(eth0, Autoconf::Off).at("set up", INSIDE)?;
    for (address, prefix, gateway) in [
        (IpAddr::V6(net.v6), 128, IpAddr::V6(GATEWAY_V6)),
        (IpAddr::V4(net.v4), 32, IpAddr::V4(GATEWAY_V4)),
    ] {
        let anywhere = match address {
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        };
        netlink
            .add_address(eth0, address, prefix)
            .at("give an address to", INSIDE)?;
        netlink
            .add_neighbour(eth0, gateway, HOST_MAC)
            .at("pin the gateway of", INSIDE)?;
        netlink
            .add_route(eth0, (anywhere, 0), Some(gateway))
            .at("add the default route of", INSIDE)?;
    }
    Ok(())
}

/// Removes a host-side interface, and with it the inner end and the routes. An interface that is
/// not there is no error.
pub fn detach(ifname: &str) -> Result<(), VethError> {
    remove(&mut open(ifname)?, ifname)
}

/// Returns the names of all host-side interfaces of Machines, for the sweep at start.
pub fn interfaces() -> Result<Vec<String>, VethError> {
    let mut netlink = open("*")?;
    let mut names = Vec::new();
    netlink
        .dump(
            RouteNetlinkMessage::GetLink(LinkMessage::default()),
            |answer| {
                if let RouteNetlinkMessage::NewLink(link) = answer {
                    names.extend(link.attributes.into_iter().filter_map(
                        |attribute| match attribute {
                            LinkAttribute::IfName(name) if is_ours(&name) => Some(name),
                            _ => None,
                        },
                    ));
                }
            },
        )
        .at("list interfaces", "*")?;
    Ok(names)
}

/// Returns whether an interface's name has the shape of [`interface_name`].
pub(super) fn is_ours(name: &str) -> bool {
    name.strip_prefix(INTERFACE_PREFIX).is_some_and(|rest| {
        (9..=13).contains(&rest.len())
            && rest
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            && rest.bytes().take(8).all(|b| b.is_ascii_hexdigit())
    })
}

fn open(ifname: &str) -> Result<Netlink, VethError> {
    Netlink::open().at("open a netlink socket for", ifname)
}

fn index(netlink: &mut Netlink, name: &str) -> Result<u32, VethError> {
    netlink
        .index_of(name)
        .and_then(|found| found.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV)))
        .at("find", name)
}

fn remove(netlink: &mut Netlink, ifname: &str) -> Result<(), VethError> {
    let mut message = LinkMessage::default();
    message
        .attributes
        .push(LinkAttribute::IfName(ifname.to_owned()));
    match netlink.change(RouteNetlinkMessage::DelLink(message), 0) {
        Err(error) if is_absent(&error) => Ok(()),
        other => other.at("remove interface", ifname),
    }
}

fn make_pair(netlink: &mut Netlink, child_pid: u32, ifname: &str) -> io::Result<()> {
    let mut peer = LinkMessage::default();
    peer.attributes.extend([
        LinkAttribute::IfName(INSIDE.to_owned()),
        LinkAttribute::Mtu(MTU),
        LinkAttribute::Address(INSIDE_MAC.to_vec()),
        LinkAttribute::NetNsPid(child_pid),
    ]);
    let mut pair = LinkMessage::default();
    pair.attributes.extend([
        LinkAttribute::IfName(ifname.to_owned()),
        LinkAttribute::Mtu(MTU),
        LinkAttribute::Address(HOST_MAC.to_vec()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ]);
    netlink.change(
        RouteNetlinkMessage::NewLink(pair),
        NLM_F_CREATE | NLM_F_EXCL,
    )
}

fn set_up_host_end(netlink: &mut Netlink, ifname: &str) -> Result<u32, VethError> {
    let host_end = index(netlink, ifname)?;
    // A Machine must not be able to advertise itself as the host's router. The firewall drops
    // that too; where the file is missing the kernel has no IPv6 and the next step says so.
    let _refused = std::fs::write(format!("/proc/sys/net/ipv6/conf/{ifname}/accept_ra"), "0");
    enable_v6(ifname);
    netlink
        .set_up(host_end, Autoconf::Off)
        .at("set up", ifname)?;
    netlink
        .add_address(host_end, IpAddr::V6(GATEWAY_V6), 128)
        .at("give the gateway's address to", ifname)?;
    Ok(host_end)
}

fn route(
    netlink: &mut Netlink,
    net: &RunNet,
    host_end: u32,
    ifname: &str,
) -> Result<(), VethError> {
    for (address, prefix) in [(IpAddr::V6(net.v6), 128), (IpAddr::V4(net.v4), 32)] {
        netlink
            .add_neighbour(host_end, address, INSIDE_MAC)
            .at("pin the neighbour of", ifname)?;
        netlink
            .add_route(host_end, (address, prefix), None)
            .at("route an address to", ifname)?;
    }
    Ok(())
}

trait At<T> {
    fn at(self, step: &'static str, interface: &str) -> Result<T, VethError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, step: &'static str, interface: &str) -> Result<T, VethError> {
        self.map_err(|source| VethError {
            step,
            interface: interface.to_owned(),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use hangar_api::id::MachineId;

    use super::*;

    fn name(machine: &str, start: u64) -> String {
        interface_name(&RunKey {
            machine: MachineId::new(machine).unwrap(),
            start,
        })
    }

    #[test]
    fn an_interface_name_fits_the_kernel_and_tells_starts_apart() {
        assert_eq!(name("17811953c92e18", 1), "hg53c92e181");
        assert_eq!(name("17811953c92e18", 36), "hg53c92e1810");
        assert!(name("17811953c92e18", u64::MAX).len() <= 15);
        assert_ne!(name("17811953c92e18", 7), name("17811953c92e18", 8));
    }

    #[test]
    fn only_names_that_we_make_are_ours() {
        assert!(is_ours(&name("17811953c92e18", 1)));
        for other in ["hg0", "hangar0", "eth0", "hgzzzzzzzz1", "hg53c92e18"] {
            assert!(!is_ours(other), "{other}");
        }
    }
}
