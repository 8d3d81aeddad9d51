//! One request, in a process of its own.
//!
//! The run's lock file is held from the first step of a start on, and passed to `init`: whoever
//! finds it locked knows that the run is being made or runs. A worker that is killed leaves a
//! child that either has been told to go on, and becomes a whole run, or ends by itself.

use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use hangar_api::error::ErrorKind;
use hangar_init::spec::{READY, file};
use hangar_init::untrusted;
use rustix::fs::{CWD, FlockOperation, OFlags, flock};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, pidfd_send_signal};

use super::child::{self, Hand};
use super::{Paths, RemoveRequest, Reply, Request, StartRequest, volume};
use crate::net::veth;
use crate::sys::{self, Cloned};

/// A worker that takes longer than this is killed.
const WORKER_SECONDS: u32 = 60;
/// How long `remove` waits for a maker that still works on the run.
const LOCK_TIME: Duration = Duration::from_secs(40);
/// How long `start` waits for somebody who only looks at the lock.
const PEEK_TIME: Duration = Duration::from_secs(1);
const LOCK_PAUSE: Duration = Duration::from_millis(1);
/// Most bytes of an error that a child may report.
const MAX_REPORT: u64 = 4096;

/// Why a run could not be made.
#[derive(Debug)]
pub(super) struct MakeError {
    pub(super) message: String,
    pub(super) transient: bool,
}

/// What a failed step is called.
pub(super) trait Step<T> {
    fn step(self, what: impl Display) -> Result<T, MakeError>;
}

/// Does what the request asks.
pub(super) fn work(mut body: File, program: &OwnedFd) -> Reply {
    sys::die_after(WORKER_SECONDS);
    let mut json = Vec::new();
    let read = body.read_to_end(&mut json);
    let request = read.and_then(|_| Ok(serde_json::from_slice::<Request>(&json)?));
    drop(json);
    let done = match request {
        Ok(Request::Start(request)) => start(&request, program),
        Ok(Request::Kill(request)) => request.layout.kill(&request.key).step("kill"),
        Ok(Request::Remove(request)) => remove(&request),
        Ok(Request::Wipe { kept }) => remove_tree(&kept).step("remove the kept writable layer"),
        Ok(Request::Volume(request)) => {
            sys::die_after(volume::WORKER_SECONDS);
            return volume::work(&request);
        }
        Err(error) => Err(error).step("read the request"),
    };
    match done {
        Ok(()) => Reply::done(),
        Err(error) => Reply::failed(error.message, error.transient),
    }
}

fn start(request: &StartRequest, program: &OwnedFd) -> Result<(), MakeError> {
    let lock = match open_run(&request.paths)? {
        Some(lock) => lock,
        // Asked again: it runs already, or has been made and has ended.
        None => return Ok(()),
    };
    let made = make(request, program, &lock);
    if made.is_err() {
        // The first error is the one to tell. What cannot be removed now is found by the sweep.
        let _removed = clear(&RemoveRequest {
            key: request.key.clone(),
            paths: request.paths.clone(),
            layout: request.layout.clone(),
            connect: request.connect,
        });
    }
    made
}

/// Makes the run directory and takes its lock. Returns `None` when the run exists already.
fn open_run(paths: &Paths) -> Result<Option<File>, MakeError> {
    loop {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&paths.run)
            .step("make the run directory")?;
        let lock = match open_lock(&paths.run) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened.step("open the run's lock")?,
        };
        if !try_lock(&lock, PEEK_TIME).step("lock the run")? {
            return Ok(None);
        }
        if !is_still_there(&lock, &paths.run) {
            // Somebody removed the run while we waited for its lock.
            continue;
        }
        if paths.run.join(file::EXIT).exists() {
            return Ok(None);
        }
        return Ok(Some(lock));
    }
}

/// Opens the lock of a run that is to be removed, and makes one where there is none, with all that
/// is above it: a maker that comes now must wait, also the first of its Machine. Returns `None` on
/// a full disk, where nobody can make it now either.
fn open_to_remove(run: &Path) -> io::Result<Option<File>> {
    use io::ErrorKind::{NotFound, QuotaExceeded, StorageFull};
    let mut dirs = fs::DirBuilder::new();
    match dirs.recursive(true).mode(0o700).create(run) {
        Err(error) if matches!(error.kind(), NotFound | StorageFull | QuotaExceeded) => {
            return Ok(None);
        }
        made => made?,
    }
    match open_lock(run) {
        Err(error) if matches!(error.kind(), NotFound | StorageFull | QuotaExceeded) => Ok(None),
        // Something else stands in its place: there is nobody to wait for.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(None),
        opened => opened.map(Some),
    }
}

/// Returns whether a lock is the one that others find.
fn is_still_there(lock: &File, run: &Path) -> bool {
    let found = fs::symlink_metadata(run.join(file::LOCK));
    match (lock.metadata(), found) {
        (Ok(ours), Ok(found)) => (ours.dev(), ours.ino()) == (found.dev(), found.ino()),
        _ => false,
    }
}

fn open_lock(run: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE;
    let lock = untrusted::open(CWD, run.join(file::LOCK), flags)?;
    let no_file = || io::Error::new(io::ErrorKind::InvalidInput, "something else has its name");
    lock.map(File::from).ok_or_else(no_file)
}

fn try_lock(lock: &File, limit: Duration) -> io::Result<bool> {
    let until = Instant::now() + limit;
    loop {
        match flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) if Instant::now() < until => std::thread::sleep(LOCK_PAUSE),
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
    }
}

fn make(request: &StartRequest, program: &OwnedFd, lock: &File) -> Result<(), MakeError> {
    forget_others(request).step("remove the writable layer of another version")?;
    for name in ["empty", "root"] {
        fs::create_dir_all(request.paths.rootfs.join(name)).step("make the writable layer")?;
    }
    for name in ["upper", "work"] {
        fs::create_dir_all(request.writable().join(name)).step("make the writable layer")?;
    }
    fs::create_dir_all(&request.log_dir).step("make the log directory")?;
    let limited = request.layout.create(&request.key, &request.limits);
    limited.step("make the control groups")?;

    let volumes = mount_volumes(request)?;

    let pipe = || pipe_with(PipeFlags::CLOEXEC).step("make a pipe");
    let (go_child, go) = pipe()?;
    let (report, report_child) = pipe()?;
    let hand = Hand {
        program,
        lock,
        volumes,
        go: go_child,
        report: report_child,
    };
    let namespaces = libc::CLONE_NEWPID
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC;
    let group = request.layout.open_v2(&request.key);
    let group = group.step("open the control group")?;
    let cloned =
        sys::clone_into_namespaces(namespaces, group.as_ref().map(std::os::fd::AsFd::as_fd));
    let (pid, pidfd) = match cloned.step("make the namespaces")? {
        Cloned::Parent(pid, pidfd) => (pid, pidfd),
        Cloned::Child => {
            drop(go);
            drop(report);
            child::run(request, hand)
        }
    };
    drop(hand);
    let attached = attach(request, pid, &mut File::from(go));
    if attached.is_err() {
        // It may have ended by itself, which is why the step failed; then it says why.
        let _killed = pidfd_send_signal(&pidfd, Signal::KILL);
    }
    match (
        await_ready(File::from(report), &request.paths.run),
        attached,
    ) {
        (Ok(()), attached) => attached,
        (Err(Silence::Dead), Err(error)) => Err(error),
        (Err(silence), _) => {
            // It may have ended by itself; then there is nothing to kill.
            let _killed = pidfd_send_signal(&pidfd, Signal::KILL);
            Err(silence.into())
        }
    }
}

/// Removes the writable layers that the Machine has kept and does not go on with.
fn forget_others(request: &StartRequest) -> io::Result<()> {
    let kept = &request.paths.kept;
    let Some(name) = &request.kept else {
        return remove_tree(kept);
    };
    let entries = match fs::read_dir(kept) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name() != name.as_str() {
            remove_tree(&entry.path())?;
        }
    }
    Ok(())
}

/// Mounts the Machine's volumes where nobody sees them yet.
fn mount_volumes(request: &StartRequest) -> Result<Vec<OwnedFd>, MakeError> {
    let mounted = |mount| {
        volume::mount_for_start(mount).map_err(|failure| MakeError {
            // Whoever still works with it lets go of it.
            transient: failure.kind == ErrorKind::FailedPrecondition,
            message: failure.message,
        })
    };
    request.mounts.iter().map(mounted).collect()
}

/// Why nothing was heard of a program.
enum Silence {
    /// The child said so.
    Said(MakeError),
    /// It was killed before it could say anything.
    Dead,
}

/// What is done to the child from outside, while it makes its root from inside.
fn attach(request: &StartRequest, pid: u32, go: &mut File) -> Result<(), MakeError> {
    if request.connect {
        let interface = veth::interface_name(&request.key);
        veth::attach(pid, &request.net, &interface).step("connect the network")?;
    }
    go.write_all(&[child::GO]).step("tell the child to go on")
}

/// Waits until `init` has tried to execute the program, or somebody says why not.
fn await_ready(report: File, run: &Path) -> Result<(), Silence> {
    let mut said = Vec::new();
    // What cannot be read has not been said.
    let _read = report.take(MAX_REPORT).read_to_end(&mut said);
    // A program that could not be executed has ended already, and why is written down.
    if said == READY || run.join(file::EXIT).exists() {
        return Ok(());
    }
    if said.is_empty() {
        return Err(Silence::Dead);
    }
    let error = serde_json::from_slice(&said)
        .map(|(message, transient): (String, bool)| MakeError { message, transient })
        .unwrap_or_else(|_| MakeError {
            message: String::from_utf8_lossy(&said).into_owned(),
            transient: false,
        });
    Err(Silence::Said(error))
}

fn remove(request: &RemoveRequest) -> Result<(), MakeError> {
    let until = Instant::now() + LOCK_TIME;
    // Held until all is removed.
    let mut lock = open_to_remove(&request.paths.run).step("open the run's lock")?;
    while let Some(held) = &lock {
        request.layout.kill(&request.key).step("kill")?;
        if try_lock(held, LOCK_PAUSE).step("lock the run")? {
            if is_still_there(held, &request.paths.run) {
                break;
            }
            // Somebody else removed it while we waited, and it may be made again by now.
            lock = open_to_remove(&request.paths.run).step("open the run's lock")?;
        }
        if Instant::now() > until {
            return Err(MakeError {
                message: "remove the run: somebody still works on it".to_owned(),
                transient: true,
            });
        }
    }
    clear(request)
}

/// Removes all of a run; the lock is held, or there is none.
fn clear(request: &RemoveRequest) -> Result<(), MakeError> {
    request.layout.kill(&request.key).step("kill")?;
    let removed = request.layout.remove(&request.key);
    removed.step("remove the control groups")?;
    if request.connect {
        veth::detach(&veth::interface_name(&request.key)).step("disconnect the network")?;
    }
    remove_tree(&request.paths.rootfs).step("remove the writable layer")?;
    // Last: as long as it is there, the run is found again.
    remove_tree(&request.paths.run).step("remove the run directory")
}

fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

// === impl Silence ===

impl From<Silence> for MakeError {
    fn from(silence: Silence) -> Self {
        match silence {
            Silence::Said(error) => error,
            Silence::Dead => Self {
                message: "start init: it was killed before it was up".to_owned(),
                transient: true,
            },
        }
    }
}

// === impl Step ===

impl<T, E: Into<StepCause>> Step<T> for Result<T, E> {
    fn step(self, what: impl Display) -> Result<T, MakeError> {
        self.map_err(|error| {
            let cause = error.into();
            MakeError {
                message: format!("{what}: {}", cause.text),
                transient: cause.transient,
            }
        })
    }
}

/// A cause of any kind, in words, with a hint where one is known.
pub(super) struct StepCause {
    text: String,
    transient: bool,
}

/// Returns the kernel's number of an error, also of one that was put in words.
fn errno(error: &io::Error) -> Option<i32> {
    let first: &(dyn std::error::Error + 'static) = error;
    std::iter::successors(Some(first), |error| error.source())
        .find_map(|error| error.downcast_ref::<io::Error>()?.raw_os_error())
}

impl From<io::Error> for StepCause {
    fn from(error: io::Error) -> Self {
        let transient = matches!(
            errno(&error),
            Some(
                libc::ENOSPC
                    | libc::ENOMEM
                    | libc::EAGAIN
                    | libc::EMFILE
                    | libc::ENFILE
                    | libc::EBUSY
                    | libc::EINTR
                    | libc::EDQUOT
            )
        );
        Self {
            text: error.to_string(),
            transient,
        }
    }
}

impl From<Errno> for StepCause {
    fn from(error: Errno) -> Self {
        io::Error::from(error).into()
    }
}

impl From<veth::VethError> for StepCause {
    fn from(error: veth::VethError) -> Self {
        Self {
            text: error.to_string(),
            ..Self::from(error.source)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn want_of_something_is_transient_also_when_it_was_put_in_words() {
        let failed = |number: i32| io::Error::from_raw_os_error(number);
        let made = |cause: StepCause| Err::<(), _>(cause).step("make").unwrap_err().transient;
        for (number, transient) in [(libc::ENFILE, true), (libc::EPERM, false)] {
            assert_eq!(made(failed(number).into()), transient);
            let interface = veth::VethError {
                step: "make interface",
                interface: "hg0".to_owned(),
                source: failed(number),
            };
            assert_eq!(made(interface.into()), transient, "{number}");
        }
        let full = crate::cgroup::write_value(Path::new("/dev/full"), "1").unwrap_err();
        assert!(
            full.to_string().contains("/dev/full: No space left"),
            "{full}"
        );
        assert!(made(full.into()));
    }
}
