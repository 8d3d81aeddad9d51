//! The PROXY header: what the `proxy_proto` handler tells a Machine first, of the client's address
//! and the one that it reached, as the client saw them.
//!
//! After the specification of HAProxy, version 1 (a line of text) and version 2 (binary).

use std::net::{IpAddr, SocketAddr};

use hangar_api::machine::service::handling::ProxyProto;

use crate::connection::Ends;

/// What version 2 begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, a connection made for a client.
const PROXIED: u8 = 0x21;
/// Stream sockets of an address family.
const UNKNOWN: u8 = 0x00;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// Returns the header of a connection. An IPv4 address that came by an IPv6 socket is what it is.
pub(crate) fn header(form: ProxyProto, ends: Ends) -> Vec<u8> {
    let plain = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
    let (from, to) = (plain(ends.peer), plain(ends.local));
    match form {
        ProxyProto::V1 => line(from, to).into_bytes(),
        ProxyProto::V2 => binary(from, to),
    }
}

fn line(from: SocketAddr, to: SocketAddr) -> String {
    let family = match (from, to) {
        (SocketAddr::V4(_), SocketAddr::V4(_)) => "TCP4",
        (SocketAddr::V6(_), SocketAddr::V6(_)) => "TCP6",
        _ => return "PROXY UNKNOWN\r\n".to_owned(),
    };
    format!(
        "PROXY {family} {} {} {} {}\r\n",
        from.ip(),
        to.ip(),
        from.port(),
        to.port()
    )
}

fn binary(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let mut addresses = Vec::with_capacity(36);
    let family = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            addresses.extend(from.octets());
            addresses.extend(to.octets());
            TCP4
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            addresses.extend(from.octets());
            addresses.extend(to.octets());
            TCP6
        }
        _ => UNKNOWN,
    };
    if family != UNKNOWN {
        addresses.extend(from.port().to_be_bytes());
        addresses.extend(to.port().to_be_bytes());
    }
    // At most 36 bytes.
    let length = u16::try_from(addresses.len()).unwrap_or(0);
    let mut header = SIGNATURE.to_vec();
    header.extend([PROXIED, family]);
    header.extend(length.to_be_bytes());
    header.extend(addresses);
    header
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn of(form: ProxyProto, peer: &str, local: &str) -> Vec<u8> {
        let (peer, local) = (peer.parse().unwrap(), local.parse().unwrap());
        header(form, Ends { peer, local })
    }

    #[test]
    fn version_1_is_a_line() {
        let line = of(ProxyProto::V1, "1.2.3.4:56", "[::ffff:5.6.7.8]:80");
        assert_eq!(line, b"PROXY TCP4 1.2.3.4 5.6.7.8 56 80\r\n");
        let line = of(ProxyProto::V1, "[2001:db8::1]:56", "[::1]:80");
        assert_eq!(line, b"PROXY TCP6 2001:db8::1 ::1 56 80\r\n");
        let line = of(ProxyProto::V1, "[2001:db8::1]:56", "5.6.7.8:80");
        assert_eq!(line, b"PROXY UNKNOWN\r\n");
    }

    #[test]
    fn version_2_is_as_the_specification_has_it() {
        let header = of(ProxyProto::V2, "1.2.3.4:258", "5.6.7.8:80");
        let mut wanted = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
        wanted.extend([1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 0, 80]);
        assert_eq!(header, wanted);
        let header = of(ProxyProto::V2, "[2001:db8::1]:56", "5.6.7.8:80");
        assert_eq!(header, b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\0");
    }

    /// Reads version 2 as an app does.
    fn read(header: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
        let rest = header.strip_prefix(&SIGNATURE)?.strip_prefix(&[PROXIED])?;
        let (family, rest) = rest.split_first()?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        assert_eq!(rest.len(), usize::from(u16::from_be_bytes(*length)));
        let size = match *family {
            TCP4 => 4,
            TCP6 => 16,
            _ => return None,
        };
        let ip = |bytes: &[u8]| match <[u8; 4]>::try_from(bytes) {
            Ok(four) => IpAddr::from(four),
            Err(_) => IpAddr::from(<[u8; 16]>::try_from(bytes).unwrap()),
        };
        let port = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
        let end = |n: usize| {
            let address = ip(&rest[n * size..(n + 1) * size]);
            SocketAddr::new(address, port(2 * size + 2 * n))
        };
        Some((end(0), end(1)))
    }

    proptest! {
        #[test]
        fn what_version_2_says_is_read_back(
            six in any::<bool>(), from in any::<u128>(), to in any::<u128>(),
            ports in any::<(u16, u16)>(),
        ) {
            let ip = |n: u128| if six {
                IpAddr::V6(Ipv6Addr::from(n | 1 << 127))
            } else {
                IpAddr::V4(Ipv4Addr::from(u32::try_from(n >> 96).unwrap()))
            };
            let (peer, local) = ((ip(from), ports.0).into(), (ip(to), ports.1).into());
            let header = header(ProxyProto::V2, Ends { peer, local });
            prop_assert_eq!(read(&header), Some((peer, local)));
        }
    }
}
