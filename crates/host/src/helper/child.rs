//! The child in its new namespaces: from the clone to the execution of `init`.
//!
//! It is a copy of the worker with all rights. It makes the Machine's root while the worker moves
//! it into its groups and connects its network, waits for the word to go on, and becomes `init`.
//! What fails is reported over the pipe that `init` would say "ready" on.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};

use hangar_init::spec::{InitSpec, fd};
use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create, open};
use rustix::io::{fcntl_dupfd_cloexec, read};
use rustix::process::{setsid, umask};
use rustix::system::sethostname;

use super::rootfs::Shared;
use super::worker::{MakeError, Step as _};
use super::{StartRequest, rootfs};
use crate::sys as host_sys;

/// Descriptors are moved above this before they are put in their places.
const ABOVE_ALL: i32 = 64;
/// Open files allowed to a program (proxy-network-runtime.md 12.3.3), clamped by `init`.
const NOFILE: u64 = 10_240;

/// The worker's word: the network is connected.
pub(super) const GO: u8 = b'g';

/// What the child takes over from the worker.
pub(super) struct Hand<'a> {
    pub(super) program: &'a OwnedFd,
    pub(super) lock: &'a File,
    /// The mounts of the request's volumes, in order: this process may not open devices.
    pub(super) volumes: Vec<OwnedFd>,
    pub(super) go: OwnedFd,
    pub(super) report: OwnedFd,
}

/// Becomes the Machine's `init`, or reports why not and ends.
pub(super) fn run(request: &StartRequest, hand: Hand<'_>) -> ! {
    let report = match fcntl_dupfd_cloexec(&hand.report, ABOVE_ALL) {
        Ok(report) => report,
        Err(_) => hangar_init::sys::exit_now(125),
    };
    let error = match become_init(request, hand) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    if let Ok(json) = serde_json::to_vec(&(error.message, error.transient)) {
        // A worker that is gone does not need to know.
        let _told = rustix::io::write(&report, &json);
    }
    hangar_init::sys::exit_now(125)
}

fn become_init(
    request: &StartRequest,
    hand: Hand<'_>,
) -> Result<std::convert::Infallible, MakeError> {
    umask(Mode::empty());
    // What is sent to the helper's process group is not meant for Machines. The kernel sends it
    // SIGHUP when the server dies while one of the group is stopped.
    setsid().step("leave the helper's session")?;
    let moved = request.layout.enter_v1(&request.key);
    moved.step("move into the control groups")?;
    let shared = rootfs::build(request, &hand.volumes)?;
    sethostname(request.hostname.as_bytes()).step("set the host name")?;
    let spec = spec_file(request).step("hand over the plan")?;
    await_go(&hand.go);
    host_sys::enter_cgroup_namespace().step("make the cgroup namespace")?;
    // Out of the way of the numbers that are filled next.
    let program = fcntl_dupfd_cloexec(hand.program, ABOVE_ALL).step("place descriptors")?;
    place_descriptors(&hand, &shared, &spec).step("place descriptors")?;
    let argv = [
        CString::from(c"hangar-init"),
        CString::new(hangar_init::ROLE).unwrap_or_default(),
    ];
    Err(host_sys::execute_fd(&program, &argv)).step("execute init")
}

/// Waits for the worker. When it has died instead, nobody wants this run.
fn await_go(go: &OwnedFd) {
    let mut said = [0];
    loop {
        match read(go, &mut said) {
            Ok(1) if said == [GO] => return,
            Err(rustix::io::Errno::INTR) => {}
            _ => hangar_init::sys::exit_now(125),
        }
    }
}

fn spec_file(request: &StartRequest) -> io::Result<OwnedFd> {
    let spec = InitSpec {
        start: request.key.start,
        argv: request.argv.clone(),
        env: request.env.clone(),
        user: request.user.clone(),
        workdir: request.workdir.to_string_lossy().into_owned(),
        nofile: NOFILE,
        volumes: request
            .mounts
            .iter()
            .map(|mount| mount.path.clone())
            .collect(),
    };
    let mut file = File::from(memfd_create("spec", MemfdFlags::CLOEXEC)?);
    file.write_all(&serde_json::to_vec(&spec)?)?;
    Ok(file.into())
}

fn place_descriptors(hand: &Hand<'_>, shared: &Shared, spec: &OwnedFd) -> io::Result<()> {
    let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let places = [
        (0, null.as_fd()),
        (1, null.as_fd()),
        (2, null.as_fd()),
        (fd::RUN_DIR, shared.run.as_fd()),
        (fd::SPEC, spec.as_fd()),
        (fd::LOG_DIR, shared.log.as_fd()),
        (fd::LOCK, hand.lock.as_fd()),
        (fd::READY, hand.report.as_fd()),
    ];
    let mut moved = Vec::with_capacity(places.len());
    for (number, from) in places {
        moved.push((number, fcntl_dupfd_cloexec(from, ABOVE_ALL)?));
    }
    for (number, from) in &moved {
        hangar_init::sys::become_fd(from, *number)?;
    }
    hangar_init::sys::close_on_exec_from(u32::try_from(fd::END).unwrap_or(u32::MAX));
    Ok(())
}
