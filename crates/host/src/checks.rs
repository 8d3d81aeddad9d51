//! Health checks: when each is due, what it found, and what that means for the Machine.
//!
//! `schedule` decides (pure), [`Prober`] does the I/O, the runner is one task for each running
//! Machine that has checks, owned by its actor. A failing check never stops or restarts a
//! Machine: it only takes it out of the proxy's choice (proxy-network-runtime.md 4).

mod prober;
pub(crate) mod runner;
pub mod schedule;

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use hangar_api::seam::BoxFuture;

pub use prober::NetProber;

/// One probe: where to, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The Machine's address and the check's port.
    pub target: SocketAddr,
    /// How long it may take in all.
    pub timeout: Duration,
    /// What to say.
    pub kind: ProbeKind,
}

/// What a probe says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// Nothing: connecting is enough.
    Tcp,
    /// An HTTP request; only an answer of 2xx passes.
    Http {
        /// Its method.
        method: String,
        /// Its path.
        path: String,
        /// Its headers.
        headers: Vec<(String, String)>,
        /// Over TLS, and how; `None` for plain HTTP.
        tls: Option<ProbeTls>,
    },
    /// Something that cannot be probed, with the reason: it never passes.
    Unsupported(String),
}

/// How a probe speaks TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeTls {
    /// Any certificate will do.
    pub skip_verify: bool,
    /// The name that is asked for and that the certificate must have; the Machine's address where
    /// there is none.
    pub server_name: Option<String>,
}

/// Why a probe did not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missed {
    /// Why, in short.
    pub text: String,
    /// Nothing listens on the port: nobody was bothered by being asked.
    pub is_refused: bool,
}

/// Performs probes: over the network, or not at all in a simulation.
pub trait Prober: Send + Sync + fmt::Debug {
    /// Returns a short text either way: the answer, or the error. Ends within the timeout.
    fn probe(&self, probe: Probe) -> BoxFuture<'_, Result<String, Missed>>;
}

// === impl Missed ===

impl From<String> for Missed {
    fn from(text: String) -> Self {
        Self {
            text,
            is_refused: false,
        }
    }
}
