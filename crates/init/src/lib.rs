//! PID 1 inside a Machine, and the wire between it and the host.
//!
//! `init` is the hangar binary in another role ([`ROLE`] as its first argument). It is one thread
//! without an async runtime. It finds everything it needs in open descriptors ([`spec::fd`]), runs
//! the Machine's program, writes its log, answers the host over a socket, and writes `exit.json`
//! before it exits. It outlives the host's process and is driven by later versions of it: the wire
//! ([`wire`]) only grows. It must never wait for a reader, keep much in memory, or show the
//! program anything of the host.
#![warn(missing_docs)]

pub mod exit;
pub mod logfile;
pub mod spec;
pub mod untrusted;
pub mod wire;

mod identity;
mod listeners;
mod seccomp;
mod spawn;
mod supervise;
pub mod sys;

/// The first argument that makes the binary PID 1 of a Machine.
pub const ROLE: &str = "__init";

/// Runs PID 1 of a Machine and returns the exit code of the process: that of its program.
///
/// Call it before anything else is set up: no thread may have been started.
#[must_use]
pub fn run() -> u8 {
    supervise::run()
}
