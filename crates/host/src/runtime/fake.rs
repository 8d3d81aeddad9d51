//! A runtime without processes: run directories, exits and ports in memory, on tokio's clock.
//!
//! Clones share one world, which goes on when the host that started its runs is dropped, as real
//! runs do. Programs are told by their argv (see [`Program`]). It keeps a journal and notices what
//! must never happen: two live runs of one Machine, or one start that runs twice.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use hangar_api::env::Env;
use hangar_api::error::{ErrorKind, Failure};
use hangar_api::exec::{ExecRequest, ExecResponse};
use hangar_api::id::MachineId;
use hangar_api::process::Process;
use hangar_api::seam::{BoxFuture, BoxStream};
use hangar_api::session::{SessionInput, SessionOutput, SessionRequest};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::{ExitRecord, MemoryAsk, MemoryUse, RunKey, RunStatus, Runtime, StartError, StartPlan};
use crate::checks::{Missed, Probe, Prober};

mod program;
mod usage;

pub use program::Program;

/// How long a fake program takes to end after a signal that it obeys.
const EXIT_TIME: Duration = Duration::from_millis(5);
/// Time between SIGTERM and SIGKILL in the stop sequence.
const KILL_TIME: Duration = Duration::from_secs(1);
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;

/// The fake. Clones share one world.
#[derive(Clone, Debug)]
pub struct FakeRuntime {
    world: Arc<Mutex<World>>,
    changed: watch::Sender<u64>,
    env: Env,
}

/// Answers checks for the programs of a [`FakeRuntime`], without sockets.
#[derive(Clone, Debug)]
pub struct FakeProber(FakeRuntime);

#[derive(Debug, Default)]
struct World {
    runs: BTreeMap<RunKey, FakeRun>,
    /// Runs whose making has begun and not ended; it is broken off with the host.
    making: BTreeSet<RunKey>,
    journal: Vec<RunKey>,
    violations: Vec<String>,
    start_failures: VecDeque<StartError>,
    freeze_failures: VecDeque<String>,
    thaw_failures: VecDeque<String>,
    list_failures: u32,
    latency: Duration,
}

#[derive(Debug)]
struct FakeRun {
    plan: StartPlan,
    program: Program,
    began: Instant,
    /// When and how it ends, as far as that is settled.
    end: Option<(Instant, ExitRecord)>,
    lost: bool,
    /// Since when it is frozen.
    frozen: Option<Instant>,
}

// === impl FakeRuntime ===

impl FakeRuntime {
    /// Returns an empty world.
    #[must_use]
    pub fn new(env: Env) -> Self {
        Self {
            world: Arc::default(),
            changed: watch::Sender::new(0),
            env,
        }
    }

    /// Returns what answers the checks of its programs.
    #[must_use]
    pub fn prober(&self) -> FakeProber {
        FakeProber(self.clone())
    }

    /// Makes every start and removal take this long, before and after the moment that counts.
    pub fn set_latency(&self, latency: Duration) {
        self.lock().latency = latency;
    }

    /// Makes the next start fail.
    pub fn fail_start(&self, message: &str, transient: bool) {
        self.lock().start_failures.push_back(StartError {
            message: message.to_owned(),
            transient,
        });
    }

    /// Makes the next freezing of a run fail.
    pub fn fail_suspend(&self, message: &str) {
        self.lock().freeze_failures.push_back(message.to_owned());
    }

    /// Makes the next thawing of a run fail.
    pub fn fail_resume(&self, message: &str) {
        self.lock().thaw_failures.push_back(message.to_owned());
    }

    /// Returns whether a run lives and is frozen.
    #[must_use]
    pub fn is_frozen(&self, key: &RunKey) -> bool {
        let now = Instant::now();
        let world = self.lock();
        let run = world.runs.get(key);
        run.is_some_and(|run| run.is_live(now) && run.frozen.is_some())
    }

    /// Makes the next listings of runs fail.
    pub fn fail_lists(&self, count: u32) {
        self.lock().list_failures = count;
    }

    /// Ends all runs as a power cut does: no exit is written.
    pub fn power_cut(&self) {
        let now = Instant::now();
        for run in self.lock().runs.values_mut() {
            run.lost |= run.is_live(now);
        }
        self.touch();
    }

    /// Ends a run's program with a code, as if by itself.
    pub fn end(&self, key: &RunKey, code: i32) {
        let record = self.record(code, None, false);
        if let Some(run) = self.lock().runs.get_mut(key) {
            run.thaw(Instant::now());
            run.end_at(Instant::now(), record);
        }
        self.touch();
    }

    /// Returns every start that was made, in order.
    #[must_use]
    pub fn journal(&self) -> Vec<RunKey> {
        self.lock().journal.clone()
    }

    /// Returns the runs that live, with what they were started with.
    #[must_use]
    pub fn live(&self) -> Vec<StartPlan> {
        let now = Instant::now();
        let world = self.lock();
        let live = world.runs.values().filter(|run| run.is_live(now));
        live.map(|run| run.plan.clone()).collect()
    }

    /// Returns what must never happen and did.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn touch(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    fn record(&self, code: i32, signal: Option<i32>, requested_stop: bool) -> ExitRecord {
        ExitRecord {
            exit_code: code,
            signal,
            oom_killed: false,
            requested_stop,
            spawn_error: None,
            exited_at: self.env.now(),
        }
    }

    fn begin(&self, plan: StartPlan) -> Result<(), StartError> {
        let now = Instant::now();
        let mut world = self.lock();
        let key = plan.key.clone();
        world.making.remove(&key);
        if let Some(failure) = world.start_failures.pop_front() {
            return Err(failure);
        }
        if world.runs.contains_key(&key) {
            return Ok(());
        }
        if world.journal.contains(&key) {
            world.violations.push(format!("{key:?} ran twice"));
        }
        let other = world
            .runs
            .iter()
            .find(|(other, run)| other.machine == key.machine && run.is_live(now));
        if let Some((other, _)) = other {
            let text = format!("{key:?} was started while {other:?} lived");
            world.violations.push(text);
        }
        for mount in &plan.mounts {
            let other = world.runs.iter().find(|(_, run)| {
                run.is_live(now) && run.plan.mounts.iter().any(|m| m.volume == mount.volume)
            });
            if let Some((other, _)) = other {
                let text = format!("{key:?} was given {} that {other:?} had", mount.volume);
                world.violations.push(text);
            }
        }
        let program = Program::parse(&plan.argv);
        let end = program.own_end().map(|(after, code, error)| {
            let mut record = self.record(code, None, false);
            record.spawn_error = error;
            (now + after, record)
        });
        world.journal.push(key.clone());
        let run = FakeRun {
            plan,
            program,
            began: now,
            end,
            lost: false,
            frozen: None,
        };
        world.runs.insert(key, run);
        drop(world);
        self.touch();
        Ok(())
    }

    fn send(&self, key: &RunKey, signal: i32, timeout: Option<Duration>) -> Result<(), Failure> {
        let now = Instant::now();
        let stopping = timeout.is_some();
        let mut world = self.lock();
        let run = world.runs.get_mut(key).filter(|run| run.is_live(now));
        let Some(run) = run else {
            // A stop of what is down is met; a signal reaches nobody.
            let text = "the machine is not running";
            let nobody = Failure::new(ErrorKind::FailedPrecondition, text);
            return if stopping { Ok(()) } else { Err(nobody) };
        };
        if stopping {
            run.thaw(now);
        }
        let ended = |signal: i32| (128 + signal, Some(signal));
        let (after, (code, by)) = match (run.program.obeys(signal), timeout) {
            (true, _) if signal == SIGKILL => (Duration::ZERO, ended(SIGKILL)),
            (true, _) => (EXIT_TIME, (0, None)),
            (false, None) => return Ok(()),
            (false, Some(timeout)) if run.program.obeys(SIGTERM) => {
                (timeout + EXIT_TIME, ended(SIGTERM))
            }
            (false, Some(timeout)) => (timeout + KILL_TIME, ended(SIGKILL)),
        };
        run.end_at(now + after, self.record(code, by, stopping));
        drop(world);
        self.touch();
        Ok(())
    }

    fn status_now(&self, key: &RunKey) -> RunStatus {
        let now = Instant::now();
        let world = self.lock();
        match world.runs.get(key) {
            None if world.making.contains(key) => RunStatus::Unmade,
            None => RunStatus::Absent,
            Some(run) if run.lost => RunStatus::Lost,
            Some(run) if run.is_live(now) => RunStatus::Running,
            Some(run) => match &run.end {
                Some((at, record)) => {
                    let mut record = record.clone();
                    let ago = now.saturating_duration_since(*at);
                    record.exited_at = self
                        .env
                        .now()
                        .saturating_sub(ago)
                        .unwrap_or(record.exited_at);
                    RunStatus::Exited(record)
                }
                None => RunStatus::Lost,
            },
        }
    }

    fn freeze(&self, key: &RunKey) -> Result<(), Failure> {
        let now = Instant::now();
        let mut world = self.lock();
        if let Some(message) = world.freeze_failures.pop_front() {
            return Err(Failure::new(ErrorKind::TimedOut, message));
        }
        match world.runs.get_mut(key).filter(|run| run.is_live(now)) {
            Some(run) => run.frozen = run.frozen.or(Some(now)),
            None => {
                let text = "the machine is not running";
                return Err(Failure::new(ErrorKind::FailedPrecondition, text));
            }
        }
        Ok(())
    }

    fn thaw(&self, key: &RunKey) -> Result<(), Failure> {
        let mut world = self.lock();
        if let Some(message) = world.thaw_failures.pop_front() {
            return Err(Failure::new(ErrorKind::Internal, message));
        }
        if let Some(run) = world.runs.get_mut(key) {
            run.thaw(Instant::now());
        }
        drop(world);
        self.touch();
        Ok(())
    }

    fn latency(&self) -> Duration {
        self.lock().latency
    }
}

impl FakeRun {
    fn is_live(&self, now: Instant) -> bool {
        // Nothing that is frozen comes to an end of its own.
        !self.lost && (self.frozen.is_some() || self.end.as_ref().is_none_or(|(at, _)| *at > now))
    }

    /// Lets a frozen program go on: its own end comes so much later.
    fn thaw(&mut self, now: Instant) {
        if let (Some(since), Some((at, _))) = (self.frozen.take(), self.end.as_mut()) {
            *at += now.saturating_duration_since(since);
        }
    }

    /// Settles the end, unless it ends sooner anyway.
    fn end_at(&mut self, at: Instant, record: ExitRecord) {
        if self.end.as_ref().is_none_or(|(sooner, _)| *sooner > at) {
            self.end = Some((at, record));
        }
    }
}

impl Runtime for FakeRuntime {
    fn start(&self, plan: StartPlan) -> BoxFuture<'_, Result<(), StartError>> {
        Box::pin(async move {
            self.lock().making.insert(plan.key.clone());
            sleep(self.latency()).await;
            self.begin(plan)?;
            sleep(self.latency()).await;
            Ok(())
        })
    }

    fn status(&self, key: RunKey) -> BoxFuture<'_, RunStatus> {
        Box::pin(async move { self.status_now(&key) })
    }

    fn wait(&self, key: RunKey) -> BoxFuture<'_, ExitRecord> {
        Box::pin(async move {
            let mut changed = self.changed.subscribe();
            loop {
                match self.status_now(&key) {
                    RunStatus::Exited(record) => return record,
                    RunStatus::Lost | RunStatus::Unmade | RunStatus::Absent => {
                        return self.record(128 + SIGKILL, Some(SIGKILL), false);
                    }
                    RunStatus::Running => {}
                }
                let end = self
                    .lock()
                    .runs
                    .get(&key)
                    .filter(|run| run.frozen.is_none())
                    .and_then(|run| run.end.as_ref().map(|e| e.0));
                let far = Instant::now() + Duration::from_secs(3600);
                tokio::select! {
                    biased;
                    _ = changed.changed() => {}
                    () = sleep_until(end.unwrap_or(far)) => {}
                }
            }
        })
    }

    fn suspend(&self, key: RunKey) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            sleep(self.latency()).await;
            self.freeze(&key)?;
            sleep(self.latency()).await;
            Ok(())
        })
    }

    fn resume(&self, key: RunKey) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            sleep(self.latency()).await;
            self.thaw(&key)?;
            sleep(self.latency()).await;
            Ok(())
        })
    }

    fn stop(
        &self,
        key: RunKey,
        signal: i32,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move { self.send(&key, signal, Some(timeout)) })
    }

    fn signal(&self, key: RunKey, signal: i32) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move { self.send(&key, signal, None) })
    }

    fn kill(&self, key: RunKey) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            // Whether it was there to be killed or not: it does not live now.
            drop(self.send(&key, SIGKILL, Some(Duration::ZERO)));
        })
    }

    fn exec(
        &self,
        key: RunKey,
        request: ExecRequest,
    ) -> BoxFuture<'_, Result<ExecResponse, Failure>> {
        Box::pin(async move {
            if self.status_now(&key) != RunStatus::Running {
                let text = "the machine is not running";
                return Err(Failure::new(ErrorKind::FailedPrecondition, text));
            }
            if self.is_frozen(&key) {
                let text = "the Machine's init cannot be reached: it does not answer";
                return Err(Failure::new(ErrorKind::Unavailable, text));
            }
            let (after, exit_code, _) =
                Program::parse(&request.command)
                    .own_end()
                    .unwrap_or((Duration::ZERO, 0, None));
            sleep(after).await;
            Ok(ExecResponse {
                exit_code,
                stdout: request.stdin.unwrap_or_default(),
                ..ExecResponse::default()
            })
        })
    }

    fn session(
        &self,
        key: RunKey,
        request: SessionRequest,
        input: BoxStream<SessionInput>,
    ) -> BoxFuture<'_, Result<BoxStream<SessionOutput>, Failure>> {
        Box::pin(async move {
            if self.status_now(&key) != RunStatus::Running {
                let text = "the machine is not running";
                return Err(Failure::new(ErrorKind::FailedPrecondition, text));
            }
            // The command gives back what it is given, and ends as it would by itself.
            let own = Program::parse(&request.command).own_end();
            let code = own.map_or(0, |(_, code, _)| code);
            let said = input
                .take_while(|piece| std::future::ready(*piece != SessionInput::End))
                .filter_map(|piece| {
                    std::future::ready(match piece {
                        SessionInput::Stdin(bytes) => Some(SessionOutput::Stdout(bytes)),
                        SessionInput::End | SessionInput::Resize(_) => None,
                    })
                });
            let end = stream::once(std::future::ready(SessionOutput::Exit { code }));
            Ok(Box::pin(said.chain(end)) as BoxStream<SessionOutput>)
        })
    }

    fn listeners(&self, key: RunKey) -> BoxFuture<'_, Result<Vec<SocketAddr>, Failure>> {
        Box::pin(async move {
            let now = Instant::now();
            let world = self.lock();
            let run = world.runs.get(&key).filter(|run| run.is_live(now));
            let ports = run.map_or(Vec::new(), |run| {
                run.program.ports(now - run.began).to_vec()
            });
            let any = std::net::Ipv4Addr::UNSPECIFIED;
            Ok(ports.iter().map(|port| (any, *port).into()).collect())
        })
    }

    fn processes(&self, key: RunKey) -> BoxFuture<'_, Result<Vec<Process>, Failure>> {
        let now = Instant::now();
        let world = self.lock();
        let run = world.runs.get(&key).filter(|run| run.is_live(now));
        let listed = run.map(|run| usage::processes(&run.plan));
        Box::pin(std::future::ready(listed.ok_or_else(usage::not_running)))
    }

    fn memory(&self, key: RunKey, ask: MemoryAsk) -> BoxFuture<'_, Result<MemoryUse, Failure>> {
        let answer = self.lock().runs.get_mut(&key).map_or_else(
            || Err(usage::not_running()),
            |run| Ok(usage::memory(&mut run.plan.limits, ask)),
        );
        Box::pin(std::future::ready(answer))
    }

    fn wipe(&self, _machine: MachineId) -> BoxFuture<'_, Result<(), Failure>> {
        // Its runs write nothing.
        Box::pin(std::future::ready(Ok(())))
    }

    fn open(
        &self,
        key: RunKey,
        path: PathBuf,
    ) -> BoxFuture<'_, Result<Option<std::fs::File>, Failure>> {
        // Its programs have no files.
        drop(path);
        Box::pin(async move {
            let now = Instant::now();
            let world = self.lock();
            let run = world.runs.get(&key).filter(|run| run.is_live(now));
            let text = "the Machine is not running";
            run.map(|_| None)
                .ok_or_else(|| Failure::new(ErrorKind::FailedPrecondition, text))
        })
    }

    fn remove(&self, key: RunKey) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            sleep(self.latency()).await;
            {
                let mut world = self.lock();
                world.runs.remove(&key);
                world.making.remove(&key);
            }
            self.touch();
            sleep(self.latency()).await;
            Ok(())
        })
    }

    fn runs(&self) -> BoxFuture<'_, Result<Vec<RunKey>, Failure>> {
        Box::pin(async move {
            let mut world = self.lock();
            if world.list_failures > 0 {
                world.list_failures -= 1;
                let text = "list the runs: no descriptors are left";
                return Err(Failure::new(ErrorKind::Unavailable, text));
            }
            Ok(world.runs.keys().chain(&world.making).cloned().collect())
        })
    }
}

impl Prober for FakeProber {
    fn probe(&self, probe: Probe) -> BoxFuture<'_, Result<String, Missed>> {
        Box::pin(async move {
            let now = Instant::now();
            let world = self.0.lock();
            let answered = world.runs.values().any(|run| {
                run.is_live(now)
                    && run.frozen.is_none()
                    && probe.target.ip() == std::net::IpAddr::V4(run.plan.net.v4)
                    && run
                        .program
                        .ports(now - run.began)
                        .contains(&probe.target.port())
            });
            if answered {
                Ok("fake: ok".to_owned())
            } else {
                Err(Missed {
                    text: format!("connect to {}: connection refused", probe.target),
                    is_refused: true,
                })
            }
        })
    }
}
