//! The container runtime: Machines as processes in namespaces and control groups of their own.
//!
//! Makes and removes them through the helper ([`crate::helper`]), and asks their `init` for the
//! rest. What is true of a run is on disk and in the kernel, never here: a lock that `init` holds,
//! its `exit.json`, its control groups. A new object over the same data directory therefore knows
//! all that the old one knew. `init` is not trusted: whatever it says is bounded and in time, and
//! speaks only for its own Machine.

mod api;
mod dial;
mod files;
mod program;
mod session;
mod state;
mod usage;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hangar_api::env::Env;
use hangar_api::error::{ErrorKind, Failure};
use hangar_api::exec::{ExecRequest, ExecResponse};
use hangar_api::id::MachineId;
use hangar_api::process::Process;
use hangar_api::seam::{BoxFuture, BoxStream, MachineApi};
use hangar_api::session::{SessionInput, SessionOutput, SessionRequest};
use hangar_init::wire::{Reply, Request};

use super::{ExitRecord, MemoryAsk, MemoryUse, RunKey, RunStatus, Runtime, StartError, StartPlan};
use crate::cgroup::Layout;
use crate::helper::client::Helper;
use crate::helper::{self, MountRequest, Paths, RemoveRequest, StartRequest};
use crate::volumes::DiskVolumes;

pub use self::program::cgroup_parent;

use self::dial::Dialed;
use self::state::{Seen, look};

/// How often a run that is being made is looked at.
const MAKING_PAUSE: Duration = Duration::from_millis(2);
/// How long a run may be in the making before it is taken for lost.
const MAKING_TIME: Duration = Duration::from_secs(90);
/// How often a run is looked at when its `init` does not talk to us.
const WAIT_PAUSE: Duration = Duration::from_millis(20);
/// How often a run is looked at whose `init` has just closed its socket, and how many times.
const ENDING_PAUSE: Duration = Duration::from_millis(1);
const ENDING_LOOKS: u32 = 20;
/// How often a run that is being frozen is looked at, and how long that may take: what sleeps in
/// the kernel stops only when it wakes.
const FREEZE_PAUSE: Duration = Duration::from_millis(1);
const FREEZE_TIME: Duration = Duration::from_secs(5);
/// How often a frozen run is looked at: its `init` cannot talk.
const FROZEN_PAUSE: Duration = Duration::from_millis(200);
/// How often starting and removing are tried when the helper dies meanwhile.
const HELPER_TRIES: u32 = 4;
/// The time of a command that names none.
const EXEC_DEFAULT_SECONDS: u64 = 60;
/// The longest time of a command.
const EXEC_MAX_SECONDS: u64 = 24 * 3600;
/// How much longer than its time a command is waited for.
const EXEC_GRACE: Duration = Duration::from_secs(5);

/// How a container runtime is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The data directory.
    pub data_dir: PathBuf,
    /// The executable that plays the roles `init` and helper: usually our own.
    pub executable: PathBuf,
    /// Whether Machines are connected to the host's network; not without rights to do so.
    pub connect: bool,
    /// What Machines have at `/.fly/api`; without it they have nothing there.
    pub api: Option<Arc<dyn MachineApi>>,
}

/// Runs Machines as containers.
#[derive(Debug)]
pub struct ContainerRuntime {
    env: Env,
    machines: PathBuf,
    layout: Layout,
    connect: bool,
    sockets: api::Sockets,
    volumes: Arc<DiskVolumes>,
    helper: Arc<Helper>,
}

// === impl ContainerRuntime ===

impl ContainerRuntime {
    /// Sets up the runtime: keeps a copy of the executable in the data directory, under its
    /// digest, from which helper and `init` run whatever becomes of the original.
    pub fn new(env: Env, settings: &Settings) -> std::io::Result<Self> {
        let data_dir = settings.data_dir.canonicalize()?;
        let program = program::keep(&settings.executable, &data_dir.join("init"))?;
        let layout = Layout::probe(program::cgroup_parent(&data_dir))?;
        let machines = data_dir.join("machines");
        std::fs::create_dir_all(&machines)?;
        let helper = Arc::new(Helper::new(env.clone(), program));
        Ok(Self {
            volumes: Arc::new(DiskVolumes::new(Arc::clone(&helper), &data_dir)?),
            sockets: api::Sockets::new(env.clone(), settings.api.clone()),
            helper,
            env,
            machines,
            layout,
            connect: settings.connect,
        })
    }

    /// Returns the process id of the helper, if one has been needed yet.
    #[must_use]
    pub fn helper_pid(&self) -> Option<u32> {
        self.helper.pid()
    }

    /// Returns the volumes of the same data directory.
    #[must_use]
    pub fn volumes(&self) -> Arc<DiskVolumes> {
        Arc::clone(&self.volumes)
    }

    fn paths(&self, key: &RunKey) -> Paths {
        Paths::new(&self.machines, key)
    }

    fn run_dir(&self, key: &RunKey) -> PathBuf {
        self.paths(key).run
    }

    fn remove_request(&self, key: &RunKey) -> RemoveRequest {
        RemoveRequest {
            key: key.clone(),
            paths: self.paths(key),
            layout: self.layout.clone(),
            connect: self.connect,
        }
    }

    async fn start_run(&self, plan: StartPlan) -> Result<(), StartError> {
        let key = plan.key.clone();
        let layout = self.layout.clone();
        let mounts = plan.mounts.iter().map(|mount| MountRequest {
            image: self.volumes.image(&mount.volume),
            path: mount.path.clone(),
        });
        let mounts = mounts.collect();
        let request = StartRequest::new(plan, mounts, self.paths(&key), layout, self.connect);
        let mut request = helper::Request::Start(Box::new(request));
        let mut last = None;
        for _ in 0..HELPER_TRIES {
            // It listens before the program runs, which may ask at once.
            let mount = self.sockets.make(&key);
            if let helper::Request::Start(start) = &mut request {
                start.api = mount.as_ref().map(by_descriptor);
            }
            let reply = self.helper.ask(&request).await;
            let Some(message) = reply.error else {
                return Ok(());
            };
            // The maker may have died after the point where the run went on without it.
            match self.settled(&key).await {
                RunStatus::Running | RunStatus::Exited(_) => return Ok(()),
                RunStatus::Lost | RunStatus::Unmade => {
                    // What cannot be removed is found by the next sweep, and said there.
                    let _removed = self.remove_run(&key).await;
                }
                RunStatus::Absent => {}
            }
            let transient = reply.transient;
            last = Some(StartError { message, transient });
            if !transient {
                break;
            }
        }
        Err(last.unwrap_or(StartError {
            message: "the container helper cannot be started".to_owned(),
            transient: true,
        }))
    }

    /// Returns what is known of a run, once it is neither being made nor just ending.
    async fn settled(&self, key: &RunKey) -> RunStatus {
        let run = self.run_dir(key);
        let until = tokio::time::Instant::now() + MAKING_TIME;
        loop {
            match look(&run) {
                Seen::Absent => return RunStatus::Absent,
                Seen::Running => return RunStatus::Running,
                Seen::Exited(exit) => {
                    return RunStatus::Exited(state::record(&exit, self.layout.oom_kills(key)));
                }
                Seen::Dead => return RunStatus::Lost,
                Seen::Unmade => return RunStatus::Unmade,
                Seen::Making if tokio::time::Instant::now() > until => return RunStatus::Lost,
                Seen::Making => tokio::time::sleep(MAKING_PAUSE).await,
            }
        }
    }

    /// Listens at the `/.fly/api` of a run that was taken over.
    async fn listen_again(&self, key: &RunKey) {
        if !self.sockets.lacks(key) {
            return;
        }
        let (layout, run) = (self.layout.clone(), key.clone());
        let root = tokio::task::spawn_blocking(move || layout.root(&run)).await;
        let root = root.map_err(io::Error::other).flatten();
        self.sockets.renew(key, root);
    }

    async fn wait_run(&self, key: &RunKey) -> ExitRecord {
        let mut pause = ENDING_PAUSE;
        loop {
            match self.settled(key).await {
                RunStatus::Exited(record) => return record,
                RunStatus::Lost | RunStatus::Unmade | RunStatus::Absent => {
                    let oom_kills = self.layout.oom_kills(key);
                    return state::lost(self.env.now(), oom_kills);
                }
                RunStatus::Running => {}
            }
            self.listen_again(key).await;
            if self.layout.is_frozen(key) {
                tokio::time::sleep(FROZEN_PAUSE).await;
                continue;
            }
            if let Ok(dialed) = Dialed::open(&self.run_dir(key)).await {
                dialed.until_closed().await;
            }
            // An `init` that closes its socket is about to end; one that does so again is odd.
            self.until_not_running(key, pause).await;
            pause = WAIT_PAUSE;
        }
    }

    /// Looks a few times, so that a run that is just ending is not asked for in vain.
    async fn until_not_running(&self, key: &RunKey, pause: Duration) {
        let run = self.run_dir(key);
        for _ in 0..ENDING_LOOKS {
            if !matches!(look(&run), Seen::Running) {
                return;
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn suspend_run(&self, key: &RunKey) -> Result<(), Failure> {
        let failed = |kind, text: String| Failure::new(kind, text);
        if self.settled(key).await != RunStatus::Running {
            let text = "the machine is not running".to_owned();
            return Err(failed(ErrorKind::FailedPrecondition, text));
        }
        self.layout
            .freeze(key)
            .map_err(|error| failed(ErrorKind::Internal, format!("freeze it: {error}")))?;
        let until = tokio::time::Instant::now() + FREEZE_TIME;
        while !self.layout.is_frozen(key) {
            if tokio::time::Instant::now() > until {
                let limit = FREEZE_TIME.as_secs();
                let text = format!("its processes did not stop moving within {limit} s");
                return Err(failed(ErrorKind::TimedOut, text));
            }
            tokio::time::sleep(FREEZE_PAUSE).await;
        }
        Ok(())
    }

    fn thaw(&self, key: &RunKey) -> Result<(), Failure> {
        self.layout
            .thaw(key)
            .map_err(|error| Failure::new(ErrorKind::Internal, format!("thaw it: {error}")))
    }

    async fn ask_init(&self, key: &RunKey, request: &Request) -> Result<Reply, Failure> {
        let mut dialed = Dialed::open(&self.run_dir(key)).await?;
        match dialed.ask(request).await? {
            Reply::Error { message } => Err(Failure::new(ErrorKind::Invalid, message)),
            reply => Ok(reply),
        }
    }

    async fn exec_run(&self, key: &RunKey, request: ExecRequest) -> Result<ExecResponse, Failure> {
        let argv = command(&request)?;
        let seconds = match request.timeout {
            None | Some(0) => EXEC_DEFAULT_SECONDS,
            Some(seconds) => seconds.min(EXEC_MAX_SECONDS),
        };
        let request = Request::Exec {
            argv,
            stdin: request.stdin.unwrap_or_default(),
            timeout_ms: seconds * 1000,
        };
        let mut dialed = Dialed::open(&self.run_dir(key)).await?;
        let limit = Duration::from_secs(seconds) + EXEC_GRACE;
        let too_long = || {
            let text = format!(
                "the command did not end within {seconds} s and was killed; give it a longer timeout"
            );
            Failure::new(ErrorKind::TimedOut, text)
        };
        let done = tokio::time::timeout(limit, dialed.exec(&request)).await;
        let (response, timed_out) = done.map_err(|_| too_long())??;
        if timed_out {
            return Err(too_long());
        }
        Ok(response)
    }

    async fn remove_run(&self, key: &RunKey) -> Result<(), Failure> {
        self.sockets.close(key);
        let request = helper::Request::Remove(self.remove_request(key));
        self.ask_helper(&request).await
    }

    async fn wipe_machine(&self, machine: &MachineId) -> Result<(), Failure> {
        let kept = helper::kept_dir(&self.machines, machine);
        // Most keep nothing.
        match kept.try_exists() {
            Ok(false) => Ok(()),
            _ => self.ask_helper(&helper::Request::Wipe { kept }).await,
        }
    }

    async fn ask_helper(&self, request: &helper::Request) -> Result<(), Failure> {
        let mut last = String::new();
        for _ in 0..HELPER_TRIES {
            let reply = self.helper.ask(request).await;
            match reply.error {
                None => return Ok(()),
                Some(message) => last = message,
            }
            if !reply.transient {
                break;
            }
        }
        Err(Failure::new(ErrorKind::Internal, last))
    }
}

impl Runtime for ContainerRuntime {
    fn start(&self, plan: StartPlan) -> BoxFuture<'_, Result<(), StartError>> {
        Box::pin(self.start_run(plan))
    }

    fn status(&self, key: RunKey) -> BoxFuture<'_, RunStatus> {
        Box::pin(async move { self.settled(&key).await })
    }

    fn wait(&self, key: RunKey) -> BoxFuture<'_, ExitRecord> {
        Box::pin(async move { self.wait_run(&key).await })
    }

    fn suspend(&self, key: RunKey) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move { self.suspend_run(&key).await })
    }

    fn resume(&self, key: RunKey) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(std::future::ready(self.thaw(&key)))
    }

    fn stop(
        &self,
        key: RunKey,
        signal: i32,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            self.thaw(&key)?;
            let request = Request::Stop {
                signal,
                timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
            };
            match self.ask_init(&key, &request).await {
                Ok(_) => Ok(()),
                Err(failure) => {
                    // An `init` that cannot be reached is most often about to end.
                    self.until_not_running(&key, ENDING_PAUSE).await;
                    match self.settled(&key).await {
                        RunStatus::Running => Err(failure),
                        // Nothing is left to be stopped.
                        _ => Ok(()),
                    }
                }
            }
        })
    }

    fn signal(&self, key: RunKey, signal: i32) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            let request = Request::Signal { signal };
            self.ask_init(&key, &request).await.map(|_| ())
        })
    }

    fn kill(&self, key: RunKey) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let request = helper::Request::Kill(self.remove_request(&key));
            if let Err(failure) = self.ask_helper(&request).await {
                tracing::warn!(machine = %key.machine, error = %failure, "kill failed");
            }
        })
    }

    fn exec(
        &self,
        key: RunKey,
        request: ExecRequest,
    ) -> BoxFuture<'_, Result<ExecResponse, Failure>> {
        Box::pin(async move { self.exec_run(&key, request).await })
    }

    fn session(
        &self,
        key: RunKey,
        request: SessionRequest,
        input: BoxStream<SessionInput>,
    ) -> BoxFuture<'_, Result<BoxStream<SessionOutput>, Failure>> {
        Box::pin(async move {
            let dialed = Dialed::open(&self.run_dir(&key)).await?;
            session::begin(dialed, request, input).await
        })
    }

    fn listeners(&self, key: RunKey) -> BoxFuture<'_, Result<Vec<SocketAddr>, Failure>> {
        Box::pin(async move {
            match self.ask_init(&key, &Request::Listeners).await? {
                Reply::Listeners { sockets } => Ok(sockets),
                _ => Err(dial::nonsense()),
            }
        })
    }

    fn processes(&self, key: RunKey) -> BoxFuture<'_, Result<Vec<Process>, Failure>> {
        Box::pin(async move {
            let (layout, run) = (self.layout.clone(), key.clone());
            let listing = tokio::task::spawn_blocking(move || layout.processes(&run));
            usage::told(&key, "list the processes", listing.await)
        })
    }

    fn memory(&self, key: RunKey, ask: MemoryAsk) -> BoxFuture<'_, Result<MemoryUse, Failure>> {
        Box::pin(async move {
            let (layout, run) = (self.layout.clone(), key.clone());
            let looking = tokio::task::spawn_blocking(move || layout.memory(&run, ask));
            usage::told(&key, "change or read the memory", looking.await)
        })
    }

    fn wipe(&self, machine: MachineId) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move { self.wipe_machine(&machine).await })
    }

    fn open(
        &self,
        key: RunKey,
        path: PathBuf,
    ) -> BoxFuture<'_, Result<Option<std::fs::File>, Failure>> {
        Box::pin(async move {
            let (layout, run) = (self.layout.clone(), key.clone());
            let opening = tokio::task::spawn_blocking(move || match layout.root(&run)? {
                Some(root) => files::open(&root, &path),
                None => Err(io::Error::other("it is not running")),
            });
            let opened = opening.await.map_err(io::Error::other).flatten();
            opened.map_err(|error| {
                let text = format!("open a file of machine {}: {error}", key.machine);
                Failure::new(ErrorKind::Unavailable, text)
            })
        })
    }

    fn remove(&self, key: RunKey) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move { self.remove_run(&key).await })
    }

    fn runs(&self) -> BoxFuture<'_, Result<Vec<RunKey>, Failure>> {
        Box::pin(async move {
            let listed = state::runs_on_disk(&self.machines)
                .and_then(|on_disk| Ok((on_disk, self.layout.runs()?)));
            let (mut found, in_groups) = listed.map_err(|error| {
                let text = format!("list the runs of this host: {error}");
                Failure::new(ErrorKind::Unavailable, text)
            })?;
            found.extend(in_groups);
            found.sort_unstable();
            found.dedup();
            Ok(found)
        })
    }
}

/// Names a mount of this process so that the helper finds it.
fn by_descriptor(mount: &OwnedFd) -> PathBuf {
    let (process, number) = (std::process::id(), mount.as_raw_fd());
    PathBuf::from(format!("/proc/{process}/fd/{number}"))
}

/// Returns the command of a request; the deprecated text form is split as a shell would.
fn command(request: &ExecRequest) -> Result<Vec<String>, Failure> {
    if !request.command.is_empty() {
        return Ok(request.command.clone());
    }
    match request.cmd.as_deref().map(str::trim) {
        Some(text) if !text.is_empty() => shlex::split(text).ok_or_else(|| {
            let text = format!("the command has an open quote: {text}");
            Failure::new(ErrorKind::Invalid, text)
        }),
        _ => Err(Failure::new(ErrorKind::Invalid, "no command was given")),
    }
}

/// Returns whether a path is a run directory's: a number.
fn start_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.parse().ok()
}
