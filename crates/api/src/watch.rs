//! What happens in an app, as it happens: the data of `GET /v1/apps/{app}/events`.
//!
//! Each is one server-sent event, whose `event` field says which of these its `data` is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::deployment::DeploymentStatus;
use crate::event::MachineEvent;
use crate::id::{AppName, DeploymentId, GroupName, InstanceId, MachineId, Region, ReleaseId};
use crate::image::ImageRef;
use crate::machine::MachineState;
use crate::release::ReleaseStatus;

/// `ready`: the stream has begun; what happens from here on comes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ready {
    /// The app.
    pub app: AppName,
}

/// `machine`: something happened to a Machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MachineNews {
    /// The app.
    pub app: AppName,
    /// The Machine.
    pub machine: MachineId,
    /// Its name.
    pub name: String,
    /// Its process group.
    pub group: GroupName,
    /// Its region.
    pub region: Region,
    /// The version that it had.
    pub instance_id: InstanceId,
    /// The state after the last thing that happened to it.
    pub state: MachineState,
    /// What happened. Its id tells whether it came before: after a restart of the server an event
    /// may come twice.
    pub event: MachineEvent,
}

/// `release`: a release was made, or its status changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReleaseNews {
    /// The app.
    pub app: AppName,
    /// The release.
    pub id: ReleaseId,
    /// Its number.
    pub version: u64,
    /// Its status.
    pub status: ReleaseStatus,
    /// What it was made by.
    pub description: String,
    /// Who made it.
    pub user: String,
    /// When it was made.
    #[schemars(with = "crate::schema::Time")]
    pub created_at: Timestamp,
    /// Its image.
    pub image_ref: ImageRef,
}

/// `deployment`: a deployment began, or its status changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeploymentNews {
    /// The app.
    pub app: AppName,
    /// The deployment; its own events are at `.../deployments/{id}/events`.
    pub id: DeploymentId,
    /// The number of its release.
    pub version: u64,
    /// Its status.
    pub status: DeploymentStatus,
    /// Who asked for it.
    pub user: String,
    /// When it was made.
    #[schemars(with = "crate::schema::Time")]
    pub created_at: Timestamp,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// `lagged` and `gone`: the stream ends here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct End {
    /// Why, and what to do.
    pub message: String,
}
