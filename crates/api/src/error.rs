//! The error body of the API and the errors that cross a seam.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The JSON body of every error answer: `{"error": text, "status"?: code}` (machines-api.md 1.10).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error, JsonSchema)]
#[error("{error}")]
pub struct ErrorBody {
    /// What went wrong and what to do, for a person.
    pub error: String,
    /// A stable code where clients need one: `name_taken`, `insufficient_capacity`, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
}

/// What a caller can do about a failure; decides status and exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request is wrong as it stands.
    Invalid,
    /// What it names does not exist.
    NotFound,
    /// Somebody else holds it, or it changed meanwhile.
    Conflict,
    /// Not in this state.
    FailedPrecondition,
    /// No room, or a limit is reached.
    Exhausted,
    /// It took too long.
    TimedOut,
    /// The other side is away.
    Unavailable,
    /// Hangar does not do this.
    Unsupported,
    /// A fault of ours or of the machine.
    Internal,
}

/// An error that crosses a seam between roles: a kind to act on and words for a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error, JsonSchema)]
#[error("{message}")]
pub struct Failure {
    /// What can be done about it.
    pub kind: ErrorKind,
    /// What we were doing, what went wrong, what to do.
    pub message: String,
}

// === impl Failure ===

impl Failure {
    /// Returns a failure of this kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }
}
