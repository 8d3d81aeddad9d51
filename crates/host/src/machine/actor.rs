//! The task of one Machine: feeds the lifecycle, writes the ledger, performs the effects.
//!
//! It owns the Machine's record; others send it [`Command`]s. Each input becomes one turn: decide,
//! write the record if it changed, perform, publish. What takes time is a job of its own that comes
//! back as [`News`]; dropping the actor drops its jobs, and the runs go on without it. It must
//! never let an effect happen whose record is not on disk.

mod effects;
mod jobs;
mod proxy;
mod publish;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hangar_api::Timestamp;
use hangar_api::check::CheckStatus;
use hangar_api::error::{ErrorKind, Failure};
use hangar_api::event::{EventRequest, MachineEvent};
use hangar_api::id::EventId;
use hangar_api::link::HostMachine;
use hangar_api::logs::Provider;
use hangar_api::machine::{MAX_EVENTS, MachineState, Observed, Op, OpKind, OpOutcome};
use hangar_api::seam::IdleMachine;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::images::{PreparedImage, reference};
use super::lifecycle::{self, Effect, Input, Phase, Rules};
use super::plan;
use crate::agent::shared::Shared;
use crate::checks::runner::Report;
use crate::ledger::{LedgerError, Record};
use crate::runtime::{RunKey, RunStatus};

use jobs::Jobs;

/// Messages that wait for one Machine.
pub(crate) const MAILBOX: usize = 32;
/// News of jobs that wait: a Machine has few jobs, and each tells one thing.
const NEWS: usize = 16;
/// Time between two tries to write a record that the disk refused.
const SAVE_AGAIN: Duration = Duration::from_secs(1);

/// An image that is there is ready sooner than this. So long a Machine does nothing else.
const READY_AT_ONCE: Duration = Duration::from_millis(20);

/// What others ask of a Machine's task.
#[derive(Debug)]
pub(crate) enum Command {
    /// What the server says of it.
    Put(Box<HostMachine>),
    /// A client's request needs it up.
    Wake(oneshot::Sender<Result<(), Failure>>),
    /// The proxy has no use for it.
    Idle(Box<IdleMachine>, oneshot::Sender<Result<(), Failure>>),
    /// Tell the server everything again.
    Report,
    /// The server does not know it any more.
    Abandon,
    /// The server has forgotten it after it was destroyed.
    Forget,
}

/// What a job tells its actor.
#[derive(Debug)]
enum News {
    Input(Input),
    /// An image is ready, and held.
    Image(u64, Box<PreparedImage>),
    /// A start of a generation is up, from this image.
    Launched(u64, u64, Box<PreparedImage>),
    Check(u64, Report),
    /// Try again to write the record.
    Save,
}

/// See the module.
pub(crate) struct Actor {
    shared: Arc<Shared>,
    record: Record,
    mailbox: mpsc::Receiver<Command>,
    news: mpsc::Receiver<News>,
    tell: mpsc::Sender<News>,
    jobs: Jobs,
    /// The image of a generation, held as long as it may be started again.
    image: Option<(u64, PreparedImage)>,
    /// The image of what runs, held while the next generation's takes the place above.
    running_image: Option<PreparedImage>,
    checks: Vec<CheckStatus>,
    /// For each service, whether its checks pass.
    healthy: Vec<bool>,
    sequence: u64,
    last_sent: Option<Observed>,
    /// When what leads to the next start began.
    work_began: Option<Instant>,
    /// News that could not be written yet, in order.
    unsaved: VecDeque<Input>,
    /// Ops up to this one were refused because nothing could be written.
    refused: Option<OpOutcome>,
    /// Until when a client's lease keeps the proxy's requests away.
    leased_until: Option<Timestamp>,
}

// === impl Actor ===

impl Actor {
    /// Returns the actor of a Machine.
    pub(crate) fn new(
        shared: Arc<Shared>,
        record: Record,
        mailbox: mpsc::Receiver<Command>,
    ) -> Self {
        let (tell, news) = mpsc::channel(NEWS);
        Self {
            shared,
            record,
            mailbox,
            news,
            tell,
            jobs: Jobs::default(),
            image: None,
            running_image: None,
            checks: Vec::new(),
            healthy: Vec::new(),
            sequence: 0,
            last_sent: None,
            work_began: None,
            unsaved: VecDeque::new(),
            refused: None,
            leased_until: None,
        }
    }

    /// Runs until the host shuts down or the Machine is forgotten. `ready` is dropped once what was
    /// left of the Machine is taken over.
    pub(crate) async fn run(mut self, ready: oneshot::Sender<()>) {
        self.take_over().await;
        drop(ready);
        loop {
            tokio::select! {
                biased;
                () = self.shared.closing.cancelled() => return,
                Some(news) = self.news.recv() => self.on_news(news).await,
                command = self.mailbox.recv() => match command {
                    Some(command) => if self.on_command(command).await { return },
                    None => return,
                },
            }
        }
    }

    /// Finds out what became of the Machine's run, and asks again for what was outstanding.
    async fn take_over(&mut self) {
        let current = self.record.state.current_run();
        let run = match current {
            Some(start) => self.shared.runtime.status(self.key(start)).await,
            None => RunStatus::Absent,
        };
        self.turn(Input::Resumed { run }).await;
        self.publish();
    }

    async fn on_news(&mut self, news: News) {
        match news {
            News::Input(input) => {
                if let Input::PrepareFailed { .. } | Input::StartFailed { .. } = &input {
                    self.work_began = None;
                }
                self.turn(input).await;
            }
            News::Launched(start, generation, image) => {
                self.running_image = Some((*image).clone());
                self.image = Some((generation, *image));
                self.turn(Input::Up { start }).await;
            }
            News::Image(generation, image) => {
                self.image = Some((generation, *image));
                self.turn(Input::Prepared { generation }).await;
            }
            News::Check(start, report) => self.on_check(start, report),
            News::Save => {
                for input in std::mem::take(&mut self.unsaved) {
                    self.turn(input).await;
                }
            }
        }
    }

    /// Performs a command and returns whether the Machine is forgotten.
    async fn on_command(&mut self, command: Command) -> bool {
        match command {
            Command::Put(machine) => self.put(*machine).await,
            Command::Wake(answer) => {
                let result = self.wake().await;
                // Whoever asked may have gone away meanwhile.
                drop(answer.send(result));
            }
            Command::Idle(idle, answer) => {
                let result = self.idle(*idle).await;
                drop(answer.send(result));
            }
            Command::Report => {
                self.last_sent = None;
                self.publish();
            }
            Command::Abandon if self.record.state.phase == Phase::Destroyed => {
                return self.forget().await;
            }
            Command::Abandon => self.turn(Input::Abandoned).await,
            Command::Forget => return self.forget().await,
        }
        false
    }

    async fn forget(&mut self) -> bool {
        if self.record.state.phase != Phase::Destroyed {
            tracing::warn!(machine = %self.record.active.spec.id, "asked to forget a machine that is not destroyed");
            return false;
        }
        let id = &self.record.active.spec.id;
        if let Err(error) = self.shared.ledger.forget(id).await {
            tracing::warn!(machine = %id, %error, "ledger record not removed");
        }
        self.shared.forget(id);
        true
    }

    async fn put(&mut self, machine: HostMachine) {
        if machine.revision < self.record.revision {
            return self.publish();
        }
        self.leased_until = machine.leased_until;
        let mut record = self.record.clone();
        record.revision = machine.revision;
        let known = self.record.entry(machine.spec.generation);
        let same = known.is_some_and(|entry| {
            entry.spec == machine.spec
                && self.shared.ledger.secrets(entry).as_ref() == Some(&machine.secrets)
        });
        if same && machine.ops.is_empty() {
            // Such as a lease alone: nothing that has to be kept.
            return self.publish();
        }
        if !same {
            let entry = self.shared.ledger.entry(&machine);
            let active = self.record.active.spec.generation;
            match machine.spec.generation.cmp(&active) {
                std::cmp::Ordering::Equal => record.active = entry,
                std::cmp::Ordering::Greater => record.coming = Some(entry),
                std::cmp::Ordering::Less => {}
            }
        }
        let refused = self.refused.as_ref().map(|outcome| outcome.id.clone());
        let is_new = |op: &Op| refused.as_ref().is_none_or(|last| op.id > *last);
        let ops: Vec<Op> = machine.ops.into_iter().filter(is_new).collect();
        self.take_ready_image(&record, &ops).await;
        let last = ops.last().map(|op| op.id.clone());
        if let Err(error) = self.try_turn(record, Input::Ops(ops)).await {
            let error = Some(format!("the host cannot take it: {}", error.message));
            self.refused = last.map(|id| OpOutcome { id, error });
        }
        if self.record.destroyed_at.is_none() {
            self.shared.logs.label(&self.record.active.spec);
        }
        self.publish();
    }

    /// Takes news. What the disk refuses now is taken later, in order.
    async fn turn(&mut self, input: Input) {
        if self.unsaved.is_empty()
            && self
                .try_turn(self.record.clone(), input.clone())
                .await
                .is_ok()
        {
            return;
        }
        self.unsaved.push_back(input);
        let tell = self.tell.clone();
        self.jobs.save = Some(self.shared.job(async move {
            tokio::time::sleep(SAVE_AGAIN).await;
            // The actor is gone when nobody listens.
            drop(tell.send(News::Save).await);
        }));
    }

    /// One turn: decide, write, perform, publish. Nothing has happened when it fails.
    async fn try_turn(&mut self, mut next: Record, input: Input) -> Result<(), Failure> {
        let now = self.shared.env.now();
        let rules = self.rules(&next);
        let step = lifecycle::next(&next.state, &rules, now, input).map_err(|denied| {
            let kind = if denied.busy {
                ErrorKind::Unavailable
            } else {
                ErrorKind::FailedPrecondition
            };
            Failure::new(kind, denied.to_string())
        })?;
        next.state = step.state;
        next.promote();
        for effect in &step.effects {
            if let Effect::Event { .. } = effect {
                let event = self.event(effect, next.state.window.len());
                next.events.insert(0, event);
            }
        }
        next.events.truncate(MAX_EVENTS);
        if next.state.machine_state() == MachineState::Destroyed {
            next.destroyed_at.get_or_insert(now);
        }
        if next != self.record {
            self.save(next).await?;
        }
        self.publish();
        for effect in step.effects {
            self.perform(effect);
        }
        self.publish();
        Ok(())
    }

    /// Writes the record, and takes it when it is written.
    async fn save(&mut self, next: Record) -> Result<(), Failure> {
        let coming_up = matches!(self.record.state.phase, Phase::Starting { .. });
        if let Phase::Started { start } = next.state.phase
            && coming_up
        {
            // A run that is up takes requests while that is being written: what is on disk says
            // that it was to be started, and whoever takes over finds it running.
            let former = std::mem::replace(&mut self.record, next);
            self.begin_checks(start);
            self.publish_liveness();
            let saved = self.shared.ledger.save(&self.record).await;
            return saved.map_err(|error| {
                self.record = former;
                self.not_saved(&error)
            });
        }
        let saved = self.shared.ledger.save(&next).await;
        saved.map_err(|error| self.not_saved(&error))?;
        self.record = next;
        Ok(())
    }

    fn not_saved(&self, error: &LedgerError) -> Failure {
        let source = std::error::Error::source(error).map(ToString::to_string);
        let why = source.unwrap_or_default();
        tracing::warn!(machine = %self.record.active.spec.id, %error, %why, "ledger not written");
        Failure::new(ErrorKind::Exhausted, format!("{error}: {why}"))
    }

    fn rules(&self, record: &Record) -> Rules {
        let latest = record.latest();
        Rules {
            is_ready: self.image.as_ref().is_some_and(|(of, _)| *of == latest),
            ..plan::rules(&record.active.spec.config, latest)
        }
    }

    /// Takes the image of a generation that is to be gone over to, where it is ready at once: that
    /// saves a turn, and the write of the record with it.
    async fn take_ready_image(&mut self, record: &Record, ops: &[Op]) {
        let updates = ops
            .iter()
            .any(|op| matches!(op.kind, OpKind::Update { .. }));
        let Some(coming) = record.coming.as_ref().filter(|_| updates) else {
            return;
        };
        let ensured = self.shared.images.ensure(&coming.spec.image_ref);
        if let Ok(Ok(image)) = timeout(READY_AT_ONCE, ensured).await {
            let name = reference(&coming.spec.image_ref);
            self.log(false, &format!("Container image {name} already prepared"));
            self.image = Some((coming.spec.generation, image));
        }
    }

    fn key(&self, start: u64) -> RunKey {
        RunKey {
            machine: self.record.active.spec.id.clone(),
            start,
        }
    }

    fn event(&self, effect: &Effect, restarts: usize) -> MachineEvent {
        let Effect::Event {
            kind,
            status,
            source,
            exit,
        } = effect
        else {
            unreachable!("called for events only");
        };
        let env = &self.shared.env;
        MachineEvent {
            id: EventId::generate(env),
            kind: (*kind).to_owned(),
            status: (*status).to_owned(),
            source: source.clone(),
            timestamp: env.now().as_millisecond(),
            request: exit.map(|exit| EventRequest {
                exit_event: Some(exit),
                restart_count: u32::try_from(restarts).unwrap_or(u32::MAX),
            }),
        }
    }

    fn log(&self, error: bool, text: &str) {
        let (id, start) = (&self.record.active.spec.id, self.record.state.starts);
        self.shared
            .logs
            .write(id, Provider::Runner, error, start, text);
    }
}
