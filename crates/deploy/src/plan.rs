//! [`plan`]: the next wave of a deployment.
//!
//! Called by the server's reconciler. A plan is a function of its arguments alone; the same
//! arguments give the same plan. Each step may be carried out twice: it names the version that it
//! expects, or a launch key, and is refused when the world has moved.

mod again;
mod back;
mod canary;
mod forward;
mod green;
mod job;
mod launch;
mod retire;

pub(crate) use forward::pool;
pub(crate) use job::{command_line, release_command};

use std::collections::BTreeMap;

use hangar_api::Timestamp;
use hangar_api::deployment::{DeployEvent, DeployOptions, DeploymentStatus, Strategy};
use hangar_api::id::{GroupName, InstanceId, MachineId, Region};
use hangar_api::image::ImageRef;
use hangar_api::machine::{MachineConfig, MachineState};
use jiff::SignedDuration;

use crate::desired::{Desired, LaunchKey};
use crate::fleet::{FleetMachine, ObservedFleet};
use crate::judge::{Judgement, Watch, judge};
use crate::progress::{Failure, Progress, Stage, TargetPhase};

/// The next wave, and what to wait for after it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The memory to store before any step is carried out.
    pub progress: Progress,
    /// Whether it differs from the one that was given.
    pub changed: bool,
    /// Steps to carry out now, all at once; steps of one Machine in this order.
    pub ready: Vec<Step>,
    /// What is waited for. When `ready` is not empty, plan again after the wave instead.
    pub gates: Vec<Gate>,
    /// When to plan again at the latest.
    pub wake_at: Option<Timestamp>,
    /// How it stands.
    pub verdict: Verdict,
    /// What to tell, each once.
    pub notes: Vec<DeployEvent>,
}

/// How a deployment stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// On its way.
    Running,
    /// Failed; former versions are being put back.
    RollingBack {
        /// What went wrong.
        failure: Failure,
    },
    /// Done.
    Complete,
    /// Failed; the fleet is as before.
    RolledBack {
        /// What went wrong.
        failure: Failure,
    },
    /// Failed; the fleet is as it is.
    Failed {
        /// What went wrong.
        failure: Failure,
    },
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Create a Machine. When the key is taken, it is done already.
    Create {
        /// What makes it unique.
        launch_key: LaunchKey,
        /// Its group, also in the configuration's metadata.
        group: GroupName,
        /// Where.
        region: Region,
        /// The whole configuration.
        config: Box<MachineConfig>,
        /// The image.
        image_ref: ImageRef,
        /// The version of the secrets.
        secrets_version: u64,
        /// Prepare it only: a standby.
        skip_launch: bool,
        /// Keep it out of the proxy until uncordoned.
        cordoned: bool,
    },
    /// Give a Machine a new spec and an update op, if it still has the expected version.
    Update {
        /// Which.
        machine: MachineId,
        /// The version that it must have.
        expected: InstanceId,
        /// The whole configuration.
        config: Box<MachineConfig>,
        /// The image.
        image_ref: ImageRef,
        /// The version of the secrets.
        secrets_version: u64,
        /// Do not start it.
        skip_launch: bool,
    },
    /// Start a Machine that its update has left stopped though it is to run.
    Start {
        /// Which.
        machine: MachineId,
        /// The version that it must have.
        expected: InstanceId,
    },
    /// Keep a Machine out of the proxy.
    Cordon {
        /// Which.
        machine: MachineId,
    },
    /// Let a Machine into the proxy.
    Uncordon {
        /// Which.
        machine: MachineId,
    },
    /// Stop a Machine within its own time.
    Stop {
        /// Which.
        machine: MachineId,
        /// The version that it must have.
        expected: InstanceId,
        /// Instead of its own signal.
        signal: Option<String>,
    },
    /// Destroy a Machine, running or not.
    Destroy {
        /// Which.
        machine: MachineId,
        /// The version that it must have.
        expected: InstanceId,
    },
}

/// A condition of a Machine that is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gate {
    /// Which Machine.
    pub machine: MachineId,
    /// What is to become true.
    pub condition: Condition,
    /// When the wait ends.
    pub deadline: Timestamp,
}

/// What a Machine is waited for to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// Its host has done what was asked; it stays stopped.
    Settled,
    /// Its main process runs.
    Started,
    /// All its checks pass.
    Healthy,
    /// It has run for ten seconds without an exit.
    StayedUp,
    /// It is down.
    Stopped,
    /// Its only run is over, or will never begin.
    Ended,
    /// The proxy has taken its spec into account.
    Published,
    /// It is gone.
    Destroyed,
}

/// Returns the next wave of a deployment.
#[must_use]
pub fn plan(
    desired: &Desired,
    fleet: &ObservedFleet<'_>,
    progress: &Progress,
    now: Timestamp,
    options: &DeployOptions,
) -> Plan {
    let mut planner = Planner {
        desired,
        fleet,
        made: fleet.launched(desired),
        now,
        options,
        progress: progress.clone(),
        ready: Vec::new(),
        gates: Vec::new(),
        wake_at: None,
        notes: Vec::new(),
    };
    planner.run();
    let changed = planner.progress != *progress;
    let deadlines = planner.gates.iter().map(|g| g.deadline);
    let wake_at = deadlines.chain(planner.wake_at).min();
    Plan {
        verdict: Verdict::of(&planner.progress),
        progress: planner.progress,
        changed,
        ready: planner.ready,
        gates: planner.gates,
        wake_at,
        notes: planner.notes,
    }
}

/// One call of [`plan`].
struct Planner<'a> {
    desired: &'a Desired,
    fleet: &'a ObservedFleet<'a>,
    /// The Machines that the deployment has made, by group and ordinal.
    made: BTreeMap<(GroupName, u32), FleetMachine<'a>>,
    now: Timestamp,
    options: &'a DeployOptions,
    progress: Progress,
    ready: Vec<Step>,
    gates: Vec<Gate>,
    /// When to plan again, whatever the gates say.
    wake_at: Option<Timestamp>,
    notes: Vec<DeployEvent>,
}

/// Where a note belongs.
#[derive(Clone, Copy)]
enum Level {
    Info,
    Warning,
    Error,
}

// === impl Planner ===

impl<'a> Planner<'a> {
    fn run(&mut self) {
        let stage = self.progress.stage;
        if stage.is_forward()
            && let Some(failure) = self.progress.failure.take()
        {
            self.fail(failure);
        }
        loop {
            let before = self.progress.stage;
            match before {
                Stage::Begin => self.begin(),
                Stage::Releasing => self.release(),
                Stage::Trying => self.try_canaries(),
                Stage::Creating => self.create(),
                Stage::Updating => self.update(),
                Stage::Doubling => self.double(),
                Stage::Switching => self.switch(),
                Stage::Retiring => self.retire(),
                Stage::RollingBack => self.roll_back(),
                Stage::Halting => self.halt(),
                Stage::Complete | Stage::RolledBack | Stage::Failed => {}
            }
            if self.progress.stage == before {
                return;
            }
            // What the stage before waited for is over, or is looked at again by the next one.
            self.gates.clear();
            self.wake_at = None;
        }
    }

    /// Records the first failure and turns back. Later ones only add to the trouble.
    fn fail(&mut self, failure: Failure) {
        if self.progress.failure.is_some() {
            return;
        }
        self.say(
            Level::Error,
            failure.to_string(),
            failure.machine.as_ref(),
            failure.group.as_ref(),
        );
        self.progress.failure = Some(failure);
        // What this plan was about to begin is not begun.
        self.ready.clear();
        let promised = self.options.strategy != Strategy::Immediate || !self.has_begun_to_update();
        self.progress.stage = if self.options.rollback && promised {
            self.say(Level::Info, "Putting things back as they were", None, None);
            Stage::RollingBack
        } else {
            Stage::Halting
        };
    }

    /// Returns whether a Machine that was there before was touched.
    fn has_begun_to_update(&self) -> bool {
        let mut targets = self.progress.targets.values();
        targets.any(|target| target.phase != TargetPhase::Pending)
    }

    /// Returns the Machine that the deployment has made under this key.
    fn made(&self, group: &GroupName, ordinal: u32) -> Option<FleetMachine<'a>> {
        self.made.get(&(group.clone(), ordinal)).copied()
    }

    fn max_concurrent(&self) -> usize {
        usize::try_from(self.options.max_concurrent.max(1)).unwrap_or(usize::MAX)
    }

    fn say(
        &mut self,
        level: Level,
        message: impl Into<String>,
        machine: Option<&MachineId>,
        group: Option<&GroupName>,
    ) {
        self.notes.push(DeployEvent {
            at: self.now,
            message: message.into(),
            machine: machine.cloned(),
            group: group.cloned(),
            level: match level {
                Level::Info => "info",
                Level::Warning => "warning",
                Level::Error => "error",
            }
            .to_owned(),
        });
    }

    fn wait(&mut self, machine: &MachineId, condition: Condition, deadline: Timestamp) {
        self.gates.push(Gate {
            machine: machine.clone(),
            condition,
            deadline,
        });
    }

    /// Judges a Machine and opens the gate that it waits at.
    fn watch(&mut self, machine: &FleetMachine<'_>, watch: &Watch) -> Judgement {
        let judgement = judge(machine, watch, self.now, self.options);
        if let Judgement::Wait(condition, deadline) = &judgement {
            self.wait(&machine.spec.id, *condition, *deadline);
        }
        judgement
    }
}

/// Returns a time so many seconds later.
pub(crate) fn after(time: Timestamp, seconds: u64) -> Timestamp {
    let span = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
    time.saturating_add(span).unwrap_or(Timestamp::MAX)
}

/// Returns when a wait of so many seconds ends; 0 means as long as it takes.
pub(crate) fn deadline(since: Timestamp, seconds: u64) -> Timestamp {
    match seconds {
        0 => Timestamp::MAX,
        seconds => after(since, seconds),
    }
}

// === impl Verdict ===

impl Verdict {
    fn of(progress: &Progress) -> Self {
        let failure = || progress.failure.clone().unwrap_or_default();
        match progress.stage {
            stage if stage.is_forward() => Self::Running,
            Stage::RollingBack => Self::RollingBack { failure: failure() },
            Stage::Complete => Self::Complete,
            Stage::RolledBack => Self::RolledBack { failure: failure() },
            Stage::Failed => Self::Failed { failure: failure() },
            _ => Self::Running,
        }
    }

    /// Returns the deployment's status.
    #[must_use]
    pub fn status(&self) -> DeploymentStatus {
        match self {
            Self::Running => DeploymentStatus::Running,
            Self::RollingBack { .. } => DeploymentStatus::RollingBack,
            Self::Complete => DeploymentStatus::Complete,
            Self::RolledBack { .. } => DeploymentStatus::RolledBack,
            Self::Failed { .. } => DeploymentStatus::Failed,
        }
    }

    /// Returns what went wrong.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::RollingBack { failure }
            | Self::RolledBack { failure }
            | Self::Failed { failure } => Some(failure),
            Self::Running | Self::Complete => None,
        }
    }
}

// === impl Gate ===

impl Gate {
    /// Returns whether planning again may change something: the condition came true, or can no
    /// longer come true, or the wait is over. `machine` is `None` when the Machine is gone.
    #[must_use]
    pub fn has_edge(&self, machine: Option<&FleetMachine<'_>>, now: Timestamp) -> bool {
        if now >= self.deadline {
            return true;
        }
        let Some(machine) = machine else { return true };
        if crate::judge::op_error(machine).is_some() {
            return true;
        }
        match self.condition {
            Condition::Settled => machine.is_settled(),
            Condition::Started => {
                machine.is_settled() && machine.state.is_settled()
                    || crate::judge::has_crashed(machine)
            }
            Condition::Healthy => {
                machine.state != MachineState::Started
                    || machine.is_healthy()
                    || crate::judge::has_crashed(machine)
            }
            Condition::StayedUp => {
                machine.state != MachineState::Started || crate::judge::has_crashed(machine)
            }
            Condition::Stopped => {
                machine.state.is_settled() && machine.state != MachineState::Started
            }
            Condition::Ended => job::ended(machine).is_some(),
            Condition::Published => machine.is_published,
            Condition::Destroyed => machine.state == MachineState::Destroyed,
        }
    }
}

// === impl Step ===

impl Step {
    /// Returns the Machine it is about; a new one has no id yet.
    #[must_use]
    pub fn machine(&self) -> Option<&MachineId> {
        match self {
            Self::Create { .. } => None,
            Self::Update { machine, .. }
            | Self::Start { machine, .. }
            | Self::Cordon { machine }
            | Self::Uncordon { machine }
            | Self::Stop { machine, .. }
            | Self::Destroy { machine, .. } => Some(machine),
        }
    }
}
