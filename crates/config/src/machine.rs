//! The Machine configurations of an app: one per process group, and those of its helpers
//! (process-groups-and-deploy.md 2.2, 2.3, 4.8, 4.12).
//!
//! Made as JSON, exactly as Fly's client makes it, and only then read as Hangar's own type: what
//! that type cannot hold is told for the group.

mod guest;
mod helpers;
mod overlay;
mod parts;

pub(crate) use parts::{checked, expand, proxied};

use std::collections::BTreeMap;

use base64::Engine;
use hangar_api::id::GroupName;
use hangar_api::machine::MachineConfig;
use hangar_api::machine::config::{CLIENT_VERSION, File, PLATFORM_VERSION, PROCESS_GROUP};
use hangar_api::release::GroupSpec;
use serde_json::{Map, Value as Json, json};

use crate::app::AppConfig;
use crate::words;

/// What the caller has found out beside the file.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// The image's name, put into each configuration.
    pub image: String,
    /// The version of the client, put into the metadata; empty leaves it out.
    pub client_version: String,
    /// Contents of [`AppConfig::needed_files`] by path.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Files of this deploy, in place of those of `[[files]]` at the same path; one without
    /// content removes it.
    pub more_files: Vec<File>,
    /// Variables laid over `[env]` for this deploy.
    pub env: BTreeMap<String, String>,
}

/// Why there is no configuration for a group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MachineError {
    /// A command cannot be split.
    #[error("could not parse command for {group} process group: {source}")]
    Command {
        /// The group.
        group: String,
        /// Why.
        source: words::SplitError,
    },
    /// A check of another type.
    #[error("Missing or invalid check type, must be 'http' or 'tcp'")]
    CheckType {
        /// The check.
        check: String,
    },
    /// A check without a port.
    #[error(
        "Check '{check}' for process group '{group}' has no port set and the group has no http_service to take it from"
    )]
    CheckPort {
        /// The check.
        check: String,
        /// The group.
        group: String,
    },
    /// A restart policy that there is not.
    #[error("invalid restart policy: {policy}")]
    Restart {
        /// What is written.
        policy: String,
        /// Which item of `[[restart]]`.
        index: usize,
    },
    /// A size that is not offered.
    #[error("size of process group '{group}': {reason}")]
    Size {
        /// The group.
        group: String,
        /// Why.
        reason: String,
    },
    /// A file beside fly.toml that the caller did not read.
    #[error("file {path} for {guest_path} in the Machine cannot be read")]
    File {
        /// Its path.
        path: String,
        /// Where it should go.
        guest_path: String,
    },
    /// A test Machine without a command.
    #[error("missing command for test machine: add a command to {section}")]
    TestCommand {
        /// The list in fly.toml that it is in.
        section: String,
    },
    /// `machine_config` or a Compose file cannot be used.
    #[error("{0}")]
    Overlay(String),
    /// What Fly's client would send and no Machine can be.
    #[error("process group '{group}' cannot become a Machine: {reason}")]
    Impossible {
        /// The group.
        group: String,
        /// Why.
        reason: String,
    },
    /// The group's name cannot be one.
    #[error(transparent)]
    Name(#[from] hangar_api::id::InvalidId),
}

impl AppConfig {
    /// Returns what each process group should be.
    pub fn machine_configs(
        &self,
        inputs: &Inputs,
    ) -> Result<BTreeMap<GroupName, GroupSpec>, MachineError> {
        let mut specs = BTreeMap::new();
        for group in self.groups() {
            specs.insert(GroupName::new(group)?, self.group_spec(group, inputs)?);
        }
        Ok(specs)
    }

    /// Returns what one group should be.
    pub fn group_spec(&self, group: &str, inputs: &Inputs) -> Result<GroupSpec, MachineError> {
        let json = self.machine_json(group, inputs)?;
        let config = typed(group, json)?;
        if config.other.contains_key("containers") {
            let message =
                "several containers in one Machine are not there yet: make process groups of them";
            return Err(MachineError::Overlay(message.to_owned()));
        }
        if let Some(guest) = &config.guest {
            guest.validate().map_err(|e| MachineError::Size {
                group: group.to_owned(),
                reason: e.to_string(),
            })?;
        }
        let sets_guest = config.guest.is_some();
        Ok(GroupSpec {
            config,
            sets_guest,
            test_machines: self.test_machines(group, inputs)?,
            volumes: self.first_volumes(group),
        })
    }

    /// Returns a group's Machine configuration as Fly's client makes it from nothing.
    pub fn machine_json(&self, group: &str, inputs: &Inputs) -> Result<Json, MachineError> {
        let mut config = self.overlay(inputs)?;
        let mut init = match config.remove("init") {
            Some(Json::Object(init)) => init,
            _ => Map::new(),
        };
        for key in parts::MANAGED_INIT {
            init.remove(key);
        }
        init.extend(self.init(group)?);
        set(&mut config, "init", Json::Object(init));
        set(&mut config, "env", self.environment(group, &[], inputs));
        let metadata = config.entry("metadata").or_insert_with(|| json!({}));
        if let Some(metadata) = metadata.as_object_mut() {
            metadata.extend(metadata_of(group, inputs));
        }
        set(&mut config, "services", self.services_of(group));
        set(&mut config, "checks", self.checks_of(group)?);
        set(&mut config, "statics", self.statics_of());
        set(&mut config, "mounts", self.mounts_of(group));
        set(&mut config, "metrics", self.metrics_of(group));
        set(&mut config, "restart", self.restart_of(group)?);
        set(&mut config, "stop_config", self.stop_config());
        set(&mut config, "files", self.files_of(inputs)?);
        if let Some(guest) = self.guest(group)? {
            set(&mut config, "guest", guest);
        }
        if !inputs.image.is_empty() {
            set(&mut config, "image", Json::from(inputs.image.as_str()));
        }
        Ok(Json::Object(config))
    }

    fn environment(&self, group: &str, more: &[(&str, &str)], inputs: &Inputs) -> Json {
        let mut env = self.env.clone();
        env.extend(inputs.env.clone());
        let own = more.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        env.extend(own);
        env.insert("FLY_PROCESS_GROUP".to_owned(), group.to_owned());
        if let Some(region) = &self.primary_region {
            env.insert("PRIMARY_REGION".to_owned(), region.clone());
        }
        json!(env)
    }

    /// Returns the files of every Machine: Fly ignores their groups.
    fn files_of(&self, inputs: &Inputs) -> Result<Json, MachineError> {
        let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
        let mut files: Vec<File> = Vec::new();
        for section in &self.files {
            let mut file = File {
                guest_path: section.guest_path.clone().unwrap_or_default(),
                ..File::default()
            };
            match (
                &section.local_path,
                &section.secret_name,
                &section.raw_value,
            ) {
                (Some(path), ..) => match inputs.files.get(path) {
                    Some(bytes) => file.raw_value = Some(encode(bytes)),
                    None => {
                        return Err(MachineError::File {
                            path: path.clone(),
                            guest_path: file.guest_path,
                        });
                    }
                },
                (None, Some(secret), _) => file.secret_name = Some(secret.clone()),
                (None, None, Some(text)) => file.raw_value = Some(encode(text.as_bytes())),
                (None, None, None) => {}
            }
            files.push(file);
        }
        let mut merged = Vec::new();
        for file in files.iter().chain(&inputs.more_files) {
            parts::merge_file(&mut merged, file);
        }
        Ok(json!(merged))
    }
}

/// Returns what would fail for some group, with the key that it is about: Fly only finds out in
/// the deploy. Files beside fly.toml are not looked at.
pub(crate) fn faults(config: &AppConfig) -> Vec<(String, String)> {
    let mut faults = Vec::new();
    let needed = config.needed_files().into_iter();
    let inputs = Inputs {
        files: needed.map(|p| (p.to_owned(), b"{}".to_vec())).collect(),
        ..Inputs::default()
    };
    for group in config.groups() {
        let Err(error) = config.group_spec(group, &inputs) else {
            continue;
        };
        let path = match &error {
            MachineError::CheckType { check } | MachineError::CheckPort { check, .. } => {
                format!("checks.{check}")
            }
            MachineError::Size { .. } => "vm".to_owned(),
            MachineError::TestCommand { section } => section.clone(),
            MachineError::Restart { index, .. } => format!("restart[{index}]"),
            MachineError::Overlay(_) => config.overlay_key().to_owned(),
            _ => "processes".to_owned(),
        };
        faults.push((path, error.to_string()));
    }
    if let Err(error) = config.release_command_json(&inputs) {
        let path = match &error {
            MachineError::Size { .. } => "deploy.release_command_vm",
            _ => "deploy.release_command",
        };
        faults.push((path.to_owned(), error.to_string()));
    }
    faults
}

/// Reads a configuration as Hangar's own type.
fn typed(group: &str, json: Json) -> Result<MachineConfig, MachineError> {
    serde_path(json).map_err(|reason| MachineError::Impossible {
        group: group.to_owned(),
        reason,
    })
}

fn serde_path(json: Json) -> Result<MachineConfig, String> {
    serde_json::from_value(json).map_err(|e| e.to_string())
}

fn metadata_of(group: &str, inputs: &Inputs) -> Map<String, Json> {
    let mut metadata = Map::new();
    let mut put = |key: &str, value: &str| metadata.insert(key.to_owned(), Json::from(value));
    put(PLATFORM_VERSION, "v2");
    put(PROCESS_GROUP, group);
    if !inputs.client_version.is_empty() {
        put(CLIENT_VERSION, &inputs.client_version);
    }
    metadata
}

/// Puts a value where it is not empty, and removes the key where it is.
fn set(config: &mut Map<String, Json>, key: &str, value: Json) {
    let empty = match &value {
        Json::Null => true,
        Json::Array(items) => items.is_empty(),
        // An empty `init` is written, as by Fly.
        Json::Object(map) => map.is_empty() && key != "init" && key != "metrics",
        _ => false,
    };
    if empty {
        config.remove(key);
    } else {
        config.insert(key.to_owned(), value);
    }
}

fn split(group: &str, command: &str) -> Result<Vec<String>, MachineError> {
    words::split(command).map_err(|source| MachineError::Command {
        group: group.to_owned(),
        source,
    })
}
