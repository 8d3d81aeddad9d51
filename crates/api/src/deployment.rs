//! Deployments: a release being carried out by the server (D1).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::id::{AppName, DeploymentId, GroupName, MachineId, Region, ReleaseId};
use crate::machine::Guest;
use crate::release::GroupSpec;

/// Body of `POST /v1/apps/{app}/deployments`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CreateDeployment {
    /// What to deploy.
    pub source: DeploymentSource,
    /// How.
    #[serde(default)]
    pub options: DeployOptions,
    /// Only answer what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

/// What a deployment is made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum DeploymentSource {
    /// A configuration that the client has read from fly.toml.
    Config {
        /// One per process group, made by `config`; `image` in them is the name below.
        groups: BTreeMap<GroupName, GroupSpec>,
        /// The image's name, as an imported name or a registry reference.
        /// Empty in a dry run: it is yet to be built.
        image: String,
        /// The region of new Machines.
        #[serde(default)]
        primary_region: Option<Region>,
        /// fly.toml as JSON, for `config show`.
        definition: serde_json::Value,
    },
    /// A former release again (`releases rollback`).
    Release {
        /// Its number.
        version: u64,
    },
    /// Every Machine as it is, with new secrets (4.14).
    Restart {
        /// Why, for the release's description.
        description: String,
    },
}

/// How to deploy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeployOptions {
    /// `rolling`; others come later.
    pub strategy: String,
    /// Of each group: a share below 1, or a number of Machines.
    pub max_unavailable: f64,
    /// Seconds that one Machine may take to start and pass its checks.
    pub wait_timeout_secs: u64,
    /// Two Machines for a group with services, a standby for one without.
    pub ha: bool,
    /// Put former versions back when it fails.
    pub rollback: bool,
    /// Wait for nothing but the API.
    pub detach: bool,
    /// Watch for an exit right after the start.
    pub smoke_checks: bool,
    /// Size of new Machines of groups without `[[vm]]`.
    pub guest: Option<Guest>,
}

/// A deployment: a release on its way, with what cannot be observed again (D4).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deployment {
    /// Its id; also the owner of its leases and of the claim.
    pub id: DeploymentId,
    /// The app.
    pub app: AppName,
    /// The release it carries out.
    pub release: ReleaseId,
    /// That release's number.
    pub version: u64,
    /// How far it is.
    pub status: DeploymentStatus,
    /// How.
    pub options: DeployOptions,
    /// Every Machine keeps its image and configuration and starts again with new secrets (4.14).
    #[serde(default)]
    pub restart_only: bool,
    /// What cannot be observed again; the planner's own, opaque to everybody else.
    #[serde(default)]
    pub progress: serde_json::Value,
    /// Who asked for it.
    pub user: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ended.
    #[serde(default)]
    pub finished_at: Option<Timestamp>,
    /// Why it failed, in words.
    #[serde(default)]
    pub error: Option<String>,
    /// The last 200 events, oldest first.
    #[serde(default)]
    pub events: Vec<DeployEvent>,
    /// Where in the events of the whole deployment the list begins.
    #[serde(default)]
    pub events_from: u64,
}

/// How far a deployment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeploymentStatus {
    /// Being carried out.
    Running,
    /// Failed; former versions are being put back.
    RollingBack,
    /// Done.
    Complete,
    /// Failed; the fleet is as before.
    RolledBack,
    /// Failed; the fleet was left as it is.
    Failed,
}

impl DeploymentStatus {
    /// Returns whether nothing more will happen.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Complete | Self::RolledBack | Self::Failed)
    }
}

/// Something worth telling about a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployEvent {
    /// When.
    pub at: Timestamp,
    /// The sentence to show.
    pub message: String,
    /// The Machine it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineId>,
    /// The group it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupName>,
    /// `info`, `warning` or `error`.
    #[serde(default)]
    pub level: String,
}

/// What a deployment would do: the answer to `dry_run`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployPreview {
    /// One sentence a step, in order.
    pub steps: Vec<String>,
}

// === impl DeployOptions ===

impl Default for DeployOptions {
    fn default() -> Self {
        Self {
            strategy: "rolling".to_owned(),
            max_unavailable: 0.33,
            wait_timeout_secs: 300,
            ha: true,
            rollback: true,
            detach: false,
            smoke_checks: true,
            guest: None,
        }
    }
}
