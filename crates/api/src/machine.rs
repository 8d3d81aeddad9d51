//! A Machine: what it should be, what is asked of it, what it does, and how clients see it.
//!
//! Each fact has one writer (D6). The server writes [`MachineSpec`] and [`Op`]s; the host alone
//! writes [`Observed`]; the state that clients see is [`state::api_state`] of all three, and
//! nobody's to write.

pub mod config;
pub mod extent;
pub mod guest;
pub mod schedule;
mod sent;
pub mod service;
pub mod state;
pub mod statics;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use config::{MachineConfig, Mount};
pub use extent::RootfsPersist;
pub use guest::Guest;
pub use schedule::Schedule;
pub use service::Service;
pub use state::MachineState;
pub use statics::Static;

use crate::Timestamp;
use crate::check::CheckStatus;
use crate::duration::GoDuration;
use crate::event::{ExitEvent, MachineEvent};
use crate::id::{AppName, HostId, InstanceId, MachineId, OpId, Region, SlotId};
use crate::image::ImageRef;
use crate::lenient;
use crate::net::{HostPart, NetworkId};

/// What a Machine should be. Writing it starts nothing: only an [`Op`] does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MachineSpec {
    /// Its id.
    pub id: MachineId,
    /// Unique within the app.
    pub name: String,
    /// Its app.
    pub app: AppName,
    /// The app's private network.
    pub network: NetworkId,
    /// Where it is placed.
    pub slot: SlotId,
    /// The host of the slot.
    pub host: HostId,
    /// The slot's part of the 6PN address.
    pub host_part: HostPart,
    /// The slot's region.
    pub region: Region,
    /// Grows by one with every update.
    pub generation: u64,
    /// The version that clients see, new with every generation.
    pub instance_id: InstanceId,
    /// The configuration.
    pub config: MachineConfig,
    /// The image, resolved to a digest.
    pub image_ref: ImageRef,
    /// The version of the app's secrets that this generation starts with.
    #[serde(default)]
    pub secrets_version: u64,
    /// Kept out of the proxy until uncordoned.
    #[serde(default)]
    pub cordoned: bool,
    /// When it was created.
    #[schemars(with = "crate::schema::Time")]
    pub created_at: Timestamp,
    /// When the spec last changed.
    #[schemars(with = "crate::schema::Time")]
    pub updated_at: Timestamp,
}

impl MachineSpec {
    /// Returns the 6PN address: derived, so that server and host agree without a message.
    #[must_use]
    pub fn private_ip(&self) -> std::net::Ipv6Addr {
        crate::net::address(self.network, self.host_part, &self.id)
    }
}

/// One request made of a Machine. The host performs each once, in the order of the queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Op {
    /// Its id; ids of later ops are greater.
    pub id: OpId,
    /// What is asked.
    pub kind: OpKind,
    /// Who asks: `user`, `deploy`, `proxy`, `flyd`.
    pub by: String,
}

/// What is asked of a Machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum OpKind {
    /// Prepare it (pull the image) and start it unless `skip_launch`. The first op of each Machine.
    Create {
        /// Only prepare.
        skip_launch: bool,
    },
    /// Replace the running generation by this one. A Machine that is not started stays stopped.
    Update {
        /// The generation of the spec to take.
        generation: u64,
        /// Do not start it, even if it ran.
        skip_launch: bool,
    },
    /// Start it.
    Start,
    /// Stop it.
    Stop {
        /// Instead of the configured signal.
        #[serde(default)]
        signal: Option<String>,
        /// Instead of the configured time.
        #[serde(default)]
        timeout: Option<GoDuration>,
    },
    /// Freeze it where it is, its memory kept; a start goes on from there.
    Suspend,
    /// Stop it, then start it.
    Restart {
        /// Instead of the configured signal.
        #[serde(default)]
        signal: Option<String>,
        /// Instead of the configured time.
        #[serde(default)]
        timeout: Option<GoDuration>,
    },
    /// Send a signal to its main process.
    Signal {
        /// Linux signal number.
        signal: i32,
    },
    /// Stop it by force and remove all that is its own.
    Destroy,
}

/// Most ops that may wait for one Machine; more are refused.
pub const MAX_PENDING_OPS: usize = 16;

/// How an op ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OpOutcome {
    /// Which.
    pub id: OpId,
    /// Why it failed, in words; absent when it was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What the host sees a Machine do. Written by its host alone, replaced whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Observed {
    /// Grows when the host's ledger is lost or the host boots; lower ones are ignored.
    pub boot: u64,
    /// Grows with every record of one boot.
    pub sequence: u64,
    /// Where it is in its life.
    pub state: MachineState,
    /// The generation it runs, or last ran.
    pub generation: u64,
    /// The version of that generation.
    pub instance_id: InstanceId,
    /// Starts so far: tells one run from the next.
    pub starts: u64,
    /// Every op up to and including this one is done; its outcome.
    #[serde(default)]
    pub last_op: Option<OpOutcome>,
    /// How the last run ended.
    #[serde(default)]
    pub exit: Option<ExitEvent>,
    /// Restarts by policy within the window.
    #[serde(default)]
    pub restart_count: u32,
    /// Why it is where it is, when that is not plain: "image not found", "restart limit reached".
    #[serde(default)]
    pub reason: Option<String>,
    /// Results of its checks: written when a status changes.
    #[serde(default)]
    pub checks: Vec<CheckStatus>,
    /// The last 20 events, newest first.
    #[serde(default)]
    pub events: Vec<MachineEvent>,
    /// When the record was made.
    #[schemars(with = "crate::schema::Time")]
    pub updated_at: Timestamp,
}

/// Most events kept in an [`Observed`].
pub const MAX_EVENTS: usize = 20;

/// A Machine as the API shows it (machines-api.md 3).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Machine {
    /// 14 hex digits.
    pub id: MachineId,
    /// Unique in the app.
    pub name: String,
    /// The state.
    pub state: MachineState,
    /// The region.
    pub region: Region,
    /// The version.
    pub instance_id: InstanceId,
    /// The same, as newer clients read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<InstanceId>,
    /// The 6PN address.
    pub private_ip: String,
    /// When it was created.
    #[schemars(with = "crate::schema::Time")]
    pub created_at: Timestamp,
    /// When it last changed.
    #[schemars(with = "crate::schema::Time")]
    pub updated_at: Timestamp,
    /// The configuration, as sent, with `guest` resolved.
    pub config: MachineConfig,
    /// The image with its digest.
    pub image_ref: ImageRef,
    /// Newest first.
    #[serde(default)]
    pub events: Vec<MachineEvent>,
    /// Results of checks.
    #[serde(default)]
    pub checks: Vec<CheckStatus>,
    /// `ok`, `unknown` or `unreachable`.
    #[serde(default)]
    pub host_status: String,
    /// Kept out of the proxy.
    #[serde(default)]
    pub cordoned: bool,
    /// Given once, when created with `lease_ttl`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
    /// Its lease, where that was asked for and there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<MachineLease>,
    /// Where it is placed (Hangar's own).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<SlotId>,
    /// Why it is where it is, when that is not plain (Hangar's own).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When its schedule starts it next; absent before the first start (Hangar's own).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::schema::Time>")]
    pub next_run: Option<Timestamp>,
}

/// A lease without its nonce, as a Machine shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MachineLease {
    /// What for.
    #[serde(default)]
    pub description: String,
    /// When it ends, Unix seconds.
    pub expires_at: i64,
    /// Who holds it.
    pub owner: String,
}

/// A version of a Machine (`GET .../versions`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MachineVersion {
    /// The version.
    pub version: InstanceId,
    /// The configuration that it was given.
    pub user_config: MachineConfig,
}

impl Machine {
    /// Returns its process group: `fly_process_group`, else the legacy `process_group`, else "".
    #[must_use]
    pub fn process_group(&self) -> &str {
        self.config.process_group()
    }
}

/// Body of `POST .../machines` and of an update (machines-api.md 4.1).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LaunchInput {
    /// The whole configuration; missing parts are reset.
    pub config: Option<MachineConfig>,
    /// Create only; generated when absent.
    #[serde(
        deserialize_with = "lenient::text",
        skip_serializing_if = "Option::is_none"
    )]
    pub name: Option<String>,
    /// Create only; the server's first region when absent.
    #[serde(
        deserialize_with = "lenient::text",
        skip_serializing_if = "Option::is_none"
    )]
    pub region: Option<String>,
    /// Prepare but do not start.
    #[serde(deserialize_with = "lenient::flag")]
    pub skip_launch: bool,
    /// Born cordoned.
    #[serde(deserialize_with = "lenient::flag")]
    pub skip_service_registration: bool,
    /// Without the app's secrets.
    #[serde(
        deserialize_with = "lenient::flag",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub skip_secrets: bool,
    /// Take a lease of so many seconds.
    #[serde(
        deserialize_with = "lenient::number",
        skip_serializing_if = "Option::is_none"
    )]
    pub lease_ttl: Option<i64>,
    /// Update only: refused unless this is the version now.
    #[serde(
        deserialize_with = "lenient::text",
        skip_serializing_if = "Option::is_none"
    )]
    pub current_version: Option<String>,
    /// Start with at least this version of the secrets.
    #[serde(
        deserialize_with = "lenient::number",
        skip_serializing_if = "Option::is_none"
    )]
    pub min_secrets_version: Option<u64>,
}
