//! One Machine configuration per process group (process-groups-and-deploy.md 2.2, 2.3).
//!
//! Flattening and conversion in one: a section goes straight to the groups that it is for.

use std::collections::BTreeMap;

use base64::Engine;
use hangar_api::check::{CheckConfig, CheckHeader};
use hangar_api::id::GroupName;
use hangar_api::machine::config::{
    CLIENT_VERSION, File, Init, PLATFORM_VERSION, PROCESS_GROUP, Restart, StopConfig,
};
use hangar_api::machine::service::Port;
use hangar_api::machine::{Guest, MachineConfig, Service};
use hangar_api::release::GroupSpec;
use serde_json::{Map, Value as Json, json};

use crate::app::{AppConfig, CheckSection, VmSection};
use crate::decode::service::{http_options, tls_options};
use crate::size::{self, Unit};
use crate::words;

/// What the caller has found out beside the file.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// The image's name, put into each configuration.
    pub image: String,
    /// The version of the client, put into the metadata; empty leaves it out.
    pub client_version: String,
    /// Contents of [`AppConfig::local_files`] by path.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Variables laid over `[env]` for this deploy.
    pub env: BTreeMap<String, String>,
}

/// Why there is no configuration for a group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MachineError {
    /// The command cannot be split.
    #[error("could not parse command for {group} process group: {source}")]
    Command {
        /// The group.
        group: String,
        /// Why.
        source: words::SplitError,
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
        let files = self.machine_files(inputs)?;
        let mut specs = BTreeMap::new();
        for group in self.groups() {
            let mut spec = self.group_spec(group, inputs)?;
            spec.config.files.clone_from(&files);
            specs.insert(GroupName::new(group)?, spec);
        }
        Ok(specs)
    }

    fn group_spec(&self, group: &str, inputs: &Inputs) -> Result<GroupSpec, MachineError> {
        let guest = self.guest(group)?;
        let mut config = MachineConfig {
            image: inputs.image.clone(),
            env: self.environment(group, inputs),
            init: self.init(group)?,
            services: self.services_of(group),
            checks: self.checks_of(group)?,
            restart: self.restart_of(group),
            stop_config: self.stop_config(),
            ..MachineConfig::default()
        };
        let mut put = |key: &str, value: &str| {
            config.metadata.insert(key.to_owned(), value.to_owned());
        };
        put(PLATFORM_VERSION, "v2");
        put(PROCESS_GROUP, group);
        if !inputs.client_version.is_empty() {
            put(CLIENT_VERSION, &inputs.client_version);
        }
        config.other = self.other_of(group);
        let sets_guest = guest.is_some();
        config.guest = guest;
        Ok(GroupSpec { config, sets_guest })
    }

    fn environment(&self, group: &str, inputs: &Inputs) -> BTreeMap<String, String> {
        let mut env = self.env.clone();
        env.extend(inputs.env.clone());
        env.insert("FLY_PROCESS_GROUP".to_owned(), group.to_owned());
        if let Some(region) = self.primary_region.as_ref().filter(|r| !r.is_empty()) {
            env.insert("PRIMARY_REGION".to_owned(), region.clone());
        }
        env
    }

    fn init(&self, group: &str) -> Result<Init, MachineError> {
        let command = self.processes.get(group).filter(|c| !c.is_empty());
        let experimental = self.experimental.clone().unwrap_or_default();
        let cmd = match command {
            Some(command) => {
                let words = words::split(command).map_err(|source| MachineError::Command {
                    group: group.to_owned(),
                    source,
                })?;
                Some(words)
            }
            None => experimental.cmd,
        };
        let some = |words: Option<Vec<String>>| words.filter(|w| !w.is_empty());
        let mut init = Init {
            cmd: some(cmd),
            entrypoint: some(experimental.entrypoint),
            exec: some(experimental.exec),
            ..Init::default()
        };
        if let Some(mb) = self.swap_size_mb {
            init.other.insert("swap_size_mb".to_owned(), Json::from(mb));
        }
        Ok(init)
    }

    fn services_of(&self, group: &str) -> Vec<Service> {
        let mut services = Vec::new();
        if let Some(http) = &self.http_service
            && self.is_for(&http.processes, group)
        {
            services.push(expand(http));
        }
        for section in &self.services {
            if !self.is_for(&section.processes, group) {
                continue;
            }
            let tcp = section.tcp_checks.iter().map(|c| service_check("tcp", c));
            let http = section.http_checks.iter().map(|c| service_check("http", c));
            services.push(Service {
                protocol: section.protocol.clone(),
                internal_port: section.internal_port.unwrap_or(0),
                ports: section.ports.clone(),
                concurrency: section.concurrency.clone(),
                autostop: section.auto_stop_machines,
                autostart: section.auto_start_machines,
                min_machines_running: section.min_machines_running,
                checks: tcp.chain(http).collect(),
                other: Map::new(),
            });
        }
        for service in &mut services {
            if service.protocol.is_empty() {
                service.protocol = "tcp".to_owned();
            }
        }
        services
    }

    fn checks_of(&self, group: &str) -> Result<BTreeMap<String, CheckConfig>, MachineError> {
        let http = self.http_service.as_ref();
        let http = http.filter(|h| self.is_for(&h.processes, group));
        let mut checks = BTreeMap::new();
        for (name, section) in &self.checks {
            if !self.is_for(&section.processes, group) {
                continue;
            }
            let port = section.port.or_else(|| http.and_then(|h| h.internal_port));
            let port = port.ok_or_else(|| MachineError::CheckPort {
                check: name.clone(),
                group: group.to_owned(),
            })?;
            let check = CheckConfig {
                port: Some(port),
                kind: section.kind.clone(),
                method: section.method.as_ref().map(|m| m.to_uppercase()),
                ..convert(section)
            };
            checks.insert(name.clone(), check);
        }
        Ok(checks)
    }

    /// Several entries: the last one counts.
    fn restart_of(&self, group: &str) -> Option<Restart> {
        let mut all = self.restart.iter();
        let last = all.rfind(|r| self.is_for(&r.processes, group))?;
        let policy = match last.policy.as_str() {
            "never" => "no",
            other => other,
        };
        let retries = last.retries.filter(|n| *n != 0);
        Some(Restart {
            policy: Some(policy.to_owned()),
            max_retries: retries.and_then(|n| u32::try_from(n).ok()),
            other: Map::new(),
        })
    }

    fn stop_config(&self) -> Option<StopConfig> {
        if self.kill_signal.is_none() && self.kill_timeout.is_none() {
            return None;
        }
        Some(StopConfig {
            signal: self.kill_signal.clone(),
            timeout: self.kill_timeout,
        })
    }

    /// Returns the size that fly.toml sets for a group: the last entry that names it, else the
    /// first that is for it. Entries are never merged.
    fn guest(&self, group: &str) -> Result<Option<Guest>, MachineError> {
        let candidates = || {
            let for_it =
                |v: &&VmSection| v.processes.is_empty() || self.is_for(&v.processes, group);
            self.vm.iter().filter(for_it)
        };
        let named = candidates().rfind(|v| v.processes.iter().any(|p| p == group));
        let Some(section) = named.or_else(|| candidates().next()) else {
            return Ok(None);
        };
        let dedicated = self.kept.other.get("host_dedication_id");
        guest_of(section, dedicated)
            .map(Some)
            .map_err(|reason| MachineError::Size {
                group: group.to_owned(),
                reason,
            })
    }

    /// Returns what Hangar keeps in a configuration without acting on it.
    fn other_of(&self, group: &str) -> Map<String, Json> {
        let mut other = Map::new();
        let for_group = |items: &[Json]| -> Vec<Json> {
            let items = items.iter();
            let matching = items.filter(|i| self.is_for(&processes_of(i), group));
            matching.cloned().collect()
        };
        if let Some(first) = for_group(&self.kept.metrics).into_iter().next() {
            let metrics = without_processes(first);
            if metrics.as_object().is_some_and(|m| !m.is_empty()) {
                other.insert("metrics".to_owned(), metrics);
            }
        }
        if !self.kept.statics.is_empty() {
            let statics = self.kept.statics.iter().map(static_files).collect();
            other.insert("statics".to_owned(), Json::Array(statics));
        }
        let mounts: Vec<Json> = for_group(&self.kept.mounts).iter().map(mount).collect();
        if !mounts.is_empty() {
            other.insert("mounts".to_owned(), Json::Array(mounts));
        }
        other
    }

    /// Returns the files of every Machine: Fly ignores their groups.
    fn machine_files(&self, inputs: &Inputs) -> Result<Vec<File>, MachineError> {
        let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
        let mut files: BTreeMap<&str, File> = BTreeMap::new();
        for section in self.files.iter().filter(|f| !f.guest_path.is_empty()) {
            let raw_value = match (&section.local_path, &section.raw_value) {
                (Some(path), _) => match inputs.files.get(path) {
                    Some(bytes) => Some(encode(bytes)),
                    None => {
                        return Err(MachineError::File {
                            path: path.clone(),
                            guest_path: section.guest_path.clone(),
                        });
                    }
                },
                (None, Some(text)) => Some(encode(text.as_bytes())),
                (None, None) => None,
            };
            let file = File {
                guest_path: section.guest_path.clone(),
                raw_value,
                secret_name: section.secret_name.clone(),
                mode: None,
            };
            files.insert(&section.guest_path, file);
        }
        let has_content = |f: &File| f.raw_value.is_some() || f.secret_name.is_some();
        Ok(files.into_values().filter(has_content).collect())
    }
}

/// Returns what would fail for some group, with the key that it is about: Fly only finds out in
/// the deploy.
pub(crate) fn faults(config: &AppConfig) -> Vec<(String, String)> {
    let mut faults = Vec::new();
    for group in config.groups() {
        let found = config.group_spec(group, &Inputs::default());
        let Err(error) = found else { continue };
        let path = match &error {
            MachineError::CheckPort { check, .. } => format!("checks.{check}"),
            MachineError::Size { .. } => "vm".to_owned(),
            _ => "processes".to_owned(),
        };
        faults.push((path, error.to_string()));
    }
    faults
}

/// `[http_service]` as the service that it stands for.
fn expand(http: &crate::app::HttpService) -> Service {
    let port = |number: u16, handlers: &[&str]| Port {
        port: Some(number),
        handlers: handlers.iter().map(|h| (*h).to_owned()).collect(),
        http_options: http_options(http.http_options.clone()),
        ..Port::default()
    };
    let plain = Port {
        force_https: http.force_https,
        ..port(80, &["http"])
    };
    let secure = Port {
        tls_options: tls_options(http.tls_options.clone()),
        ..port(443, &["http", "tls"])
    };
    Service {
        protocol: "tcp".to_owned(),
        internal_port: http.internal_port.unwrap_or(0),
        ports: vec![plain, secure],
        concurrency: http.concurrency.clone(),
        autostop: http.auto_stop_machines,
        autostart: http.auto_start_machines,
        min_machines_running: http.min_machines_running,
        checks: http
            .checks
            .iter()
            .map(|c| service_check("http", c))
            .collect(),
        other: Map::new(),
    }
}

fn service_check(kind: &str, section: &CheckSection) -> CheckConfig {
    CheckConfig {
        kind: Some(kind.to_owned()),
        ..convert(section)
    }
}

fn convert(section: &CheckSection) -> CheckConfig {
    let header = |(name, value): (&String, &String)| CheckHeader {
        name: name.clone(),
        values: vec![value.clone()],
    };
    CheckConfig {
        kind: None,
        port: None,
        interval: section.interval,
        timeout: section.timeout,
        grace_period: section.grace_period,
        method: section.method.clone(),
        path: section.path.clone(),
        protocol: section.protocol.clone(),
        tls_skip_verify: section.tls_skip_verify,
        tls_server_name: section.tls_server_name.clone(),
        headers: section.headers.iter().map(header).collect(),
        purpose: None,
    }
}

fn guest_of(section: &VmSection, dedicated: Option<&Json>) -> Result<Guest, String> {
    let by_default = if section.other.contains_key("gpu_kind") {
        "performance-8x"
    } else {
        "shared-cpu-1x"
    };
    let size = section.size.as_deref().filter(|s| !s.is_empty());
    let mut guest = Guest::preset(size.unwrap_or(by_default)).map_err(|e| e.to_string())?;
    if let Some(id) = dedicated {
        guest
            .other
            .insert("host_dedication_id".to_owned(), id.clone());
    }
    if let Some(memory) = section.memory.as_ref().filter(|m| !m.is_empty()) {
        let mb = size::parse(memory, Unit::MemoryMb).map_err(|e| e.to_string())?;
        guest.memory_mb =
            u64::try_from(mb).map_err(|_| format!("memory '{memory}' is negative"))?;
        if guest.memory_mb == 0 {
            return Err("memory cannot be zero".to_owned());
        }
    }
    if let Some(kind) = section.cpu_kind.as_ref().filter(|k| !k.is_empty()) {
        guest.cpu_kind.clone_from(kind);
    }
    if let Some(cpus) = section.cpus.filter(|n| *n != 0) {
        guest.cpus = cpus;
    }
    if let Some(mb) = section.memory_mb.filter(|n| *n != 0) {
        guest.memory_mb = mb;
    }
    for (key, value) in section.other.iter().filter(|(_, v)| !is_zero(v)) {
        guest.other.insert(key.clone(), value.clone());
    }
    guest.validate().map_err(|error| error.to_string())?;
    Ok(guest)
}

/// What Go leaves out when it writes.
fn is_zero(value: &Json) -> bool {
    match value {
        Json::String(text) => text.is_empty(),
        Json::Array(items) => items.is_empty(),
        Json::Number(number) => number.as_f64() == Some(0.0),
        _ => false,
    }
}

fn processes_of(item: &Json) -> Vec<String> {
    let list = item.get("processes").and_then(Json::as_array);
    let texts = list.into_iter().flatten().filter_map(Json::as_str);
    texts.map(str::to_owned).collect()
}

fn without_processes(mut item: Json) -> Json {
    if let Some(map) = item.as_object_mut() {
        map.remove("processes");
    }
    item
}

/// Static files as a Machine has them: every field is written.
fn static_files(item: &Json) -> Json {
    let text = |key: &str| item.get(key).cloned().unwrap_or_else(|| json!(""));
    json!({
        "guest_path": text("guest_path"),
        "url_prefix": text("url_prefix"),
        "tigris_bucket": text("tigris_bucket"),
        "index_document": text("index_document"),
    })
}

/// A mount as a Machine has it; the volume is found by the deployment.
fn mount(item: &Json) -> Json {
    let text = |key: &str| item.get(key).cloned().unwrap_or_else(|| json!(""));
    let mut mount = json!({ "path": text("destination"), "name": text("source") });
    if let Some(map) = mount.as_object_mut() {
        map.retain(|_, value| !is_zero(value));
    }
    let pairs = [
        ("auto_extend_size_threshold", "extend_threshold_percent"),
        ("auto_extend_size_increment", "add_size_gb"),
        ("auto_extend_size_limit", "size_gb_limit"),
    ];
    for (from, to) in pairs {
        let value = match item.get(from) {
            Some(Json::String(size)) => size::parse(size, Unit::VolumeGb).ok().map(Json::from),
            other => other.cloned(),
        };
        if let (Some(value), Some(map)) = (value, mount.as_object_mut()) {
            map.insert(to.to_owned(), value);
        }
    }
    mount
}
