//! What a deployment would do, field by field: what `plan` shows.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::{GroupName, MachineId, Region};

/// What a deployment would do to one process group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GroupPreview {
    /// The group.
    pub group: GroupName,
    /// Its Machines, new ones last.
    pub machines: Vec<MachinePreview>,
}

/// What a deployment would do to one Machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MachinePreview {
    /// The Machine; absent for one that is to be created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineId>,
    /// Where it is, or will be.
    pub region: Region,
    /// What happens to it.
    pub action: PreviewAction,
    /// Why, in words.
    pub why: String,
    /// What becomes different, by field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<FieldChange>,
}

/// What happens to a Machine.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum PreviewAction {
    /// Nothing about it changes; a deploy starts it again with the number of its release.
    Keep,
    /// It is created.
    Create,
    /// It is changed in place.
    Change,
    /// Another one takes its place.
    Replace,
    /// It is destroyed.
    Destroy,
}

/// A field that becomes different.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FieldChange {
    /// The field, such as `env.MODE` or `services[0].internal_port`.
    pub field: String,
    /// Its value now; absent where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Value>,
    /// Its value then; absent where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Value>,
}
