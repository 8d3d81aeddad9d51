//! A fly.toml being made: its sections as values, written in Fly's order, with comments where a
//! person should look.

use std::collections::BTreeMap;

use serde::Serialize;

use super::toml_text;

/// A fly.toml. Fields stand in the order in which Fly writes them.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Draft {
    pub(crate) app: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) primary_region: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kill_signal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kill_timeout: Option<String>,
    /// JSON text: what each Machine's configuration begins with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) machine_config: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) experimental: Option<Experimental>,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) build: Build,
    #[serde(skip_serializing_if = "is_default")]
    pub(crate) deploy: Deploy,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) env: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) processes: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) mounts: Vec<Mount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) http_service: Option<HttpService>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) services: Vec<Service>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) checks: BTreeMap<String, Check>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) files: Vec<File>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) restart: Vec<Restart>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) vm: Vec<Vm>,
    /// Lines at the top of the file.
    #[serde(skip)]
    pub(crate) header: Vec<String>,
    /// A comment above the first line that begins with the text.
    #[serde(skip)]
    pub(crate) comments: Vec<(String, String)>,
}

/// `[experimental]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Experimental {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) entrypoint: Vec<String>,
}

/// `[build]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Build {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) image: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dockerfile: Option<String>,
    #[serde(rename = "build-target", skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) args: BTreeMap<String, String>,
}

/// `[deploy]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Deploy {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) release_command: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) strategy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_unavailable: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) wait_timeout: Option<String>,
}

/// An item of `[[mounts]]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Mount {
    pub(crate) source: String,
    pub(crate) destination: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) initial_size: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) processes: Vec<String>,
}

/// `[http_service]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct HttpService {
    pub(crate) internal_port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) auto_start_machines: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) processes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) concurrency: Option<Concurrency>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) checks: Vec<Check>,
}

/// `concurrency` of a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Concurrency {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) soft_limit: u32,
}

/// An item of `[[services]]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Service {
    pub(crate) protocol: String,
    pub(crate) internal_port: u16,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) processes: Vec<String>,
    pub(crate) ports: Vec<Port>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tcp_checks: Vec<Check>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) http_checks: Vec<Check>,
}

/// An item of `[[services.ports]]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Port {
    pub(crate) port: u16,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) handlers: Vec<String>,
}

/// A check, of a service or of `[checks]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Check {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) interval: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timeout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) grace_period: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) method: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) protocol: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) processes: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) headers: BTreeMap<String, String>,
}

/// An item of `[[files]]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct File {
    pub(crate) guest_path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) local_path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) raw_value: Option<String>,
}

/// An item of `[[restart]]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Restart {
    pub(crate) policy: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) retries: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) processes: Vec<String>,
}

/// An item of `[[vm]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Vm {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) size: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpus: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) processes: Vec<String>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

// === impl Draft ===

impl Draft {
    /// Puts a comment above the first line that begins with `line`.
    pub(crate) fn comment(&mut self, line: impl Into<String>, text: impl Into<String>) {
        self.comments.push((line.into(), text.into()));
    }

    /// Returns the file's text.
    pub(crate) fn render(&self) -> String {
        let mut out = String::new();
        for line in &self.header {
            toml_text::comment(&mut out, line);
        }
        if !self.header.is_empty() {
            out.push('\n');
        }
        out.push_str(&toml_text::write(self, &self.comments));
        out
    }
}

// === impl Vm ===

impl Vm {
    /// Returns the least size on offer that has so many CPUs and so much memory.
    ///
    /// `cpus` counts whole CPUs of work and may be a fraction: up to one is a shared CPU.
    pub(crate) fn at_least(cpus: Option<f64>, memory_mb: Option<u64>) -> Self {
        const SHARED: [u32; 5] = [1, 2, 4, 6, 8];
        const PERFORMANCE: [u32; 11] = [1, 2, 4, 6, 8, 10, 12, 14, 16, 32, 64];
        let wanted = cpus.unwrap_or(0.0);
        let memory = memory_mb.unwrap_or(256).max(1);
        let shared = SHARED
            .into_iter()
            .find(|n| f64::from(*n) >= wanted && memory <= 2048 * u64::from(*n));
        if let Some(cpus) = shared {
            let step = memory.div_ceil(256) * 256;
            return Self::sized("shared", cpus, step.max(256 * u64::from(cpus)));
        }
        let dedicated = PERFORMANCE
            .into_iter()
            .find(|n| f64::from(*n) >= wanted && memory <= 8192 * u64::from(*n));
        let cpus = dedicated.unwrap_or(64);
        let step = memory.div_ceil(1024) * 1024;
        let step = step.clamp(2048 * u64::from(cpus), 8192 * u64::from(cpus));
        Self::sized("performance", cpus, step)
    }

    /// Returns a size by kind, number of CPUs and memory, which the caller knows to be on offer.
    pub(crate) fn sized(kind: &str, cpus: u32, memory_mb: u64) -> Self {
        let memory = match memory_mb % 1024 {
            0 => format!("{}gb", memory_mb / 1024),
            _ => format!("{memory_mb}mb"),
        };
        let preset = match kind {
            "shared" => Some(format!("shared-cpu-{cpus}x")),
            _ if cpus <= 16 => Some(format!("performance-{cpus}x")),
            _ => None,
        };
        Self {
            cpu_kind: preset.is_none().then(|| kind.to_owned()),
            cpus: preset.is_none().then_some(cpus),
            size: preset,
            memory: Some(memory),
            processes: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_the_least_that_is_enough() {
        let name = |cpus, memory| {
            let vm = Vm::at_least(cpus, memory);
            format!(
                "{} {}",
                vm.size.unwrap_or_default(),
                vm.memory.unwrap_or_default()
            )
        };
        assert_eq!(name(None, None), "shared-cpu-1x 256mb");
        assert_eq!(name(Some(0.5), Some(300)), "shared-cpu-1x 512mb");
        assert_eq!(name(Some(1.5), Some(4096)), "shared-cpu-2x 4gb");
        assert_eq!(name(Some(1.0), Some(3000)), "shared-cpu-2x 3gb");
        assert_eq!(name(Some(16.0), Some(1024)), "performance-16x 32gb");
    }

    proptest::proptest! {
        #[test]
        fn every_size_is_on_offer(cpus in 0.0_f64..80.0, memory in 0_u64..600_000) {
            let mut draft = Draft { app: "x".into(), ..Draft::default() };
            draft.vm.push(Vm::at_least(Some(cpus), Some(memory)));
            let loaded = hangar_config::load(&draft.render(), hangar_config::Format::Toml);
            proptest::prop_assert!(loaded.is_valid(), "{:?}\n{}", loaded.problems, draft.render());
        }

        #[test]
        fn any_text_can_be_written_and_read_back(name in "\\PC{0,12}", value in "(?s).{0,40}") {
            let mut draft = Draft { app: "x".into(), ..Draft::default() };
            draft.env.insert(format!("K{name}"), value.clone());
            draft.header.push(value.clone());
            draft.comment("[env]", value.clone());
            let read: toml::Table = draft.render().parse().unwrap();
            let env = read["env"].as_table().unwrap();
            proptest::prop_assert_eq!(env[&format!("K{name}")].as_str(), Some(value.as_str()));
        }
    }
}
