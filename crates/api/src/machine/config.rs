//! `MachineConfig`: the program, its surroundings and its rules (machines-api.md 4.2).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_json::{Map, Value};

use super::guest::Guest;
use super::sent::{self, Sent};
use super::service::Service;
use crate::check::CheckConfig;
use crate::duration::GoDuration;
use crate::id::GroupName;
use crate::lenient::nullable;

/// Metadata key of the process group.
pub const PROCESS_GROUP: &str = "fly_process_group";
/// Metadata key of the process group in earlier times.
const LEGACY_GROUP: &str = "process_group";
/// Metadata key that makes a Machine managed, with value `v2`.
pub const PLATFORM_VERSION: &str = "fly_platform_version";
/// Metadata key of the release.
pub const RELEASE_ID: &str = "fly_release_id";
/// Metadata key of the release's version.
pub const RELEASE_VERSION: &str = "fly_release_version";
/// Metadata key of the client's version.
pub const CLIENT_VERSION: &str = "fly_flyctl_version";
/// Group of the release-command Machine.
pub const GROUP_RELEASE_COMMAND: &str = "fly_app_release_command";
/// Group of test Machines.
pub const GROUP_TEST: &str = "fly_app_test_machine_command";
/// Most memory, in MB, of a Machine that can be suspended.
pub const MAX_SUSPEND_MB: u64 = 2048;
/// Group of console Machines.
pub const GROUP_CONSOLE: &str = "fly_app_console";

/// The configuration of a Machine. What Hangar does not act on is kept in `other` and echoed; so is
/// how the rest was written ([`Sent`]).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(remote = "Self")]
pub struct MachineConfig {
    /// The image's name; required to create.
    #[serde(default, deserialize_with = "nullable")]
    pub image: String,
    /// Environment.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub env: BTreeMap<String, String>,
    /// What to run.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Init::is_empty"
    )]
    pub init: Init,
    /// Its size. Always present in answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<Guest>,
    /// A preset's name instead of `guest` (deprecated).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// Text to text; `fly_process_group` and friends.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub metadata: BTreeMap<String, String>,
    /// What the proxy serves.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub services: Vec<Service>,
    /// Machine-level checks by name.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub checks: BTreeMap<String, CheckConfig>,
    /// What happens after an exit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restart>,
    /// How it is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_config: Option<StopConfig>,
    /// Destroys itself after an exit that is not restarted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub auto_destroy: bool,
    /// DNS options.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsConfig>,
    /// Machines whose loss starts this one.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub standbys: Vec<String>,
    /// Files written before the start.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub files: Vec<File>,
    /// The volume, where it has one.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub mounts: Vec<Mount>,
    /// Everything else, as sent.
    #[serde(flatten)]
    pub other: Map<String, Value>,
    /// How it was sent, where that says more than the rest.
    #[serde(skip)]
    pub sent: Sent,
}

/// A volume and where it is seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Mount {
    /// The volume's id, or its name where a Machine is created.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub volume: String,
    /// Absolute path inside.
    #[serde(default, deserialize_with = "nullable")]
    pub path: String,
    /// The volume's name; filled in by the server.
    #[serde(
        default,
        deserialize_with = "nullable",
        skip_serializing_if = "String::is_empty"
    )]
    pub name: String,
    /// The volume's size in GB; filled in by the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_gb: Option<u64>,
    /// Whether the volume is encrypted; filled in by the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted: Option<bool>,
    /// Extend the volume when it is so full, 50 to 99.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extend_threshold_percent: Option<u64>,
    /// By so much, 1 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add_size_gb: Option<u64>,
    /// To no more than this, 1 to 500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_gb_limit: Option<u64>,
    /// Everything else, as sent.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// `init`: overrides of the image's command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Init {
    /// Beats entrypoint and cmd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<Vec<String>>,
    /// Instead of the image's ENTRYPOINT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Instead of the image's CMD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// A terminal on its standard streams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tty: Option<bool>,
    /// Everything else, as sent.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// `restart` (machines-api.md 7.1).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Restart {
    /// `no`, `on-failure` or `always`; absent means on-failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// For on-failure: restarts within five minutes; absent means 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_retries: Option<u32>,
    /// Everything else, as sent.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// `stop_config`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StopConfig {
    /// Default SIGINT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// Default 5 s, at most 300 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<GoDuration>,
}

/// `dns`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DnsConfig {
    /// Keep out of `.internal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip_registration: Option<bool>,
    /// Everything else, as sent.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A file written into the Machine before it starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct File {
    /// Absolute path.
    pub guest_path: String,
    /// Content, base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_value: Option<String>,
    /// A secret whose value is the base64 content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
    /// Permission bits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
}

/// What the restart policy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Never again.
    No,
    /// After a failure, so many times within five minutes.
    OnFailure {
        /// The limit.
        max_retries: u32,
    },
    /// Whatever the code.
    Always,
}

// === impl MachineConfig ===

impl Serialize for MachineConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.sent.is_empty() {
            return Self::serialize(self, serializer);
        }
        let plain = self.plain().map_err(ser::Error::custom)?;
        self.sent.put_back(plain).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for MachineConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let given = sent::tidied(Value::deserialize(deserializer)?);
        let read = Self::deserialize(sent::without_nulls(&given));
        let mut config = read.map_err(de::Error::custom)?;
        let plain = config.plain().map_err(de::Error::custom)?;
        config.sent = Sent::between(&given, &plain);
        Ok(config)
    }
}

impl MachineConfig {
    /// Returns its JSON without regard to how it was sent.
    pub fn plain(&self) -> Result<Value, serde_json::Error> {
        Self::serialize(self, serde_json::value::Serializer)
    }

    /// Returns the process group: `fly_process_group`, else legacy `process_group`, else "".
    #[must_use]
    pub fn process_group(&self) -> &str {
        let get = |key| {
            self.metadata
                .get(key)
                .map(String::as_str)
                .filter(|v| !v.is_empty())
        };
        get(PROCESS_GROUP)
            .or_else(|| get(LEGACY_GROUP))
            .unwrap_or("")
    }

    /// Returns the process group as a name, `app` where there is none.
    #[must_use]
    pub fn group_or_app(&self) -> GroupName {
        GroupName::new(self.process_group())
            .ok()
            .filter(|g| !g.as_str().is_empty())
            .unwrap_or_else(GroupName::app)
    }

    /// Returns whether deploy, scale and status look at it (process-groups-and-deploy.md 3.3),
    /// leaving its state aside.
    #[must_use]
    pub fn is_managed(&self) -> bool {
        let is = |key, value: &str| self.metadata.get(key).is_some_and(|v| v == value);
        is(PLATFORM_VERSION, "v2")
            && !is(LEGACY_GROUP, "release_command")
            && ![GROUP_RELEASE_COMMAND, GROUP_CONSOLE].contains(&self.process_group())
    }

    /// Returns the restart policy: on-failure with ten retries where none is given.
    #[must_use]
    pub fn restart_policy(&self) -> RestartPolicy {
        let restart = self.restart.clone().unwrap_or_default();
        match restart.policy.as_deref() {
            Some("no" | "never") => RestartPolicy::No,
            Some("always") => RestartPolicy::Always,
            _ => RestartPolicy::OnFailure {
                max_retries: restart.max_retries.unwrap_or(10),
            },
        }
    }

    /// Returns all service checks in order, each with its name and service port.
    #[must_use]
    pub fn service_checks(&self) -> Vec<(String, u16, &CheckConfig)> {
        let all = self
            .services
            .iter()
            .flat_map(|s| s.checks.iter().map(move |c| (s, c)));
        all.enumerate()
            .map(|(index, (service, check))| {
                let port = check.port.unwrap_or(service.internal_port);
                let kind = check.kind.as_deref().unwrap_or("tcp");
                (
                    crate::check::service_check_name(index, kind, port),
                    port,
                    check,
                )
            })
            .collect()
    }

    /// Returns whether it has any check, of a service or of its own.
    #[must_use]
    pub fn has_checks(&self) -> bool {
        !self.checks.is_empty() || self.services.iter().any(|s| !s.checks.is_empty())
    }

    /// Returns why it cannot be suspended, in words that fit after "unable to suspend machine: ",
    /// or `None` when it can (machines-api.md 5.4.9).
    #[must_use]
    pub fn no_suspend(&self) -> Option<String> {
        let guest = self.guest.clone().unwrap_or_default();
        let given = |map: &Map<String, Value>, key: &str| match map.get(key) {
            None | Some(Value::Null | Value::Bool(false)) => false,
            Some(Value::Number(number)) => number.as_f64() != Some(0.0),
            Some(Value::String(text)) => !text.is_empty(),
            Some(_) => true,
        };
        if guest.memory_mb > MAX_SUSPEND_MB {
            return Some(format!(
                "it has {} MB of memory, and at most {MAX_SUSPEND_MB} MB can be suspended",
                guest.memory_mb
            ));
        }
        if given(&self.init.other, "swap_size_mb") {
            return Some("it has swap (config.init.swap_size_mb)".to_owned());
        }
        if given(&self.other, "schedule") {
            return Some("it runs on a schedule".to_owned());
        }
        if given(&guest.other, "gpu_kind") || given(&guest.other, "gpus") {
            return Some("it has a GPU".to_owned());
        }
        None
    }

    /// Returns whether idle Machines of it are stopped: what the most careful of its services
    /// says, since all of them stop with it. Off without services.
    #[must_use]
    pub fn autostop(&self) -> super::service::Autostop {
        super::service::Autostop::of(&self.services)
    }

    /// Returns whether `.internal` names leave it out.
    #[must_use]
    pub fn skips_dns(&self) -> bool {
        self.dns
            .as_ref()
            .and_then(|dns| dns.skip_registration)
            .unwrap_or(false)
    }
}

impl Init {
    /// Returns whether nothing is overridden.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(metadata: &[(&str, &str)]) -> MachineConfig {
        let pairs = metadata
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        MachineConfig {
            metadata: pairs.collect(),
            ..MachineConfig::default()
        }
    }

    #[test]
    fn the_group_is_the_newer_key_before_the_older_one() {
        let both = with(&[("fly_process_group", "web"), ("process_group", "old")]);
        assert_eq!(both.process_group(), "web");
        assert_eq!(with(&[("process_group", "old")]).process_group(), "old");
        assert_eq!(with(&[]).process_group(), "");
        assert_eq!(with(&[]).group_or_app().as_str(), "app");
    }

    #[test]
    fn what_runs_once_or_was_made_by_hand_is_not_managed() {
        let v2 = ("fly_platform_version", "v2");
        assert!(with(&[v2, ("fly_process_group", "web")]).is_managed());
        assert!(!with(&[("fly_process_group", "web")]).is_managed());
        for group in ["fly_app_release_command", "fly_app_console"] {
            assert!(
                !with(&[v2, ("fly_process_group", group)]).is_managed(),
                "{group}"
            );
        }
        assert!(!with(&[v2, ("process_group", "release_command")]).is_managed());
        // One left behind counts as a Machine of a group that there is not.
        let test = [v2, ("fly_process_group", "fly_app_test_machine_command")];
        assert!(with(&test).is_managed());
    }
}
