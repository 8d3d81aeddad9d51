//! The host's agent: one actor a Machine, a ledger, and the stream from and to the server.
//!
//! Started by the node. It reads the ledger, takes over the runs that still live, sweeps what is
//! half made, and goes on without a server; a `Sync` then says what else there should be. It must
//! never start anything that no op, restart policy or recorded intent asks for (D6).

mod handle;
pub(crate) mod shared;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hangar_api::catalog::Liveness;
use hangar_api::env::Env;
use hangar_api::error::Failure;
use hangar_api::id::{HostId, MachineId};
use hangar_api::link::{FromHost, HostMachine, ToHost};
use hangar_api::net::NetworkId;
use hangar_api::region::Slot;
use hangar_api::seam::{BoxFuture, Drain};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::checks::Prober;
use crate::ledger::{Files, Ledger, LedgerError, Record};
use crate::logs::LogStore;
use crate::machine::actor::{Actor, Command, MAILBOX};
use crate::machine::images::Images;
use crate::machine::lifecycle::State;
use crate::runtime::Runtime;

pub use handle::HostHandle;
use shared::{Outbox, Shared};

/// How long the start waits for Machines to be taken over; the rest goes on behind it.
const TAKE_OVER: Duration = Duration::from_secs(20);
/// Time between two looks for logs that are too old.
const SWEEP_LOGS: Duration = Duration::from_secs(10 * 60);
/// First index of a host-local address.
const FIRST_V4: u16 = 0;

/// What a host is and where it keeps things.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// Its id.
    pub host: HostId,
    /// The slots that it carries.
    pub slots: Vec<Slot>,
    /// The data dir: `machines/`, `logs/`, `keyring/host.key`, `host.json` in it are the host's.
    pub data_dir: PathBuf,
}

/// What a host works with. Every part has a fake.
#[derive(Clone, Debug)]
pub struct HostParts {
    /// Runs Machines.
    pub runtime: Arc<dyn Runtime>,
    /// Prepares images.
    pub images: Arc<dyn Images>,
    /// The private networks.
    pub net: Arc<dyn NetHooks>,
    /// The proxy, which lets requests end before a Machine stops.
    pub drain: Arc<dyn Drain>,
    /// Performs health checks.
    pub prober: Arc<dyn Prober>,
    /// The ledger's file operations.
    pub files: Arc<dyn Files>,
    /// Clock, randomness, ids, tasks.
    pub env: Env,
}

/// The stream from and to the server.
#[derive(Debug)]
pub struct HostLink {
    /// From the server.
    pub incoming: mpsc::Receiver<ToHost>,
    /// To the server.
    pub outgoing: mpsc::Sender<FromHost>,
}

/// What the agent asks of the host's network beside what the runtime does for each run.
///
/// An implementer promises that both may be repeated.
pub trait NetHooks: Send + Sync + fmt::Debug {
    /// Makes sure that a private network's rules are there. Called before each launch.
    fn ensure_network(&self, network: NetworkId) -> BoxFuture<'_, Result<(), Failure>>;

    /// Returns the host-local address of the Machine with this index; `None` past the last.
    fn v4(&self, index: u16) -> Option<Ipv4Addr>;
}

/// A [`NetHooks`] for a host whose runtime needs no network.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoNet;

/// What every Machine of the host does, for the Catalog: replaced whole, entries shared.
pub type LivenessMap = BTreeMap<MachineId, Arc<Liveness>>;
/// Follows [`LivenessMap`].
pub type LivenessFeed = watch::Receiver<Arc<LivenessMap>>;

/// Why a host cannot start.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Its ledger is not there or not readable.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Starts hosts.
#[derive(Debug)]
pub struct HostAgent {
    config: HostConfig,
    shared: Arc<Shared>,
    actors: BTreeMap<MachineId, AbortOnDropHandle<()>>,
    /// Index of the address of each Machine of the ledger.
    v4: BTreeMap<MachineId, u16>,
    last_v4: u16,
}

/// Returns the private networks of the Machines in a host's ledger, which must be able to talk as
/// soon as the host's network is made anew.
pub async fn known_networks(
    data_dir: &Path,
    files: Arc<dyn Files>,
    env: &Env,
) -> Result<BTreeSet<NetworkId>, HostError> {
    let ledger = Ledger::open(data_dir, files, env.clone()).await?;
    let records = ledger.load().await?.into_iter();
    let alive = records.filter(|record| record.destroyed_at.is_none());
    Ok(alive.map(|record| record.active.spec.network).collect())
}

// === impl NoNet ===

impl NetHooks for NoNet {
    fn ensure_network(&self, _network: NetworkId) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn v4(&self, index: u16) -> Option<Ipv4Addr> {
        let [high, low] = index.checked_add(2)?.to_be_bytes();
        Some(Ipv4Addr::new(172, 30, high, low))
    }
}

// === impl HostAgent ===

impl HostAgent {
    /// Starts a host: reads its ledger, takes over the runs that live, sweeps what is half made,
    /// and then follows the server. Returns when the Machines' liveness is known.
    pub async fn start(
        config: HostConfig,
        parts: HostParts,
        link: HostLink,
    ) -> Result<HostHandle, HostError> {
        let ledger = Ledger::open(&config.data_dir, parts.files, parts.env.clone()).await?;
        let boot = ledger.next_boot().await?;
        let records = ledger.load().await?;
        let shared = Arc::new(Shared {
            ledger,
            runtime: parts.runtime,
            images: parts.images,
            net: parts.net,
            drain: parts.drain,
            prober: parts.prober,
            logs: LogStore::open(&config.data_dir, parts.env.clone()),
            env: parts.env,
            outbox: Outbox::default(),
            liveness: watch::Sender::new(Arc::default()),
            boot,
            closing: CancellationToken::new(),
            actors: Mutex::default(),
        });
        let mut agent = Self {
            config,
            shared: Arc::clone(&shared),
            actors: BTreeMap::new(),
            v4: BTreeMap::new(),
            last_v4: FIRST_V4,
        };
        agent.sweep(&records).await;
        agent.adopt(records).await;
        let task = shared.env.spawn(agent.run(link));
        Ok(HostHandle::new(shared, AbortOnDropHandle::new(task)))
    }

    /// Removes runs that no Machine can be using: half-made ones and those of a former time.
    async fn sweep(&self, records: &[Record]) {
        let current: BTreeSet<(&MachineId, u64)> = records
            .iter()
            .filter_map(|record| Some((&record.active.spec.id, record.state.current_run()?)))
            .collect();
        let runs = self.shared.runtime.runs().await.unwrap_or_else(|error| {
            // What it would have removed is in nobody's way, and what runs is known by its record.
            tracing::warn!(%error, "runs that may be left over are not removed before the next start");
            Vec::new()
        });
        for key in runs {
            if current.contains(&(&key.machine, key.start)) {
                continue;
            }
            tracing::info!(machine = %key.machine, start = key.start, "sweeping a run that is left over");
            let removed = self.shared.runtime.remove(key.clone()).await;
            if let Err(error) = removed {
                tracing::warn!(machine = %key.machine, start = key.start, %error, "run not removed");
            }
        }
    }

    /// Starts the actors of the ledger's Machines and waits until they know where they are.
    async fn adopt(&mut self, records: Vec<Record>) {
        for record in &records {
            let id = record.active.spec.id.clone();
            self.v4.insert(id, record.v4_index);
            self.last_v4 = self.last_v4.max(record.v4_index);
        }
        let known: Vec<_> = records
            .into_iter()
            .map(|record| self.begin(record))
            .collect();
        let all = async {
            for ready in known {
                // An error means that the actor dropped its end: it is ready.
                drop(ready.await);
            }
        };
        if tokio::time::timeout(TAKE_OVER, all).await.is_err() {
            tracing::warn!("some machines are not taken over yet, going on");
        }
    }

    fn begin(&mut self, record: Record) -> oneshot::Receiver<()> {
        let id = record.active.spec.id.clone();
        let (sender, mailbox) = mpsc::channel(MAILBOX);
        let (ready, is_ready) = oneshot::channel();
        let actor = Actor::new(Arc::clone(&self.shared), record, mailbox);
        self.shared.mailboxes().insert(id.clone(), sender);
        self.actors.insert(id, self.shared.job(actor.run(ready)));
        is_ready
    }

    async fn run(mut self, mut link: HostLink) {
        let hello = FromHost::Hello {
            host: self.config.host.clone(),
            slots: self.config.slots.clone(),
        };
        // Without a server the host goes on by itself.
        drop(link.outgoing.send(hello).await);
        let shared = Arc::clone(&self.shared);
        let outgoing = link.outgoing.clone();
        let _outbox = self
            .shared
            .job(async move { shared.outbox.send_all(outgoing).await });
        let logs = self.shared.logs.clone();
        let _sweep = self.shared.job(async move {
            loop {
                logs.sweep();
                tokio::time::sleep(SWEEP_LOGS).await;
            }
        });
        let closing = self.shared.closing.clone();
        let mut connected = true;
        loop {
            tokio::select! {
                biased;
                () = closing.cancelled() => break,
                message = link.incoming.recv(), if connected => match message {
                    Some(message) => self.on_message(message).await,
                    None => connected = false,
                },
            }
        }
        for (_, actor) in std::mem::take(&mut self.actors) {
            // However it ended, it has.
            drop(actor.await);
        }
    }

    async fn on_message(&mut self, message: ToHost) {
        match message {
            ToHost::Sync { machines, .. } => {
                let named: BTreeSet<MachineId> = machines
                    .iter()
                    .map(|machine| machine.spec.id.clone())
                    .collect();
                for machine in machines {
                    let id = machine.spec.id.clone();
                    self.put(machine).await;
                    self.tell(&id, Command::Report).await;
                }
                let unnamed: Vec<MachineId> = self.v4.keys().cloned().collect();
                for id in unnamed.into_iter().filter(|id| !named.contains(id)) {
                    self.tell(&id, Command::Abandon).await;
                }
            }
            ToHost::Put(machine) => self.put(*machine).await,
            ToHost::Forget { id } => self.tell(&id, Command::Forget).await,
        }
        self.reap();
    }

    async fn put(&mut self, machine: HostMachine) {
        if machine.spec.host != self.config.host {
            return tracing::warn!(machine = %machine.spec.id, host = %machine.spec.host, "machine of another host ignored");
        }
        self.reap();
        let id = machine.spec.id.clone();
        if self.shared.mailbox(&id).is_none() {
            let Some(v4_index) = self.free_v4() else {
                return tracing::error!(machine = %id, "no address is left for a new machine");
            };
            let record = Record {
                schema: crate::ledger::record::SCHEMA,
                active: self.shared.ledger.entry(&machine),
                coming: None,
                revision: machine.revision,
                v4_index,
                state: State::default(),
                events: Vec::new(),
                destroyed_at: None,
            };
            self.v4.insert(id.clone(), v4_index);
            drop(self.begin(record).await);
        }
        self.tell(&id, Command::Put(Box::new(machine))).await;
    }

    async fn tell(&self, id: &MachineId, command: Command) {
        if let Some(mailbox) = self.shared.mailbox(id) {
            // An actor that is gone has been forgotten.
            drop(mailbox.send(command).await);
        }
    }

    /// Forgets what belonged to Machines that their actors have forgotten.
    fn reap(&mut self) {
        let gone = |id: &MachineId| self.shared.mailbox(id).is_none();
        let gone: Vec<MachineId> = self.actors.keys().filter(|id| gone(id)).cloned().collect();
        for id in gone {
            self.actors.remove(&id);
            self.v4.remove(&id);
        }
    }

    /// Returns the next index that no Machine has; an index that became free rests for a round.
    fn free_v4(&mut self) -> Option<u16> {
        let taken: BTreeSet<u16> = self.v4.values().copied().collect();
        let after = (self.last_v4.saturating_add(1)..=u16::MAX).chain(FIRST_V4..=self.last_v4);
        let mut free = after.filter(|index| !taken.contains(index));
        let index = free.find(|index| self.shared.net.v4(*index).is_some())?;
        self.last_v4 = index;
        Some(index)
    }
}
