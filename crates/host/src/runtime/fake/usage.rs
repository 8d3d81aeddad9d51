//! What the fake's programs use: nothing but a process.

use hangar_api::error::{ErrorKind, Failure};
use hangar_api::process::Process;

use crate::runtime::{Limits, MemoryAsk, MemoryUse, StartPlan};

/// Returns the one process of a run.
pub(super) fn processes(plan: &StartPlan) -> Vec<Process> {
    vec![Process {
        pid: 1,
        command: plan.argv.join(" "),
        directory: plan.workdir.to_string_lossy().into_owned(),
        ..Process::default()
    }]
}

/// Returns the memory of a run after what is asked.
pub(super) fn memory(limits: &mut Limits, ask: MemoryAsk) -> MemoryUse {
    if let MemoryAsk::Limit(bytes) = ask {
        limits.memory_bytes = bytes;
    }
    MemoryUse {
        limit: limits.memory_bytes,
        ..MemoryUse::default()
    }
}

pub(super) fn not_running() -> Failure {
    Failure::new(ErrorKind::FailedPrecondition, "the machine is not running")
}
