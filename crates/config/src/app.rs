//! A checked configuration: what fly.toml says, with types.
//!
//! Made by [`crate::RawConfig::validate`]. Serialises as the JSON form of fly.toml, in which it is
//! stored with each release.

use std::collections::BTreeMap;

use hangar_api::duration::GoDuration;
use hangar_api::machine::service::{Autostop, Concurrency, Port};
use serde::Serialize;
use serde_json::{Map, Value as Json};

/// A checked configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct AppConfig {
    /// The app's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// Where new Machines go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary_region: Option<String>,
    /// Signal that stops a Machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kill_signal: Option<String>,
    /// Time between that signal and the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kill_timeout: Option<GoDuration>,
    /// Swap, in MB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_size_mb: Option<i64>,
    /// Command of `console`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console_command: Option<String>,
    /// `[experimental]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub experimental: Option<Experimental>,
    /// `[build]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build: Option<Build>,
    /// `[deploy]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deploy: Option<Deploy>,
    /// `[env]`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// `[processes]`: group to command.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub processes: BTreeMap<String, String>,
    /// `[http_service]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_service: Option<HttpService>,
    /// `[[services]]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServiceSection>,
    /// `[checks.NAME]`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub checks: BTreeMap<String, CheckSection>,
    /// `[[files]]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileSection>,
    /// `[[restart]]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub restart: Vec<RestartSection>,
    /// `[[vm]]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub vm: Vec<VmSection>,
    /// `[[mounts]]`, `[[metrics]]` and `[[statics]]`, kept as written.
    #[serde(flatten)]
    pub kept: Kept,
}

/// Lists that are kept as written and put into Machine configurations.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Kept {
    /// `[[mounts]]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Json>,
    /// `[[metrics]]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<Json>,
    /// `[[statics]]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub statics: Vec<Json>,
    /// Whole keys of the top level that nothing here reads.
    #[serde(flatten)]
    pub other: Map<String, Json>,
}

/// `[experimental]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Experimental {
    /// Instead of the image's CMD, where the group has no command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Instead of the image's ENTRYPOINT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Beats both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec: Option<Vec<String>>,
    /// The rest.
    #[serde(flatten)]
    pub other: Map<String, Json>,
}

/// `[build]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Build {
    /// An image that is ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Path of a Dockerfile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dockerfile: Option<String>,
    /// Path of an ignore file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignorefile: Option<String>,
    /// Build arguments.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub args: BTreeMap<String, String>,
    /// The stage to build.
    #[serde(rename = "build-target", skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The rest.
    #[serde(flatten)]
    pub other: Map<String, Json>,
}

/// `[deploy]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Deploy {
    /// How Machines are replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<String>,
    /// A share below 1, or a number of Machines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<f64>,
    /// Time that one Machine may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_timeout: Option<GoDuration>,
    /// The rest.
    #[serde(flatten)]
    pub other: Map<String, Json>,
}

/// `[http_service]`: shorthand for a service on ports 80 and 443.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct HttpService {
    /// The port that the app listens on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub internal_port: Option<u16>,
    /// Redirect plain HTTP.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub force_https: bool,
    /// Stop idle Machines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_stop_machines: Option<Autostop>,
    /// Start stopped Machines on request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_start_machines: Option<bool>,
    /// How many stay up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_machines_running: Option<u32>,
    /// The groups that serve it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub processes: Vec<String>,
    /// Limits per Machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,
    /// Options of TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_options: Option<Json>,
    /// Options of HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_options: Option<Json>,
    /// HTTP checks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckSection>,
    /// Test Machines, kept as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine_checks: Option<Json>,
}

/// An item of `[[services]]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ServiceSection {
    /// `tcp` or `udp`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub protocol: String,
    /// The port that the app listens on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub internal_port: Option<u16>,
    /// Stop idle Machines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_stop_machines: Option<Autostop>,
    /// Start stopped Machines on request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_start_machines: Option<bool>,
    /// How many stay up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_machines_running: Option<u32>,
    /// The external ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    /// Limits per Machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,
    /// TCP checks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tcp_checks: Vec<CheckSection>,
    /// HTTP checks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub http_checks: Vec<CheckSection>,
    /// Test Machines, kept as written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine_checks: Option<Json>,
    /// The groups that serve it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub processes: Vec<String>,
    /// Its key in the file, such as `services[0]`.
    #[serde(skip)]
    pub key: String,
}

/// A check, of a service or of `[checks]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CheckSection {
    /// Its port; `[checks]` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// `tcp` or `http`; `[checks]` only.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Time between probes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<GoDuration>,
    /// Time one probe may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<GoDuration>,
    /// Time after the start in which failures do not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_period: Option<GoDuration>,
    /// HTTP method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// HTTP path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// `http` or `https`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// Accept any certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_skip_verify: Option<bool>,
    /// Name sent by SNI.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_server_name: Option<String>,
    /// Headers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The groups that have it; `[checks]` only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub processes: Vec<String>,
}

/// An item of `[[files]]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct FileSection {
    /// Where it stands in the Machine.
    pub guest_path: String,
    /// A file beside fly.toml.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_path: Option<String>,
    /// A secret that holds the content in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
    /// The content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw_value: Option<String>,
    /// Without effect: every Machine gets every file, as on Fly.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub processes: Vec<String>,
}

/// An item of `[[restart]]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RestartSection {
    /// `always`, `never` or `on-failure`.
    pub policy: String,
    /// For on-failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<i64>,
    /// The groups it is for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub processes: Vec<String>,
}

/// An item of `[[vm]]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct VmSection {
    /// A preset's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// Memory with a unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// `shared` or `performance`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_kind: Option<String>,
    /// Number of CPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// Memory in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u64>,
    /// The rest of a guest.
    #[serde(flatten)]
    pub other: Map<String, Json>,
    /// The groups it is for; none means all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub processes: Vec<String>,
    /// Its line.
    #[serde(skip)]
    pub line: Option<usize>,
}

// === impl AppConfig ===

impl AppConfig {
    /// Returns the paths of the files beside fly.toml that Machines are to get: the caller reads
    /// them and passes them on as [`crate::Inputs::files`].
    #[must_use]
    pub fn local_files(&self) -> Vec<&str> {
        let used = self.files.iter().filter(|f| !f.guest_path.is_empty());
        used.filter_map(|f| f.local_path.as_deref()).collect()
    }

    /// Returns the image that `[build]` names.
    #[must_use]
    pub fn image(&self) -> Option<&str> {
        self.build.as_ref()?.image.as_deref()
    }
}
