//! What may be asked of an endpoint beside its path: the names of a query, which may as well stand
//! in a JSON body (machines-api.md 2). One struct an endpoint.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::{EventId, InstanceId};
use crate::lenient;

/// Most rows of a page of Machines or volumes.
pub const MAX_PAGE: usize = 1000;
/// Most rows of a page of apps.
pub const MAX_APP_PAGE: usize = 5000;

/// `GET /v1/apps`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ListApps {
    /// Only apps of this organisation.
    #[serde(deserialize_with = "lenient::text")]
    pub org_slug: Option<String>,
    /// Only apps of this role; there are none with one.
    #[serde(deserialize_with = "lenient::text")]
    pub app_role: Option<String>,
    /// Rows of a page, 1 to 5000; absent gives all.
    #[serde(deserialize_with = "lenient::number")]
    pub limit: Option<usize>,
    /// Where the page begins: `next_cursor` of the one before.
    #[serde(deserialize_with = "lenient::text")]
    pub cursor: Option<String>,
}

/// `DELETE /v1/apps/{app}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct DestroyApp {
    /// Also while its Machines run.
    #[serde(deserialize_with = "lenient::flag")]
    pub force: bool,
}

/// `GET .../machines`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ListMachines {
    /// Destroyed ones too.
    #[serde(deserialize_with = "lenient::flag")]
    pub include_deleted: bool,
    /// Only those of this region.
    #[serde(deserialize_with = "lenient::text")]
    pub region: Option<String>,
    /// Only those in one of these states; may be repeated.
    #[serde(deserialize_with = "lenient::words")]
    pub state: Vec<String>,
    /// Without config, checks, events, host_status and nonce.
    #[serde(deserialize_with = "lenient::flag")]
    pub summary: bool,
    /// With `lease`, where there is one.
    #[serde(deserialize_with = "lenient::flag")]
    pub include_leases: bool,
    /// Rows of a page, 1 to 1000; absent gives all.
    #[serde(deserialize_with = "lenient::number")]
    pub limit: Option<usize>,
    /// Where the page begins: the header `fly-next-cursor` of the one before.
    #[serde(deserialize_with = "lenient::text")]
    pub cursor: Option<String>,
    /// `metadata.KEY` with the value that it must have; all must be so.
    #[serde(flatten)]
    pub metadata: BTreeMap<String, Value>,
}

/// `GET .../machines/{machine}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ShowMachine {
    /// As it was in this version. One that gave way to another is in state `replaced`.
    #[serde(deserialize_with = "lenient::parsed")]
    pub version: Option<InstanceId>,
    /// With `lease`, where there is one.
    #[serde(deserialize_with = "lenient::flag")]
    pub include_leases: bool,
}

/// `DELETE .../machines/{machine}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct DestroyMachine {
    /// Also while it runs.
    #[serde(deserialize_with = "lenient::flag")]
    pub force: bool,
    /// The same, as flyctl says it.
    #[serde(deserialize_with = "lenient::flag")]
    pub kill: bool,
}

/// `POST .../stop`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct StopMachine {
    /// Instead of the configured signal: a name, with or without `SIG`, or a number.
    #[schemars(with = "Option<crate::schema::TextOrNumber>")]
    pub signal: Option<Value>,
    /// Instead of the configured time, at most 300 s: Go's text, a number of nanoseconds, or digits
    /// for seconds.
    #[schemars(with = "Option<crate::schema::TextOrNumber>")]
    pub timeout: Option<Value>,
}

/// `POST .../restart`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RestartMachine {
    /// Instead of the configured signal: a name, with or without `SIG`, or a number.
    #[schemars(with = "Option<crate::schema::TextOrNumber>")]
    pub signal: Option<Value>,
    /// Instead of the configured time, at most 300 s: Go's text or a number of seconds.
    #[schemars(with = "Option<crate::schema::TextOrNumber>")]
    pub timeout: Option<Value>,
    /// Kill it at once.
    #[serde(deserialize_with = "lenient::flag")]
    pub force_stop: bool,
}

/// `POST .../signal`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SignalMachine {
    /// A name, with or without `SIG`, or a number.
    #[schemars(with = "Option<crate::schema::TextOrNumber>")]
    pub signal: Option<Value>,
}

/// `PATCH` and `PUT .../metadata`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct MergeMetadata {
    /// Key to value; null and `""` remove the key.
    #[serde(deserialize_with = "lenient::text_map")]
    pub metadata: BTreeMap<String, Option<String>>,
    /// Refused unless the Machine has this version.
    #[serde(deserialize_with = "lenient::text")]
    pub machine_version: Option<String>,
    /// Refused when the Machine was changed after this moment.
    #[serde(deserialize_with = "lenient::parsed")]
    #[schemars(with = "Option<crate::schema::Time>")]
    pub updated_at: Option<crate::Timestamp>,
}

/// `POST` and `DELETE .../metadata/{key}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SetMetadata {
    /// The value; null and `""` remove the key.
    #[serde(deserialize_with = "lenient::text")]
    pub value: Option<String>,
    /// Refused unless the Machine has this version.
    #[serde(deserialize_with = "lenient::text")]
    pub machine_version: Option<String>,
    /// Refused when the Machine was changed after this moment.
    #[serde(deserialize_with = "lenient::parsed")]
    #[schemars(with = "Option<crate::schema::Time>")]
    pub updated_at: Option<crate::Timestamp>,
}

/// `GET .../wait`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct WaitMachine {
    /// The states of which one is waited for; `settled` is any at rest. Absent means `started`.
    #[serde(deserialize_with = "lenient::words")]
    pub state: Vec<String>,
    /// Seconds to wait, 1 to 60; absent means 60.
    #[serde(deserialize_with = "lenient::text")]
    pub timeout: Option<String>,
    /// Of this version alone.
    #[serde(deserialize_with = "lenient::parsed")]
    pub version: Option<InstanceId>,
    /// The same, as older clients say it.
    #[serde(deserialize_with = "lenient::parsed")]
    pub instance_id: Option<InstanceId>,
    /// Only what comes after this event counts.
    #[serde(deserialize_with = "lenient::parsed")]
    pub from_event_id: Option<EventId>,
}

/// `GET .../events`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ListEvents {
    /// How many, the newest; 20 when absent, at most 50.
    #[serde(deserialize_with = "lenient::number")]
    pub limit: Option<usize>,
}

/// `GET /v1/apps/{app}/events`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct WatchApp {
    /// Goes on behind the event of this id, as the header `Last-Event-ID` does.
    #[serde(deserialize_with = "lenient::text")]
    pub last_event_id: Option<String>,
}

/// `GET .../ps`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ListProcesses {
    /// One of the fields of a row; absent means `pid`.
    #[serde(deserialize_with = "lenient::text")]
    pub sort_by: Option<String>,
    /// `asc` (the default) or `desc`.
    #[serde(deserialize_with = "lenient::text")]
    pub order: Option<String>,
}

/// `GET .../volumes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ListVolumes {
    /// Without the figures of the file system.
    #[serde(deserialize_with = "lenient::flag")]
    pub summary: bool,
    /// Rows of a page, 1 to 1000; absent gives all.
    #[serde(deserialize_with = "lenient::number")]
    pub limit: Option<usize>,
    /// Where the page begins: the header `fly-next-cursor` of the one before.
    #[serde(deserialize_with = "lenient::text")]
    pub cursor: Option<String>,
}

/// `GET .../secrets` and `GET .../secrets/{name}`. Values are never shown, whatever
/// `show_secrets` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ListSecrets {
    /// Refused while the app's secrets have a lower version.
    #[serde(deserialize_with = "lenient::number")]
    pub min_version: Option<u64>,
    /// The same, as Go clients say it.
    #[serde(deserialize_with = "lenient::number")]
    pub version: Option<u64>,
}

/// `GET /v1/orgs/{slug}/machines` and `.../volumes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ListOfOrg {
    /// Destroyed ones too.
    #[serde(deserialize_with = "lenient::flag")]
    pub include_deleted: bool,
    /// Only those of this region.
    #[serde(deserialize_with = "lenient::text")]
    pub region: Option<String>,
    /// Only those in one of these states.
    #[serde(deserialize_with = "lenient::words")]
    pub state: Vec<String>,
    /// Without config.
    #[serde(deserialize_with = "lenient::flag")]
    pub summary: bool,
    /// Only what changed after this moment.
    #[serde(deserialize_with = "lenient::parsed")]
    #[schemars(with = "Option<crate::schema::Time>")]
    pub updated_after: Option<crate::Timestamp>,
    /// Where the page begins: `next_cursor` of the one before. Stronger than `updated_after`.
    #[serde(deserialize_with = "lenient::text")]
    pub cursor: Option<String>,
    /// Rows of a page, 1 to 1000; absent means 1000.
    #[serde(deserialize_with = "lenient::number")]
    pub limit: Option<usize>,
}

// === impl ListMachines ===

impl ListMachines {
    /// Returns whether a Machine has the metadata that is asked for.
    #[must_use]
    pub fn has_metadata(&self, metadata: &BTreeMap<String, String>) -> bool {
        let wanted = self.metadata.iter().filter_map(|(name, value)| {
            let key = name.strip_prefix("metadata.")?;
            Some((key, value))
        });
        let is = |has: Option<&String>, value: &Value| match value {
            Value::String(text) => has.is_some_and(|has| has == text),
            // The same key twice: it cannot have both.
            Value::Array(all) => all.iter().all(|one| has.is_some_and(|has| one == has)),
            _ => false,
        };
        wanted
            .into_iter()
            .all(|(key, value)| is(metadata.get(key), value))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn metadata_filters_must_all_be_met() {
        let has = |query: Value| {
            let query: ListMachines = serde_json::from_value(query).unwrap();
            query.has_metadata(&BTreeMap::from([
                ("role".to_owned(), "db".to_owned()),
                ("zone".to_owned(), "a".to_owned()),
            ]))
        };
        assert!(has(json!({"region": "iad"})));
        assert!(has(json!({"metadata.role": "db"})));
        assert!(has(json!({"metadata.role": "db", "metadata.zone": "a"})));
        assert!(!has(json!({"metadata.role": "db", "metadata.zone": "b"})));
        assert!(!has(json!({"metadata.role": ["db", "web"]})));
        assert!(!has(json!({"metadata.other": ""})));
    }
}
