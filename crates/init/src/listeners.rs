//! The TCP sockets that listen in this network namespace, from `/proc/self/net/tcp` and `tcp6`.

use std::fs::File;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::wire::MAX_LISTENERS;

/// Most bytes read of each table.
const MAX_TABLE: u64 = 4 * 1024 * 1024;
/// `TCP_LISTEN` in the tables.
const LISTEN: &str = "0A";

pub(crate) fn list() -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for path in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        let mut text = String::new();
        // No IPv6, no table.
        if let Ok(file) = File::open(path)
            && file.take(MAX_TABLE).read_to_string(&mut text).is_ok()
        {
            found.extend(text.lines().skip(1).filter_map(listening));
        }
    }
    found.sort_unstable();
    found.dedup();
    found.truncate(MAX_LISTENERS);
    found
}

fn listening(line: &str) -> Option<SocketAddr> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let local = fields.next()?;
    let state = fields.nth(1)?;
    if state != LISTEN {
        return None;
    }
    let (address, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(SocketAddr::new(parse_address(address)?, port))
}

/// Addresses are printed as 32-bit words in the machine's own order.
fn parse_address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let text = hex.get(at * 8..at * 8 + 8)?;
        u32::from_str_radix(text, 16).ok().map(u32::to_ne_bytes)
    };
    match hex.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let mut bytes = [0; 16];
            for (at, slot) in bytes.chunks_exact_mut(4).enumerate() {
                slot.copy_from_slice(&word(at)?);
            }
            Some(IpAddr::V6(Ipv6Addr::from(bytes)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listening_socket_of_this_process_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(list().contains(&listener.local_addr().unwrap()));
    }

    #[test]
    fn lines_of_other_states_and_broken_lines_are_passed_over() {
        assert_eq!(listening("0: 0100007F:1F90 00000000:0000 01 x"), None);
        assert_eq!(listening("nonsense"), None);
        assert_eq!(listening("0: 01:1F90 00000000:0000 0A x"), None);
    }
}
