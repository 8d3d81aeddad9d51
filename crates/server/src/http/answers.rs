//! Answers that handlers put together by hand, as the document shows them.

use std::borrow::Cow;

use hangar_api::id::{EventId, InstanceId};
use hangar_api::lease::Lease;
use hangar_api::machine::{Machine, MachineState};
use hangar_api::region::Slot;
use hangar_api::volume::Volume;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde_json::{Value, json};

use super::{machines, volumes};

/// It was done.
#[derive(Serialize, JsonSchema)]
pub(super) struct Done {
    /// Always true.
    ok: bool,
}

/// A start was asked for.
#[derive(Serialize, JsonSchema)]
pub(super) struct Started {
    /// The state before.
    previous_state: MachineState,
    /// Always false: Machines are not moved.
    migrated: bool,
    /// Always "".
    new_host: String,
}

/// A wait is over.
#[derive(Serialize, JsonSchema)]
pub(super) struct Waited {
    /// Always true.
    ok: bool,
    /// The state that was reached.
    state: MachineState,
    /// The version that reached it; absent once the Machine's records have gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<InstanceId>,
    /// The event by which it did, where one is kept.
    #[serde(default)]
    event_id: Option<EventId>,
}

/// A lease in its envelope.
#[derive(Serialize, JsonSchema)]
pub(super) struct Leased {
    /// Always `success`.
    status: String,
    /// It.
    data: Lease,
}

/// A lease was given up.
#[derive(Serialize, JsonSchema)]
pub(super) struct LeaseReleased {
    /// Always `success`.
    status: String,
    /// `{"ok": true}`.
    data: Done,
}

/// What Machines are placed on.
#[derive(Serialize, JsonSchema)]
pub(super) struct Slots {
    /// All of them.
    slots: Vec<Slot>,
}

/// A secret was set.
#[derive(Serialize, JsonSchema)]
pub(super) struct SecretSet {
    /// It, without its value.
    #[serde(flatten)]
    secret: hangar_api::secret::Secret,
    /// The version of the app's secrets.
    #[serde(flatten)]
    version: SecretsVersion,
}

/// The version of an app's secrets.
#[derive(Serialize, JsonSchema)]
pub(super) struct SecretsVersion {
    /// The version.
    version: u64,
    /// The same, as Go clients read it.
    #[serde(rename = "Version")]
    same: u64,
}

/// The value of one key.
#[derive(Serialize, JsonSchema)]
pub(super) struct MetadataValue {
    /// It.
    value: String,
}

/// A deploy token.
#[derive(Serialize, JsonSchema)]
pub(super) struct DeployTokenMade {
    /// With its scheme, to be put into an `Authorization` header as it is.
    token: String,
}

/// A token that is good.
#[derive(Serialize, JsonSchema)]
pub(super) struct Verified {
    /// What limits it.
    caveats: Vec<hangar_api::rights::Caveat>,
    /// The token.
    header: String,
    /// Base64 of it.
    permission_token: String,
}

/// An access that a token allows.
#[derive(Serialize, JsonSchema)]
pub(super) struct Authorized {
    /// The access, with numbers in place of names.
    access: Value,
    /// The token that allows it.
    verified_token: Verified,
}

/// A row of a list of Machines.
pub(super) struct MachineRow;

/// A row of a list of volumes.
pub(super) struct VolumeRow;

/// Returns the schema of a row: what a summary leaves out may be absent.
fn row_of<T: JsonSchema>(generator: &mut SchemaGenerator, optional: &[&str]) -> Schema {
    let mut schema = T::json_schema(generator);
    if let Some(Value::Array(required)) = schema.get_mut("required") {
        required.retain(|name| !optional.iter().any(|left_out| *name == json!(left_out)));
    }
    schema
}

impl JsonSchema for MachineRow {
    fn schema_name() -> Cow<'static, str> {
        "MachineRow".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        row_of::<Machine>(generator, &machines::NOT_IN_SUMMARY)
    }
}

impl JsonSchema for VolumeRow {
    fn schema_name() -> Cow<'static, str> {
        "VolumeRow".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        row_of::<Volume>(generator, &volumes::NOT_IN_SUMMARY)
    }
}
