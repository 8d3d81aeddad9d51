//! One question to the Machine's resolver: the AAAA record of a name.
//!
//! A static program cannot count on the C library's resolver, which loads parts of itself from
//! an image that does not hold them, so the question is asked here.

use std::io::{Error, ErrorKind};
use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::time::Duration;

/// Returns the first IPv6 address of a name.
pub(crate) fn lookup(name: &str) -> std::io::Result<Ipv6Addr> {
    let config = std::fs::read_to_string("/etc/resolv.conf")?;
    let server = config
        .lines()
        .filter_map(|line| line.strip_prefix("nameserver "))
        .find_map(|a| a.trim().parse::<IpAddr>().ok());
    let server = server.ok_or_else(|| Error::other("no nameserver in /etc/resolv.conf"))?;
    let socket = UdpSocket::bind(if server.is_ipv6() {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    })?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    socket.connect((server, 53))?;
    socket.send(&question(name))?;
    let mut answer = [0; 1500];
    let length = socket.recv(&mut answer)?;
    first_aaaa(&answer[..length])
        .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("no address for {name}")))
}

fn question(name: &str) -> Vec<u8> {
    let mut packet = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        packet.push(u8::try_from(label.len()).unwrap_or(0));
        packet.extend_from_slice(label.as_bytes());
    }
    packet.extend_from_slice(&[0, 0, 28, 0, 1]);
    packet
}

/// Returns the first AAAA record of an answer, or `None` where it has none or is malformed.
fn first_aaaa(packet: &[u8]) -> Option<Ipv6Addr> {
    let answers = u16::from_be_bytes(packet.get(6..8)?.try_into().ok()?);
    let mut at = skip_name(packet, 12)? + 4;
    for _ in 0..answers {
        at = skip_name(packet, at)?;
        let kind = packet.get(at..at + 2)?;
        let length = usize::from(u16::from_be_bytes(
            packet.get(at + 8..at + 10)?.try_into().ok()?,
        ));
        let data = packet.get(at + 10..at + 10 + length)?;
        if kind == [0, 28] {
            return <[u8; 16]>::try_from(data).ok().map(Ipv6Addr::from);
        }
        at += 10 + length;
    }
    None
}

fn skip_name(packet: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *packet.get(at)? {
            0 => return Some(at + 1),
            length if length >= 0xc0 => return Some(at + 2),
            length => at += 1 + usize::from(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_address_behind_a_compressed_name() {
        let mut packet = question("a.internal");
        packet[7] = 1;
        packet.extend_from_slice(&[0xc0, 12, 0, 28, 0, 1, 0, 0, 0, 5, 0, 16]);
        packet.extend_from_slice(&"fdaa::3".parse::<Ipv6Addr>().unwrap().octets());
        assert_eq!(first_aaaa(&packet), "fdaa::3".parse().ok());
        for cut in 0..packet.len() {
            assert_eq!(first_aaaa(&packet[..cut]), None);
        }
    }
}
