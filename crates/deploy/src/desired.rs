//! What a deployment wants: the release's groups, and how far it may go to get there.
//!
//! Made by the server from a `Release` and a `Deployment`; read by the planner.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use hangar_api::deployment::DeployOptions;
use hangar_api::id::{DeploymentId, GroupName, Region, ReleaseId};
use hangar_api::image::ImageRef;
use hangar_api::machine::config::{GROUP_RELEASE_COMMAND, GROUP_TEST};
use hangar_api::release::{GroupSpec, Release, ReleaseCommand};

use crate::merge::Mark;

/// The ordinal of a group's canary. A group's own new Machines have ordinals from 0, and an app
/// has at most 10,000 Machines.
pub(crate) const CANARY: u32 = 1_000_000;
/// The ordinal of a group's first green Machine.
pub(crate) const GREEN: u32 = 2_000_000;

/// What a deployment wants.
#[derive(Clone, Debug)]
pub struct Desired {
    /// The deployment, part of each launch key.
    pub deployment: DeploymentId,
    /// The release it carries out.
    pub release: ReleaseId,
    /// The release's number.
    pub version: u64,
    /// The image of all Machines (not used by [`Kind::RestartOnly`]).
    pub image_ref: ImageRef,
    /// The version of the app's secrets to start with.
    pub secrets_version: u64,
    /// What each group should be (not used by [`Kind::RestartOnly`]).
    pub groups: BTreeMap<GroupName, GroupSpec>,
    /// What runs once before any Machine is touched (not used by [`Kind::RestartOnly`]).
    pub release_command: Option<ReleaseCommand>,
    /// Where new Machines go.
    pub region: Region,
    /// How much of it is to be done.
    pub kind: Kind,
}

/// How much of a release a deployment carries out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Groups, image, configuration and secrets.
    Full,
    /// Every Machine keeps its image and configuration and starts again with the release's
    /// secrets (process-groups-and-deploy.md 4.14).
    RestartOnly,
}

/// What tells one created Machine of a deployment from all others. The store keeps it unique,
/// also after the Machine is gone, so that a step done twice makes one Machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LaunchKey {
    /// The deployment that creates it.
    pub deployment: DeploymentId,
    /// Its group.
    pub group: GroupName,
    /// Its number among the deployment's new Machines of the group, from 0.
    pub ordinal: u32,
}

/// Returns the group of Machines that name none: `app` where there is such a group, else the
/// first by name.
pub(crate) fn default_group(groups: &BTreeMap<GroupName, GroupSpec>) -> GroupName {
    let app = GroupName::app();
    if groups.contains_key(&app) {
        return app;
    }
    groups.keys().next().cloned().unwrap_or(app)
}

// === impl Desired ===

impl Desired {
    /// Returns what a deployment of this release wants, with new Machines in `region`.
    #[must_use]
    pub fn new(release: &Release, deployment: DeploymentId, region: Region, kind: Kind) -> Self {
        Self {
            deployment,
            release: release.id.clone(),
            version: release.version,
            image_ref: release.image_ref.clone(),
            secrets_version: release.secrets_version,
            groups: release.groups.clone(),
            release_command: release.release_command.clone(),
            region,
            kind,
        }
    }

    /// Returns the group of Machines that name none: `app` where there is such a group, else the
    /// first by name.
    #[must_use]
    pub fn default_group(&self) -> GroupName {
        default_group(&self.groups)
    }

    /// Returns the groups that the deployment is about: all, or those that its filter names.
    pub(crate) fn chosen<'a>(
        &'a self,
        options: &'a DeployOptions,
    ) -> impl Iterator<Item = (&'a GroupName, &'a GroupSpec)> {
        let only = &options.filters.process_groups;
        let all = self.groups.iter();
        all.filter(move |(group, _)| only.is_empty() || only.contains(group))
    }

    pub(crate) fn mark(&self) -> Mark<'_> {
        Mark {
            release: &self.release,
            version: self.version,
        }
    }

    pub(crate) fn launch_key(&self, group: &GroupName, ordinal: u32) -> LaunchKey {
        LaunchKey {
            deployment: self.deployment.clone(),
            group: group.clone(),
            ordinal,
        }
    }
}

// === impl LaunchKey ===

impl LaunchKey {
    /// Returns whether it is of a Machine that the deployment makes only to get to its end, or
    /// that is to take over from another: canary, green, release command, test.
    pub(crate) fn is_extra(&self) -> bool {
        self.ordinal >= CANARY || [GROUP_RELEASE_COMMAND, GROUP_TEST].contains(&self.group.as_str())
    }
}

impl std::fmt::Display for LaunchKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.deployment, self.group, self.ordinal)
    }
}
