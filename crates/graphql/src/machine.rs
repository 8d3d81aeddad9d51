//! Machines, volumes and snapshots, as far as clients still ask for them here.

use async_graphql::{ID, Object, SimpleObject};
use hangar_api::machine::Machine as Record;
use hangar_api::volume::{Snapshot, Volume as VolumeRecord};

use crate::app::{App, EgressIpAddress};
use crate::page::Connection;
use crate::scalar::{BigInt, DateTime, Json, int};

/// A Machine.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) machine: Record,
    pub(crate) app: App,
}

/// Where a Machine runs.
#[derive(Clone, Debug, SimpleObject)]
pub(crate) struct Host {
    /// The name of its slot.
    id: ID,
}

/// An address of a Machine.
#[derive(Clone, Debug, SimpleObject)]
#[graphql(name = "MachineIP")]
pub(crate) struct MachineIp {
    /// The address again.
    id: ID,
    /// `v6`.
    family: String,
    /// `privatenet`.
    kind: String,
    /// The address.
    ip: String,
    /// Bits of its network.
    mask_size: i32,
}

/// A volume.
#[derive(Clone, Debug)]
pub(crate) struct Volume {
    pub(crate) volume: VolumeRecord,
    pub(crate) app: App,
    pub(crate) snapshots: Vec<Snapshot>,
}

/// A snapshot of a volume.
#[derive(Clone, Debug, SimpleObject)]
pub(crate) struct VolumeSnapshot {
    /// Its id.
    id: ID,
    /// Bytes on disk.
    size: BigInt,
    /// Empty: snapshots are copied whole.
    digest: String,
    /// When it was asked for.
    created_at: DateTime,
    /// Days that it is kept.
    retention_days: i32,
}

/// A Machine.
#[Object(name = "Machine")]
impl Machine {
    /// Its id.
    async fn id(&self) -> ID {
        self.machine.id.as_str().into()
    }
    /// Its name.
    async fn name(&self) -> &str {
        &self.machine.name
    }
    /// Its configuration.
    async fn config(&self) -> async_graphql::Result<Json> {
        Ok(async_graphql::Json(serde_json::to_value(
            &self.machine.config,
        )?))
    }
    /// The state.
    async fn state(&self) -> &str {
        self.machine.state.as_str()
    }
    /// Its region.
    async fn region(&self) -> &str {
        self.machine.region.as_str()
    }
    /// Its version.
    async fn instance_id(&self) -> &str {
        self.machine.instance_id.as_str()
    }
    /// When it was created.
    async fn created_at(&self) -> DateTime {
        DateTime(self.machine.created_at)
    }
    /// When it last changed.
    async fn updated_at(&self) -> DateTime {
        DateTime(self.machine.updated_at)
    }
    /// Its app.
    async fn app(&self) -> &App {
        &self.app
    }
    /// Its addresses: the one of the private network.
    async fn ips(&self) -> Connection<MachineIp> {
        let ip = &self.machine.private_ip;
        Connection::whole([MachineIp {
            id: ip.as_str().into(),
            family: "v6".to_owned(),
            kind: "privatenet".to_owned(),
            ip: ip.clone(),
            mask_size: 112,
        }])
    }
    /// Addresses of its own for what it sends: there are none.
    async fn egress_ip_addresses(&self) -> Connection<EgressIpAddress> {
        Connection::whole([])
    }
    /// Where it runs.
    async fn host(&self) -> Host {
        let slot = self.machine.slot.as_ref();
        Host {
            id: slot.map(|slot| slot.as_str()).unwrap_or_default().into(),
        }
    }
}

/// A volume.
#[Object(name = "Volume")]
impl Volume {
    /// Its id.
    async fn id(&self) -> ID {
        self.volume.id.as_str().into()
    }
    /// Its name.
    async fn name(&self) -> &str {
        &self.volume.name
    }
    /// The state.
    async fn state(&self) -> &str {
        self.volume.state.as_str()
    }
    /// Its region.
    async fn region(&self) -> &str {
        self.volume.region.as_str()
    }
    /// Its size in GB.
    async fn size_gb(&self) -> i32 {
        int(self.volume.size_gb)
    }
    /// Whether it is encrypted.
    async fn encrypted(&self) -> bool {
        self.volume.encrypted
    }
    /// When it was created.
    async fn created_at(&self) -> DateTime {
        DateTime(self.volume.created_at)
    }
    /// Its app.
    async fn app(&self) -> &App {
        &self.app
    }
    /// Its snapshots.
    async fn snapshots(&self) -> Connection<VolumeSnapshot> {
        Connection::whole(self.snapshots.iter().map(|snapshot| VolumeSnapshot {
            id: snapshot.id.as_str().into(),
            size: BigInt(snapshot.size),
            digest: snapshot.digest.clone(),
            created_at: DateTime(snapshot.created_at),
            retention_days: int(snapshot.retention_days),
        }))
    }
}
