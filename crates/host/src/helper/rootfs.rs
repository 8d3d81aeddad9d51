//! The Machine's root: its image with a writable layer on top, in a mount namespace of its own.
//!
//! Nothing of the host is in it, and no path of the host can be seen from it: layers are named by
//! descriptors. Files are written while the image is all there is, so that no link in it can lead
//! anywhere else. There is no control group file system: a Machine cannot see, let alone raise,
//! its limits there.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, open, statat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount,
    mount_bind, mount_bind_recursive, mount_change, mount_remount, move_mount, unmount,
};
use rustix::process::{chdir, fchdir, pivot_root};

use super::volume;
use super::worker::{MakeError, Step as _};
use super::{StartRequest, files};

/// Files and directories of /proc and /sys that a Machine must not see: Docker's list.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
/// What a Machine may read but not write: Docker's list.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];
/// Devices: name and minor number of major 1 (memory) or 5 (terminal).
const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];
const DEVICE_LINKS: [(&str, &str); 5] = [
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// The host's directories that `init` writes to, opened for it.
pub(super) struct Shared {
    pub(super) run: OwnedFd,
    pub(super) log: OwnedFd,
}

/// Makes the root and enters it.
pub(super) fn build(request: &StartRequest, volumes: &[OwnedFd]) -> Result<Shared, MakeError> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).step("leave the host's mounts")?;
    let run = open_alone(&request.paths.run).step("open the run directory")?;
    let log = open_alone(&request.log_dir).step("open the log directory")?;
    let api = request.api.as_deref().map(open_api);
    let target = request.paths.rootfs.join("root");
    mount_image(request, &target)?;
    enter(&target).step("enter the image")?;
    for (mounted, volume) in volumes.iter().zip(&request.mounts) {
        let shown = volume::show(mounted, &volume.path);
        shown.step(format_args!(
            "mount the volume at {}",
            volume.path.display()
        ))?;
    }
    files::write_all(request)?;
    for name in ["/proc", "/sys", "/dev"] {
        ensure_dir(Path::new(name), 0o755).step(format_args!("make {name}"))?;
    }
    if !Path::new("/tmp").exists() {
        ensure_dir(Path::new("/tmp"), 0o1777).step("make /tmp")?;
    }
    mount_kernel_file_systems()?;
    if let Some(Ok(api)) = &api {
        // Where the kernel does not have it, the Machine runs without.
        let _without = show_api(api);
    }
    make_devices()?;
    // Programs that are not root may listen on any port: the namespace is the Machine's own.
    // Kernels without the setting keep their rule.
    let _set = fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
    hide().step("hide parts of /proc and /sys")?;
    Ok(Shared { run, log })
}

/// Opens a directory of the host as a mount of its own, so that nothing leads up from it: once the
/// host's root is let go, the mount hangs nowhere.
fn open_alone(dir: &Path) -> Result<OwnedFd, Errno> {
    mount_bind(dir, dir)?;
    let closed = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount_remount(dir, MountFlags::BIND | closed, c"")?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open(dir, flags, Mode::empty())
}

/// Opens the mount with the API's socket, which hangs nowhere yet.
fn open_api(mount: &Path) -> Result<OwnedFd, Errno> {
    open(mount, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

/// Shows it in the Machine's root, which is ours by now.
fn show_api(api: &OwnedFd) -> io::Result<()> {
    let path = Path::new("/.fly");
    ensure_dir(path, 0o755)?;
    let from_fd = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(move_mount(api, "", CWD, path, from_fd)?)
}

/// Mounts the layers with the writable one above.
fn mount_image(request: &StartRequest, target: &Path) -> Result<(), MakeError> {
    let open_dir = |path: &Path| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        open(path, flags, Mode::empty())
            .step(format_args!("open layer {} of the image", path.display()))
    };
    let rootfs = &request.paths.rootfs;
    let writable = request.writable();
    let upper = open_dir(&writable.join("upper"))?;
    let work = open_dir(&writable.join("work"))?;
    let stays = match request.kept {
        Some(_) => Stays::Beyond,
        None => Stays::WithRun,
    };
    let mut lower = Vec::new();
    // The file system wants the topmost first.
    for layer in request.layers.iter().rev() {
        lower.push(open_dir(layer)?);
    }
    if lower.is_empty() {
        lower.push(open_dir(&rootfs.join("empty"))?);
    }
    match mount_overlay(&lower, &upper, &work, target, stays) {
        Err(Errno::INVAL | Errno::NOSYS) => mount_overlay_by_options(&lower, &upper, &work, target),
        other => other,
    }
    .map_err(|error| match error {
        Errno::NODEV => io::Error::other("this kernel has no overlayfs: run modprobe overlay"),
        other => other.into(),
    })
    .step("mount the image")
}

/// How long a writable layer stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stays {
    /// It goes with the run.
    WithRun,
    /// It is mounted again in a later run.
    Beyond,
}

/// Names a descriptor so that mount options can hold it: short, and nothing to escape.
fn by_descriptor(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn mount_overlay(
    lower: &[OwnedFd],
    upper: &OwnedFd,
    work: &OwnedFd,
    target: &Path,
    stays: Stays,
) -> Result<(), Errno> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for layer in lower {
        fsconfig_set_string(&context, "lowerdir+", by_descriptor(layer))?;
    }
    fsconfig_set_string(&context, "upperdir", by_descriptor(upper))?;
    fsconfig_set_string(&context, "workdir", by_descriptor(work))?;
    match stays {
        // Nothing is gained by writing it out when the run ends.
        Stays::WithRun => fsconfig_set_flag(&context, "volatile")?,
        // The image below may be another one next time: nothing in the layer may refer to it.
        Stays::Beyond => {
            for (option, value) in [
                ("index", "off"),
                ("metacopy", "off"),
                ("redirect_dir", "nofollow"),
            ] {
                fsconfig_set_string(&context, option, value)?;
            }
        }
    }
    fsconfig_create(&context)?;
    let nodev = MountAttrFlags::MOUNT_ATTR_NODEV;
    let image = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, nodev)?;
    let from_fd = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&image, "", CWD, target, from_fd)
}

/// For kernels that cannot take layers one by one.
fn mount_overlay_by_options(
    lower: &[OwnedFd],
    upper: &OwnedFd,
    work: &OwnedFd,
    target: &Path,
) -> Result<(), Errno> {
    let lower: Vec<String> = lower.iter().map(by_descriptor).collect();
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.join(":"),
        by_descriptor(upper),
        by_descriptor(work),
    );
    let options = std::ffi::CString::new(options).map_err(|_| Errno::INVAL)?;
    mount(
        "overlay",
        target,
        "overlay",
        MountFlags::NODEV,
        options.as_c_str(),
    )
}

/// Makes the mounted image the root, and lets go of everything else.
fn enter(target: &Path) -> Result<(), Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open(target, flags, Mode::empty())?;
    fchdir(&root)?;
    pivot_root(".", ".")?;
    // The old root lies on top of the new one now.
    unmount(".", UnmountFlags::DETACH)?;
    chdir("/")
}

/// Makes sure that a path is a directory and no link to one.
fn ensure_dir(path: &Path, mode: u32) -> io::Result<()> {
    match statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => return Ok(()),
        Ok(_) => fs::remove_file(path)?,
        Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(rustix::fs::mkdir(path, Mode::from_raw_mode(mode))?)
}

fn mount_kernel_file_systems() -> Result<(), MakeError> {
    let closed = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let fs = |kind: &str, target: &str, flags, options: Option<&std::ffi::CStr>| {
        mount(kind, target, kind, flags, options).step(format_args!("mount {target}"))
    };
    fs("proc", "/proc", closed, None)?;
    fs("sysfs", "/sys", closed | MountFlags::RDONLY, None)?;
    let plain = MountFlags::NOSUID | MountFlags::NOEXEC;
    fs("tmpfs", "/dev", plain, Some(c"mode=755,size=65536"))?;
    for name in ["/dev/pts", "/dev/shm", "/dev/mqueue"] {
        fs::create_dir(name).step(format_args!("make {name}"))?;
    }
    let terminals = Some(c"newinstance,ptmxmode=0666,mode=0620,gid=5");
    fs("devpts", "/dev/pts", plain, terminals)?;
    fs(
        "tmpfs",
        "/dev/shm",
        closed,
        Some(c"mode=1777,size=67108864"),
    )?;
    fs("mqueue", "/dev/mqueue", closed, None)
}

fn make_devices() -> Result<(), MakeError> {
    let dev = Path::new("/dev");
    for (name, major, minor) in DEVICES {
        rustix::fs::mknodat(
            CWD,
            dev.join(name),
            FileType::CharacterDevice,
            Mode::from_raw_mode(0o666),
            rustix::fs::makedev(major, minor),
        )
        .step(format_args!("make /dev/{name}"))?;
    }
    for (name, to) in DEVICE_LINKS {
        std::os::unix::fs::symlink(to, dev.join(name)).step(format_args!("make /dev/{name}"))?;
    }
    Ok(())
}

fn hide() -> Result<(), Errno> {
    let closed = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    for path in READ_ONLY.map(PathBuf::from) {
        if present(&path)?.is_some() {
            mount_bind_recursive(&path, &path)?;
            mount_remount(&path, closed | MountFlags::BIND | MountFlags::RDONLY, c"")?;
        }
    }
    let mut empty: Option<PathBuf> = None;
    for path in MASKED.map(PathBuf::from) {
        match (present(&path)?, &empty) {
            (None, _) => {}
            (Some(FileType::Directory), Some(empty)) => mount_bind(empty, &path)?,
            (Some(FileType::Directory), None) => {
                let read_only = closed | MountFlags::RDONLY;
                mount("tmpfs", &path, "tmpfs", read_only, c"size=0")?;
                empty = Some(path);
            }
            (Some(_), _) => mount_bind("/dev/null", &path)?,
        }
    }
    Ok(())
}

fn present(path: &Path) -> Result<Option<FileType>, Errno> {
    match statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}
