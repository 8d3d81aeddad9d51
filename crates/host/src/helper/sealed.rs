//! The program that every Machine's `init` is executed from, on a mount that nobody can write to.
//!
//! A Machine's root can reach the file that its `init` runs from: a program whose path is
//! `/proc/self/exe` is that file, before and after it is executed. The kernel lets nobody write
//! to a file that is executed, but its mode could be changed, and no Machine would start any
//! more. On a read-only mount that is refused. The mount is made once for each helper, costs no
//! copy, and all Machines go on sharing the file's pages.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, open as open_fd};
use rustix::mount::{MountFlags, MountPropagationFlags, mount_bind, mount_change, mount_remount};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::sys;

/// Returns a descriptor of the program that can be executed and through which nothing can be
/// changed. This process of one thread sees the same mounts as before when it returns well.
pub(super) fn open(program: &Path) -> io::Result<OwnedFd> {
    let home = File::open("/proc/self/ns/mnt")?;
    // A namespace for a moment: the mount shall be seen by nobody. It lives on, in no namespace,
    // for as long as the descriptor and whoever was executed from it.
    sys::enter_mount_namespace()?;
    let opened = mount_and_open(program);
    let mount_namespace = Some(LinkNameSpaceType::Mount);
    move_into_link_name_space(std::os::fd::AsFd::as_fd(&home), mount_namespace)?;
    opened
}

fn mount_and_open(program: &Path) -> io::Result<OwnedFd> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private)?;
    mount_bind(program, program)?;
    let closed = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    mount_remount(program, MountFlags::BIND | closed, c"")?;
    Ok(open_fd(
        program,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}
