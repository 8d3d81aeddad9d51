//! The helper: a small process of one thread that makes and removes containers.
//!
//! The host's own process is large and has many threads; forking it would be slow and unsafe. It
//! therefore spawns this one (the same binary in the role [`ROLE`], its socket as standard input),
//! which forks once per request, so that a slow mount blocks nobody. It keeps nothing: a request is
//! one operation that may be repeated, keyed by run. When it dies it is started again; what it
//! had begun is finished by the forked workers or given up whole. Machines survive it. The next
//! helper of the same data directory waits for the workers of the last one: what was asked before
//! a server was killed is not done after what its successor asks.

mod child;
pub mod client;
mod files;
mod loops;
mod packet;
mod protocol;
mod rootfs;
mod sealed;
pub(crate) mod volume;
mod worker;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use hangar_init::sys;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, WaitOptions, getpid, set_child_subreaper};

pub(crate) use protocol::{
    MountRequest, Paths, RemoveRequest, Reply, Request, StartRequest, kept_dir,
};

/// The first argument that makes the binary the helper.
pub const ROLE: &str = "__helper";

/// Workers at once; more requests wait in the socket.
const MAX_WORKERS: usize = 64;
/// How long a helper waits for what the last one has left running, looking so often.
const TURN_TIME: Duration = Duration::from_secs(5);
const TURN_PAUSE: Duration = Duration::from_millis(2);

/// Runs the role and returns the exit code of the process.
///
/// Call it before anything else is set up: no thread may have been started.
#[must_use]
pub fn run() -> u8 {
    let Ok(socket) = sys::take_fd(0) else {
        return 125;
    };
    let Ok(program) = std::fs::read_link("/proc/self/exe") else {
        return 125;
    };
    let turn = take_turn(&program);
    match Helper::new(socket, turn, &program) {
        Ok(helper) => helper.serve(),
        Err(_) => 125,
    }
}

/// Waits until the last helper and its workers have ended, for [`TURN_TIME`]: they share a lock on
/// the directory that all of them run from. Returns the lock, which the workers inherit.
fn take_turn(program: &Path) -> Option<File> {
    let home = File::open(program.parent()?).ok()?;
    let until = Instant::now() + TURN_TIME;
    while flock(&home, FlockOperation::NonBlockingLockExclusive).is_err() {
        if Instant::now() > until {
            return None;
        }
        std::thread::sleep(TURN_PAUSE);
    }
    Some(home)
}

struct Helper {
    /// Held until the last worker has ended.
    _turn: Option<File>,
    socket: OwnedFd,
    signals: OwnedFd,
    /// This binary, which is also every Machine's PID 1, where nobody can change it.
    program: OwnedFd,
    /// Workers and the requests they work on.
    workers: BTreeMap<i32, u64>,
}

// === impl Helper ===

impl Helper {
    fn new(socket: OwnedFd, turn: Option<File>, program: &Path) -> std::io::Result<Self> {
        // Machines whose maker has gone become our children, so that somebody reaps them here.
        set_child_subreaper(Some(getpid()))?;
        Ok(Self {
            _turn: turn,
            socket,
            signals: sys::signal_fd(&[libc::SIGCHLD])?,
            program: sealed::open(program)?,
            workers: BTreeMap::new(),
        })
    }

    /// Serves until the host closes its end. Workers finish what they have begun.
    fn serve(mut self) -> u8 {
        loop {
            let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
            if self.workers.len() < MAX_WORKERS {
                fds.push(PollFd::new(&self.socket, PollFlags::IN));
            }
            if poll(&mut fds, None).is_err() {
                continue;
            }
            let asked = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
            self.reap();
            if asked && !self.take_request() {
                return 0;
            }
        }
    }

    /// Takes one request. Returns whether the host is still there.
    fn take_request(&mut self) -> bool {
        let (id, body) = match packet::receive_request(&self.socket) {
            Ok(Some(request)) => request,
            Ok(None) => return false,
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => return true,
            Err(_) => return false,
        };
        match sys::fork() {
            Ok(Some(pid)) => {
                self.workers.insert(pid, id);
            }
            Ok(None) => {
                sys::reset_signals();
                let reply = worker::work(body, &self.program);
                let sent = packet::send_reply(&self.socket, id, &reply);
                sys::exit_now(i32::from(sent.is_err()));
            }
            Err(error) => self.refuse(id, &format!("start a worker: {error}")),
        }
        true
    }

    /// Reaps workers, and Machines that were left to us. A worker that could not answer is
    /// answered for.
    fn reap(&mut self) {
        while sys::next_signal(&self.signals).is_some() {}
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let worker = self.workers.remove(&Pid::as_raw(Some(pid)));
            if let Some(id) = worker.filter(|_| status.exit_status() != Some(0)) {
                self.refuse(id, "the maker was killed or took too long");
            }
        }
    }

    fn refuse(&self, id: u64, message: &str) {
        let reply = Reply::failed(message.to_owned(), true);
        // A host that has gone does not wait for it.
        let _sent = packet::send_reply(self.socket.as_fd(), id, &reply);
    }
}
