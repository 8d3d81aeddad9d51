//! The first version: one hierarchy per controller or set of controllers.

use std::fs;
use std::io;
use std::path::Path;

use super::{CPU_PERIOD_US, Freezer, Hierarchy, MemoryFiles, Version, write_value};
use crate::runtime::Limits;

/// The devices that a Machine may use: null, zero, full, random, urandom, tty, and terminals.
const DEVICES: [&str; 8] = [
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

pub(super) struct V1;

impl Version for V1 {
    fn prepare_parent(&self, hierarchy: &Hierarchy, parent: &Path) -> io::Result<()> {
        if hierarchy.has("cpuset") {
            fill_cpuset(hierarchy, parent)?;
            // Groups that are made from now on copy what is here.
            write_value(&parent.join("cgroup.clone_children"), "1")?;
        }
        Ok(())
    }

    fn limit(&self, hierarchy: &Hierarchy, group: &Path, limits: &Limits) -> io::Result<()> {
        if hierarchy.has("cpuset") && is_empty(&group.join("cpuset.cpus"))? {
            // Somebody made the parent a moment ago and had not filled it yet.
            if let Some(parent) = group.parent() {
                fill_cpuset(hierarchy, parent)?;
            }
            fill_cpuset(hierarchy, group)?;
        }
        if hierarchy.has("cpu") {
            let quota = CPU_PERIOD_US * u64::from(limits.cpus);
            write_value(&group.join("cpu.cfs_period_us"), &CPU_PERIOD_US.to_string())?;
            write_value(&group.join("cpu.cfs_quota_us"), &quota.to_string())?;
        }
        if hierarchy.has("memory") {
            let bytes = limits.memory_bytes.to_string();
            write_value(&group.join("memory.limit_in_bytes"), &bytes)?;
            // Memory and swap together. Not every kernel accounts for swap.
            let with_swap = group.join("memory.memsw.limit_in_bytes");
            if with_swap.exists() {
                let both = limits.memory_bytes.saturating_add(limits.swap_bytes);
                write_value(&with_swap, &both.to_string())?;
            }
        }
        if hierarchy.has("pids") {
            write_value(&group.join("pids.max"), &limits.pids.to_string())?;
        }
        if hierarchy.has("devices") {
            write_value(&group.join("devices.deny"), "a")?;
            for device in DEVICES {
                write_value(&group.join("devices.allow"), device)?;
            }
        }
        Ok(())
    }

    fn begin_kill(&self, group: &Path) {
        // Where processes are counted, nothing new can be started while the rest is killed.
        let pids = group.join("pids.max");
        if pids.exists() {
            let _refused = write_value(&pids, "0");
        }
    }

    fn oom_kills(&self, hierarchy: &Hierarchy, group: &Path) -> Option<u64> {
        if !hierarchy.has("memory") {
            return None;
        }
        let text = fs::read_to_string(group.join("memory.oom_control")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line?.trim().parse().ok()
    }

    fn memory(&self) -> MemoryFiles {
        MemoryFiles {
            limit: "memory.limit_in_bytes",
            usage: "memory.usage_in_bytes",
            inactive: "total_inactive_file ",
            with_swap: Some("memory.memsw.limit_in_bytes"),
        }
    }

    fn freezer(&self) -> Freezer {
        Freezer {
            control: "freezer.state",
            freeze: "FROZEN",
            thaw: "THAWED",
            state: "freezer.state",
            frozen: "FROZEN",
        }
    }
}

/// Gives a group all CPUs and memory there are: one without takes no process.
fn fill_cpuset(hierarchy: &Hierarchy, group: &Path) -> io::Result<()> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let all = fs::read_to_string(hierarchy.mount.join(name))?;
        write_value(&group.join(name), all.trim())?;
    }
    Ok(())
}

fn is_empty(file: &Path) -> io::Result<bool> {
    Ok(fs::read_to_string(file)?.trim().is_empty())
}
