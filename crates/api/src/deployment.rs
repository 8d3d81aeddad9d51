//! Deployments: a release being carried out by the server (D1).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::id::{AppName, DeploymentId, GroupName, MachineId, Region, ReleaseId};
use crate::machine::Guest;
use crate::release::{GroupSpec, ReleaseCommand};

/// Body of `POST /v1/apps/{app}/deployments`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one a request, and nearly all are the large one"
)]
pub enum DeploymentSource {
    /// A configuration that the client has read from fly.toml.
    Config {
        /// One per process group, made by `config`; `image` in them is the name below.
        groups: BTreeMap<GroupName, GroupSpec>,
        /// What runs once before any Machine is touched.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        release_command: Option<ReleaseCommand>,
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

impl DeploymentSource {
    /// Returns the names of all images that it would run, an empty one for "yet to be built".
    pub fn images(&self) -> impl Iterator<Item = &str> {
        let (groups, command, image) = match self {
            Self::Config {
                groups,
                release_command,
                image,
                ..
            } => (Some(groups), release_command.as_ref(), Some(image)),
            Self::Release { .. } | Self::Restart { .. } => (None, None, None),
        };
        let groups = groups.into_iter().flat_map(BTreeMap::values);
        let of_groups = groups.flat_map(|group| {
            let tests = group.test_machines.iter();
            std::iter::once(&group.config.image).chain(tests.map(|test| &test.config.image))
        });
        let of_command = command.map(|command| &command.config.image);
        of_groups.chain(of_command).chain(image).map(String::as_str)
    }
}

/// How to deploy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct DeployOptions {
    /// How Machines are replaced.
    pub strategy: Strategy,
    /// Of each group: a share below 1, or a number of Machines.
    pub max_unavailable: f64,
    /// How many Machines `immediate` updates, and `bluegreen` creates, at a time; at least 1.
    pub max_concurrent: u32,
    /// Seconds that one Machine may take to start and pass its checks; 0 for as long as it takes.
    pub wait_timeout_secs: u64,
    /// Seconds that its leases last, which it renews while it runs; see [`LEASE_TIMEOUTS`].
    ///
    /// [`LEASE_TIMEOUTS`]: DeployOptions::LEASE_TIMEOUTS
    pub lease_timeout_secs: u64,
    /// Two Machines for a group with services, a standby for one without.
    pub ha: bool,
    /// Create no Machines for groups that have none.
    pub update_only: bool,
    /// Which Machines are deployed to.
    pub filters: DeployFilters,
    /// Leave the release command out.
    pub skip_release_command: bool,
    /// What `bluegreen` stops former Machines with, instead of each one's own signal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// Put former versions back when it fails.
    pub rollback: bool,
    /// How often the update of a Machine is tried again that its host could not do, or after which
    /// it did not come up, before that fails the deployment; a second apart.
    pub deploy_retries: u32,
    /// Wait for nothing but the API.
    pub detach: bool,
    /// Watch for an exit right after the start.
    pub smoke_checks: bool,
    /// Size of new Machines of groups without `[[vm]]`.
    pub guest: Option<Guest>,
    /// Size in GB of the volumes that a first deploy makes where fly.toml says none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_initial_size_gb: Option<u64>,
    /// Replace Machines whose group has no mount any more by such without a volume.
    pub detach_volumes: bool,
}

/// How Machines are replaced (process-groups-and-deploy.md 4.10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// In each group the first alone, then a few at a time; a failure puts former versions back.
    #[default]
    Rolling,
    /// All at once. Nothing is waited for and nothing is put back.
    Immediate,
    /// One new Machine a group has to pass first and is removed again; then as `rolling`.
    Canary,
    /// New Machines beside all former ones; they take over together once all are healthy.
    Bluegreen,
}

/// Which Machines a deployment looks at (4.4). An empty list lets all through.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct DeployFilters {
    /// Only these groups; all others are neither updated, created nor removed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub process_groups: Vec<GroupName>,
    /// Only Machines in these regions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub only_regions: Vec<Region>,
    /// No Machines in these regions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude_regions: Vec<Region>,
    /// Only these Machines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub only_machines: Vec<MachineId>,
    /// None of these Machines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude_machines: Vec<MachineId>,
}

/// A deployment: a release on its way, with what cannot be observed again (D4).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    #[schemars(with = "crate::schema::Time")]
    pub created_at: Timestamp,
    /// When it ended.
    #[serde(default)]
    #[schemars(with = "Option<crate::schema::Time>")]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeployEvent {
    /// When.
    #[schemars(with = "crate::schema::Time")]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeployPreview {
    /// One sentence a step, in order.
    pub steps: Vec<String>,
    /// The same by group and Machine, with what becomes different.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<crate::preview::GroupPreview>,
}

// === impl DeployOptions ===

impl DeployOptions {
    /// How long the leases of a deployment may last, in seconds: long enough to be renewed in time,
    /// and no longer than a lease may be.
    pub const LEASE_TIMEOUTS: std::ops::RangeInclusive<u64> = 5..=24 * 3600;
}

impl Default for DeployOptions {
    fn default() -> Self {
        Self {
            strategy: Strategy::Rolling,
            max_unavailable: 0.33,
            max_concurrent: 8,
            wait_timeout_secs: 300,
            lease_timeout_secs: 60,
            ha: true,
            update_only: false,
            filters: DeployFilters::default(),
            skip_release_command: false,
            signal: None,
            rollback: true,
            deploy_retries: 0,
            detach: false,
            smoke_checks: true,
            guest: None,
            volume_initial_size_gb: None,
            detach_volumes: false,
        }
    }
}

// === impl Strategy ===

impl Strategy {
    /// All strategies, by their names in fly.toml.
    pub const NAMES: &'static str = "rolling, immediate, canary and bluegreen";

    /// Returns its name in fly.toml.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rolling => "rolling",
            Self::Immediate => "immediate",
            Self::Canary => "canary",
            Self::Bluegreen => "bluegreen",
        }
    }
}

impl std::fmt::Display for Strategy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for Strategy {
    type Err = String;

    /// Reads a strategy's name; the error says which there are.
    fn from_str(text: &str) -> Result<Self, String> {
        let all = [
            Self::Rolling,
            Self::Immediate,
            Self::Canary,
            Self::Bluegreen,
        ];
        let found = all.into_iter().find(|s| s.as_str() == text);
        found.ok_or_else(|| {
            format!(
                "unsupported deployment strategy '{text}'; there are {}",
                Self::NAMES
            )
        })
    }
}
