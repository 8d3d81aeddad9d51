//! The tables of Hangar: who writes them is section 3 of the architecture.
//!
//! A table is a marker type; `PREFIX`, key and value say the rest. Records that only the server
//! understands (claims, tokens, sealed secrets) have their types here.

mod certificate;
mod org;
mod volume;

use std::collections::BTreeMap;

use hangar_api::Timestamp;
use hangar_api::app::AppRecord;
use hangar_api::certificate::Hostname;
use hangar_api::deployment::Deployment;
use hangar_api::formation::{Formation, Wish};
use hangar_api::id::{
    AppName, DeploymentId, GroupName, HostId, InstanceId, MachineId, OrgSlug, ReleaseId, SlotId,
    SnapshotId, VolumeId,
};
use hangar_api::image::ImageRef;
use hangar_api::ip::IpRecord;
use hangar_api::lease::Lease;
use hangar_api::machine::{MachineSpec, Observed, Op, Schedule};
use hangar_api::net::NetworkId;
use hangar_api::region::Slot;
use hangar_api::release::Release;
use serde::{Deserialize, Serialize};

use crate::key::TableKey;
use crate::record::Table;

pub use certificate::{CertificateRecord, CustomCertificate, HostnameRecord};
pub use org::{OrgRecord, TokenRecord};
pub use volume::{SnapshotRecord, VolumeRecord};

macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident: $prefix:literal, $key:ty => $value:ty;)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug)]
            pub struct $name;

            impl Table for $name {
                type Key = $key;
                type Value = $value;
                const PREFIX: &'static str = $prefix;
            }
        )*

        /// Visits every table, so that the cache knows them all.
        pub(crate) fn for_each(visit: &mut impl Visit) {
            $(visit.table::<$name>();)*
        }
    };
}

/// Something that is done for each table.
pub(crate) trait Visit {
    /// Does it for one.
    fn table<T: Table>(&mut self);
}

tables! {
    /// Apps by name: the name is thereby unique.
    Apps: "apps/", AppName => AppRecord;
    /// What Machines should be.
    Specs: "specs/", (AppName, MachineId) => MachineSpec;
    /// What is asked of Machines, oldest first; at most `MAX_PENDING_OPS`.
    Ops: "ops/", (AppName, MachineId) => Vec<Op>;
    /// What hosts say that Machines do.
    Observations: "observed/", (AppName, MachineId) => Observed;
    /// Versions of Machines that gave way to newer ones, by generation; the last few of each.
    Versions: "versions/", (AppName, MachineId, u64) => VersionRecord;
    /// Which app a Machine is of; makes Machine ids unique.
    MachineHomes: "machine-homes/", MachineId => MachineHome;
    /// Machine leases; an expired one is none.
    Leases: "leases/", (AppName, MachineId) => Lease;
    /// Releases by number.
    Releases: "releases/", (AppName, u64) => Release;
    /// Deployments; ids sort by time.
    Deployments: "deployments/", (AppName, DeploymentId) => Deployment;
    /// Who may deploy an app now (D2).
    DeployClaims: "deploy-claims/", AppName => DeployClaim;
    /// All secrets of an app as of a version. A version is never changed, so that a Machine can
    /// go back to the one it had.
    SecretSets: "secrets/", (AppName, u64) => SecretSet;
    /// Organisations; `personal` is always there.
    Orgs: "orgs/", OrgSlug => OrgRecord;
    /// Which app has a number; makes numbers of apps unique.
    AppNumbers: "app-numbers/", u64 => AppName;
    /// Tokens: opaque ones by the hex SHA-256 of their text, macaroons by their id.
    Tokens: "tokens/", String => TokenRecord;
    /// Volumes.
    Volumes: "volumes/", (AppName, VolumeId) => VolumeRecord;
    /// Snapshots of volumes, also of those that are gone.
    VolumeSnapshots: "snapshots/", (AppName, SnapshotId) => SnapshotRecord;
    /// Things that there may be only one of.
    Claims: "claims/", Claim => ClaimRecord;
    /// Large files of configurations, by the hex SHA-256 of the whole, part by part.
    FileParts: "file-parts/", (String, u64) => FilePart;
    /// Addresses that were allocated to apps, by their form.
    IpRecords: "ips/", (AppName, String) => IpRecord;
    /// Private networks of `personal`, by name.
    Networks: "networks/", String => NetworkId;
    /// Private networks of the other organisations, by name.
    OrgNetworks: "org-networks/", (OrgSlug, String) => NetworkId;
    /// Slots that are marked lost, by name.
    Slots: "slots/", SlotId => Slot;
    /// Standbys that were started because a slot is lost.
    Takeovers: "takeovers/", (AppName, MachineId) => Takeover;
    /// What process groups should have.
    Formations: "formations/", (AppName, GroupName) => Formation;
    /// What clients did to Machines and what formations do not show yet.
    Wishes: "wishes/", (AppName, MachineId) => Vec<Wish>;
    /// How far the schedules of Machines have come, from their first start on.
    Cycles: "cycles/", (AppName, MachineId) => Cycle;
    /// Host names of apps' own, with the certificates that were imported for them.
    Certificates: "certificates/", (AppName, Hostname) => CertificateRecord;
    /// Whose each of them is: a host name is one app's.
    Hostnames: "hostnames/", Hostname => HostnameRecord;
    /// Numbers that only grow, by name.
    Counters: "counters/", String => u64;
}

/// The counter of [`Counters`] with the last private network's number.
pub const NETWORK_COUNTER: &str = "networks";
/// The counter of [`Counters`] with the last organisation's number.
pub const ORG_COUNTER: &str = "orgs";

/// A version of a Machine that gave way to a newer one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRecord {
    /// The version, as clients name it.
    pub instance_id: InstanceId,
    /// Its configuration as JSON: kept as text, since it is seldom read.
    pub config: String,
    /// Its image.
    pub image_ref: ImageRef,
    /// When it was made, or last amended.
    pub updated_at: Timestamp,
}

/// A part of a large file of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilePart {
    /// The base64 of the file, cut.
    pub text: String,
    /// When somebody last had it kept.
    pub kept_at: Timestamp,
}

/// Where a Machine belongs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineHome {
    /// Its app.
    pub app: AppName,
    /// Its host.
    pub host: HostId,
}

/// Why a standby was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Takeover {
    /// The Machine that it stands in for.
    pub watched: MachineId,
    /// The lost slot that it was on.
    pub slot: SlotId,
    /// The revision at which that slot was marked: tells one loss from the next.
    pub loss: u64,
    /// When it was started.
    pub at: Timestamp,
}

/// How far a Machine's schedule has come. Written in the transaction that asks for a start, so that
/// no run is asked for twice or forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cycle {
    /// The schedule that it is of; another one begins another cycle.
    pub every: Schedule,
    /// When it began: the Machine's first start with this schedule.
    pub began: Timestamp,
    /// The number of the last run that is over and done with: it was asked for, the Machine still
    /// ran when it was due, or a later one took its place. 0 is the start that began the cycle.
    pub done: u64,
}

/// Who may deploy an app. Given back when the deployment ends, or lost when its owner is silent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployClaim {
    /// Who holds it.
    pub owner: ClaimOwner,
    /// The user who asked.
    pub user: String,
    /// What the client calls itself that drives the deploy: only its own calls keep the claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The release that it is for, where it is known.
    #[serde(default)]
    pub version: Option<u64>,
    /// When it was taken.
    pub taken_at: Timestamp,
    /// When it lapses unless it is renewed; never for a server's deployment, which a restarted
    /// server goes on with.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
    /// Who wants the deployment to turn back.
    #[serde(default)]
    pub cancelled_by: Option<String>,
}

impl DeployClaim {
    /// Returns whether a deployment of the server holds it.
    #[must_use]
    pub fn is_of(&self, deployment: &DeploymentId) -> bool {
        matches!(&self.owner, ClaimOwner::Deployment { id } if id == deployment)
    }
}

/// Who holds a deploy claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ClaimOwner {
    /// A deployment that the server carries out.
    Deployment {
        /// Which.
        id: DeploymentId,
    },
    /// A client that made a release and drives the deploy itself.
    Client {
        /// Its release.
        release: ReleaseId,
    },
}

/// All secrets of an app as of one version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretSet {
    /// By name.
    pub secrets: BTreeMap<String, SealedSecret>,
}

/// A secret as it is kept: encrypted under a key of the keyring, which is not in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedSecret {
    /// The key of the keyring.
    pub key_id: String,
    /// The nonce, base64.
    pub nonce: String,
    /// The encrypted value, base64; app, name and `version` are its associated data.
    pub sealed: String,
    /// The version of the set that first held this value.
    pub version: u64,
    /// What clients see of the value.
    pub digest: String,
    /// When the name was first set.
    pub created_at: Timestamp,
    /// When the value was set.
    pub updated_at: Timestamp,
}

/// A thing that there may be only one of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claim {
    /// A Machine's name within an app.
    MachineName(AppName, String),
    /// The machine part of 6PN addresses on a host.
    Low32(HostId, u32),
    /// The Machine that a deployment creates as number so-and-so of a group (D4).
    Launch(DeploymentId, GroupName, u32),
}

/// Who has claimed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimRecord {
    /// The app.
    pub app: AppName,
    /// The Machine.
    pub machine: MachineId,
}

// === impl Claim ===

impl TableKey for Claim {
    fn encode(&self) -> String {
        match self {
            Self::MachineName(app, name) => {
                format!("name/{}", (app.clone(), name.clone()).encode())
            }
            Self::Low32(host, low) => format!("low32/{}/{low:08x}", host.encode()),
            Self::Launch(deployment, group, ordinal) => {
                let key = (deployment.clone(), group.clone(), u64::from(*ordinal));
                format!("launch/{}", key.encode())
            }
        }
    }

    fn decode(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once('/')?;
        match kind {
            "name" => {
                let (app, name) = <(AppName, String)>::decode(rest)?;
                Some(Self::MachineName(app, name))
            }
            "low32" => {
                let (host, low) = <(HostId, String)>::decode(rest)?;
                Some(Self::Low32(host, u32::from_str_radix(&low, 16).ok()?))
            }
            "launch" => {
                let (id, group, ordinal) = <(DeploymentId, GroupName, u64)>::decode(rest)?;
                Some(Self::Launch(id, group, u32::try_from(ordinal).ok()?))
            }
            _ => None,
        }
    }
}
