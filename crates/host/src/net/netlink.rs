//! One rtnetlink socket: a request, its answer, a dump. Used by [`super::veth`] in the container
//! helper and by the host agent for the resolver's address and for reading routes.
//!
//! Synchronous on purpose: the kernel answers at once, and the helper has no runtime. Never
//! starts a process.

use std::io;
use std::net::IpAddr;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkFlags, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
    RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// Room for one datagram of the kernel: it never sends more than 32 KiB of a dump at once.
const RECEIVE_BUFFER: usize = 64 * 1024;
/// Datagrams read for one request before it is given up: a dump of a million routes needs fewer.
const MAX_DATAGRAMS: usize = 100_000;
/// Netlink messages begin at multiples of this.
const ALIGNMENT: usize = 4;

const EEXIST: i32 = libc::EEXIST;

/// Makes a thing, or takes the place of the one that is there.
const PUT: u16 = NLM_F_CREATE | NLM_F_REPLACE;

/// A socket to the kernel's routing tables in the network namespace of the thread that made it.
pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens the socket in the current network namespace.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self {
            socket,
            sequence: 0,
            buffer: Vec::with_capacity(RECEIVE_BUFFER),
        })
    }

    /// Sends a change and waits until the kernel has made or refused it.
    pub(super) fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.ask(message, NLM_F_REQUEST | NLM_F_ACK | flags, |_| {})
    }

    /// Asks for all entries of a kind and gives each to `each`.
    pub(super) fn dump(
        &mut self,
        message: RouteNetlinkMessage,
        each: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        self.ask(message, NLM_F_REQUEST | NLM_F_DUMP, each)
    }

    /// Returns the index of an interface, or `None` when there is none of the name.
    pub(super) fn index_of(&mut self, name: &str) -> io::Result<Option<u32>> {
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::IfName(name.to_owned()));
        let mut index = None;
        let asked = self.ask(
            RouteNetlinkMessage::GetLink(message),
            NLM_F_REQUEST | NLM_F_ACK,
            |answer| {
                if let RouteNetlinkMessage::NewLink(link) = answer {
                    index = Some(link.header.index);
                }
            },
        );
        match asked {
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
            Ok(()) => Ok(index),
        }
    }

    /// Sets an interface up. No link-local address is made: nothing here needs one, and with it
    /// would come duplicate address detection and router solicitations.
    pub(super) fn set_up(&mut self, index: u32, autoconf: Autoconf) -> io::Result<()> {
        if matches!(autoconf, Autoconf::Off) {
            let mut quiet = LinkMessage::default();
            quiet.header.index = index;
            quiet
                .attributes
                .push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(
                    vec![AfSpecInet6::AddrGenMode(In6AddrGenMode::None)],
                )]));
            self.change(RouteNetlinkMessage::SetLink(quiet), 0)?;
        }
        let mut up = LinkMessage::default();
        up.header.index = index;
        up.header.flags = LinkFlags::Up;
        up.header.change_mask = LinkFlags::Up;
        self.change(RouteNetlinkMessage::SetLink(up), 0)
    }

    /// Adds an address without duplicate address detection; one that is there already is fine.
    pub(super) fn add_address(
        &mut self,
        index: u32,
        address: IpAddr,
        prefix: u8,
    ) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.index = index;
        message.header.family = family(address);
        message.header.prefix_len = prefix;
        message.header.scope = match address {
            IpAddr::V6(v6) if v6.is_unicast_link_local() => AddressScope::Link,
            _ => AddressScope::Universe,
        };
        message.attributes.push(AddressAttribute::Local(address));
        message.attributes.push(AddressAttribute::Address(address));
        if address.is_ipv6() {
            let flags = AddressFlags::Nodad | AddressFlags::Noprefixroute;
            message.attributes.push(AddressAttribute::Flags(flags));
        }
        ignore_existing(self.change(
            RouteNetlinkMessage::NewAddress(message),
            NLM_F_CREATE | NLM_F_EXCL,
        ))
    }

    /// Adds a route; without `gateway` the destination is on the link itself.
    pub(super) fn add_route(
        &mut self,
        index: u32,
        to: (IpAddr, u8),
        gateway: Option<IpAddr>,
    ) -> io::Result<()> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(to.0);
        message.header.destination_prefix_length = to.1;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.kind = RouteType::Unicast;
        message.header.scope = match (to.0, gateway) {
            (IpAddr::V4(_), None) => RouteScope::Link,
            _ => RouteScope::Universe,
        };
        if to.1 > 0 {
            message
                .attributes
                .push(RouteAttribute::Destination(route_address(to.0)));
        }
        if let Some(gateway) = gateway {
            message.header.flags = RouteFlags::Onlink;
            message
                .attributes
                .push(RouteAttribute::Gateway(route_address(gateway)));
        }
        message.attributes.push(RouteAttribute::Oif(index));
        self.change(RouteNetlinkMessage::NewRoute(message), PUT)
    }

    /// Pins the hardware address of a neighbour, so that nobody ever has to ask for it.
    pub(super) fn add_neighbour(
        &mut self,
        index: u32,
        address: IpAddr,
        mac: [u8; 6],
    ) -> io::Result<()> {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = index;
        message.header.family = family(address);
        message.header.state = NeighbourState::Permanent;
        message
            .attributes
            .push(NeighbourAttribute::Destination(match address {
                IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
                IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
            }));
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        self.change(RouteNetlinkMessage::NewNeighbour(message), PUT)
    }

    fn ask(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
        mut each: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut request = NetlinkMessage::from(message);
        request.header.flags = flags;
        request.header.sequence_number = self.sequence;
        request.finalize();
        let mut out = vec![0_u8; request.buffer_len()];
        request.serialize(&mut out);
        self.socket.send(&out, 0)?;
        for _ in 0..MAX_DATAGRAMS {
            if self.read_one(&mut each)? {
                return Ok(());
            }
        }
        Err(io::Error::other("the kernel's answer did not end"))
    }

    /// Reads one datagram; returns whether it ended the answer.
    fn read_one(&mut self, each: &mut impl FnMut(RouteNetlinkMessage)) -> io::Result<bool> {
        self.buffer.clear();
        loop {
            match self.socket.recv(&mut self.buffer, 0) {
                Ok(_) => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let mut rest = self.buffer.as_slice();
        while !rest.is_empty() {
            let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|error| io::Error::other(error.to_string()))?;
            let length = usize::try_from(answer.header.length).unwrap_or(usize::MAX);
            let ours = answer.header.sequence_number == self.sequence;
            match answer.payload {
                NetlinkPayload::Error(error) if ours => {
                    return match error.code {
                        None => Ok(true),
                        Some(_) => Err(error.to_io()),
                    };
                }
                NetlinkPayload::Done(_) if ours => return Ok(true),
                NetlinkPayload::InnerMessage(inner) if ours => each(inner),
                _ => {}
            }
            let next = length.max(1).next_multiple_of(ALIGNMENT).min(rest.len());
            rest = &rest[next..];
        }
        Ok(false)
    }
}

/// Whether the kernel gives an interface addresses of its own when it comes up.
#[derive(Clone, Copy, Debug)]
pub(super) enum Autoconf {
    /// As usual.
    Usual,
    /// Not at all.
    Off,
}

/// Allows IPv6 on an interface where the host's defaults forbid it. Where even the file is missing
/// the kernel has no IPv6, and giving it an address fails in words.
pub(super) fn enable_v6(interface: &str) {
    let _refused = std::fs::write(
        format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6"),
        "0",
    );
}

/// Returns whether an error says that there is no such interface.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENXIO))
}

/// Returns the result, with "exists already" turned into success.
fn ignore_existing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(EEXIST) => Ok(()),
        other => other,
    }
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn route_address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(v4) => RouteAddress::Inet(v4),
        IpAddr::V6(v6) => RouteAddress::Inet6(v6),
    }
}
