//! The second version: one hierarchy for all controllers.

use std::fs;
use std::io;
use std::path::Path;

use super::{CPU_PERIOD_US, Freezer, Hierarchy, MemoryFiles, Version, write_value};
use crate::runtime::Limits;

/// The controllers that limits need.
const WANTED: [&str; 3] = ["cpu", "memory", "pids"];

pub(super) struct V2;

impl Version for V2 {
    fn prepare_parent(&self, hierarchy: &Hierarchy, parent: &Path) -> io::Result<()> {
        for controller in WANTED.into_iter().filter(|name| hierarchy.has(name)) {
            for dir in [hierarchy.mount.as_path(), parent] {
                let control = dir.join("cgroup.subtree_control");
                write_value(&control, &format!("+{controller}"))?;
            }
        }
        Ok(())
    }

    fn limit(&self, hierarchy: &Hierarchy, group: &Path, limits: &Limits) -> io::Result<()> {
        let wanted = WANTED.into_iter().filter(|name| hierarchy.has(name));
        let lacks = |name: &str| !group.join(format!("{name}.max")).exists();
        if let Some(parent) = group.parent()
            && wanted.into_iter().any(lacks)
        {
            // Somebody made the parent a moment ago and had not enabled its controllers yet.
            self.prepare_parent(hierarchy, parent)?;
        }
        if hierarchy.has("cpu") {
            let quota = CPU_PERIOD_US * u64::from(limits.cpus);
            write_value(&group.join("cpu.max"), &format!("{quota} {CPU_PERIOD_US}"))?;
        }
        if hierarchy.has("memory") {
            write_value(&group.join("memory.max"), &limits.memory_bytes.to_string())?;
            let swap = group.join("memory.swap.max");
            if swap.exists() {
                write_value(&swap, &limits.swap_bytes.to_string())?;
            }
        }
        if hierarchy.has("pids") {
            write_value(&group.join("pids.max"), &limits.pids.to_string())?;
        }
        Ok(())
    }

    fn begin_kill(&self, group: &Path) {
        // Older kernels do not have it; then each process is killed by itself.
        let kill = group.join("cgroup.kill");
        if kill.exists() {
            let _refused = write_value(&kill, "1");
        }
    }

    fn oom_kills(&self, hierarchy: &Hierarchy, group: &Path) -> Option<u64> {
        if !hierarchy.has("memory") {
            return None;
        }
        let text = fs::read_to_string(group.join("memory.events")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line?.trim().parse().ok()
    }

    fn memory(&self) -> MemoryFiles {
        MemoryFiles {
            limit: "memory.max",
            usage: "memory.current",
            inactive: "inactive_file ",
            with_swap: None,
        }
    }

    fn freezer(&self) -> Freezer {
        Freezer {
            control: "cgroup.freeze",
            freeze: "1",
            thaw: "0",
            state: "cgroup.events",
            frozen: "frozen 1",
        }
    }
}
