//! The states of a Machine and what clients see of them (machines-api.md 5).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{MachineSpec, Observed, Op, OpKind};

/// Where a Machine is in its life.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum MachineState {
    /// Being prepared, or prepared and never started.
    Created,
    /// On its way up.
    Starting,
    /// Its main process runs.
    Started,
    /// On its way down.
    Stopping,
    /// Down; start brings it back.
    Stopped,
    /// Being frozen.
    Suspending,
    /// Frozen, its memory kept; start goes on where it was.
    Suspended,
    /// Down, then up again.
    Restarting,
    /// Going over to another generation.
    Replacing,
    /// It could not be prepared or started; start tries again.
    Failed,
    /// Being removed.
    Destroying,
    /// Gone.
    Destroyed,
    /// Given way to a newer version: what a version is that is asked for by its name.
    Replaced,
}

// === impl MachineState ===

impl MachineState {
    /// Returns the word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Started => "started",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Suspending => "suspending",
            Self::Suspended => "suspended",
            Self::Restarting => "restarting",
            Self::Replacing => "replacing",
            Self::Failed => "failed",
            Self::Destroying => "destroying",
            Self::Destroyed => "destroyed",
            Self::Replaced => "replaced",
        }
    }

    /// Returns whether it is at rest: `wait?state=settled` is met.
    #[must_use]
    pub fn is_settled(self) -> bool {
        matches!(
            self,
            Self::Created
                | Self::Started
                | Self::Stopped
                | Self::Suspended
                | Self::Failed
                | Self::Destroyed
        )
    }

    /// Returns whether it is neither gone nor going.
    #[must_use]
    pub fn is_active(self) -> bool {
        !matches!(self, Self::Destroying | Self::Destroyed | Self::Replaced)
    }
}

impl std::fmt::Display for MachineState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for MachineState {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        serde_json::from_value(serde_json::Value::String(text.to_owned())).map_err(|_| ())
    }
}

/// Returns the state that clients see: a pure function of what should be, what is asked and what
/// is (D6). An op that the host has not yet done shows as the state that it leads through.
#[must_use]
pub fn api_state(spec: &MachineSpec, pending: &[Op], observed: Option<&Observed>) -> MachineState {
    let seen = observed.map_or(MachineState::Created, |o| o.state);
    if seen == MachineState::Destroyed {
        return seen;
    }
    let Some(first) = pending.iter().find(|op| !is_done(op, observed)) else {
        return seen;
    };
    match (&first.kind, seen) {
        (_, MachineState::Destroying) | (OpKind::Destroy, _) => MachineState::Destroying,
        (OpKind::Update { generation, .. }, _) if *generation <= spec.generation => {
            MachineState::Replacing
        }
        (OpKind::Create { .. }, MachineState::Created) => MachineState::Created,
        (
            OpKind::Start,
            MachineState::Created
            | MachineState::Stopped
            | MachineState::Suspended
            | MachineState::Failed,
        ) => MachineState::Starting,
        (
            OpKind::Stop { .. },
            MachineState::Started
            | MachineState::Starting
            | MachineState::Suspending
            | MachineState::Suspended,
        ) => MachineState::Stopping,
        (OpKind::Suspend, MachineState::Started | MachineState::Starting) => {
            MachineState::Suspending
        }
        (OpKind::Restart { .. }, MachineState::Started | MachineState::Starting) => {
            MachineState::Restarting
        }
        _ => seen,
    }
}

/// Returns whether the host has done this op. Op ids are ULIDs made by one writer, so the last
/// one done says it of all before it.
#[must_use]
pub fn is_done(op: &Op, observed: Option<&Observed>) -> bool {
    observed
        .and_then(|o| o.last_op.as_ref())
        .is_some_and(|last| last.id >= op.id)
}
