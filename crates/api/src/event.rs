//! Machine events (machines-api.md 6).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::id::EventId;

/// Something that happened to a Machine. Newest come first in every list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MachineEvent {
    /// A ULID.
    pub id: EventId,
    /// `launch`, `start`, `exit`, `restart`, `update`, `stop`, `destroy`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it led to: `created`, `starting`, `started`, `stopped`, ...
    pub status: String,
    /// `user`, `flyd` (the host) or `proxy`.
    pub source: String,
    /// Unix milliseconds.
    pub timestamp: i64,
    /// Details of an exit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<EventRequest>,
}

/// Details of an event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventRequest {
    /// How the main process ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_event: Option<ExitEvent>,
    /// Restarts by policy in the current window.
    #[serde(default)]
    pub restart_count: u32,
}

/// How a Machine's main process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExitEvent {
    /// The code; 128 + signal when a signal ended it; 137 when it was killed or out of memory.
    pub exit_code: i32,
    /// The main process's own code.
    #[serde(default)]
    pub guest_exit_code: i32,
    /// The signal, or -1.
    #[serde(default = "none")]
    pub guest_signal: i32,
    /// Always -1 here: there is no VM process.
    #[serde(default = "none")]
    pub signal: i32,
    /// Whether it was killed for its memory.
    #[serde(default)]
    pub oom_killed: bool,
    /// Whether somebody had asked it to stop.
    #[serde(default)]
    pub requested_stop: bool,
    /// Whether the restart policy starts it again.
    #[serde(default)]
    pub restarting: bool,
    /// When.
    #[schemars(with = "crate::schema::Time")]
    pub exited_at: Timestamp,
}

fn none() -> i32 {
    -1
}
