//! A command run beside the program for the host.

use std::io::Write as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, memfd_create};

use super::conn::kill_group;
use super::session::{Opened, Session};
use crate::identity;
use crate::spawn::{self, Program, Running, SpawnError};
use crate::spec::InitSpec;
use crate::wire::{Frame, MAX_EXEC_OUTPUT};

/// The longest that a command may run.
pub(super) const MAX_EXEC_TIME: Duration = Duration::from_secs(24 * 3600);
/// Bytes read at a time.
const READ_BYTES: usize = 8 * 1024;
/// Pieces read once the command has ended: more than any pipe holds by default.
const READS_AT_THE_END: usize = 256;

/// A command that runs.
#[derive(Debug)]
pub(super) struct Exec {
    pid: i32,
    deadline: Option<Instant>,
    timed_out: bool,
    stdout: Capture,
    stderr: Capture,
    /// What a session has beside.
    session: Option<Session>,
}

#[derive(Debug)]
struct Capture {
    pipe: Option<OwnedFd>,
    /// Most bytes that are taken.
    limit: usize,
    taken: usize,
    /// More came than is kept.
    cut: bool,
}

// === impl Exec ===

impl Exec {
    /// Runs a command as root, with the program's environment and limits.
    pub(super) fn start(
        spec: &InitSpec,
        argv: &[String],
        stdin: &str,
        deadline: Instant,
    ) -> Result<Self, SpawnError> {
        let root = identity::resolve("0").map_err(SpawnError::other)?;
        let mut env = spec.env.clone();
        env.insert("HOME".to_owned(), root.home.clone());
        let running = spawn::spawn(&Program {
            argv,
            env: &env,
            identity: &root,
            workdir: &spec.workdir,
            nofile: spec.nofile,
            stdin: stdin_file(stdin)?,
        })?;
        let Running {
            pid,
            stdout,
            stderr,
        } = running;
        Ok(Self {
            pid,
            deadline: Some(deadline),
            timed_out: false,
            stdout: Capture::new(Some(stdout), MAX_EXEC_OUTPUT),
            stderr: Capture::new(Some(stderr), MAX_EXEC_OUTPUT),
            session: None,
        })
    }

    /// Takes over the command of a session: its output has no end of its own.
    pub(super) fn of_session(opened: Opened, deadline: Instant) -> Self {
        Self {
            pid: opened.pid,
            deadline: Some(deadline),
            timed_out: false,
            stdout: Capture::new(Some(opened.stdout), usize::MAX),
            stderr: Capture::new(opened.stderr, usize::MAX),
            session: Some(opened.session),
        }
    }

    pub(super) fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    pub(super) fn session_mut(&mut self) -> Option<&mut Session> {
        self.session.as_mut()
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    pub(super) fn timed_out(&self) -> bool {
        self.timed_out
    }

    pub(super) fn pipes(&self) -> [Option<BorrowedFd<'_>>; 2] {
        [&self.stdout, &self.stderr].map(|capture| Some(capture.pipe.as_ref()?.as_fd()))
    }

    /// Takes a piece of one stream.
    pub(super) fn read(&mut self, error: bool, out: &mut Vec<u8>) {
        self.capture(error).read(error, out);
    }

    /// Takes what the streams still hold.
    pub(super) fn read_rest(&mut self, out: &mut Vec<u8>) {
        for error in [false, true] {
            for _ in 0..READS_AT_THE_END {
                if !self.capture(error).read(error, out) {
                    break;
                }
            }
        }
    }

    /// Returns whether it wrote more than was kept.
    pub(super) fn is_cut(&self) -> bool {
        self.stdout.cut || self.stderr.cut
    }

    fn capture(&mut self, error: bool) -> &mut Capture {
        if error {
            &mut self.stderr
        } else {
            &mut self.stdout
        }
    }

    /// Kills the command when its time is over.
    pub(super) fn on_time(&mut self, now: Instant) {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.deadline = None;
            self.timed_out = true;
            self.kill();
        }
    }

    pub(super) fn kill(&self) {
        // It may have ended just now.
        let _killed = kill_group(self.pid);
    }
}

// === impl Capture ===

impl Capture {
    fn new(pipe: Option<OwnedFd>, limit: usize) -> Self {
        Self {
            pipe,
            limit,
            taken: 0,
            cut: false,
        }
    }

    /// Takes a piece; what is over the limit is dropped. Returns whether there may be more now.
    fn read(&mut self, error: bool, out: &mut Vec<u8>) -> bool {
        let Some(pipe) = &self.pipe else { return false };
        let mut bytes = [0; READ_BYTES];
        match rustix::io::read(pipe, &mut bytes) {
            Ok(0) => {
                self.pipe = None;
                false
            }
            Ok(count) => {
                let keep = count.min(self.limit.saturating_sub(self.taken));
                self.cut |= keep < count;
                if keep > 0 {
                    self.taken = self.taken.saturating_add(keep);
                    let body = bytes.get(..keep).unwrap_or_default().to_vec();
                    let frame = if error {
                        Frame::Stderr(body)
                    } else {
                        Frame::Stdout(body)
                    };
                    frame.encode(out);
                }
                true
            }
            Err(rustix::io::Errno::INTR) => true,
            Err(rustix::io::Errno::AGAIN) => false,
            Err(_) => {
                // A terminal that nobody has open any more is read like this.
                self.pipe = None;
                false
            }
        }
    }
}

/// Returns a file that holds the command's input, so that nobody has to wait for it to read.
fn stdin_file(text: &str) -> Result<Option<OwnedFd>, SpawnError> {
    if text.is_empty() {
        return Ok(None);
    }
    let failed = |error: std::io::Error| SpawnError::other(format!("keep its input: {error}"));
    let memory =
        memfd_create("stdin", MemfdFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
    let mut file = std::fs::File::from(memory);
    file.write_all(text.as_bytes()).map_err(failed)?;
    std::io::Seek::rewind(&mut file).map_err(failed)?;
    Ok(Some(file.into()))
}
