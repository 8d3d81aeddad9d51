//! What a Machine's programs use: processes and memory, as its host sees them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One process of a Machine (`GET .../ps`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Process {
    /// Its number inside the Machine.
    pub pid: i32,
    /// Processor time in the kernel, in hundredths of a second.
    #[serde(default)]
    pub stime: u64,
    /// Time since it began, in hundredths of a second.
    #[serde(default)]
    pub rtime: u64,
    /// The command and its arguments.
    #[serde(default)]
    pub command: String,
    /// Its working directory inside the Machine, or "" where that cannot be read.
    #[serde(default)]
    pub directory: String,
    /// Processor time since it began, in percent of one CPU, rounded.
    #[serde(default)]
    pub cpu: u64,
    /// Memory that is resident, in bytes.
    #[serde(default)]
    pub rss: u64,
    /// Sockets on which it listens.
    #[serde(default)]
    pub listen_sockets: Vec<ListenSocket>,
}

/// A socket that listens.
#[derive(
    Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub struct ListenSocket {
    /// `tcp`, `tcp6`, `udp` or `udp6`.
    pub proto: String,
    /// Address and port.
    pub address: String,
}

/// A Machine's memory (`GET` and `PUT .../memory`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Memory {
    /// The most that it may use, in MiB.
    pub limit_mb: u64,
    /// What is left of that, in MiB; what the kernel can take back at once counts as left.
    pub available_mb: u64,
}

/// Body of `PUT .../memory`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SetMemory {
    /// The new limit in MiB: at most `guest.max_memory_mb`, or `guest.memory_mb` without that. It
    /// holds until the Machine starts anew.
    #[serde(default, deserialize_with = "crate::lenient::number")]
    pub limit_mb: Option<u64>,
}

/// Body of `POST .../memory/reclaim`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReclaimMemory {
    /// How much to take back, in MiB.
    #[serde(default, deserialize_with = "crate::lenient::number")]
    pub amount_mb: Option<u64>,
}

/// Answer of `POST .../memory/reclaim`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reclaimed {
    /// What the Machine uses less now, in MiB.
    pub actual_mb: u64,
}
