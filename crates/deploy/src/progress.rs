//! The deployment's own memory: what cannot be observed again (D4).
//!
//! The planner returns a new value with each plan; the server stores it in the Deployment record
//! *before* it carries out that plan's steps. Bounded: one short entry per Machine, and each
//! former configuration once.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use hangar_api::Timestamp;
use hangar_api::id::{GroupName, InstanceId, MachineId};
use hangar_api::image::ImageRef;
use hangar_api::machine::MachineConfig;
use hangar_api::machine::config::{GROUP_RELEASE_COMMAND, GROUP_TEST};

/// Most troubles kept while putting things back.
const MAX_TROUBLE: usize = 20;

/// Most former versions that a new one is compared with, so that cost grows with the fleet alone.
const MAX_COMPARED: usize = 64;

/// Milestones of a deployment. The default is one that has not begun.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// How far it is.
    pub stage: Stage,
    /// When it began.
    pub begun_at: Option<Timestamp>,
    /// The release command: it is never run twice.
    pub release_command: Option<Job>,
    /// The canary of each group.
    pub canaries: BTreeMap<GroupName, Launch>,
    /// The green Machines of each group; the index and [`GREEN`] make the launch key's ordinal.
    ///
    /// [`GREEN`]: crate::desired::GREEN
    pub greens: BTreeMap<GroupName, Vec<Green>>,
    /// The test Machines of each tested one.
    pub tests: BTreeMap<MachineId, Vec<Job>>,
    /// How many test Machines were planned so far: the next one's ordinal.
    pub tests_planned: u32,
    /// What updated Machines were before, each different one once.
    pub formers: Vec<Former>,
    /// The Machines it updates.
    pub targets: BTreeMap<MachineId, Target>,
    /// The Machines it creates, by group; the index is the launch key's ordinal.
    pub launches: BTreeMap<GroupName, Vec<Launch>>,
    /// The Machines it removes.
    pub retiring: BTreeMap<MachineId, Retire>,
    /// What went wrong first.
    pub failure: Option<Failure>,
    /// What went wrong while putting things back.
    pub trouble: Vec<String>,
}

/// How far a deployment is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Nothing is decided.
    #[default]
    Begin,
    /// The release command runs; nothing else has changed.
    Releasing,
    /// One more Machine of each group has to pass and is removed again.
    Trying,
    /// Machines of new groups come up; nothing else has changed.
    Creating,
    /// Existing Machines go over to the release.
    Updating,
    /// Green Machines come up beside the existing ones, out of the proxy.
    Doubling,
    /// All green Machines are healthy and are let into the proxy.
    Switching,
    /// Machines of groups that are gone, and blue ones, are removed: there is no way back.
    Retiring,
    /// It failed; what was done is undone.
    RollingBack,
    /// It failed and nothing is undone; what was begun comes to its end.
    Halting,
    /// Done.
    Complete,
    /// Failed; the fleet is as before.
    RolledBack,
    /// Failed; the fleet is as it is.
    Failed,
}

/// A version that a Machine had before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Former {
    /// Its configuration.
    pub config: MachineConfig,
    /// Its image.
    pub image_ref: ImageRef,
    /// Its version of the secrets.
    pub secrets_version: u64,
}

/// A Machine that is updated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Its group in the release.
    pub group: GroupName,
    /// Which of [`Progress::formers`] it was.
    pub former: usize,
    /// How far it is.
    pub phase: TargetPhase,
    /// It was started when the deployment began: updated in the group's warm list.
    pub warm: bool,
    /// It ran when it was updated, so it is to run afterwards.
    pub run: bool,
    /// It passed its checks when it was updated.
    pub was_healthy: bool,
    /// When it was last updated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// It has passed, and its checks fail again since then: it counts as unavailable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sick_since: Option<Timestamp>,
    /// Its update failed and is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again: Option<Again>,
}

/// The newest try of an update that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Again {
    /// How often it was tried again, this one included.
    pub tries: u32,
    /// The version that failed: while the Machine has it, this try is yet to be made.
    pub of: InstanceId,
    /// Not before.
    pub at: Timestamp,
}

/// How far an updated Machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetPhase {
    /// Not touched.
    Pending,
    /// Its update is asked for or done; its gates are open.
    Asked,
    /// It passed its gates once.
    Passed,
    /// Its former version is asked for.
    Restoring,
    /// Its former version is back.
    Restored,
    /// Somebody destroyed it.
    Gone,
}

/// A Machine that is created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// How far it is.
    pub phase: LaunchPhase,
    /// It waits for the loss of the group's first new Machine.
    pub standby: bool,
    /// Its id, once seen: a Machine that was seen is never created again.
    #[serde(default)]
    pub machine: Option<MachineId>,
    /// When it was asked for.
    #[serde(default)]
    pub since: Option<Timestamp>,
    /// The Machine on a lost slot that it is made in place of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<MachineId>,
    /// It is only prepared: the one that it replaces was at rest.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rests: bool,
}

/// A Machine that is to take over from another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Green {
    /// How far it is.
    pub launch: Launch,
    /// The Machine that it takes over from.
    pub blue: MachineId,
    /// It is to run: the blue one does, or somebody of the group has to show that it can.
    pub run: bool,
    /// It failed its checks once after it had passed.
    pub relapsed: bool,
}

/// A Machine that runs once and is to exit with 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// How far it is.
    pub phase: JobPhase,
    /// Its launch key's ordinal.
    pub ordinal: u32,
    /// Its id, once seen.
    #[serde(default)]
    pub machine: Option<MachineId>,
    /// When it was asked for.
    #[serde(default)]
    pub since: Option<Timestamp>,
}

/// How far a Machine that runs once is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobPhase {
    /// Not asked for.
    Planned,
    /// Asked for or there.
    Asked,
    /// It exited with 0.
    Done,
}

/// How far a created Machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LaunchPhase {
    /// Not asked for.
    Planned,
    /// Asked for or there; its gates are open.
    Asked,
    /// It passed its gates once.
    Passed,
}

/// A Machine that is removed: cordoned and stopped, then destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "phase")]
pub enum Retire {
    /// Not touched.
    Planned,
    /// Takes nothing new and is being stopped.
    Draining {
        /// Since when.
        since: Timestamp,
    },
    /// Being destroyed.
    Destroying {
        /// Since when.
        since: Timestamp,
    },
    /// Gone, or its destruction is only a matter of time.
    Done,
}

/// What went wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The Machine it is about.
    #[serde(default)]
    pub machine: Option<MachineId>,
    /// Its group.
    #[serde(default)]
    pub group: Option<GroupName>,
    /// Why, in words.
    pub reason: String,
}

// === impl Stage ===

impl Stage {
    /// Returns whether it is on the way there, and may still turn back.
    #[must_use]
    pub fn is_forward(self) -> bool {
        matches!(
            self,
            Self::Begin
                | Self::Releasing
                | Self::Trying
                | Self::Creating
                | Self::Updating
                | Self::Doubling
                | Self::Switching
        )
    }
}

// === impl Launch ===

impl Launch {
    pub(crate) fn planned(standby: bool) -> Self {
        Self {
            phase: LaunchPhase::Planned,
            standby,
            machine: None,
            since: None,
            replaces: None,
            rests: false,
        }
    }
}

// === impl Job ===

impl Job {
    pub(crate) fn planned(ordinal: u32) -> Self {
        Self {
            phase: JobPhase::Planned,
            ordinal,
            machine: None,
            since: None,
        }
    }
}

// === impl Progress ===

impl Progress {
    /// Returns whether no Machine was touched and none was asked for.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        let command = self.release_command.as_ref();
        self.targets.is_empty()
            && self.launches.is_empty()
            && command.is_none_or(|job| job.phase == JobPhase::Planned)
    }

    /// Returns whether the point of no return is behind: Machines of old groups are being removed.
    #[must_use]
    pub fn is_past_return(&self) -> bool {
        matches!(self.stage, Stage::Retiring | Stage::Complete)
    }

    /// Returns whether a deployment that is cancelled turns back: it is on its way, and not yet
    /// removing the Machines of old groups.
    #[must_use]
    pub fn may_turn_back(&self) -> bool {
        self.stage.is_forward() && self.failure.is_none()
    }

    /// Notes that a step cannot be carried out (no slot has room, the image is gone) or that the
    /// deployment is cancelled: the next plan turns back. A step that was refused because the
    /// world had moved is no failure: plan again.
    pub fn report(&mut self, failure: Failure) {
        match self.stage {
            stage if stage.is_forward() && self.failure.is_none() => {
                self.failure = Some(failure);
            }
            Stage::RollingBack | Stage::Halting | Stage::Retiring => self.leave_out(&failure),
            _ => {}
        }
    }

    /// Notes what went wrong after the first failure, or on the way after the point of no return.
    pub(crate) fn add_trouble(&mut self, text: String) {
        if self.trouble.len() < MAX_TROUBLE && !self.trouble.contains(&text) {
            self.trouble.push(text);
        }
    }

    /// Leaves a Machine as it is: nothing more can be done about it, and the rest goes on.
    fn leave_out(&mut self, failure: &Failure) {
        self.add_trouble(failure.to_string());
        let Some(machine) = &failure.machine else {
            return;
        };
        if let Some(retire) = self.retiring.get_mut(machine) {
            *retire = Retire::Done;
        } else if let Some(target) = self.targets.get_mut(machine) {
            target.phase = TargetPhase::Restored;
        }
    }

    /// Returns the index of a former version, kept once.
    pub(crate) fn remember(&mut self, former: Former) -> usize {
        // The newest are the likeliest to be equal; a fleet has few different ones.
        let from = self.formers.len().saturating_sub(MAX_COMPARED);
        let found = self.formers[from..].iter().rposition(|f| *f == former);
        if let Some(index) = found {
            return from + index;
        }
        self.formers.push(former);
        self.formers.len() - 1
    }
}

/// Returns whether it is the group of Machines that run once for a deployment.
fn is_job(group: &GroupName) -> bool {
    [GROUP_RELEASE_COMMAND, GROUP_TEST].contains(&group.as_str())
}

// === impl Failure ===

impl Failure {
    /// Returns whether it is about a Machine that runs once: its log says more than the reason.
    #[must_use]
    pub fn is_of_job(&self) -> bool {
        self.group.as_ref().is_some_and(is_job)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let is_job = self.group.as_ref().is_some_and(is_job);
        match (&self.machine, &self.group) {
            // What a job's failure says names its Machine.
            _ if is_job => f.write_str(&self.reason),
            (Some(machine), Some(group)) => {
                write!(f, "Machine {machine} of group {group}: {}", self.reason)
            }
            (Some(machine), None) => write!(f, "Machine {machine}: {}", self.reason),
            (None, Some(group)) => write!(f, "group {group}: {}", self.reason),
            (None, None) => f.write_str(&self.reason),
        }
    }
}
