//! What the rest of the process may ask of a host.

use std::net::{SocketAddr, SocketAddrV6};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hangar_api::catalog::Phase;
use hangar_api::error::{ErrorKind, Failure};
use hangar_api::exec::{ExecRequest, ExecResponse};
use hangar_api::id::MachineId;
use hangar_api::logs::{LogLine, LogQuery, Provider};
use hangar_api::process::{Memory, Process, Reclaimed};
use hangar_api::seam::{
    BoxFuture, BoxStream, Connection, HostCalls, IdleMachine, MachineFiles, Waker,
};
use hangar_api::session::{SessionInput, SessionOutput, SessionRequest};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use super::LivenessFeed;
use super::shared::Shared;
use crate::machine::actor::Command;
use crate::runtime::{MemoryAsk, MemoryUse, RunKey};

/// How long a Machine may take to accept a connection.
const DIAL_TIME: Duration = Duration::from_secs(10);
/// Bytes of what the API counts memory in.
const MIB: u64 = 1024 * 1024;

/// A running host. Cheap to clone; dropping the last clone ends its tasks as a crash would, and
/// Machines go on.
#[derive(Clone, Debug)]
pub struct HostHandle {
    shared: Arc<Shared>,
    task: Arc<Mutex<Option<AbortOnDropHandle<()>>>>,
}

// === impl HostHandle ===

impl HostHandle {
    pub(super) fn new(shared: Arc<Shared>, task: AbortOnDropHandle<()>) -> Self {
        Self {
            shared,
            task: Arc::new(Mutex::new(Some(task))),
        }
    }

    /// Follows what every Machine of the host does.
    #[must_use]
    pub fn liveness(&self) -> LivenessFeed {
        self.shared.liveness.subscribe()
    }

    /// Ends the host's tasks, each after what it is writing. Machines go on.
    pub async fn shutdown(&self) {
        self.shared.closing.cancel();
        let task = self.take_task();
        if let Some(task) = task {
            // However it ended, it has.
            drop(task.await);
        }
    }

    /// Ends the host's tasks where they are, as a crash would: for tests of what comes after.
    pub fn crash(&self) {
        drop(self.take_task());
    }

    /// Writes a line about a Machine into its log.
    pub fn log(&self, machine: &MachineId, provider: Provider, error: bool, text: &str) {
        let starts = self
            .shared
            .liveness
            .borrow()
            .get(machine)
            .map_or(0, |l| l.starts);
        self.shared
            .logs
            .write(machine, provider, error, starts, text);
    }

    fn take_task(&self) -> Option<AbortOnDropHandle<()>> {
        self.task
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Asks a Machine's task something and returns its answer.
    async fn ask(
        &self,
        machine: &MachineId,
        command: impl FnOnce(oneshot::Sender<Result<(), Failure>>) -> Command,
    ) -> Result<(), Failure> {
        let mailbox = self.shared.mailbox(machine).ok_or_else(not_found)?;
        let (answer, result) = oneshot::channel();
        let away = || Failure::new(ErrorKind::Unavailable, "the host is shutting down");
        let sent = mailbox.send(command(answer)).await;
        sent.map_err(|_| away())?;
        result.await.map_err(|_| away())?
    }

    async fn memory_of(&self, machine: MachineId, ask: MemoryAsk) -> Result<MemoryUse, Failure> {
        let key = self.run_of(machine)?;
        self.shared.runtime.memory(key, ask).await
    }

    /// Returns the run of a Machine that is up.
    fn run_of(&self, machine: MachineId) -> Result<RunKey, Failure> {
        let liveness = self.shared.liveness.borrow();
        let Some(live) = liveness.get(&machine) else {
            return Err(not_found());
        };
        match live.phase {
            Phase::Up | Phase::Draining => Ok(RunKey {
                machine,
                start: live.starts,
            }),
            Phase::Down | Phase::Suspended | Phase::Coming => Err(Failure::new(
                ErrorKind::FailedPrecondition,
                "failed_precondition: machine is not started",
            )),
        }
    }
}

fn not_found() -> Failure {
    Failure::new(ErrorKind::NotFound, "machine not found")
}

impl HostCalls for HostHandle {
    fn exec(
        &self,
        machine: MachineId,
        request: ExecRequest,
    ) -> BoxFuture<'_, Result<ExecResponse, Failure>> {
        Box::pin(async move {
            let key = self.run_of(machine)?;
            self.shared.runtime.exec(key, request).await
        })
    }

    fn session(
        &self,
        machine: MachineId,
        request: SessionRequest,
        input: BoxStream<SessionInput>,
    ) -> BoxFuture<'_, Result<BoxStream<SessionOutput>, Failure>> {
        Box::pin(async move {
            let key = self.run_of(machine)?;
            self.shared.runtime.session(key, request, input).await
        })
    }

    fn dial(
        &self,
        machine: MachineId,
        address: SocketAddrV6,
    ) -> BoxFuture<'_, Result<Box<dyn Connection>, Failure>> {
        Box::pin(async move {
            self.run_of(machine.clone())?;
            let port = address.port();
            let known = self.shared.liveness.borrow().get(&machine).cloned();
            let local = known.and_then(|live| live.address);
            let local = local.map(|ip| SocketAddr::from((ip, port)));
            let mut why = String::new();
            for address in [Some(SocketAddr::V6(address)), local].into_iter().flatten() {
                match tokio::time::timeout(DIAL_TIME, TcpStream::connect(address)).await {
                    Ok(Ok(stream)) => {
                        // A failure to turn off batching only costs time.
                        let _slower = stream.set_nodelay(true);
                        return Ok(Box::new(stream) as Box<dyn Connection>);
                    }
                    Ok(Err(error)) => why = error.to_string(),
                    Err(_) => why = format!("no answer within {} s", DIAL_TIME.as_secs()),
                }
            }
            let text = format!("connect to port {port} of machine {machine}: {why}");
            Err(Failure::new(ErrorKind::FailedPrecondition, text))
        })
    }

    fn logs(&self, query: LogQuery) -> BoxFuture<'_, Result<BoxStream<LogLine>, Failure>> {
        Box::pin(async move { self.shared.logs.query(query).await })
    }

    fn listeners(&self, machine: MachineId) -> BoxFuture<'_, Result<Vec<SocketAddr>, Failure>> {
        Box::pin(async move {
            let key = self.run_of(machine)?;
            self.shared.runtime.listeners(key).await
        })
    }

    fn processes(&self, machine: MachineId) -> BoxFuture<'_, Result<Vec<Process>, Failure>> {
        Box::pin(async move {
            let key = self.run_of(machine)?;
            self.shared.runtime.processes(key).await
        })
    }

    fn memory(&self, machine: MachineId) -> BoxFuture<'_, Result<Memory, Failure>> {
        Box::pin(async move { self.memory_of(machine, MemoryAsk::Look).await.map(shown) })
    }

    fn set_memory(
        &self,
        machine: MachineId,
        limit_mb: u64,
    ) -> BoxFuture<'_, Result<Memory, Failure>> {
        let ask = MemoryAsk::Limit(limit_mb.saturating_mul(MIB));
        Box::pin(async move { self.memory_of(machine, ask).await.map(shown) })
    }

    fn reclaim_memory(
        &self,
        machine: MachineId,
        amount_mb: u64,
    ) -> BoxFuture<'_, Result<Reclaimed, Failure>> {
        let ask = MemoryAsk::Reclaim(amount_mb.saturating_mul(MIB));
        Box::pin(async move {
            let actual_mb = self.memory_of(machine, ask).await?.reclaimed / MIB;
            Ok(Reclaimed { actual_mb })
        })
    }
}

fn shown(memory: MemoryUse) -> Memory {
    Memory {
        limit_mb: memory.limit / MIB,
        available_mb: memory.limit.saturating_sub(memory.used) / MIB,
    }
}

impl MachineFiles for HostHandle {
    fn open(
        &self,
        machine: MachineId,
        path: PathBuf,
    ) -> BoxFuture<'_, Result<Option<std::fs::File>, Failure>> {
        Box::pin(async move {
            let key = self.run_of(machine)?;
            self.shared.runtime.open(key, path).await
        })
    }
}

impl Waker for HostHandle {
    fn wake(&self, machine: MachineId) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move { self.ask(&machine, Command::Wake).await })
    }

    fn rest(&self, idle: IdleMachine) -> BoxFuture<'_, Result<(), Failure>> {
        let machine = idle.machine.clone();
        Box::pin(async move {
            self.ask(&machine, |answer| Command::Idle(Box::new(idle), answer))
                .await
        })
    }
}
