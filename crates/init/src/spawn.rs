//! Executing the Machine's program, and commands beside it: a fork, then the steps from PID 1's
//! rights down to the program's.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, fchown};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Resource, Rlimit, chdir, getrlimit, setrlimit, setsid, umask};
use rustix::thread::{
    CapabilitySet, CapabilitySets, Gid, Uid, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use crate::identity::Identity;
use crate::sys;

/// Where programs are looked for when the environment does not say.
pub(crate) const DEFAULT_PATH: &str =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the program may do: Docker's default set without `MKNOD`, since devices are made for it.
pub(crate) const PROGRAM_CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);

/// What PID 1 keeps: one more than the program has, so that the program cannot look into it.
const INIT_CAPABILITIES: CapabilitySet = PROGRAM_CAPABILITIES.union(CapabilitySet::SYS_PTRACE);

/// The highest capability that any kernel has had.
const LAST_CAPABILITY: u32 = 63;

/// A program to execute.
#[derive(Debug)]
pub(crate) struct Program<'a> {
    pub(crate) argv: &'a [String],
    pub(crate) env: &'a BTreeMap<String, String>,
    pub(crate) identity: &'a Identity,
    pub(crate) workdir: &'a str,
    pub(crate) nofile: u64,
    /// Its standard input; nothing when absent.
    pub(crate) stdin: Option<OwnedFd>,
}

/// What a program's standard streams are.
#[derive(Clone, Copy, Debug)]
enum Streams<'a> {
    /// Two pipes; standard input is the program's own.
    Pipes {
        stdout: BorrowedFd<'a>,
        stderr: BorrowedFd<'a>,
    },
    /// A terminal for all three, which becomes the one that it is controlled by.
    Terminal(BorrowedFd<'a>),
}

/// A program that runs.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) pid: i32,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// Why a program does not run, with the code that a shell would give.
#[derive(Debug)]
pub(crate) struct SpawnError {
    pub(crate) message: String,
    pub(crate) exit_code: i32,
}

/// Gives up what PID 1 does not need for the rest of its life.
pub(crate) fn drop_own_rights() -> io::Result<()> {
    for number in 0..=LAST_CAPABILITY {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if INIT_CAPABILITIES.contains(one) {
            continue;
        }
        match remove_capability_from_bounding_set(one) {
            // The kernel knows no capabilities from here on.
            Err(Errno::INVAL) => break,
            other => other?,
        }
    }
    set_no_new_privs(true)?;
    set_exact(INIT_CAPABILITIES)?;
    Ok(())
}

/// Sets effective and permitted capabilities to what is in `wanted` and still permitted.
fn set_exact(wanted: CapabilitySet) -> Result<(), Errno> {
    let have = rustix::thread::capabilities(None)?.permitted;
    let set = have & wanted;
    set_capabilities(
        None,
        CapabilitySets {
            effective: set,
            permitted: set,
            inheritable: CapabilitySet::empty(),
        },
    )
}

/// Executes a program. Returns once it has been executed or could not be.
pub(crate) fn spawn(program: &Program<'_>) -> Result<Running, SpawnError> {
    let (stdout, stdout_child) = pipe()?;
    let (stderr, stderr_child) = pipe()?;
    for end in [&stdout_child, &stderr_child] {
        // So that a program without root's rights can open /dev/stdout again.
        give(end, program)?;
    }
    for end in [&stdout, &stderr] {
        non_blocking(end)?;
    }
    let streams = Streams::Pipes {
        stdout: stdout_child.as_fd(),
        stderr: stderr_child.as_fd(),
    };
    let pid = launch(program, streams)?;
    Ok(Running {
        pid,
        stdout,
        stderr,
    })
}

/// Executes a program on a terminal of its own. Returns its id.
pub(crate) fn spawn_on_terminal(
    program: &Program<'_>,
    terminal: &OwnedFd,
) -> Result<i32, SpawnError> {
    give(terminal, program)?;
    launch(program, Streams::Terminal(terminal.as_fd()))
}

fn failed(what: &str, error: Errno) -> SpawnError {
    SpawnError::other(format!("{what}: {error}"))
}

/// Returns the two ends of a pipe: to read from, to write to.
pub(crate) fn pipe() -> Result<(OwnedFd, OwnedFd), SpawnError> {
    pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed("make a pipe", error))
}

/// Makes reads and writes of a stream return at once.
pub(crate) fn non_blocking(stream: &OwnedFd) -> Result<(), SpawnError> {
    rustix::fs::fcntl_setfl(stream, rustix::fs::OFlags::NONBLOCK)
        .map_err(|error| failed("set up a stream", error))
}

/// Makes a stream the program's own.
fn give(stream: &OwnedFd, program: &Program<'_>) -> Result<(), SpawnError> {
    let uid = Uid::from_raw(program.identity.uid);
    let gid = Gid::from_raw(program.identity.gid);
    fchown(stream, Some(uid), Some(gid)).map_err(|error| failed("give a stream away", error))
}

fn launch(program: &Program<'_>, streams: Streams<'_>) -> Result<i32, SpawnError> {
    if program.argv.first().is_none_or(String::is_empty) {
        return Err(SpawnError::not_found(
            "no command: the image has neither ENTRYPOINT nor CMD and none is configured",
        ));
    }
    let (report, report_child) = pipe()?;
    let pid = match sys::fork() {
        Ok(Some(pid)) => pid,
        Ok(None) => {
            let failure = in_child(program, streams);
            // A parent that is gone does not need to know.
            let _told = rustix::io::write(&report_child, &failure.to_bytes());
            sys::exit_now(127);
        }
        Err(error) => {
            return Err(SpawnError::other(format!("start a process: {error}")));
        }
    };
    drop(report_child);
    let mut bytes = [0; 5];
    match read_all(&report, &mut bytes) {
        5 => {
            let _reaped = rustix::process::waitpid(
                rustix::process::Pid::from_raw(pid),
                rustix::process::WaitOptions::empty(),
            );
            Err(describe(program, &ChildFailure::from_bytes(bytes)))
        }
        _ => Ok(pid),
    }
}

fn read_all(fd: &OwnedFd, bytes: &mut [u8]) -> usize {
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match rustix::io::read(fd, rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(_) => break,
        }
    }
    filled
}

/// A step of the child that failed.
struct ChildFailure {
    step: u8,
    errno: i32,
}

/// The steps, as the error names them.
const STEPS: [&str; 7] = [
    "execute the program",
    "connect its streams",
    "limit its files",
    "enter its working directory",
    "become its user",
    "drop its capabilities",
    "install its filter of system calls",
];
const EXECUTE: u8 = 0;

fn step<T>(step: u8, done: Result<T, Errno>) -> Result<T, ChildFailure> {
    done.map_err(|error| ChildFailure {
        step,
        errno: error.raw_os_error(),
    })
}

fn in_child(program: &Program<'_>, streams: Streams<'_>) -> ChildFailure {
    match prepare_child(program, streams) {
        Ok(()) => execute(program),
        Err(failure) => failure,
    }
}

/// Connects the standard streams.
fn connect(program: &Program<'_>, streams: Streams<'_>) -> Result<(), ChildFailure> {
    let null;
    let [stdin, stdout, stderr] = match (streams, &program.stdin) {
        (Streams::Terminal(terminal), _) => {
            step(1, rustix::process::ioctl_tiocsctty(terminal))?;
            [terminal; 3]
        }
        (Streams::Pipes { stdout, stderr }, Some(stdin)) => [stdin.as_fd(), stdout, stderr],
        (Streams::Pipes { stdout, stderr }, None) => {
            // Where the Machine has put a FIFO in its place, nobody waits for the other end.
            let flags = rustix::fs::OFlags::RDONLY
                | rustix::fs::OFlags::NONBLOCK
                | rustix::fs::OFlags::CLOEXEC;
            null = step(1, rustix::fs::open("/dev/null", flags, Mode::empty()))?;
            [null.as_fd(), stdout, stderr]
        }
    };
    for (number, fd) in [(0, stdin), (1, stdout), (2, stderr)] {
        let done = sys::become_fd(fd, number);
        step(
            1,
            done.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO)),
        )?;
    }
    Ok(())
}

fn prepare_child(program: &Program<'_>, streams: Streams<'_>) -> Result<(), ChildFailure> {
    sys::reset_signals();
    step(1, setsid())?;
    connect(program, streams)?;
    let hard = getrlimit(Resource::Nofile).maximum;
    let limit = hard.map_or(program.nofile, |hard| hard.min(program.nofile));
    let nofile = Rlimit {
        current: Some(limit),
        maximum: Some(limit),
    };
    step(2, setrlimit(Resource::Nofile, nofile))?;
    umask(Mode::WGRP | Mode::WOTH);
    step(3, chdir(program.workdir))?;
    become_user(program.identity)?;
    sys::close_on_exec_from(3);
    let filter = sys::install_filter(&crate::seccomp::filter());
    step(
        6,
        filter.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO)),
    )
}

fn become_user(identity: &Identity) -> Result<(), ChildFailure> {
    let extra = INIT_CAPABILITIES.difference(PROGRAM_CAPABILITIES);
    step(5, remove_capability_from_bounding_set(extra))?;
    step(5, clear_ambient_capability_set())?;
    let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    step(4, set_thread_groups(&groups))?;
    let gid = Gid::from_raw(identity.gid);
    step(4, set_thread_res_gid(gid, gid, gid))?;
    let uid = Uid::from_raw(identity.uid);
    step(4, set_thread_res_uid(uid, uid, uid))?;
    // For a user that is not root nothing is permitted any more, and this leaves it so.
    step(5, set_exact(PROGRAM_CAPABILITIES))
}

fn execute(program: &Program<'_>) -> ChildFailure {
    let c_text = |text: &str| CString::new(text).unwrap_or_default();
    let argv: Vec<CString> = program.argv.iter().map(|text| c_text(text)).collect();
    let env: Vec<CString> = program
        .env
        .iter()
        .map(|(name, value)| c_text(&format!("{name}={value}")))
        .collect();
    let mut denied = false;
    let mut last = Errno::NOENT;
    for candidate in candidates(program) {
        let error = sys::execve(&c_text(&candidate), &argv, &env);
        last = Errno::from_io_error(&error).unwrap_or(Errno::IO);
        match last {
            Errno::NOENT | Errno::NOTDIR => {}
            Errno::ACCESS => denied = true,
            _ => break,
        }
    }
    if denied && matches!(last, Errno::NOENT | Errno::NOTDIR) {
        last = Errno::ACCESS;
    }
    ChildFailure {
        step: EXECUTE,
        errno: last.raw_os_error(),
    }
}

/// Returns the paths that the program's name may stand for.
fn candidates(program: &Program<'_>) -> Vec<String> {
    let name = program.argv.first().map_or("", String::as_str);
    if name.contains('/') {
        return vec![name.to_owned()];
    }
    search_path(program)
        .split(':')
        .map(|dir| format!("{}/{name}", if dir.is_empty() { "." } else { dir }))
        .collect()
}

fn search_path<'a>(program: &Program<'a>) -> &'a str {
    program.env.get("PATH").map_or(DEFAULT_PATH, String::as_str)
}

/// Puts a child's failure into words that name the program.
fn describe(program: &Program<'_>, failure: &ChildFailure) -> SpawnError {
    let errno = Errno::from_raw_os_error(failure.errno);
    let name = program.argv.first().map_or("", String::as_str);
    let is_path = name.contains('/');
    if failure.step != EXECUTE {
        let what = STEPS.get(usize::from(failure.step)).unwrap_or(&STEPS[0]);
        if failure.step == 3 {
            return SpawnError::other(format!("{what} {}: {errno}", program.workdir));
        }
        return SpawnError::other(format!("{what}: {errno}"));
    }
    match errno {
        Errno::NOENT | Errno::NOTDIR if !is_path => SpawnError::not_found(format!(
            "no such file: {name} (looked for in {})",
            search_path(program)
        )),
        Errno::NOENT if Path::new(program.workdir).join(name).exists() => {
            SpawnError::not_found(format!(
                "no such file: the interpreter or loader that {name} names is not in the image"
            ))
        }
        Errno::NOENT | Errno::NOTDIR => SpawnError::not_found(format!("no such file: {name}")),
        Errno::ACCESS => SpawnError::denied(format!("permission denied: {name}")),
        Errno::NOEXEC => SpawnError::denied(format!(
            "wrong architecture or not a program: {name} (this machine is {})",
            std::env::consts::ARCH
        )),
        _ => SpawnError::denied(format!("cannot execute {name}: {errno}")),
    }
}

// === impl SpawnError ===

impl SpawnError {
    fn not_found(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            exit_code: 127,
        }
    }

    fn denied(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            exit_code: 126,
        }
    }

    pub(crate) fn other(message: impl Into<String>) -> Self {
        Self::denied(message)
    }
}

// === impl ChildFailure ===

impl ChildFailure {
    fn to_bytes(&self) -> [u8; 5] {
        let [a, b, c, d] = self.errno.to_ne_bytes();
        [self.step, a, b, c, d]
    }

    fn from_bytes([step, a, b, c, d]: [u8; 5]) -> Self {
        Self {
            step,
            errno: i32::from_ne_bytes([a, b, c, d]),
        }
    }
}
