//! The system calls that Rust cannot check, for processes of one thread: `init` and the helper
//! that makes containers. Nothing else in this crate is unsafe.
#![expect(
    unsafe_code,
    reason = "fork, exec, signals and seccomp have no safe form"
)]

use std::ffi::{CString, c_char};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

/// Takes over a descriptor that the process was started with, closed on exec from now on.
pub fn take_fd(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_SETFD touches no memory; a number that is not open gives EBADF.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the number is open (checked above) and each is taken once, at the start of the role.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Forks. Returns the child's id, or `None` in the child.
pub fn fork() -> io::Result<Option<i32>> {
    // SAFETY: this process has one thread, so the child may do all that the parent may.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        pid => Ok(Some(pid)),
    }
}

/// Executes a program; returns only when that fails.
pub fn execve(path: &CString, argv: &[CString], env: &[CString]) -> io::Error {
    let list = |texts: &[CString]| -> Vec<*const c_char> {
        let pointers = texts.iter().map(|text| text.as_ptr());
        pointers.chain(std::iter::once(std::ptr::null())).collect()
    };
    let (argv, env) = (list(argv), list(env));
    // SAFETY: the lists end with a null pointer, and their texts outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Ends the process at once, without running anything on the way out.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` may be called anywhere.
    unsafe { libc::_exit(code) }
}

/// Blocks these signals and returns a descriptor from which they are read.
pub fn signal_fd(signals: &[i32]) -> io::Result<OwnedFd> {
    // SAFETY: an all-zero `sigset_t` is a valid value, and the calls only write into it.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is a valid set of our own.
    unsafe { libc::sigemptyset(&raw mut set) };
    for signal in signals {
        // SAFETY: `set` is a valid set of our own.
        unsafe { libc::sigaddset(&raw mut set, *signal) };
    }
    // SAFETY: `set` is initialised; the old mask is not asked for.
    if unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `set` is initialised; -1 asks for a new descriptor.
    let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Reads the next pending signal.
pub fn next_signal(fd: &OwnedFd) -> Option<i32> {
    let mut record = [0_u8; size_of::<libc::signalfd_siginfo>()];
    match rustix::io::read(fd, &mut record) {
        Ok(count) if count == record.len() => {}
        _ => return None,
    }
    let number = record.first_chunk::<4>()?;
    i32::try_from(u32::from_ne_bytes(*number)).ok()
}

/// Puts signals back as a fresh program expects them: none blocked, none ignored.
pub fn reset_signals() {
    // SAFETY: an all-zero `sigset_t` is a valid, empty set.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is a valid set of our own, and no old mask is asked for.
    unsafe {
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
    }
    // SAFETY: the default action needs no handler. Rust ignores SIGPIPE in its own programs.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Sends a signal to a process of this namespace, to a group (negative) or to all (-1).
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: sending a signal touches no memory of ours.
    if unsafe { libc::kill(pid, signal) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Makes `fd` the descriptor of this number, open over an exec.
pub fn become_fd(fd: impl AsFd, number: RawFd) -> io::Result<()> {
    // SAFETY: only called in a child before exec, where nothing owns the number any more.
    if unsafe { libc::dup2(fd.as_fd().as_raw_fd(), number) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Marks every descriptor from this number on to be closed on exec.
pub fn close_on_exec_from(first: u32) {
    // SAFETY: only sets flags. Where the call is missing, every descriptor of ours has the flag.
    unsafe {
        libc::syscall(
            libc::SYS_close_range,
            first,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
}

/// Installs a seccomp filter for this process and all that it executes.
pub fn install_filter(filter: &[libc::sock_filter]) -> io::Result<()> {
    let len = u16::try_from(filter.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog {
        len,
        // The kernel only reads it.
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: `program` points to `len` instructions that outlive the call.
    let done = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
