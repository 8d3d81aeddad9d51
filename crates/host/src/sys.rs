//! The system calls of the host that Rust cannot check. Nothing else in this crate is unsafe.
//!
//! Most of it is for the helper, a process of one thread.
#![expect(
    unsafe_code,
    reason = "clone, execveat and device requests have no safe form"
)]

pub(crate) mod block;

use std::ffi::{CString, c_char};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use tokio::io::unix::AsyncFd;

/// The result of [`clone_into_namespaces`].
#[derive(Debug)]
pub(crate) enum Cloned {
    /// In the parent: the child's id and a descriptor of it.
    Parent(u32, OwnedFd),
    /// In the child.
    Child,
}

/// Forks into new namespaces, and into a cgroup of the second version if one is given.
///
/// The caller must have one thread; the child then may do all that its parent may.
pub(crate) fn clone_into_namespaces(
    namespaces: i32,
    cgroup: Option<BorrowedFd<'_>>,
) -> io::Result<Cloned> {
    let mut pidfd: i32 = -1;
    // SAFETY: an all-zero `clone_args` asks for a plain fork.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    let flags = namespaces | libc::CLONE_PIDFD;
    args.flags = u64::try_from(flags).map_err(|_| io::ErrorKind::InvalidInput)?;
    args.pidfd = (&raw mut pidfd) as u64;
    args.exit_signal = u64::try_from(libc::SIGCHLD).map_err(|_| io::ErrorKind::InvalidInput)?;
    if let Some(cgroup) = cgroup {
        args.flags |= 0x2_0000_0000; // CLONE_INTO_CGROUP, wider than libc's type for flags
        args.cgroup = u64::try_from(cgroup.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?;
    }
    // SAFETY: without CLONE_VM the child has a copy of everything, as after fork; this process has
    // one thread, so no lock is held by another.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut args,
            size_of::<libc::clone_args>(),
        )
    };
    match u32::try_from(pid) {
        Err(_) => Err(io::Error::last_os_error()),
        Ok(0) => Ok(Cloned::Child),
        // SAFETY: the kernel has written a new descriptor that is nobody else's.
        Ok(pid) => Ok(Cloned::Parent(pid, unsafe { OwnedFd::from_raw_fd(pidfd) })),
    }
}

/// Executes the program behind a descriptor, with an empty environment; returns only when that
/// fails.
pub(crate) fn execute_fd(program: impl AsFd, argv: &[CString]) -> io::Error {
    let pointers = argv.iter().map(|text| text.as_ptr());
    let argv: Vec<*const c_char> = pointers.chain(std::iter::once(std::ptr::null())).collect();
    let env: [*const c_char; 1] = [std::ptr::null()];
    // SAFETY: both lists end with a null pointer and outlive the call; the path is empty, as
    // AT_EMPTY_PATH wants it.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_fd().as_raw_fd(),
            c"".as_ptr(),
            argv.as_ptr(),
            env.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

/// Has this process killed after so many seconds, unless it ends before.
pub(crate) fn die_after(seconds: u32) {
    // SAFETY: only sets a timer; its signal has its default action.
    unsafe { libc::alarm(seconds) };
}

/// Enters a new cgroup namespace whose root is the group this process is in.
pub(crate) fn enter_cgroup_namespace() -> io::Result<()> {
    // SAFETY: changes what this process of one thread sees below /proc; no memory is involved.
    if unsafe { libc::unshare(libc::CLONE_NEWCGROUP) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Enters a copy of the mount namespace this process is in.
pub(crate) fn enter_mount_namespace() -> io::Result<()> {
    // SAFETY: changes which mounts this process of one thread sees; no memory is involved.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Registers a descriptor of ours with tokio.
pub(crate) fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned by what is returned, so that it stays open and the same
    // until it is taken off the list.
    unsafe { AsyncFd::register(fd) }.map_err(Into::into)
}
