//! The messages between the server and a host: one stream each way, serialisable, also within
//! one process (D16).

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::id::{HostId, MachineId};
use crate::machine::{MachineSpec, Observed, Op};
use crate::region::Slot;
use crate::secret::SecretValues;

/// A Machine as the server wants it on a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostMachine {
    /// What it should be.
    pub spec: MachineSpec,
    /// What is asked and, as far as the server knows, not done, oldest first.
    pub ops: Vec<Op>,
    /// Values of the app's secrets of the spec's version; sealed by the host before they are
    /// kept.
    pub secrets: SecretValues,
    /// Revision of the store this was read at: a host ignores older news of the same Machine.
    pub revision: u64,
    /// Until when a client's lease keeps the proxy from starting and stopping it. A deployment of
    /// the server's own holds nothing back here: the host does its ops in order with the proxy's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leased_until: Option<Timestamp>,
}

/// From the server to a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ToHost {
    /// All Machines of the host: sent first. What the host has beside them was destroyed while
    /// it was away, and is removed.
    Sync {
        /// All of them.
        machines: Vec<HostMachine>,
        /// Revision of the list.
        revision: u64,
    },
    /// A Machine is new or changed.
    Put(Box<HostMachine>),
    /// The record of a destroyed Machine is gone: its ledger may go.
    Forget {
        /// Which.
        id: MachineId,
    },
}

/// From a host to the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FromHost {
    /// The first message: who it is, and what it carries.
    Hello {
        /// The host.
        host: HostId,
        /// Its slots.
        slots: Vec<Slot>,
    },
    /// What a Machine does; sent on change, and for all Machines after a `Sync`.
    Observed {
        /// Which.
        id: MachineId,
        /// What.
        observed: Box<Observed>,
    },
}
