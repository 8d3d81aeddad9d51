//! The parts of a Machine configuration, one by one.

use hangar_api::check::CheckConfig;
use hangar_api::machine::Service;
use hangar_api::machine::config::File;
use hangar_api::release::FirstVolume;
use serde::Serialize;
use serde_json::{Map, Value as Json, json};

use super::{MachineError, split};
use crate::app::{AppConfig, HttpService, Port, ServiceSection};
use crate::schema::Described;
use crate::size::{self, Unit};
use crate::write::to_json;

/// What fly.toml decides of `init`; the rest is the Machine's own.
pub(super) const MANAGED_INIT: [&str; 4] = ["cmd", "entrypoint", "exec", "swap_size_mb"];

/// Returns `init` of these words; what is empty is the image's.
pub(super) fn init(
    cmd: Vec<String>,
    entrypoint: Vec<String>,
    exec: Vec<String>,
) -> Map<String, Json> {
    let words = [("cmd", cmd), ("entrypoint", entrypoint), ("exec", exec)];
    let given = words.into_iter().filter(|(_, words)| !words.is_empty());
    given
        .map(|(key, words)| (key.to_owned(), json!(words)))
        .collect()
}

/// Adds a file to those of a Machine: one at the same path takes the former's place, or removes
/// it where it has no content.
pub(super) fn merge_file(files: &mut Vec<File>, file: &File) {
    let known = files.iter().position(|f| f.guest_path == file.guest_path);
    let has_content = file.raw_value.is_some() || file.secret_name.is_some();
    match known {
        None => files.push(file.clone()),
        Some(at) if has_content => files[at] = file.clone(),
        Some(at) => {
            files.remove(at);
        }
    }
}

impl AppConfig {
    /// Returns the words that fly.toml sets: only exactly no command falls back to
    /// `experimental.cmd`, not one of blanks or comments.
    pub(super) fn init(&self, group: &str) -> Result<Map<String, Json>, MachineError> {
        let experimental = self.experimental.clone().unwrap_or_default();
        let command = self.processes.get(group).filter(|c| !c.is_empty());
        let cmd = match command {
            Some(command) => split(group, command)?,
            None => experimental.cmd,
        };
        let init = init(cmd, experimental.entrypoint, experimental.exec);
        match self.with_swap(init) {
            Json::Object(init) => Ok(init),
            _ => Ok(Map::new()),
        }
    }

    pub(super) fn with_swap(&self, mut init: Map<String, Json>) -> Json {
        if let Some(mb) = self.swap_size_mb {
            init.insert("swap_size_mb".to_owned(), Json::from(mb));
        }
        Json::Object(init)
    }

    pub(super) fn services_of(&self, group: &str) -> Json {
        let http = self.http_service.iter();
        let http = http.filter(|h| self.is_for(&h.processes, group));
        let http = http.map(|h| service(&expand(h)));
        let others = self.services.iter();
        let others = others.filter(|s| self.is_for(&s.processes, group));
        Json::Array(http.chain(others.map(service)).collect())
    }

    pub(super) fn checks_of(&self, group: &str) -> Result<Json, MachineError> {
        let http = self.http_service.as_ref();
        let http = http.filter(|h| self.is_for(&h.processes, group));
        let mut checks = Map::new();
        for (name, section) in &self.checks {
            if !self.is_for(&section.processes, group) {
                continue;
            }
            if !matches!(section.kind.as_deref(), Some("http" | "tcp")) {
                let check = name.clone();
                return Err(MachineError::CheckType { check });
            }
            let port = section.port.or_else(|| http.map(|h| h.internal_port));
            let port = port.ok_or_else(|| MachineError::CheckPort {
                check: name.clone(),
                group: group.to_owned(),
            })?;
            let mut check = check(section);
            check.insert("port".to_owned(), Json::from(port));
            if let Some(method) = &section.method {
                check.insert("method".to_owned(), Json::from(method.to_uppercase()));
            }
            checks.insert(name.clone(), Json::Object(check));
        }
        Ok(Json::Object(checks))
    }

    /// Static files as a Machine has them: every field is written.
    pub(super) fn statics_of(&self) -> Json {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let statics = self.statics.iter().map(|s| {
            json!({
                "guest_path": text(&s.guest_path),
                "url_prefix": text(&s.url_prefix),
                "tigris_bucket": text(&s.tigris_bucket),
                "index_document": text(&s.index_document),
            })
        });
        Json::Array(statics.collect())
    }

    /// Mounts as a Machine has them; the volume is found by the deployment.
    pub(super) fn mounts_of(&self, group: &str) -> Json {
        let mounts = self.mounts.iter();
        let mounts = mounts.filter(|m| self.is_for(&m.processes, group));
        let gb = |text: &Option<String>| {
            let size = text.as_ref().map(|t| size::parse(t, Unit::VolumeGb));
            size.and_then(Result::ok).unwrap_or(0)
        };
        let mounts = mounts.map(|m| {
            let mut mount = Map::new();
            let mut put = |key: &str, value: Json| mount.insert(key.to_owned(), value);
            if let Some(path) = &m.destination {
                put("path", Json::from(path.as_str()));
            }
            if let Some(name) = &m.source {
                put("name", Json::from(name.as_str()));
            }
            let numbers = [
                ("extend_threshold_percent", m.auto_extend_size_threshold),
                ("add_size_gb", gb(&m.auto_extend_size_increment)),
                ("size_gb_limit", gb(&m.auto_extend_size_limit)),
            ];
            for (key, number) in numbers.into_iter().filter(|(_, n)| *n != 0) {
                put(key, Json::from(number));
            }
            Json::Object(mount)
        });
        Json::Array(mounts.collect())
    }

    /// Returns how the volumes of a group are made by a first deploy.
    pub(super) fn first_volumes(&self, group: &str) -> Vec<FirstVolume> {
        let mounts = self.mounts.iter();
        let mounts = mounts.filter(|m| self.is_for(&m.processes, group));
        let volumes = mounts.map(|m| {
            let size = m.initial_size.as_ref();
            let gb = size.and_then(|t| size::parse(t, Unit::VolumeGb).ok());
            FirstVolume {
                name: m.source.clone().unwrap_or_default(),
                size_gb: gb.and_then(|gb| u64::try_from(gb).ok()),
                snapshot_retention: m.snapshot_retention.and_then(|d| u32::try_from(d).ok()),
                scheduled_snapshots: m.scheduled_snapshots,
            }
        });
        volumes.collect()
    }

    /// Of several entries the first one counts.
    pub(super) fn metrics_of(&self, group: &str) -> Json {
        let mut all = self.metrics.iter();
        let Some(first) = all.find(|m| self.is_for(&m.processes, group)) else {
            return Json::Null;
        };
        let mut metrics = to_json(first);
        metrics.remove("processes");
        if metrics.is_empty() {
            return Json::Null;
        }
        Json::Object(metrics)
    }

    /// Of several entries the last one counts, and every one of them must be right.
    pub(super) fn restart_of(&self, group: &str) -> Result<Json, MachineError> {
        let mut restart = Json::Null;
        for (index, section) in self.restart.iter().enumerate() {
            if !self.is_for(&section.processes, group) {
                continue;
            }
            let policy = match section.policy.as_deref() {
                Some("always") => "always",
                Some("never") => "no",
                Some("on-failure") => "on-failure",
                other => {
                    let policy = other.unwrap_or_default().to_owned();
                    return Err(MachineError::Restart { policy, index });
                }
            };
            restart = json!({ "policy": policy });
            if section.retries != 0 {
                restart["max_retries"] = Json::from(section.retries);
            }
        }
        Ok(restart)
    }

    pub(super) fn stop_config(&self) -> Json {
        let mut stop = Map::new();
        if let Some(timeout) = self.kill_timeout {
            stop.insert("timeout".to_owned(), Json::from(timeout.to_string()));
        }
        if let Some(signal) = &self.kill_signal {
            stop.insert("signal".to_owned(), Json::from(signal.as_str()));
        }
        Json::Object(stop)
    }
}

/// Returns a section as the service that the proxy sees; `None` where a number in it is none that
/// a Machine can have, which is told of elsewhere.
pub(crate) fn proxied(section: &ServiceSection) -> Option<Service> {
    serde_json::from_value(service(section)).ok()
}

/// Returns a check as a Machine has it; `None` where a number in it is none that it can have.
pub(crate) fn checked(section: &(impl Described + Serialize)) -> Option<CheckConfig> {
    serde_json::from_value(Json::Object(check(section))).ok()
}

/// `[http_service]` as the service that it stands for.
pub(crate) fn expand(http: &HttpService) -> ServiceSection {
    let handlers = |names: &[&str]| names.iter().map(|h| (*h).to_owned()).collect();
    let plain = Port {
        port: Some(80),
        handlers: handlers(&["http"]),
        force_https: http.force_https,
        http_options: http.http_options.clone(),
        ..Port::default()
    };
    let secure = Port {
        port: Some(443),
        handlers: handlers(&["http", "tls"]),
        http_options: http.http_options.clone(),
        tls_options: http.tls_options.clone(),
        ..Port::default()
    };
    ServiceSection {
        protocol: Some("tcp".to_owned()),
        internal_port: http.internal_port,
        auto_stop_machines: http.auto_stop_machines,
        auto_start_machines: http.auto_start_machines,
        min_machines_running: http.min_machines_running,
        ports: vec![plain, secure],
        concurrency: http.concurrency.clone(),
        http_checks: http.checks.clone(),
        ..ServiceSection::default()
    }
}

fn service(section: &ServiceSection) -> Json {
    let mut service = Map::new();
    let whole = to_json(section);
    let fields = [
        ("protocol", "protocol"),
        ("internal_port", "internal_port"),
        ("auto_stop_machines", "autostop"),
        ("auto_start_machines", "autostart"),
        ("min_machines_running", "min_machines_running"),
        ("ports", "ports"),
        ("concurrency", "concurrency"),
    ];
    for (from, to) in fields {
        if let Some(value) = whole.get(from) {
            service.insert(to.to_owned(), value.clone());
        }
    }
    let tcp = section.tcp_checks.iter().map(|c| typed_check("tcp", c));
    let http = section.http_checks.iter().map(|c| typed_check("http", c));
    let checks: Vec<Json> = tcp.chain(http).collect();
    if !checks.is_empty() {
        service.insert("checks".to_owned(), Json::Array(checks));
    }
    Json::Object(service)
}

fn typed_check(kind: &str, section: &(impl Described + Serialize)) -> Json {
    let mut check = check(section);
    check.insert("type".to_owned(), Json::from(kind));
    Json::Object(check)
}

/// A check as a Machine has it: headers are a list, and it has no groups.
fn check(section: &(impl Described + Serialize)) -> Map<String, Json> {
    let mut check = to_json(section);
    check.remove("processes");
    if let Some(Json::Object(headers)) = check.remove("headers") {
        let headers = headers.into_iter();
        let list: Vec<Json> = headers
            .map(|(name, value)| json!({ "name": name, "values": [value] }))
            .collect();
        check.insert("headers".to_owned(), Json::Array(list));
    }
    check
}
