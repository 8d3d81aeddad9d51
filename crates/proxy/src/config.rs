//! What the proxy is told at its start, and every limit it keeps.
//!
//! The node fills this in; nothing here reads files or the environment.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use hangar_api::id::Region;

/// How often the proxy looks for Machines that nobody uses, unless it is told otherwise.
pub const AUTOSTOP_EVERY: Duration = Duration::from_secs(5 * 60);

/// How the proxy listens and where it remembers its ports.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// The one address it listens on.
    pub address: IpAddr,
    /// Apps are `APP.DOMAIN`: used for the certificate and for words, not for routing, which
    /// follows the host names of the Catalog.
    pub domain: String,
    /// The file that remembers which port is bound for an external port (`edge.json`). The
    /// self-signed certificate is kept beside it (`edge-tls.json`).
    pub ports_file: PathBuf,
    /// Threads that serve, each with listeners and upstream connections of its own.
    pub cores: usize,
    /// Regions that are near: the first is the edge's own name. Empty: all are near.
    pub regions: Vec<Region>,
    /// Time between two looks for Machines that nobody uses; zero for none.
    pub autostop_every: Duration,
    /// Limits.
    pub limits: Limits,
}

/// Limits of the proxy. Nothing waits or grows beyond them.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Longest time that a request is held until a Machine can take it.
    pub hold: Duration,
    /// Most requests held for one service.
    pub held_per_service: usize,
    /// Most client connections on one port, or clients of its datagrams.
    pub connections_per_port: usize,
    /// Longest time for a TLS handshake, and for the first bytes that tell a protocol.
    pub handshake: Duration,
    /// Longest time for the head of a request, and for a client connection to be idle.
    pub header_read: Duration,
    /// Longest time that a client may send nothing of a body that it has begun, or take nothing of
    /// an answer.
    pub body_idle: Duration,
    /// How long a client of datagrams that was answered is remembered after the last one.
    pub datagrams_idle: Duration,
    /// The same for one that was never answered.
    pub datagrams_unanswered: Duration,
    /// Largest head of a request or response, in bytes.
    pub head_bytes: usize,
    /// Most headers of a request or response.
    pub headers: usize,
    /// Most answers that are compressed at a time, each of which takes some 300 KiB; others go out
    /// as they are.
    pub compressed: usize,
    /// Longest time for one attempt to connect to a Machine.
    pub connect: Duration,
    /// How long attempts go on when a Machine that has just come up refuses connections.
    pub connect_just_up: Duration,
    /// How long an idle connection to a Machine is kept.
    pub upstream_idle: Duration,
    /// How long a Machine that came up may fail its checks before it stops counting as "on its
    /// way".
    pub warming: Duration,
    /// The same for a Machine that was up already when the proxy started: time for its first checks.
    pub first_checks: Duration,
    /// How long requests are still held for a service that has just vanished from its app.
    pub vanished: Duration,
}

// === impl ProxyConfig ===

impl ProxyConfig {
    /// Returns the defaults: loopback, `localhost`, a thread per core.
    #[must_use]
    pub fn new(ports_file: PathBuf) -> Self {
        Self {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            domain: "localhost".to_owned(),
            ports_file,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            regions: Vec::new(),
            autostop_every: AUTOSTOP_EVERY,
            limits: Limits::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            hold: Duration::from_secs(30),
            held_per_service: 1_000,
            connections_per_port: 8_192,
            handshake: Duration::from_secs(10),
            header_read: Duration::from_secs(60),
            body_idle: Duration::from_secs(60),
            datagrams_idle: Duration::from_secs(60),
            datagrams_unanswered: Duration::from_secs(10),
            head_bytes: 64 * 1024,
            headers: 128,
            compressed: 256,
            connect: Duration::from_secs(2),
            connect_just_up: Duration::from_secs(10),
            upstream_idle: Duration::from_secs(4),
            warming: Duration::from_secs(60),
            first_checks: Duration::from_secs(5),
            vanished: Duration::from_secs(10),
        }
    }
}
