//! The sockets: packets in, packets out, by UDP and TCP.
//!
//! Started by the node with [`Dns::start`]. What is `.internal` is answered in the task that read
//! the packet, from the newest Catalog; the rest is passed on in tasks of its own, bounded by
//! [`crate::forward`]. A source on no private network is refused.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hangar_api::catalog::Catalog;
use hangar_api::env::Env;
use hangar_api::net::NetworkId;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::forward::{Forwarder, Limiter, Upstreams, read_framed, write_framed};
use crate::wire::{self, Reply, Transport};
use crate::zone::Asker;

/// TCP connections that may be open at once.
pub const MAX_CONNECTIONS: usize = 512;
/// Of them, how many may be of one Machine.
pub const MAX_CONNECTIONS_EACH: usize = 16;
/// How long a TCP connection may say nothing, or not take an answer.
const IDLE: Duration = Duration::from_secs(10);
/// Longest request: a name has 255 bytes, the rest is room for options.
const MAX_REQUEST: usize = 4096;
/// Pause after a socket failed to give a packet or a connection (no descriptors, no memory).
const PAUSE: Duration = Duration::from_millis(20);

/// Where the resolver listens and whom it asks.
#[derive(Clone, Debug, Default)]
pub struct DnsConfig {
    /// Addresses, each by UDP and TCP; port 0 takes any port that is free for both.
    pub listen: Vec<SocketAddr>,
    /// Who is asked for names outside `.internal`.
    pub upstreams: Upstreams,
    /// The network that questions from this host's own loopback belong to; without one they are
    /// refused like those of any other stranger.
    pub loopback: Option<NetworkId>,
}

/// Why the resolver could not be started.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// An address could not be taken.
    #[error(
        "listen for names on {address}: {source} (if another resolver has the address, tell it to \
         leave {address} alone)"
    )]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// The resolver.
#[derive(Clone, Copy, Debug)]
pub struct Dns;

/// A running resolver. Dropping it ends it.
#[derive(Debug)]
pub struct DnsHandle {
    addresses: Vec<SocketAddr>,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Server {
    catalog: watch::Receiver<Arc<Catalog>>,
    loopback: Option<NetworkId>,
    forwarder: Forwarder,
    connections: Arc<Limiter>,
    env: Env,
}

// === impl Dns ===

impl Dns {
    /// Takes the addresses and begins to answer. The addresses must exist; nothing is taken when
    /// one of them cannot be.
    pub async fn start(
        config: DnsConfig,
        catalog: watch::Receiver<Arc<Catalog>>,
        env: Env,
    ) -> Result<DnsHandle, DnsError> {
        let mut sockets = Vec::with_capacity(config.listen.len());
        for address in config.listen {
            let bound = bind(address).await;
            sockets.push(bound.map_err(|source| DnsError::Bind { address, source })?);
        }
        let addresses: Vec<SocketAddr> = sockets.iter().map(|(at, _, _)| *at).collect();
        let server = Arc::new(Server {
            catalog,
            loopback: config.loopback,
            forwarder: Forwarder::new(config.upstreams, addresses.clone(), env.clone()),
            connections: Limiter::new(MAX_CONNECTIONS, MAX_CONNECTIONS_EACH),
            env: env.clone(),
        });
        let mut tasks = Vec::with_capacity(sockets.len() * 2);
        for (_, udp, tcp) in sockets {
            tasks.push(env.spawn(Arc::clone(&server).serve_udp(udp)));
            tasks.push(env.spawn(Arc::clone(&server).serve_tcp(tcp)));
        }
        Ok(DnsHandle { addresses, tasks })
    }
}

/// Binds both sockets to one address and port.
async fn bind(address: SocketAddr) -> io::Result<(SocketAddr, UdpSocket, TcpListener)> {
    let tcp = TcpListener::bind(address).await?;
    let bound = tcp.local_addr()?;
    let udp = UdpSocket::bind(bound).await?;
    Ok((bound, udp, tcp))
}

// === impl DnsHandle ===

impl DnsHandle {
    /// Returns the addresses that were taken, in the order they were given.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Stops answering, and returns when the sockets are closed.
    pub async fn close(mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
            // Ended by the abort, which is what was asked.
            let _aborted = task.await;
        }
    }
}

impl Drop for DnsHandle {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

// === impl Server ===

impl Server {
    async fn serve_udp(self: Arc<Self>, socket: UdpSocket) {
        let socket = Arc::new(socket);
        let mut forwards = JoinSet::new();
        let mut buffer = vec![0; MAX_REQUEST];
        loop {
            let received = tokio::select! {
                biased;
                Some(_) = forwards.join_next() => continue,
                received = socket.recv_from(&mut buffer) => received,
            };
            match received {
                Ok((length, from)) => {
                    self.one_packet(&socket, &buffer[..length], from, &mut forwards)
                        .await;
                }
                Err(error) => {
                    tracing::debug!(%error, "a request for a name could not be read");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn one_packet(
        self: &Arc<Self>,
        socket: &Arc<UdpSocket>,
        packet: &[u8],
        from: SocketAddr,
        forwards: &mut JoinSet<()>,
    ) {
        match self.respond(packet, from.ip(), Transport::Udp) {
            Reply::Ignore => {}
            Reply::Send(answer) => send(socket, &answer, from).await,
            Reply::Forward { otherwise } => match self.forwarder.permit(from.ip()) {
                None => send(socket, &otherwise, from).await,
                Some(permit) => {
                    let (server, socket) = (Arc::clone(self), Arc::clone(socket));
                    let packet = packet.to_vec();
                    forwards.spawn(async move {
                        let answer = server.forwarder.ask(&packet, Transport::Udp).await;
                        send(&socket, &answer.unwrap_or(otherwise), from).await;
                        drop(permit);
                    });
                }
            },
        }
    }

    async fn serve_tcp(self: Arc<Self>, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased;
                Some(_) = connections.join_next() => continue,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, from)) => {
                    // One connection too many is closed by being dropped.
                    if let Some(permit) = self.connections.take(from.ip()) {
                        let server = Arc::clone(&self);
                        connections.spawn(async move {
                            if let Err(error) = server.serve_stream(stream, from.ip()).await {
                                tracing::debug!(%error, "a connection for names ended");
                            }
                            drop(permit);
                        });
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "a connection for names could not be taken");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn serve_stream(&self, mut stream: TcpStream, from: IpAddr) -> io::Result<()> {
        loop {
            let Ok(read) = timeout(IDLE, read_framed(&mut stream, MAX_REQUEST)).await else {
                return Ok(());
            };
            let packet = match read {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                other => other?,
            };
            let answer = match self.respond(&packet, from, Transport::Tcp) {
                Reply::Ignore => return Ok(()),
                Reply::Send(answer) => answer,
                Reply::Forward { otherwise } => match self.forwarder.permit(from) {
                    None => otherwise,
                    Some(_permit) => {
                        let asked = self.forwarder.ask(&packet, Transport::Tcp).await;
                        asked.unwrap_or(otherwise)
                    }
                },
            };
            timeout(IDLE, write_framed(&mut stream, &answer)).await??;
        }
    }

    fn respond(&self, packet: &[u8], from: IpAddr, transport: Transport) -> Reply {
        let asker = wire::asker(from).or_else(|| {
            let network = self.loopback.filter(|_| from.is_loopback())?;
            Some(Asker {
                network,
                address: from,
            })
        });
        let catalog = Arc::clone(&self.catalog.borrow());
        wire::respond(
            &catalog,
            asker.as_ref(),
            packet,
            transport,
            self.env.random_u64(),
        )
    }
}

async fn send(socket: &UdpSocket, answer: &[u8], to: SocketAddr) {
    // Who asked may be gone; by UDP it asks again if it is not.
    if let Err(error) = socket.send_to(answer, to).await {
        tracing::debug!(%error, %to, "an answer could not be sent");
    }
}
