//! The private network of one host (D8): a namespace and a cable for every Machine, and one
//! firewall table of Hangar's own.
//!
//! [`veth`] is called by the container helper at each start and end of a run. [`Network`] is the
//! host agent's: it makes the host's side true once and keeps it true, whoever flushes it.
//!
//! There is one network for each network namespace of the machine: a second server beside the
//! first is refused in words, and tests that run several give each a namespace of its own.
//! Nothing is taken down when the server ends, because its Machines go on.

mod keeper;
mod netlink;
mod nft;
mod pool;
mod rules;
mod setup;
pub mod veth;

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use hangar_api::env::Env;
use hangar_api::net::NetworkId;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

pub use ipnet::IpNet;
pub use pool::{POOL_CAPACITY, V4Pool};

use keeper::{Keeper, Request};

/// Most private networks of one host: each is an element of a set in the kernel.
pub const MAX_NETWORKS: usize = 16_384;
/// New networks that may wait for the keeper.
const QUEUE: usize = 64;
/// An abstract socket of this name is held while a server manages a network namespace.
const LOCK_NAME: &str = "hangar.network";

/// What the host agent knows before the network is made.
#[derive(Clone, Debug, Default)]
pub struct NetConfig {
    /// The networks of the Machines that may be running, from the ledger: they must be able to
    /// talk the moment the table is made anew.
    pub networks: BTreeSet<NetworkId>,
    /// Private ranges that Machines may reach beside the internet.
    pub egress: Vec<IpNet>,
}

/// Why the network could not be made, or changed.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The program is not there.
    #[error("the program nft is missing: install the package nftables")]
    NoNft,
    /// Another server is at it.
    #[error(
        "another Hangar server manages the private network of this machine: stop it, or run this \
         one in a network namespace of its own"
    )]
    Taken,
    /// Every range of addresses is in use.
    #[error(
        "no range of IPv4 addresses is free for Machines: the host has routes into all of \
         172.30.0.0/15 and 100.64.0.0/10"
    )]
    NoPool,
    /// A setting of the kernel could not be changed.
    #[error("write {value} to {path}: {source}")]
    Setting {
        /// Which.
        path: String,
        /// What it should have been.
        value: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// nft refused.
    #[error("change the firewall: {message}")]
    Rules {
        /// What it said.
        message: String,
    },
    /// The kernel refused.
    #[error("{doing}: {source}")]
    System {
        /// What we were doing.
        doing: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Too many.
    #[error("this host has {MAX_NETWORKS} private networks, and takes no more")]
    TooMany,
    /// `fdaa:0:0::/48` is the platform's own.
    #[error("network 0 is the platform's own, and no Machine can be on it")]
    Reserved,
    /// The network is being closed.
    #[error("the private network is closed")]
    Closed,
}

/// Something that `doctor` should tell, and what mends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What is wrong and what comes of it.
    pub problem: String,
    /// The command that mends it.
    pub remedy: String,
}

/// The private network of this host. Cheap to clone; the last one dropped ends the keeper.
#[derive(Clone, Debug)]
pub struct Network {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    pool: V4Pool,
    known: Arc<Mutex<BTreeSet<NetworkId>>>,
    requests: mpsc::Sender<Request>,
    findings: Vec<Finding>,
    keeper: Mutex<Option<JoinHandle<()>>>,
}

// === impl Network ===

impl Network {
    /// Makes the host's side of the network and begins to keep it. Needs root. May be repeated
    /// after the one before is dropped.
    ///
    /// The resolver's address can be bound when it returns.
    pub async fn ensure(config: NetConfig, env: &Env) -> Result<Self, NetError> {
        let (requests, inbox) = mpsc::channel(QUEUE);
        let known = Arc::new(Mutex::new(BTreeSet::new()));
        let keeper = Keeper::start(config, Arc::clone(&known), inbox).await?;
        let (pool, findings) = (keeper.pool(), keeper.findings());
        Ok(Self {
            shared: Arc::new(Shared {
                pool,
                known,
                requests,
                findings,
                keeper: Mutex::new(Some(env.spawn(keeper.run()))),
            }),
        })
    }

    /// Returns the IPv4 addresses that this host gives its Machines.
    #[must_use]
    pub fn pool(&self) -> V4Pool {
        self.shared.pool
    }

    /// Lets the Machines of a network reach each other. At once for one that is known; may be
    /// repeated and cancelled.
    pub async fn ensure_network(&self, network: NetworkId) -> Result<(), NetError> {
        let known = |set: &Mutex<BTreeSet<NetworkId>>| {
            set.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .contains(&network)
        };
        if known(&self.shared.known) {
            return Ok(());
        }
        let (reply, answer) = oneshot::channel();
        let request = Request { network, reply };
        let sent = self.shared.requests.send(request).await;
        sent.map_err(|_| NetError::Closed)?;
        answer.await.map_err(|_| NetError::Closed)?
    }

    /// Stops keeping the network, so that another may take it over; all that was made stays. May
    /// be repeated.
    pub async fn close(&self) {
        let keeper = self.shared.take_keeper();
        if let Some(keeper) = keeper {
            keeper.abort();
            // Ended by the abort, which is what was asked.
            let _aborted = keeper.await;
        }
    }

    /// Returns what could not be made, though the rest works: for `doctor` and the log.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.shared.findings
    }
}

impl Shared {
    fn take_keeper(&self) -> Option<JoinHandle<()>> {
        let mut keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        keeper.take()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(keeper) = self.take_keeper() {
            keeper.abort();
        }
    }
}

/// Reads a range of addresses, `10.1.0.0/16`, or a single address.
pub fn parse_range(text: &str) -> Result<IpNet, String> {
    let single = text.parse::<std::net::IpAddr>().map(IpNet::from);
    single
        .or_else(|_| text.parse::<IpNet>())
        .map(|range| range.trunc())
        .map_err(|_| "write a range of addresses such as 10.1.0.0/16, or one address".to_owned())
}

/// Returns what this machine lacks for a private network, without changing anything. Blocks for
/// a few milliseconds.
#[must_use]
pub fn findings() -> Vec<Finding> {
    let mut found = setup::findings();
    if !nft::Nft::find().is_installed() {
        found.push(Finding {
            problem: "the program nft is missing: no private network can be made".to_owned(),
            remedy: "apt install nftables".to_owned(),
        });
    }
    found
}
