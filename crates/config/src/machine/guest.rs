//! The size of a Machine out of `[[vm]]`.

use hangar_api::machine::Guest;
use serde_json::{Value as Json, json};

use super::MachineError;
use crate::app::{AppConfig, Vm};
use crate::size::{self, Unit};

/// GPU presets: no longer sold, but still read.
const GPUS: [(&str, &str); 4] = [
    ("a100-40gb", "a100-pcie-40gb"),
    ("a100-80gb", "a100-sxm4-80gb"),
    ("l40s", "l40s"),
    ("a10", "a10"),
];

impl AppConfig {
    /// Returns the entry of `[[vm]]` that counts for a group, and its place: the last that names
    /// it, else the first that is for it. Entries are never merged.
    pub(crate) fn vm_of(&self, group: &str) -> Option<(usize, &Vm)> {
        let candidates = || {
            let for_it = |v: &Vm| v.processes.is_empty() || self.is_for(&v.processes, group);
            let all = self.vm.iter().enumerate();
            all.filter(move |(_, v)| for_it(v))
        };
        let named = candidates().rfind(|(_, v)| v.processes.iter().any(|p| p == group));
        named.or_else(|| candidates().next())
    }

    /// Returns the size that fly.toml sets for a group.
    pub(super) fn guest(&self, group: &str) -> Result<Option<Json>, MachineError> {
        let Some((_, section)) = self.vm_of(group) else {
            return Ok(None);
        };
        let dedicated = self.host_dedication_id.as_deref();
        of(section, dedicated)
            .map(Some)
            .map_err(|reason| MachineError::Size {
                group: group.to_owned(),
                reason,
            })
    }
}

/// Returns the size that a section stands for.
pub(super) fn of(section: &Vm, dedicated: Option<&str>) -> Result<Json, String> {
    let by_default = if section.gpu_kind.is_some() {
        "performance-8x"
    } else {
        "shared-cpu-1x"
    };
    let mut guest = preset(section.size.as_deref().unwrap_or(by_default))?;
    if let Some(id) = dedicated {
        guest["host_dedication_id"] = Json::from(id);
    }
    if let Some(memory) = &section.memory {
        let mb = size::parse(memory, Unit::MemoryMb).map_err(|e| e.to_string())?;
        if mb == 0 {
            return Err("memory cannot be zero".to_owned());
        }
        guest["memory_mb"] = Json::from(mb);
    }
    let texts = [
        ("cpu_kind", &section.cpu_kind),
        ("gpu_kind", &section.gpu_kind),
        ("host_dedication_id", &section.host_dedication_id),
        ("persist_rootfs", &section.persist_rootfs),
    ];
    for (key, text) in texts {
        if let Some(text) = text {
            guest[key] = Json::from(text.as_str());
        }
    }
    let numbers = [
        ("cpus", section.cpus),
        ("memory_mb", section.memory_mb),
        ("max_memory_mb", section.max_memory_mb),
        ("gpus", section.gpus),
    ];
    for (key, number) in numbers.into_iter().filter(|(_, n)| *n != 0) {
        guest[key] = Json::from(number);
    }
    if !section.kernel_args.is_empty() {
        guest["kernel_args"] = json!(section.kernel_args);
    }
    Ok(guest)
}

fn preset(name: &str) -> Result<Json, String> {
    if let Some((_, kind)) = GPUS.iter().find(|(preset, _)| *preset == name) {
        return Ok(json!({
            "cpu_kind": "performance", "cpus": 8, "memory_mb": 32768, "gpus": 1, "gpu_kind": kind,
        }));
    }
    let guest = Guest::preset(name).map_err(|e| e.to_string())?;
    Ok(json!(guest))
}
