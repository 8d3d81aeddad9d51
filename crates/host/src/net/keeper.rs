//! The one task that owns the host's side of the network: makes it, adds networks, and makes it
//! again when somebody took it away.
//!
//! The kernel tells of every change to the ruleset and numbers it; a timer looks too. Where the
//! number has not moved nothing is read. What "as we made it" means is the listing that nft gave
//! right after our own transaction, so that no form of any version of nft has to be known.

use std::collections::BTreeSet;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hangar_api::net::NetworkId;
use ipnet::IpNet;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::nft::{Changes, Nft};
use super::pool::V4Pool;
use super::rules::{self, Nat};
use super::{Finding, LOCK_NAME, MAX_NETWORKS, NetConfig, NetError, setup};

/// How often everything is looked at even when nothing was heard.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Changes come in bursts: a look waits so long after the first. It also bounds how often two
/// programs that undo each other can do so.
const SETTLE: Duration = Duration::from_millis(100);
/// Rounds of repair at one look. More would be needed only against somebody who undoes it.
const ROUNDS: usize = 3;

/// Asks for a network.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) network: NetworkId,
    pub(super) reply: oneshot::Sender<Result<(), NetError>>,
}

/// The state of the task.
#[derive(Debug)]
pub(super) struct Keeper {
    nft: Nft,
    changes: Changes,
    pool: V4Pool,
    nat: Nat,
    networks: BTreeSet<NetworkId>,
    egress: Vec<IpNet>,
    known: Arc<Mutex<BTreeSet<NetworkId>>>,
    inbox: mpsc::Receiver<Request>,
    /// The table as nft listed it after our last transaction.
    listing: String,
    /// The ruleset's number when everything was last found in order.
    in_order: Option<u32>,
    /// Why the last look failed, if it did.
    failure: Option<String>,
    /// Held as long as the keeper lives.
    _lock: UnixListener,
}

// === impl Keeper ===

impl Keeper {
    /// Makes everything, from nothing.
    pub(super) async fn start(
        config: NetConfig,
        known: Arc<Mutex<BTreeSet<NetworkId>>>,
        inbox: mpsc::Receiver<Request>,
    ) -> Result<Self, NetError> {
        let lock = lock()?;
        let pool = off_the_runtime(|| {
            let pool = setup::choose_pool()?;
            setup::ensure(pool).map(|()| pool)
        })
        .await?;
        let changes = Changes::subscribe().map_err(|source| NetError::System {
            doing: "listen for changes of the firewall",
            source,
        })?;
        let mut keeper = Self {
            nft: Nft::find(),
            changes,
            pool,
            nat: Nat::Masquerade,
            networks: config
                .networks
                .into_iter()
                .filter(|n| n.0 != 0)
                .take(MAX_NETWORKS)
                .collect(),
            egress: config.egress,
            known,
            inbox,
            listing: String::new(),
            in_order: None,
            failure: None,
            _lock: lock,
        };
        keeper.make_table_or_do_without_nat().await?;
        keeper.look().await?;
        Ok(keeper)
    }

    /// Returns the addresses for Machines.
    pub(super) fn pool(&self) -> V4Pool {
        self.pool
    }

    /// Returns what had to be left out.
    pub(super) fn findings(&self) -> Vec<Finding> {
        match self.nat {
            Nat::Masquerade => Vec::new(),
            Nat::Missing => vec![Finding {
                problem: "the kernel cannot translate addresses: Machines have no way out"
                    .to_owned(),
                remedy: "modprobe -a nft_masq nft_chain_nat".to_owned(),
            }],
        }
    }

    /// Keeps everything as it should be until nobody can ask any more.
    pub(super) async fn run(mut self) {
        let mut timer = tokio::time::interval(LOOK_EVERY);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                request = self.inbox.recv() => {
                    let Some(Request { network, reply }) = request else { return };
                    // Whoever asked may be gone; the network is there all the same.
                    let _gone = reply.send(self.add(network).await);
                    continue;
                }
                () = self.changes.wait() => tokio::time::sleep(SETTLE).await,
                _ = timer.tick() => self.look_at_the_host().await,
            }
            let looked = self.look().await;
            self.tell(looked);
        }
    }

    /// Tells of a failure once, not at every look.
    fn tell(&mut self, looked: Result<(), NetError>) {
        let failure = looked.err().map(|error| error.to_string());
        if let Some(error) = &failure
            && self.failure != failure
        {
            tracing::error!(%error, "the private network's firewall could not be made again");
        }
        self.failure = failure;
    }

    async fn add(&mut self, network: NetworkId) -> Result<(), NetError> {
        if network.0 == 0 {
            return Err(NetError::Reserved);
        }
        if self.networks.contains(&network) {
            return Ok(());
        }
        if self.networks.len() >= MAX_NETWORKS {
            return Err(NetError::TooMany);
        }
        self.networks.insert(network);
        let added = if self.add_element(network).await {
            Ok(())
        } else {
            // Somebody may have changed the table a moment ago: then all of it is made.
            self.make_table().await
        };
        match &added {
            Ok(()) => self.publish(),
            Err(_) => {
                self.networks.remove(&network);
            }
        }
        added
    }

    /// Adds to the table as it is. Returns whether that is known to be the table that we made, with
    /// nothing but this added.
    async fn add_element(&mut self, network: NetworkId) -> bool {
        let Some(before) = self.changes.generation().ok() else {
            return false;
        };
        self.in_order == Some(before)
            && self.apply(&rules::add_network(network)).await.is_ok()
            && self.in_order == Some(before.wrapping_add(1))
    }

    fn publish(&self) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.clone_from(&self.networks);
    }

    async fn make_table_or_do_without_nat(&mut self) -> Result<(), NetError> {
        let Err(refused) = self.make_table().await else {
            return Ok(());
        };
        self.nat = Nat::Missing;
        if self.make_table().await.is_err() {
            return Err(refused);
        }
        tracing::warn!(error = %refused, "machines have no way out: the kernel cannot translate addresses");
        Ok(())
    }

    async fn make_table(&mut self) -> Result<(), NetError> {
        let transaction = rules::table(self.pool, &self.networks, &self.egress, self.nat);
        self.apply(&transaction).await?;
        self.publish();
        Ok(())
    }

    /// Applies a transaction that may be repeated, and remembers what came of it: what is listed
    /// is ours only if nobody else changed anything between the two.
    async fn apply(&mut self, transaction: &str) -> Result<(), NetError> {
        self.listing.clear();
        for _ in 0..ROUNDS {
            let before = self.changes.generation().ok();
            self.nft.apply(transaction).await?;
            let listing = self.nft.list(&listing_command()).await?;
            let after = self.changes.generation().ok();
            if after == before.map(|number| number.wrapping_add(1)) {
                self.listing = listing;
                if before == self.in_order {
                    self.in_order = after;
                }
                return Ok(());
            }
        }
        // Somebody changes the firewall all the time: the next look makes the table again.
        self.in_order = None;
        Ok(())
    }

    /// Looks at the ruleset if it has changed, and repairs it.
    async fn look(&mut self) -> Result<(), NetError> {
        for _ in 0..ROUNDS {
            self.changes.forget();
            let generation = self.changes.generation().ok();
            if generation.is_some() && generation == self.in_order {
                return Ok(());
            }
            let repaired = self.repair_own().await? | self.repair_foreign().await?;
            if !repaired {
                self.in_order = generation;
                return Ok(());
            }
        }
        Ok(())
    }

    /// Makes the table again unless it is as we made it; returns whether it was not.
    async fn repair_own(&mut self) -> Result<bool, NetError> {
        let same = match self.nft.list(&listing_command()).await {
            Ok(listing) => listing == self.listing,
            Err(NetError::Rules { .. }) => false,
            Err(other) => return Err(other),
        };
        if !same {
            tracing::info!("making the private network's firewall again: somebody changed it");
            self.make_table().await?;
        }
        Ok(!same)
    }

    /// Puts the accepting rules that are missing into other tables; returns whether any were.
    async fn repair_foreign(&mut self) -> Result<bool, NetError> {
        let chains = rules::foreign_chains(&self.nft.read("list chains").await?);
        let mut repaired = false;
        for chain in chains {
            // A chain may go while we look: the next look sees what came of it.
            let Ok(listing) = self
                .nft
                .read(&format!("list chain {}", chain.address))
                .await
            else {
                continue;
            };
            let missing = rules::missing_rules(&chain, &listing);
            if missing.is_empty() {
                continue;
            }
            match self.nft.apply(&missing).await {
                Ok(()) => {
                    repaired = true;
                    tracing::info!(
                        chain = chain.address,
                        "let machines through another firewall"
                    );
                }
                Err(error) => {
                    tracing::warn!(chain = chain.address, %error, "another firewall drops what machines send");
                }
            }
        }
        Ok(repaired)
    }

    async fn look_at_the_host(&mut self) {
        let pool = self.pool;
        let made = off_the_runtime(move || {
            if setup::holds(pool) {
                return Ok(());
            }
            tracing::info!("making the resolver's address and the kernel's settings again");
            setup::ensure(pool)
        });
        if let Err(error) = made.await {
            tracing::warn!(%error, "the private network's host side could not be made again");
        }
    }
}

fn listing_command() -> String {
    format!("list table {}", rules::TABLE)
}

/// Takes the network namespace for this process. Abstract sockets belong to one, and vanish with
/// the process that holds them.
fn lock() -> Result<UnixListener, NetError> {
    let taken = SocketAddr::from_abstract_name(LOCK_NAME)
        .and_then(|address| UnixListener::bind_addr(&address));
    taken.map_err(|source| match source.kind() {
        std::io::ErrorKind::AddrInUse => NetError::Taken,
        _ => NetError::System {
            doing: "take the network of this machine",
            source,
        },
    })
}

async fn off_the_runtime<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NetError> + Send + 'static,
) -> Result<T, NetError> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.map_err(|_| NetError::Closed)?
}
