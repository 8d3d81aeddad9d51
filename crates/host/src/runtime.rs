//! The seam between a machine actor and whatever runs its program.
//!
//! A *run* is one start of one Machine. It has a run directory, a lock that `init` holds while it
//! lives, and an `exit.json` once it is over, so that a host that was killed can find out what
//! became of it. Every method may be repeated: doing it twice is doing it once.

pub mod container;
pub mod fake;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use hangar_api::Timestamp;
use hangar_api::error::Failure;
use hangar_api::exec::{ExecRequest, ExecResponse};
use hangar_api::id::{MachineId, VolumeId};
use hangar_api::process::Process;
use hangar_api::seam::{BoxFuture, BoxStream};
use hangar_api::session::{SessionInput, SessionOutput, SessionRequest};
use serde::{Deserialize, Serialize};

/// One start of one Machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RunKey {
    /// The Machine.
    pub machine: MachineId,
    /// The how-manieth start, from 1.
    pub start: u64,
}

/// All that a runtime needs to start a Machine. Holds secrets: never logged, never written to a
/// file of the run directory.
#[derive(Clone)]
pub struct StartPlan {
    /// Which run.
    pub key: RunKey,
    /// Host name inside: the Machine's id.
    pub hostname: String,
    /// The program and its arguments: ENTRYPOINT and CMD already put together.
    pub argv: Vec<String>,
    /// The whole environment (image, env, secrets, FLY_*).
    pub env: BTreeMap<String, String>,
    /// `User` of the image: "", `name`, `uid`, `name:group`, `uid:gid`.
    pub user: String,
    /// Working directory inside.
    pub workdir: PathBuf,
    /// Unpacked layers, lowest first. The writable layer above is the runtime's.
    pub layers: Vec<PathBuf>,
    /// The name under which the writable layer is kept for the Machine's next run with that name,
    /// all others being removed; without one it goes with the run.
    pub kept: Option<String>,
    /// Files to write before the start: absolute path inside, content, mode.
    pub files: Vec<(PathBuf, Vec<u8>, u32)>,
    /// Volumes, each of which no other live run has.
    pub mounts: Vec<RunMount>,
    /// Limits.
    pub limits: Limits,
    /// Addresses.
    pub net: RunNet,
    /// Directory of the Machine's log segments, kept across runs.
    pub log_dir: PathBuf,
}

/// A volume of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunMount {
    /// Which.
    pub volume: VolumeId,
    /// Where it is seen: an absolute path inside.
    pub path: PathBuf,
}

/// Limits of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// CPUs.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Swap in bytes beside it, of what the machine has.
    pub swap_bytes: u64,
    /// Processes and threads.
    pub pids: u32,
}

/// Addresses of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunNet {
    /// The 6PN address.
    pub v6: Ipv6Addr,
    /// The host-local address.
    pub v4: Ipv4Addr,
}

/// What is done with the memory of a run before it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryAsk {
    /// Nothing.
    Look,
    /// It is limited to so many bytes, unless it uses more.
    Limit(u64),
    /// So many bytes are taken back, as far as the kernel can.
    Reclaim(u64),
}

/// The memory of a run, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// The most that it may use.
    pub limit: u64,
    /// What it uses and the kernel cannot take back at once.
    pub used: u64,
    /// What was taken back.
    pub reclaimed: u64,
}

/// How a run ended: what `init` wrote, or what could be found out without it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// The main process's code, or 128 + signal.
    pub exit_code: i32,
    /// The signal that ended it, if one did.
    #[serde(default)]
    pub signal: Option<i32>,
    /// Whether the kernel killed it for its memory.
    #[serde(default)]
    pub oom_killed: bool,
    /// Whether a stop had been asked for.
    #[serde(default)]
    pub requested_stop: bool,
    /// Why the program could not be run at all: "no such file: /bin/x".
    #[serde(default)]
    pub spawn_error: Option<String>,
    /// When.
    pub exited_at: Timestamp,
}

/// What is known of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunStatus {
    /// `init` holds its lock; frozen or not.
    Running,
    /// Over; nothing of it runs.
    Exited(ExitRecord),
    /// No lock is held and no exit was written: killed from outside, or the host booted.
    Lost,
    /// Its making was broken off: its program was never executed. What is left of it has to be
    /// removed.
    Unmade,
    /// There never was such a run, or it has been removed.
    Absent,
}

/// Why a run could not be started, in words that fit after "failed to start: ".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct StartError {
    /// What we were doing, what went wrong, what to do.
    pub message: String,
    /// Whether trying again can help.
    pub transient: bool,
}

/// Runs Machines: containers, or the fake.
///
/// An implementer promises: a run outlives the process that started it; no method blocks the
/// calling thread for long; `start` either leaves a run that `status` finds, or nothing.
pub trait Runtime: Send + Sync + fmt::Debug {
    /// Starts a run; returns once `init` is up and has tried to execute the program. A program
    /// that cannot be executed is not an error here but an exit with `spawn_error`.
    fn start(&self, plan: StartPlan) -> BoxFuture<'_, Result<(), StartError>>;

    /// Returns what is known of a run.
    fn status(&self, key: RunKey) -> BoxFuture<'_, RunStatus>;

    /// Waits until a run is over. `Lost` runs come back as an exit with code 137.
    fn wait(&self, key: RunKey) -> BoxFuture<'_, ExitRecord>;

    /// Freezes all of a run where it is, its memory kept; returns once nothing of it moves. One
    /// that cannot be frozen in time is left as it may be: `resume` it. Dropping the future leaves
    /// it so too.
    fn suspend(&self, key: RunKey) -> BoxFuture<'_, Result<(), Failure>>;

    /// Lets a frozen run go on, or one whose freezing was broken off; nothing for one that moves.
    fn resume(&self, key: RunKey) -> BoxFuture<'_, Result<(), Failure>>;

    /// Begins the stop sequence, which `init` carries out alone: `signal`, after `timeout`
    /// SIGTERM, then SIGKILL. Returns at once; `wait` tells the end. A frozen run goes on for it.
    fn stop(
        &self,
        key: RunKey,
        signal: i32,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<(), Failure>>;

    /// Sends a signal to the main process.
    fn signal(&self, key: RunKey, signal: i32) -> BoxFuture<'_, Result<(), Failure>>;

    /// Kills everything in the run at once, frozen or not.
    fn kill(&self, key: RunKey) -> BoxFuture<'_, ()>;

    /// Runs a command beside the main process, as root, with its environment.
    fn exec(
        &self,
        key: RunKey,
        request: ExecRequest,
    ) -> BoxFuture<'_, Result<ExecResponse, Failure>>;

    /// Runs a command beside the main process whose streams stay open; returns once it runs.
    /// Dropping the stream of its output kills it.
    fn session(
        &self,
        key: RunKey,
        request: SessionRequest,
        input: BoxStream<SessionInput>,
    ) -> BoxFuture<'_, Result<BoxStream<SessionOutput>, Failure>>;

    /// Returns the TCP sockets that listen inside.
    fn listeners(&self, key: RunKey) -> BoxFuture<'_, Result<Vec<SocketAddr>, Failure>>;

    /// Returns the processes inside.
    fn processes(&self, key: RunKey) -> BoxFuture<'_, Result<Vec<Process>, Failure>>;

    /// Looks at the memory of a run, after changing it as is asked.
    fn memory(&self, key: RunKey, ask: MemoryAsk) -> BoxFuture<'_, Result<MemoryUse, Failure>>;

    /// Opens a file by its absolute path inside; `None` where there is no regular file, or a
    /// symlink on the way. Never opens anything outside of the run's own file system.
    fn open(
        &self,
        key: RunKey,
        path: PathBuf,
    ) -> BoxFuture<'_, Result<Option<std::fs::File>, Failure>>;

    /// Removes all that is left of a run (cgroups, writable layer, run directory), killing what
    /// still lives. Afterwards its status is `Absent`. Logs stay.
    fn remove(&self, key: RunKey) -> BoxFuture<'_, Result<(), Failure>>;

    /// Removes what a Machine keeps beyond its runs, of which it has none any more.
    fn wipe(&self, machine: MachineId) -> BoxFuture<'_, Result<(), Failure>>;

    /// Returns every run of which anything is left, also half-made ones: for the sweep at start.
    fn runs(&self) -> BoxFuture<'_, Result<Vec<RunKey>, Failure>>;
}

impl fmt::Debug for StartPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StartPlan")
            .field("key", &self.key)
            .field("argv", &self.argv)
            .finish_non_exhaustive()
    }
}
