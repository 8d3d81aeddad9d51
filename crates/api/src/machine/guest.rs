//! Sizes (machines-api.md 4.3, process-groups-and-deploy.md 5.4).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A Machine's CPUs and memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Guest {
    /// `shared` or `performance`.
    #[serde(default = "shared")]
    pub cpu_kind: String,
    /// Number of CPUs.
    #[serde(default = "one")]
    pub cpus: u32,
    /// Memory in MiB.
    #[serde(default = "default_memory")]
    pub memory_mb: u64,
    /// Everything else, as sent.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

fn shared() -> String {
    "shared".to_owned()
}
fn one() -> u32 {
    1
}
fn default_memory() -> u64 {
    256
}

/// Fills in what a size that was sent leaves out.
pub(crate) fn complete(guest: &mut Map<String, Value>) {
    let default = [
        ("cpu_kind", Value::from(shared())),
        ("cpus", one().into()),
        ("memory_mb", default_memory().into()),
    ];
    for (key, value) in default {
        guest.entry(key).or_insert(value);
    }
}

/// Why a size is refused; the texts are flyctl's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidGuest {
    /// Neither shared nor performance.
    #[error("invalid CPU kind {0:?}: use shared or performance")]
    Kind(String),
    /// Not a number of CPUs of that kind.
    #[error("invalid number of CPUs: {0} {1} CPUs are not offered")]
    Cpus(u32, String),
    /// Not a multiple.
    #[error("invalid memory size: {0} MB is not a multiple of {1} MB")]
    Multiple(u64, u64),
    /// Too little.
    #[error("memory size for config is too low: {0} MB, at least {1} MB")]
    Low(u64, u64),
    /// Too much.
    #[error("memory size for config is too high: {0} MB, at most {1} MB")]
    High(u64, u64),
    /// Not a preset.
    #[error(
        "unknown size {0:?}: use one of shared-cpu-1x, 2x, 4x, 6x, 8x, performance-1x, 2x, 4x, 6x, 8x, 10x, 12x, 14x, 16x"
    )]
    Preset(String),
}

// === impl Guest ===

impl Default for Guest {
    fn default() -> Self {
        Self {
            cpu_kind: shared(),
            cpus: 1,
            memory_mb: 256,
            other: Map::new(),
        }
    }
}

impl Guest {
    /// Returns a preset's size.
    pub fn preset(name: &str) -> Result<Self, InvalidGuest> {
        let unknown = || InvalidGuest::Preset(name.to_owned());
        let (kind, count, per_cpu) = if let Some(n) = name.strip_prefix("shared-cpu-") {
            ("shared", n, 256)
        } else if let Some(n) = name.strip_prefix("performance-") {
            ("performance", n, 2048)
        } else {
            return Err(unknown());
        };
        let cpus: u32 = count
            .strip_suffix('x')
            .and_then(|n| n.parse().ok())
            .ok_or_else(unknown)?;
        let offered: &[u32] = if kind == "shared" {
            &[1, 2, 4, 6, 8]
        } else {
            &[1, 2, 4, 6, 8, 10, 12, 14, 16]
        };
        if !offered.contains(&cpus) {
            return Err(unknown());
        }
        let memory_mb = u64::from(cpus) * per_cpu;
        Ok(Self {
            cpu_kind: kind.to_owned(),
            cpus,
            memory_mb,
            other: Map::new(),
        })
    }

    /// Returns the most memory that it may be given while it runs, in MiB, where that is named.
    #[must_use]
    pub fn max_memory_mb(&self) -> Option<u64> {
        self.other
            .get("max_memory_mb")?
            .as_u64()
            .filter(|mb| *mb > 0)
    }

    /// Returns whether it asks for a GPU.
    #[must_use]
    pub fn wants_gpu(&self) -> bool {
        let gpus = self.other.get("gpus").and_then(Value::as_u64);
        let kind = self.other.get("gpu_kind").and_then(Value::as_str);
        gpus.is_some_and(|gpus| gpus > 0) || kind.is_some_and(|kind| !kind.is_empty())
    }

    /// Returns the preset's name, such as `shared-cpu-1x`.
    #[must_use]
    pub fn size_name(&self) -> String {
        match self.cpu_kind.as_str() {
            "shared" => format!("shared-cpu-{}x", self.cpus),
            "performance" => format!("performance-{}x", self.cpus),
            _ => "unknown".to_owned(),
        }
    }

    /// Checks kind, CPUs and memory against what is offered.
    pub fn validate(&self) -> Result<(), InvalidGuest> {
        let (offered, step, low, high): (&[u32], u64, u64, u64) = match self.cpu_kind.as_str() {
            "shared" => (&[1, 2, 4, 6, 8], 256, 256, 2048),
            "performance" => (
                &[1, 2, 4, 6, 8, 10, 12, 14, 16, 32, 64, 128],
                1024,
                2048,
                8192,
            ),
            other => return Err(InvalidGuest::Kind(other.to_owned())),
        };
        let cpus = u64::from(self.cpus);
        if !offered.contains(&self.cpus) {
            return Err(InvalidGuest::Cpus(self.cpus, self.cpu_kind.clone()));
        }
        if !self.memory_mb.is_multiple_of(step) {
            return Err(InvalidGuest::Multiple(self.memory_mb, step));
        }
        if self.memory_mb < low * cpus {
            return Err(InvalidGuest::Low(self.memory_mb, low * cpus));
        }
        if self.memory_mb > high * cpus {
            return Err(InvalidGuest::High(self.memory_mb, high * cpus));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_maps_back_to_its_name_and_is_offered() {
        let shared = [1, 2, 4, 6, 8].map(|n| format!("shared-cpu-{n}x"));
        let performance = [1, 2, 4, 6, 8, 10, 12, 14, 16].map(|n| format!("performance-{n}x"));
        for name in shared.into_iter().chain(performance) {
            let guest = Guest::preset(&name).unwrap();
            assert_eq!(guest.size_name(), name);
            assert_eq!(guest.validate(), Ok(()), "{name}");
        }
    }

    #[test]
    fn a_size_that_there_is_not_is_refused_and_an_odd_kind_unknown() {
        for name in [
            "shared-cpu-3x",
            "bogus-cpu-1x",
            "performance-32x",
            "shared",
            "a100-40gb",
        ] {
            let error = Guest::preset(name).unwrap_err();
            assert!(error.to_string().contains("shared-cpu-1x"), "{error}");
        }
        let odd = Guest {
            cpu_kind: String::new(),
            ..Guest::default()
        };
        assert_eq!(odd.size_name(), "unknown");
        assert!(odd.validate().is_err());
    }

    /// The texts that users of flyctl know, and the limits behind them (5.4).
    #[test]
    fn memory_and_processors_have_their_limits_in_flyctls_words() {
        let said = |kind: &str, cpus, memory_mb| {
            let guest = Guest {
                cpu_kind: kind.to_owned(),
                cpus,
                memory_mb,
                other: Map::new(),
            };
            guest.validate().unwrap_err().to_string()
        };
        assert!(said("shared", 3, 1024).starts_with("invalid number of CPUs"));
        assert!(said("shared", 1, 300).starts_with("invalid memory size"));
        assert!(said("shared", 4, 256).starts_with("memory size for config is too low"));
        assert!(said("shared", 1, 4096).starts_with("memory size for config is too high"));
        assert!(said("odd", 1, 256).starts_with("invalid CPU kind"));
    }
}
