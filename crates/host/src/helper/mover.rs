//! Moves a run into its control groups of the first version, in a process of its own.
//!
//! The first move in a while makes the kernel wait for all CPUs to pass a quiet point, which takes
//! some ten milliseconds. Meanwhile the worker connects the network and the child makes its root.
//! Groups of the second version need none of this: the child is born in them.

use std::fs::File;
use std::io::{Read as _, Write as _};

use hangar_init::sys as process;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, waitpid};

use super::StartRequest;
use super::worker::{MakeError, Step as _, WORKER_SECONDS};
use crate::cgroup::Kind;
use crate::sys;

/// The mover's last word when all went well.
const DONE: &[u8] = b"done";

/// A process that makes the groups and then waits for whom to move into them.
#[derive(Debug)]
pub(super) struct Mover {
    pid: i32,
    whom: Option<File>,
    result: File,
}

// === impl Mover ===

impl Mover {
    /// Begins to make the groups.
    pub(super) fn begin(request: &StartRequest) -> Result<Self, MakeError> {
        let pipe = || pipe_with(PipeFlags::CLOEXEC).step("make a pipe");
        let (whom_read, whom) = pipe()?;
        let (result, result_write) = pipe()?;
        match process::fork().step("start a mover")? {
            Some(pid) => Ok(Self {
                pid,
                whom: Some(whom.into()),
                result: result.into(),
            }),
            None => {
                sys::die_after(WORKER_SECONDS);
                drop(whom);
                let word = match work(request, whom_read.into()) {
                    Ok(()) => DONE.to_vec(),
                    Err(error) => {
                        let told = (error.message, error.transient);
                        serde_json::to_vec(&told).unwrap_or_default()
                    }
                };
                // A worker that is gone does not need to know.
                let _told = File::from(result_write).write_all(&word);
                process::exit_now(0)
            }
        }
    }

    /// Says whom to move.
    pub(super) fn send(&mut self, pid: u32) -> Result<(), MakeError> {
        let sent = match self.whom.take() {
            Some(mut whom) => whom.write_all(&pid.to_le_bytes()),
            None => Ok(()),
        };
        sent.step("tell the mover whom to move")
    }

    /// Waits until it is done.
    pub(super) fn finish(mut self) -> Result<(), MakeError> {
        drop(self.whom.take());
        let mut word = Vec::new();
        self.result
            .read_to_end(&mut word)
            .step("hear from the mover")?;
        if word == DONE {
            return Ok(());
        }
        let told = serde_json::from_slice::<(String, bool)>(&word);
        let (message, transient) =
            told.unwrap_or_else(|_| ("the mover was killed".to_owned(), true));
        Err(MakeError { message, transient })
    }
}

impl Drop for Mover {
    fn drop(&mut self) {
        // Without a word it ends; nothing is cleaned up while it still makes groups.
        drop(self.whom.take());
        if let Some(pid) = Pid::from_raw(self.pid) {
            let _reaped = waitpid(Some(pid), WaitOptions::empty());
        }
    }
}

fn work(request: &StartRequest, mut whom: File) -> Result<(), MakeError> {
    let made = request
        .layout
        .create(&request.key, &request.limits, Kind::V1);
    made.step("make the control groups")?;
    let mut pid = [0; 4];
    if whom.read_exact(&mut pid).is_err() {
        // The worker has given up.
        process::exit_now(0);
    }
    let moved = request.layout.add_v1(&request.key, u32::from_le_bytes(pid));
    moved.step("move the run into its control groups")
}
