//! What every runtime must do: [`run`] drives one through all the cases.
//!
//! The cases are about what a host builds on: a start is made once, a run outlives the object that
//! started it, its end is known and stays known, and every method may be repeated.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use hangar_api::exec::ExecRequest;
use hangar_api::id::MachineId;
use hangar_api::session::{SessionInput, SessionOutput, SessionRequest};
use hangar_host::runtime::{ExitRecord, RunKey, RunStatus, Runtime, StartPlan};
use tokio::time::timeout;

/// How long anything here may take: far more than it does.
const PATIENCE: Duration = Duration::from_secs(60);
const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;

/// What a program of the suite does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Runs until SIGINT or SIGTERM.
    Run,
    /// Runs until SIGTERM; SIGINT does nothing.
    Deaf,
    /// Ends at once with this code.
    Exit(i32),
    /// Ends well after a third of a second.
    Short,
    /// There is no such program.
    Missing,
}

/// A runtime to be tried, and how its programs are told what to do.
pub struct Subject {
    /// Returns the runtime; a new object over the same world every time.
    pub open: Box<dyn Fn() -> Arc<dyn Runtime>>,
    /// Returns a plan, complete but for its key's start, which the suite sets.
    pub plan: Box<dyn Fn(Behaviour) -> StartPlan>,
    /// Returns a command for `exec` that ends with this code.
    pub exec: Box<dyn Fn(i32) -> Vec<String>>,
    /// Returns a command for `exec` that ends well once the program listens to signals as it
    /// should.
    pub is_ready: Box<dyn Fn() -> Vec<String>>,
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subject")
    }
}

// === impl Subject ===

impl Subject {
    async fn start(&self, behaviour: Behaviour) -> (Arc<dyn Runtime>, RunKey) {
        let runtime = (self.open)();
        let plan = (self.plan)(behaviour);
        let key = plan.key.clone();
        let started = timeout(PATIENCE, runtime.start(plan)).await;
        started.expect("a start ends").expect("the plan is sound");
        if let Behaviour::Run | Behaviour::Deaf = behaviour {
            let ready = self.until_ready(&runtime, &key);
            timeout(PATIENCE, ready)
                .await
                .expect("the program gets ready");
        }
        (runtime, key)
    }

    async fn until_ready(&self, runtime: &Arc<dyn Runtime>, key: &RunKey) {
        loop {
            let request = ExecRequest {
                command: (self.is_ready)(),
                ..ExecRequest::default()
            };
            let answer = runtime.exec(key.clone(), request).await;
            if answer.expect("it runs").exit_code == 0 {
                return;
            }
        }
    }
}

/// Runs every case. Panics with what is wrong.
pub async fn run(subject: &Subject) {
    what_never_was_is_absent(subject).await;
    an_exit_is_known_and_stays_known(subject).await;
    a_program_that_is_missing_is_an_exit_that_says_so(subject).await;
    a_start_is_made_once(subject).await;
    a_stop_goes_from_the_signal_to_sigterm(subject).await;
    a_kill_ends_it_and_removing_leaves_nothing(subject).await;
    a_run_outlives_the_object_that_started_it(subject).await;
    a_command_runs_beside_the_program(subject).await;
    a_frozen_run_stays_where_it_is_until_it_goes_on(subject).await;
    a_frozen_run_can_be_stopped_killed_and_removed(subject).await;
    a_session_runs_until_its_command_ends(subject).await;
    only_files_of_a_run_that_is_up_are_opened(subject).await;
}

async fn only_files_of_a_run_that_is_up_are_opened(subject: &Subject) {
    let (runtime, key) = subject.start(Behaviour::Run).await;
    for path in ["/no/such/file", "/", "/../.."] {
        let opened = runtime.open(key.clone(), path.into()).await;
        assert!(opened.expect("it runs").is_none(), "{path} is no file");
    }
    runtime.kill(key.clone()).await;
    end_of(&runtime, &key).await;
    let opened = runtime.open(key.clone(), "/no/such/file".into()).await;
    opened.expect_err("it is over");
    remove(&runtime, &key).await;
}

async fn end_of(runtime: &Arc<dyn Runtime>, key: &RunKey) -> ExitRecord {
    let ended = timeout(PATIENCE, runtime.wait(key.clone())).await;
    ended.expect("the run ends")
}

async fn remove(runtime: &Arc<dyn Runtime>, key: &RunKey) {
    for _ in 0..2 {
        runtime
            .remove(key.clone())
            .await
            .expect("it can be removed, twice");
    }
    assert_eq!(runtime.status(key.clone()).await, RunStatus::Absent);
    let runs = runtime.runs().await.expect("runs can be listed");
    assert!(!runs.contains(key), "nothing of it is left");
    for _ in 0..2 {
        let wiped = runtime.wipe(key.machine.clone()).await;
        wiped.expect("a machine without runs can be wiped, twice");
    }
}

async fn what_never_was_is_absent(subject: &Subject) {
    let runtime = (subject.open)();
    let machine = MachineId::new("00000000000000").expect("it is 14 digits");
    let key = RunKey { machine, start: 9 };
    assert_eq!(runtime.status(key.clone()).await, RunStatus::Absent);
    assert!(runtime.signal(key.clone(), SIGINT).await.is_err());
    let stopped = runtime.stop(key.clone(), SIGINT, Duration::ZERO).await;
    assert_eq!(stopped, Ok(()), "a stop of what is down is met");
    runtime.kill(key.clone()).await;
    remove(&runtime, &key).await;
}

async fn an_exit_is_known_and_stays_known(subject: &Subject) {
    for code in [0, 3] {
        let (runtime, key) = subject.start(Behaviour::Exit(code)).await;
        let exit = end_of(&runtime, &key).await;
        assert_eq!((exit.exit_code, exit.signal), (code, None));
        assert!(!exit.requested_stop && exit.spawn_error.is_none());
        let again = end_of(&(subject.open)(), &key).await;
        assert_eq!(again.exit_code, code);
        let status = runtime.status(key.clone()).await;
        assert!(matches!(status, RunStatus::Exited(exit) if exit.exit_code == code));
        remove(&runtime, &key).await;
    }
}

async fn a_program_that_is_missing_is_an_exit_that_says_so(subject: &Subject) {
    let (runtime, key) = subject.start(Behaviour::Missing).await;
    let exit = end_of(&runtime, &key).await;
    assert_ne!(exit.exit_code, 0);
    assert!(exit.spawn_error.is_some(), "{exit:?}");
    remove(&runtime, &key).await;
}

async fn a_start_is_made_once(subject: &Subject) {
    let runtime = (subject.open)();
    let plan = (subject.plan)(Behaviour::Run);
    let key = plan.key.clone();
    for _ in 0..2 {
        runtime
            .start(plan.clone())
            .await
            .expect("a start may be repeated");
        assert_eq!(runtime.status(key.clone()).await, RunStatus::Running);
    }
    let runs = runtime.runs().await.expect("runs can be listed");
    assert_eq!(
        runs.iter().filter(|run| run.machine == key.machine).count(),
        1
    );
    remove(&runtime, &key).await;
}

async fn a_stop_goes_from_the_signal_to_sigterm(subject: &Subject) {
    let (runtime, key) = subject.start(Behaviour::Run).await;
    for _ in 0..2 {
        let stopped = runtime
            .stop(key.clone(), SIGINT, Duration::from_secs(30))
            .await;
        stopped.expect("a stop may be repeated");
    }
    assert!(end_of(&runtime, &key).await.requested_stop);
    remove(&runtime, &key).await;
    let (runtime, key) = subject.start(Behaviour::Deaf).await;
    runtime.signal(key.clone(), SIGINT).await.expect("it runs");
    let stopped = runtime
        .stop(key.clone(), SIGINT, Duration::from_millis(300))
        .await;
    stopped.expect("it runs");
    let exit = end_of(&runtime, &key).await;
    assert!(exit.requested_stop, "{exit:?}");
    assert_eq!(
        (exit.exit_code, exit.signal),
        (128 + SIGTERM, Some(SIGTERM))
    );
    remove(&runtime, &key).await;
}

async fn a_kill_ends_it_and_removing_leaves_nothing(subject: &Subject) {
    let (runtime, key) = subject.start(Behaviour::Deaf).await;
    runtime.kill(key.clone()).await;
    runtime.kill(key.clone()).await;
    assert_eq!(end_of(&runtime, &key).await.exit_code, 137);
    remove(&runtime, &key).await;
    let (runtime, key) = subject.start(Behaviour::Deaf).await;
    remove(&runtime, &key).await;
}

async fn a_run_outlives_the_object_that_started_it(subject: &Subject) {
    let (runtime, key) = subject.start(Behaviour::Run).await;
    drop(runtime);
    let runtime = (subject.open)();
    assert_eq!(runtime.status(key.clone()).await, RunStatus::Running);
    let runs = runtime.runs().await.expect("runs can be listed");
    assert!(runs.contains(&key));
    let stopped = runtime
        .stop(key.clone(), SIGTERM, Duration::from_secs(30))
        .await;
    stopped.expect("it runs");
    assert!(end_of(&runtime, &key).await.requested_stop);
    remove(&runtime, &key).await;
}

async fn a_command_runs_beside_the_program(subject: &Subject) {
    let (runtime, key) = subject.start(Behaviour::Run).await;
    let request = ExecRequest {
        command: (subject.exec)(4),
        ..ExecRequest::default()
    };
    let answer = runtime.exec(key.clone(), request.clone()).await;
    assert_eq!(answer.expect("it runs").exit_code, 4);
    remove(&runtime, &key).await;
    assert!(runtime.exec(key, request).await.is_err());
}

async fn a_frozen_run_stays_where_it_is_until_it_goes_on(subject: &Subject) {
    let (runtime, key) = subject.start(Behaviour::Run).await;
    for _ in 0..2 {
        let frozen = runtime.suspend(key.clone()).await;
        frozen.expect("it can be frozen, and twice is once");
    }
    assert_eq!(runtime.status(key.clone()).await, RunStatus::Running);
    drop(runtime);
    let runtime = (subject.open)();
    assert_eq!(runtime.status(key.clone()).await, RunStatus::Running);
    for _ in 0..2 {
        let thawed = runtime.resume(key.clone()).await;
        thawed.expect("it can go on, and twice is once");
    }
    subject.until_ready(&runtime, &key).await;
    remove(&runtime, &key).await;
    assert!(runtime.suspend(key.clone()).await.is_err(), "it is gone");
    let thawed = runtime.resume(key).await;
    assert_eq!(thawed, Ok(()), "what is not there is not frozen");
    drop(runtime);

    // One that was begun later ends, and the frozen one does not.
    let (runtime, frozen) = subject.start(Behaviour::Short).await;
    runtime.suspend(frozen.clone()).await.expect("it runs");
    drop(runtime);
    let (runtime, later) = subject.start(Behaviour::Short).await;
    assert_eq!(end_of(&runtime, &later).await.exit_code, 0);
    assert_eq!(runtime.status(frozen.clone()).await, RunStatus::Running);
    runtime.resume(frozen.clone()).await.expect("it is frozen");
    assert_eq!(end_of(&runtime, &frozen).await.exit_code, 0);
    remove(&runtime, &frozen).await;
    remove(&runtime, &later).await;
}

async fn a_frozen_run_can_be_stopped_killed_and_removed(subject: &Subject) {
    let (runtime, key) = subject.start(Behaviour::Run).await;
    runtime.suspend(key.clone()).await.expect("it runs");
    let stopped = runtime
        .stop(key.clone(), SIGINT, Duration::from_secs(30))
        .await;
    stopped.expect("it lives");
    let exit = end_of(&runtime, &key).await;
    assert!(exit.requested_stop && exit.exit_code == 0, "{exit:?}");
    remove(&runtime, &key).await;
    drop(runtime);
    let (runtime, key) = subject.start(Behaviour::Run).await;
    runtime.suspend(key.clone()).await.expect("it runs");
    runtime.kill(key.clone()).await;
    assert_eq!(end_of(&runtime, &key).await.exit_code, 137);
    remove(&runtime, &key).await;
    drop(runtime);
    let (runtime, key) = subject.start(Behaviour::Run).await;
    runtime.suspend(key.clone()).await.expect("it runs");
    remove(&runtime, &key).await;
}

async fn a_session_runs_until_its_command_ends(subject: &Subject) {
    let (runtime, key) = subject.start(Behaviour::Run).await;
    let request = SessionRequest {
        command: (subject.exec)(4),
        ..SessionRequest::default()
    };
    let input = || Box::pin(stream::iter([SessionInput::End]).chain(stream::pending()));
    let session = runtime.session(key.clone(), request.clone(), input());
    let session = session.await.expect("it runs");
    let said: Vec<SessionOutput> = timeout(PATIENCE, session.collect()).await.expect("it ends");
    assert_eq!(said.last(), Some(&SessionOutput::Exit { code: 4 }));
    runtime.kill(key.clone()).await;
    timeout(PATIENCE, runtime.wait(key.clone()))
        .await
        .expect("it ends");
    let over = runtime.session(key.clone(), request, input()).await;
    assert!(over.is_err(), "a session in what does not run");
    timeout(PATIENCE, runtime.remove(key))
        .await
        .expect("removing ends")
        .expect("removed");
}
