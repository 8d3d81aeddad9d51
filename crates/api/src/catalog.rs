//! The Catalog: who serves what, and where it can be reached.
//!
//! The read model of proxy and DNS. Routing facts come from the server, liveness from each
//! Machine's own host; the node merges both. Snapshots share the entries of apps that did not
//! change. Keys and secrets are never in it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::id::{AppName, GroupName, HostId, InstanceId, MachineId, Region};
use crate::machine::{Service, Static};
use crate::net::NetworkId;

/// A snapshot of all apps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    /// Grows with every snapshot.
    pub revision: u64,
    /// The store's revision that the server's facts in it are of.
    pub routes: u64,
    /// The apps by name.
    pub apps: BTreeMap<AppName, Arc<CatalogApp>>,
}

/// An app in the Catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogApp {
    /// Its name.
    pub name: AppName,
    /// Its private network.
    pub network: NetworkId,
    /// Where `min_machines_running` counts.
    pub primary_region: Option<Region>,
    /// Until when a deployment may be at work on it, which stops and starts its Machines itself.
    pub deploying_until: Option<Timestamp>,
    /// Host names that lead to it, lower case: `APP.DOMAIN` and others; `*.DOMAIN` are all that are
    /// one label below.
    pub hostnames: Vec<String>,
    /// Its Machines, by id, destroyed ones left out.
    pub machines: Vec<Arc<CatalogMachine>>,
}

/// A Machine in the Catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogMachine {
    /// What the server knows.
    pub route: MachineRoute,
    /// What its host knows.
    pub live: Liveness,
}

/// The server's part of a Machine in the Catalog.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineRoute {
    /// Its id.
    pub id: MachineId,
    /// Its host.
    pub host: HostId,
    /// Its process group.
    pub group: GroupName,
    /// Its region.
    pub region: Region,
    /// Its 6PN address.
    pub private_ip: Ipv6Addr,
    /// Its metadata, for `kv._metadata`.
    pub metadata: BTreeMap<String, String>,
    /// Kept out of `.internal`.
    pub skip_dns: bool,
    /// Kept out of the proxy.
    pub cordoned: bool,
    /// Waits for the loss of another: never started by a request.
    pub standby: bool,
    /// What it serves, from the spec; a running older generation's are in [`Liveness`].
    pub services: Arc<[Service]>,
}

/// The host's part of a Machine in the Catalog. Kept in memory only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Liveness {
    /// Up, down or in between.
    pub phase: Phase,
    /// The version that runs.
    pub instance: Option<InstanceId>,
    /// The start it is about: a pooled connection dies with it.
    pub starts: u64,
    /// Where proxy and checks reach it while it is up.
    pub address: Option<Ipv4Addr>,
    /// What the running generation serves; each with whether its checks pass.
    pub services: Arc<[LiveService]>,
    /// Folders whose files the proxy answers with.
    #[serde(default)]
    pub statics: Arc<[Static]>,
}

/// A service of a running Machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveService {
    /// Its configuration.
    pub service: Service,
    /// Whether all its checks (and readiness checks of the Machine) pass; true without checks.
    pub healthy: bool,
}

/// Whether a Machine can be used, or will be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Down, and nobody is bringing it up.
    #[default]
    Down,
    /// Frozen with its memory: as good as down, and soon up again.
    Suspended,
    /// On its way up (starting, restarting, replacing): requests may wait for it.
    Coming,
    /// Its main process runs.
    Up,
    /// Takes nothing new; what is in flight ends.
    Draining,
}

impl Phase {
    /// Returns whether it takes nothing, and nobody is bringing it up.
    #[must_use]
    pub fn is_down(self) -> bool {
        matches!(self, Self::Down | Self::Suspended)
    }
}

impl Default for Liveness {
    fn default() -> Self {
        Self {
            phase: Phase::Down,
            instance: None,
            starts: 0,
            address: None,
            services: Arc::new([]),
            statics: Arc::new([]),
        }
    }
}
