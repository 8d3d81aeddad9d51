//! Log lines.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::id::{AppName, GroupName, MachineId, Region};

/// Who wrote a line (proxy-network-runtime.md 14.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// The app, on stdout or stderr.
    App,
    /// The host, about the Machine.
    Runner,
    /// The proxy.
    Proxy,
    /// The health checks.
    Health,
}

/// One line of a Machine's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogLine {
    /// When `init` or the host read it.
    #[schemars(with = "crate::schema::Time")]
    pub timestamp: Timestamp,
    /// Who wrote it.
    pub provider: Provider,
    /// `info` or `error`.
    pub level: String,
    /// The Machine.
    pub instance: MachineId,
    /// Its process group.
    pub group: GroupName,
    /// Its region.
    pub region: Region,
    /// The text, without the line end.
    pub message: String,
}

/// Which lines are wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogQuery {
    /// The app.
    pub app: AppName,
    /// Only this group.
    #[serde(default)]
    pub group: Option<GroupName>,
    /// Only this Machine.
    #[serde(default)]
    pub machine: Option<MachineId>,
    /// Only this region.
    #[serde(default)]
    pub region: Option<Region>,
    /// So many of the newest lines first.
    pub tail: usize,
    /// Then new lines as they come.
    #[serde(default)]
    pub follow: bool,
    /// Only lines after this time.
    #[serde(default)]
    #[schemars(with = "Option<crate::schema::Time>")]
    pub since: Option<Timestamp>,
}
