//! Running a command in a Machine (`POST .../exec`).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::lenient;

/// Body of `exec`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ExecRequest {
    /// The command and its arguments.
    #[serde(deserialize_with = "lenient::nullable")]
    pub command: Vec<String>,
    /// The command as one text, split like a shell would (deprecated form).
    #[serde(deserialize_with = "lenient::text")]
    pub cmd: Option<String>,
    /// Given to its standard input.
    #[serde(deserialize_with = "lenient::text")]
    pub stdin: Option<String>,
    /// Seconds it may take; 0 or absent means the default (60).
    #[serde(deserialize_with = "lenient::number")]
    pub timeout: Option<u64>,
    /// The container to run it in; none has one of a name.
    #[serde(
        deserialize_with = "lenient::text",
        skip_serializing_if = "Option::is_none"
    )]
    pub container: Option<String>,
}

/// Answer of `exec`. Each stream is cut at 1 MiB.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExecResponse {
    /// The command's own code, or 128 + signal.
    pub exit_code: i32,
    /// The signal that ended it, or 0.
    #[serde(default)]
    pub exit_signal: i32,
    /// What it wrote to standard output.
    #[serde(default)]
    pub stdout: String,
    /// What it wrote to standard error.
    #[serde(default)]
    pub stderr: String,
    /// Whether it wrote more than is here; only there when it did.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}
