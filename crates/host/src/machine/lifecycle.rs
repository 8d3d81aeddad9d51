//! What a Machine may do next: one pure state machine over what is asked and what happens (D6).
//!
//! Owned by the Machine's actor, which feeds in inputs, writes the new state to the ledger and
//! then performs the effects that came out. No I/O, no clock, no lock: all that a decision needs
//! is in `State`, `Rules`, `Input` and `now`.
//!
//! ```text
//!            create                    prepared           up
//!   new ───────────────► preparing ────────────► starting ────► started ──stop──► stopping ─► down
//!                          ▲   │ failed             ▲  │ failed    │ exited           │ (stopped)
//!              start,      │   ▼                    │  ▼           ▼                  │
//!              update      └── down (failed) ◄──────┼─ the restart policy says ─► down│
//!                                                   │          │ again               │
//!                                                   └─ waiting ◄                     │
//!                                                   └────── restart, update ◄────────┘
//!   all but destroyed ──destroy──► destroying ──exited, wiped──► destroyed
//!
//!   started ──suspend──► suspending ──frozen──► suspended ──start, a request──► resuming ─► started
//!      ▲  cannot be frozen │                         └─ stop, restart, update ─► stopping
//!      └───────────────────┘ (an idle one is stopped instead)
//! ```
//!
//! How "once, in order, whatever dies" is kept: an op is taken from the queue, and its first effect
//! allowed, by one write of the ledger; from then on the phase alone says what is outstanding, so
//! that [`Input::Resumed`] after a crash asks for the same effects again, and doing an effect
//! twice is doing it once. A start has its number before it is launched. An op is acknowledged
//! (`last_op`) in the same write that ends it.
//!
//! Ops wait for the one before them; only stop and destroy break off what takes long (pulling an
//! image, waiting for a restart, stopping in order to start again), which is then acknowledged as
//! interrupted.

mod news;
mod ops;
mod rest;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use hangar_api::Timestamp;
use hangar_api::event::ExitEvent;
use hangar_api::id::OpId;
use hangar_api::machine::config::RestartPolicy;
use hangar_api::machine::{MachineState, Op, OpKind, OpOutcome};
use serde::{Deserialize, Serialize};

pub(crate) use ops::MAX_STOP_TIMEOUT;

use crate::runtime::{ExitRecord, RunStatus};

/// Most ops that wait here; the server holds back before (`MAX_PENDING_OPS`).
pub const MAX_QUEUE: usize = 32;

/// All that must survive a crash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Where it is in its life.
    pub phase: Phase,
    /// The generation that runs, ran, or is launched next.
    pub generation: u64,
    /// The generation whose image was prepared, if any.
    pub prepared: Option<u64>,
    /// Number of the last start that was allowed; 0 before the first.
    pub starts: u64,
    /// The op being worked on.
    pub doing: Option<Op>,
    /// Ops that wait, in order.
    pub queue: VecDeque<Op>,
    /// The last op that ended: all before it ended too.
    pub last_op: Option<OpOutcome>,
    /// When the restart policy restarted it, within the window.
    pub window: Vec<Timestamp>,
    /// How the last run ended.
    pub exit: Option<ExitEvent>,
    /// Why it is where it is, when that is not plain.
    pub reason: Option<String>,
}

/// Where a Machine is in its life; also says what is outstanding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// Nothing was asked yet.
    New,
    /// Its image is being prepared, and nothing of it runs.
    Preparing {
        /// Whether it starts afterwards.
        then: Then,
        /// Where it goes when that fails.
        fallback: Fallback,
    },
    /// A start was allowed.
    Starting {
        /// Its number.
        start: u64,
    },
    /// It runs. With an update in `doing`, the new image is being prepared meanwhile.
    Started {
        /// The start's number.
        start: u64,
    },
    /// Waits for its next restart by policy.
    Waiting {
        /// Until when.
        due: Timestamp,
    },
    /// The run was asked to stop.
    Stopping {
        /// The start's number.
        start: u64,
        /// What follows.
        then: Then,
        /// With which signal.
        signal: i32,
        /// After how long by force.
        timeout: Duration,
    },
    /// It is being frozen.
    Suspending {
        /// The start's number.
        start: u64,
    },
    /// Its run is frozen, its memory kept.
    Suspended {
        /// The start's number.
        start: u64,
    },
    /// Its frozen run goes on.
    Resuming {
        /// The start's number.
        start: u64,
    },
    /// At rest.
    Down {
        /// How.
        rest: Rest,
    },
    /// All that is its own goes.
    Destroying {
        /// The run that has to end first.
        start: Option<u64>,
    },
    /// Gone.
    Destroyed,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// A start.
    Launch,
    /// Nothing: it rests stopped.
    Rest,
}

/// How a Machine rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rest {
    /// Stopped.
    Stopped,
    /// It could not be prepared or started.
    Failed,
}

/// How an idle Machine is to rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Idle {
    /// Stopped.
    Stop,
    /// Suspended, or stopped where that cannot be.
    Suspend,
}

/// Where a Machine goes whose image cannot be prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fallback {
    /// Rests like this.
    Rest(Rest),
    /// The former generation, which should run, is started again.
    Relaunch,
}

/// What its spec says about starting and stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// After an exit.
    pub policy: RestartPolicy,
    /// Destroyed after an exit that is not followed by a restart.
    pub auto_destroy: bool,
    /// The newest generation that has come from the server.
    pub latest: u64,
    /// How it is stopped.
    pub stop_signal: i32,
    /// After how long by force.
    pub stop_timeout: Duration,
    /// Whether it may be suspended.
    pub can_suspend: bool,
    /// The image of the newest generation is ready, and held.
    pub is_ready: bool,
}

/// A request, or news.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// What the server asks, oldest first; those known already are left out.
    Ops(Vec<Op>),
    /// A request of a client needs it up.
    Wake,
    /// The proxy has no use for this start of it.
    Idle {
        /// Its number.
        start: u64,
        /// How it is to rest.
        how: Idle,
    },
    /// An image is ready.
    Prepared {
        /// Of which generation.
        generation: u64,
    },
    /// An image cannot be made ready.
    PrepareFailed {
        /// Of which generation.
        generation: u64,
        /// Why, in words.
        message: String,
    },
    /// A run is up.
    Up {
        /// Its number.
        start: u64,
    },
    /// A run could not be started; nothing of it lives.
    StartFailed {
        /// Its number.
        start: u64,
        /// Why, in words.
        message: String,
        /// Whether trying again can help.
        transient: bool,
    },
    /// A run is frozen.
    Frozen {
        /// Its number.
        start: u64,
    },
    /// A run cannot be frozen, and is not.
    FreezeFailed {
        /// Its number.
        start: u64,
        /// Why, in words.
        message: String,
    },
    /// A frozen run goes on.
    Thawed {
        /// Its number.
        start: u64,
    },
    /// A frozen run cannot go on.
    ThawFailed {
        /// Its number.
        start: u64,
        /// Why, in words.
        message: String,
    },
    /// A run is over.
    Exited {
        /// Its number.
        start: u64,
        /// How it ended.
        record: ExitRecord,
    },
    /// The server does not know it any more: it was destroyed while the host was away.
    Abandoned,
    /// The time to wait may be over.
    Due,
    /// All that was its own is gone.
    Wiped,
    /// The host came back: what became of the current run.
    Resumed {
        /// What the runtime knows of it; `Absent` where there is none.
        run: RunStatus,
    },
}

/// Work for the actor, done after the state is written. Doing one twice does no harm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Prepare the image of this generation; tells `Prepared` or `PrepareFailed`.
    Prepare {
        /// Which.
        generation: u64,
    },
    /// Break off preparing.
    CancelPrepare,
    /// Launch this start of the active generation; tells `Up` or `StartFailed`.
    Launch {
        /// Its number.
        start: u64,
    },
    /// Wait for its end; tells `Exited`.
    Watch {
        /// Its number.
        start: u64,
    },
    /// Let requests end, then begin the stop sequence.
    Stop {
        /// Its number.
        start: u64,
        /// With which signal.
        signal: i32,
        /// After how long by force.
        timeout: Duration,
    },
    /// Let requests end, then kill it.
    Kill {
        /// Its number.
        start: u64,
    },
    /// Let requests end, then freeze it; tells `Frozen` or `FreezeFailed`.
    Suspend {
        /// Its number.
        start: u64,
    },
    /// Let it go on, also where freezing was broken off; tells `Thawed` or `ThawFailed`.
    Resume {
        /// Its number.
        start: u64,
    },
    /// Send a signal.
    Signal {
        /// To which run.
        start: u64,
        /// Which.
        signal: i32,
    },
    /// Remove what is left of a run that is over.
    Remove {
        /// Its number.
        start: u64,
    },
    /// Tell `Due` at this time.
    Timer {
        /// When.
        at: Timestamp,
    },
    /// Remove all that is the Machine's own; tells `Wiped`.
    Wipe,
    /// A line of the runner for the Machine's log.
    Log {
        /// Whether it is an error.
        error: bool,
        /// The text.
        text: String,
    },
    /// The runner's line "Machine started in ..."; the actor knows how long it took.
    LogStarted {
        /// Whether this is the first start of a generation.
        created: bool,
    },
    /// Something for the list of events.
    Event {
        /// Its type.
        kind: &'static str,
        /// What it led to.
        status: &'static str,
        /// By whom.
        source: String,
        /// With how the run ended.
        exit: Option<ExitEvent>,
    },
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The state to write.
    pub state: State,
    /// What to do then, in order.
    pub effects: Vec<Effect>,
}

/// Why a request of the proxy was refused, in the API's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed_precondition: unable to {verb} machine from current state: '{state}'")]
pub struct Denied {
    /// What was asked.
    pub verb: &'static str,
    /// Where it is.
    pub state: MachineState,
    /// Something is being done with it, after which it may be asked again.
    pub busy: bool,
}

/// Returns the next state and the work that leads there.
///
/// A request that is met already changes nothing, so it may be repeated. Ops are never refused
/// here: one that cannot be done is acknowledged with the reason. News that comes late (of a run
/// that is not the current one) is taken as it is.
pub fn next(state: &State, rules: &Rules, now: Timestamp, input: Input) -> Result<Step, Denied> {
    let mut turn = Turn {
        state: state.clone(),
        rules,
        now,
        effects: Vec::new(),
    };
    turn.take(input)?;
    turn.begin_ops();
    Ok(Step {
        state: turn.state,
        effects: turn.effects,
    })
}

/// One call of [`next`].
struct Turn<'a> {
    state: State,
    rules: &'a Rules,
    now: Timestamp,
    effects: Vec<Effect>,
}

// === impl State ===

impl Default for State {
    fn default() -> Self {
        Self {
            phase: Phase::New,
            generation: 0,
            prepared: None,
            starts: 0,
            doing: None,
            queue: VecDeque::new(),
            last_op: None,
            window: Vec::new(),
            exit: None,
            reason: None,
        }
    }
}

impl State {
    /// Returns the run that may live now.
    #[must_use]
    pub fn current_run(&self) -> Option<u64> {
        match self.phase {
            Phase::Starting { start }
            | Phase::Started { start }
            | Phase::Stopping { start, .. }
            | Phase::Suspending { start }
            | Phase::Suspended { start }
            | Phase::Resuming { start }
            | Phase::Destroying { start: Some(start) } => Some(start),
            _ => None,
        }
    }

    /// Returns whether its run is frozen, or being frozen.
    #[must_use]
    pub fn rests_with_memory(&self) -> bool {
        matches!(
            self.phase,
            Phase::Suspending { .. } | Phase::Suspended { .. }
        )
    }

    /// Returns the state as the API calls it.
    #[must_use]
    pub fn machine_state(&self) -> MachineState {
        let updating = matches!(
            self.doing,
            Some(Op {
                kind: OpKind::Update { .. },
                ..
            })
        );
        match self.phase {
            Phase::New => MachineState::Created,
            Phase::Preparing { .. } if updating => MachineState::Replacing,
            Phase::Preparing { .. } if self.starts == 0 && self.prepared.is_none() => {
                MachineState::Created
            }
            Phase::Preparing { .. }
            | Phase::Starting { .. }
            | Phase::Resuming { .. }
            | Phase::Waiting { .. } => MachineState::Starting,
            Phase::Suspended { .. } if updating => MachineState::Replacing,
            Phase::Suspending { .. } => MachineState::Suspending,
            Phase::Suspended { .. } => MachineState::Suspended,
            Phase::Started { .. } => MachineState::Started,
            Phase::Stopping {
                then: Then::Rest, ..
            } if !updating => MachineState::Stopping,
            Phase::Stopping { .. } if updating => MachineState::Replacing,
            Phase::Stopping { .. } => MachineState::Restarting,
            Phase::Down { rest } => match rest {
                Rest::Stopped => MachineState::Stopped,
                Rest::Failed => MachineState::Failed,
            },
            Phase::Destroying { .. } => MachineState::Destroying,
            Phase::Destroyed => MachineState::Destroyed,
        }
    }

    /// Returns whether this op, or a later one, has been taken in already.
    #[must_use]
    pub fn knows(&self, id: &OpId) -> bool {
        let newest = self
            .queue
            .back()
            .or(self.doing.as_ref())
            .map(|op| &op.id)
            .into_iter()
            .chain(self.last_op.as_ref().map(|last| &last.id))
            .max();
        newest.is_some_and(|known| known >= id)
    }
}
