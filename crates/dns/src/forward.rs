//! Asking others: names outside `.internal` go to the host's own resolvers.
//!
//! Used by [`crate::serve`]. A question is passed on as it came, with an id of our own and from a
//! port of its own, so that nobody outside can guess an answer; by TCP when it came by TCP. Every
//! Machine and all of them together have a limit of open questions, and every question ends.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hangar_api::env::Env;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout};

use crate::wire::{self, Transport};

/// Questions to others that may be open at once.
pub const MAX_OPEN: usize = 1_024;
/// Of them, how many may be of one Machine.
pub const MAX_OPEN_EACH: usize = 128;
/// How long one resolver may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many resolvers are asked, as the C library does.
const MAX_UPSTREAMS: usize = 3;
/// How long a list of resolvers read from a file is used before the file is read again.
const READ_AGAIN: Duration = Duration::from_secs(5);
/// Replies with the wrong id or question that are thrown away before a resolver is given up.
const MAX_STRAYS: usize = 16;
const DNS_PORT: u16 = 53;
/// Answers after which another resolver is tried: server failure, not implemented, refused.
const NO_ANSWERS: [u8; 3] = [2, 4, 5];

/// Where questions go that are not `.internal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstreams {
    /// To these resolvers, in this order.
    Fixed(Vec<SocketAddr>),
    /// To the resolvers that this file names, which may change at any time.
    ResolvConf(PathBuf),
}

/// Passes questions on.
#[derive(Debug)]
pub(crate) struct Forwarder {
    upstreams: Upstreams,
    /// Our own addresses: never asked, or a question would go round for ever.
    own: Vec<SocketAddr>,
    open: Arc<Limiter>,
    read: Mutex<Option<(Instant, Vec<SocketAddr>)>>,
    env: Env,
}

/// Counts what is open, in all and for each source.
#[derive(Debug)]
pub(crate) struct Limiter {
    most: usize,
    most_each: usize,
    counts: Mutex<(usize, BTreeMap<IpAddr, usize>)>,
}

/// One that is counted; dropping it makes room.
#[derive(Debug)]
pub(crate) struct Permit {
    limiter: Arc<Limiter>,
    source: IpAddr,
}

// === impl Upstreams ===

impl Default for Upstreams {
    fn default() -> Self {
        Self::ResolvConf(PathBuf::from("/etc/resolv.conf"))
    }
}

// === impl Forwarder ===

impl Forwarder {
    pub(crate) fn new(upstreams: Upstreams, own: Vec<SocketAddr>, env: Env) -> Self {
        Self {
            upstreams,
            own,
            open: Limiter::new(MAX_OPEN, MAX_OPEN_EACH),
            read: Mutex::new(None),
            env,
        }
    }

    /// Takes one of the open questions, unless there are too many.
    pub(crate) fn permit(&self, source: IpAddr) -> Option<Permit> {
        self.open.take(source)
    }

    /// Returns the answer of the first resolver that has one. May be cancelled.
    pub(crate) async fn ask(&self, packet: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let mut last = None;
        for upstream in self.upstreams().await {
            let asked = match transport {
                Transport::Udp => timeout(PATIENCE, self.ask_by_udp(upstream, packet)).await,
                Transport::Tcp => timeout(PATIENCE, self.ask_by_tcp(upstream, packet)).await,
            };
            match asked {
                Ok(Ok(mut reply)) => {
                    reply[..2].copy_from_slice(&packet[..2]);
                    if !NO_ANSWERS.contains(&(reply[3] & 0x0f)) {
                        return Some(reply);
                    }
                    last = Some(reply);
                }
                Ok(Err(error)) => tracing::debug!(%upstream, %error, "a resolver failed"),
                Err(_) => tracing::debug!(%upstream, "a resolver was silent"),
            }
        }
        last
    }

    async fn ask_by_udp(&self, upstream: SocketAddr, packet: &[u8]) -> io::Result<Vec<u8>> {
        let any: IpAddr = match upstream {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(upstream).await?;
        let request = self.with_own_id(packet);
        socket.send(&request).await?;
        let mut buffer = vec![0; usize::from(u16::MAX)];
        for _ in 0..MAX_STRAYS {
            let length = socket.recv(&mut buffer).await?;
            if wire::answers(&request, &buffer[..length]) {
                buffer.truncate(length);
                return Ok(buffer);
            }
        }
        Err(io::Error::other("only answers to other questions came"))
    }

    async fn ask_by_tcp(&self, upstream: SocketAddr, packet: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect(upstream).await?;
        let request = self.with_own_id(packet);
        write_framed(&mut stream, &request).await?;
        let reply = read_framed(&mut stream, usize::from(u16::MAX)).await?;
        if wire::answers(&request, &reply) {
            Ok(reply)
        } else {
            Err(io::Error::other("it answered another question"))
        }
    }

    fn with_own_id(&self, packet: &[u8]) -> Vec<u8> {
        let mut request = packet.to_vec();
        let [high, low, ..] = self.env.random_u64().to_le_bytes();
        request[..2].copy_from_slice(&[high, low]);
        request
    }

    async fn upstreams(&self) -> Vec<SocketAddr> {
        let mut all = match &self.upstreams {
            Upstreams::Fixed(all) => all.clone(),
            Upstreams::ResolvConf(path) => {
                let read = self
                    .read
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone();
                match read {
                    Some((when, all)) if when.elapsed() < READ_AGAIN => all,
                    _ => {
                        let text = tokio::fs::read_to_string(path).await.unwrap_or_default();
                        let all = nameservers(&text);
                        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
                        *read = Some((Instant::now(), all.clone()));
                        all
                    }
                }
            }
        };
        all.retain(|upstream| !self.own.contains(upstream));
        all.truncate(MAX_UPSTREAMS);
        all
    }
}

/// Returns the resolvers that a `resolv.conf` names, in its order.
#[must_use]
pub fn nameservers(text: &str) -> Vec<SocketAddr> {
    text.lines().filter_map(nameserver).collect()
}

fn nameserver(line: &str) -> Option<SocketAddr> {
    let mut words = line.split_whitespace();
    if words.next() != Some("nameserver") {
        return None;
    }
    let word = words.next()?;
    if let Ok(address) = word.parse::<IpAddr>() {
        return Some(SocketAddr::new(address, DNS_PORT));
    }
    // A link-local resolver names its interface: fe80::1%eth0.
    let (address, interface) = word.split_once('%')?;
    if interface.contains('/') {
        return None;
    }
    let index = match interface.parse() {
        Ok(index) => index,
        Err(_) => {
            let path = format!("/sys/class/net/{interface}/ifindex");
            std::fs::read_to_string(path).ok()?.trim().parse().ok()?
        }
    };
    let address = address.parse().ok()?;
    Some(SocketAddrV6::new(address, DNS_PORT, 0, index).into())
}

/// Reads one packet from a TCP stream. Not to be cancelled and used again.
pub(crate) async fn read_framed(stream: &mut TcpStream, most: usize) -> io::Result<Vec<u8>> {
    let length = usize::from(stream.read_u16().await?);
    if length > most {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the packet is too long",
        ));
    }
    let mut packet = vec![0; length];
    stream.read_exact(&mut packet).await?;
    Ok(packet)
}

/// Writes one packet to a TCP stream. Not to be cancelled and used again.
pub(crate) async fn write_framed(stream: &mut TcpStream, packet: &[u8]) -> io::Result<()> {
    let length = u16::try_from(packet.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the packet is too long"))?;
    let mut framed = Vec::with_capacity(packet.len() + 2);
    framed.extend(length.to_be_bytes());
    framed.extend(packet);
    stream.write_all(&framed).await
}

// === impl Limiter ===

impl Limiter {
    pub(crate) fn new(most: usize, most_each: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            most_each,
            counts: Mutex::default(),
        })
    }

    pub(crate) fn take(self: &Arc<Self>, source: IpAddr) -> Option<Permit> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, each) = &mut *counts;
        let own = each.get(&source).copied().unwrap_or_default();
        if *all >= self.most || own >= self.most_each {
            return None;
        }
        *all += 1;
        each.insert(source, own + 1);
        Some(Permit {
            limiter: Arc::clone(self),
            source,
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let counts = self.limiter.counts.lock();
        let mut counts = counts.unwrap_or_else(PoisonError::into_inner);
        let (all, each) = &mut *counts;
        *all -= 1;
        match each.get_mut(&self.source) {
            Some(own) if *own > 1 => *own -= 1,
            _ => {
                each.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_are_read_from_a_file_as_the_c_library_reads_it() {
        let text = "# a comment\nsearch example.org\nnameserver 192.0.2.1\nnameserver  2001:db8::1 \n\
                    nameserver fe80::1%7\noptions edns0\nnameserver nonsense\nnameserver\n";
        let read: Vec<String> = nameservers(text).iter().map(ToString::to_string).collect();
        assert_eq!(read, ["192.0.2.1:53", "[2001:db8::1]:53", "[fe80::1%7]:53"]);
    }

    #[test]
    fn one_source_cannot_take_all_and_gives_back_what_it_took() {
        let limiter = Limiter::new(3, 2);
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let first = limiter.take(a).unwrap();
        let _second = limiter.take(a).unwrap();
        assert!(limiter.take(a).is_none());
        let _third = limiter.take(b).unwrap();
        assert!(limiter.take(b).is_none());
        drop(first);
        assert!(limiter.take(a).is_some());
    }
}
