//! Listening sockets: binding them, and accepting from them.
//!
//! Every core has a socket of its own on each port (`SO_REUSEPORT`), so that the kernel spreads
//! connections and no core waits for another. The first one is bound without that option, to
//! find out whether somebody else has the port.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::connection;
use crate::core::Core;
use crate::index::Entry;
use crate::load::Transport;

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 1024;
/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Accept failures between two log lines.
const LOG_EVERY: u32 = 100;
/// Idle time after which the kernel probes whether the other side is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// A port of a core.
#[derive(Debug)]
pub(crate) struct Door {
    /// The services' port; the one that is bound may be another.
    pub(crate) external: u16,
    /// Places for connections on this port, shared by all cores.
    pub(crate) places: Arc<Semaphore>,
    pub(crate) closed: CancellationToken,
}

/// What connections or datagrams come in by.
#[derive(Debug)]
pub(crate) enum Listening {
    Tcp(std::net::TcpListener),
    Udp(std::net::UdpSocket),
}

/// Binds one socket a core.
pub(crate) fn bind(
    address: IpAddr,
    (transport, port): Entry,
    cores: usize,
) -> io::Result<Vec<Listening>> {
    let address = SocketAddr::new(address, port);
    let one = |shared| match transport {
        Transport::Tcp => tcp_socket(address, shared).map(Listening::Tcp),
        Transport::Udp => udp_socket(address, shared).map(Listening::Udp),
    };
    // With the option, a port of another process of the same user would silently be shared.
    drop(one(false)?);
    (0..cores).map(|_| one(true)).collect()
}

fn udp_socket(address: SocketAddr, shared: bool) -> io::Result<std::net::UdpSocket> {
    let kind = Type::DGRAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn tcp_socket(address: SocketAddr, shared: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    // Accepted connections inherit these.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts connections until the door is closed; what the kernel has accepted by then is served.
pub(crate) async fn accept(core: Arc<Core>, door: Door, listener: std::net::TcpListener) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(port = door.external, %error, "listener not taken over");
            return;
        }
    };
    let mut failures = 0_u32;
    // Once the door is closed: those that the kernel took, and no more.
    let mut last = BACKLOG;
    loop {
        let place = door.places.clone().acquire_owned();
        let place = if door.closed.is_cancelled() {
            // Those that wait for a place are turned away with the door.
            match tokio::time::timeout(Duration::ZERO, place).await {
                Ok(place) => place,
                Err(_) => return,
            }
        } else {
            tokio::select! {
                biased;
                () = door.closed.cancelled() => continue,
                place = place => place,
            }
        };
        let Ok(place) = place else { return };
        let accepted = if door.closed.is_cancelled() {
            last -= 1;
            match tokio::time::timeout(Duration::ZERO, listener.accept()).await {
                Ok(accepted) if last > 0 => accepted,
                _ => return,
            }
        } else {
            tokio::select! {
                biased;
                () = door.closed.cancelled() => continue,
                accepted = listener.accept() => accepted,
            }
        };
        match accepted {
            Ok((stream, peer)) => {
                failures = 0;
                let work =
                    connection::serve(core.clone(), door.external, stream, peer, Arc::new(place));
                let work = core.shared.connections.track_future(work);
                drop(core.shared.env.spawn(work));
            }
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                if failures.is_multiple_of(LOG_EVERY) {
                    tracing::warn!(port = door.external, %error, "accept failed, trying again");
                }
                failures = failures.wrapping_add(1);
                drop(place);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Sets what connections to Machines have.
pub(crate) fn prepare_upstream(stream: &tokio::net::TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))
}

fn is_the_clients(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}
