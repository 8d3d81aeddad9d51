//! Releases: immutable snapshots of all groups (D3).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::id::{AppName, DeploymentId, GroupName, ReleaseId};
use crate::image::ImageRef;
use crate::machine::MachineConfig;

/// A release. Only `status` ever changes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Release {
    /// Its id.
    pub id: ReleaseId,
    /// The app.
    pub app: AppName,
    /// Its number, from 1.
    pub version: u64,
    /// `pending`, `running`, `complete`, `failed`, `interrupted`.
    pub status: ReleaseStatus,
    /// What it was made by: "Deploy", "Rollback to v3", "Secrets set".
    pub description: String,
    /// Who made it.
    pub user: String,
    /// When.
    #[schemars(with = "crate::schema::Time")]
    pub created_at: Timestamp,
    /// The deployment that carries it out.
    #[serde(default)]
    pub deployment: Option<DeploymentId>,
    /// The image, with its digest.
    pub image_ref: ImageRef,
    /// Version of the secrets it starts with.
    #[serde(default)]
    pub secrets_version: u64,
    /// What each group should be.
    pub groups: BTreeMap<GroupName, GroupSpec>,
    /// What runs once before any Machine is touched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release_command: Option<ReleaseCommand>,
    /// The app's configuration as JSON of fly.toml's shape, for `config show`.
    pub definition: serde_json::Value,
}

/// What a release says of one group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GroupSpec {
    /// The Machine config made from fly.toml alone: what a new Machine of the group gets.
    pub config: MachineConfig,
    /// Whether fly.toml sets a size; where not, existing Machines keep theirs (2.3).
    #[serde(default)]
    pub sets_guest: bool,
    /// What is to exit with 0 after each update of one of its Machines (4.12).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub test_machines: Vec<TestMachine>,
    /// How its volumes are made by a first deploy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<FirstVolume>,
}

/// How a volume is made by a first deploy (4.3).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FirstVolume {
    /// Its name: the mount's.
    pub name: String,
    /// Its size in GB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_gb: Option<u64>,
    /// Days that snapshots are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_retention: Option<u32>,
    /// Whether a snapshot is made every day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_snapshots: Option<bool>,
}

/// The release command: a Machine of its own that runs once, before any other is touched (4.8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReleaseCommand {
    /// What it runs. Services, checks and mounts in it are left out; the group, the environment's
    /// `RELEASE_COMMAND`, restart policy and `auto_destroy` are set when it is made.
    pub config: MachineConfig,
    /// Whether fly.toml sets a size; where not, it has that of the default group's largest
    /// Machine, that of the options, or `shared-cpu-2x`.
    #[serde(default)]
    pub sets_guest: bool,
    /// How long it may run; 0 for as long as it takes.
    pub timeout_secs: u64,
}

/// A test Machine (`machine_checks`, 4.12): it runs once beside a Machine that was updated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TestMachine {
    /// What it runs. An empty `image` means that of the tested Machine, an absent entrypoint its
    /// entrypoint; the environment is laid under its environment. Group, restart policy,
    /// `auto_destroy`, DNS, `FLY_TEST_COMMAND` and `FLY_TEST_MACHINE_IP` are set when it is made.
    pub config: MachineConfig,
    /// What its own image's name means, filled in by the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_ref: Option<ImageRef>,
}

/// How far a release is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReleaseStatus {
    /// Made, not begun.
    Pending,
    /// Being carried out.
    Running,
    /// Carried out.
    Complete,
    /// Given up.
    Failed,
    /// Its driver went away.
    Interrupted,
}

impl std::fmt::Display for ReleaseStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        })
    }
}
