//! A volume's image as a block device, for as long as somebody uses it.
//!
//! Whoever attaches an image holds its lock. The kernel keeps the open file with that lock, and
//! lets go of both when the last mount of the device is gone: when the Machine's last process has
//! ended, whoever of us lives then. No loop device can be left over, no image can be attached
//! twice, and nothing has to be remembered.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};

use crate::sys::block::{self, Caching};

/// Bytes of a block of device and file system.
pub(super) const BLOCK: u32 = 4096;
const LOOP_MAJOR: u32 = 7;
/// How often another device is tried when somebody else was first with a free one.
const TRIES: u32 = 64;

/// A loop device that has a file. Held open, it keeps that file.
#[derive(Debug)]
pub(super) struct Device {
    file: File,
    path: PathBuf,
}

/// Attaches an image whose lock the caller holds by this very open file.
pub(super) fn attach(image: &File) -> io::Result<Device> {
    let control = File::open("/dev/loop-control").map_err(|error| {
        let hint = "this machine offers no loop devices: run modprobe loop";
        io::Error::new(error.kind(), format!("{hint} ({error})"))
    })?;
    for _ in 0..TRIES {
        let device = open(block::loop_free(&control)?)?;
        let configured = match block::loop_attach(&device.file, image, BLOCK, Caching::Direct) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                block::loop_attach(&device.file, image, BLOCK, Caching::Cached)
            }
            other => other,
        };
        match configured {
            Ok(()) => return Ok(device),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other(
        "every free loop device was taken by others; try again",
    ))
}

/// Returns the device that has this image, or `None`.
pub(super) fn find(image: &File) -> io::Result<Option<Device>> {
    let meta = image.metadata()?;
    let all = attached()?.into_iter();
    let ours = all.filter(|(_, backing)| *backing == (meta.dev(), meta.ino()));
    Ok(ours.map(|(device, _)| device).next())
}

/// Returns all devices that have an image of volumes, with device and inode of that.
pub(super) fn attached() -> io::Result<Vec<(Device, (u64, u64))>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/block")? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("loop"));
        let Some(number) = number.and_then(|number| number.parse().ok()) else {
            continue;
        };
        // Other people's devices are not even opened.
        let file = fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
        let name = Path::new(file.trim_end()).file_name().unwrap_or_default();
        if !name.to_string_lossy().starts_with("vol_") {
            continue;
        }
        // What cannot be opened went away meanwhile. Open, it stays what it is.
        if let Ok(device) = open(number)
            && let Some(backing) = block::loop_backing(&device.file)?
        {
            found.push((device, backing));
        }
    }
    Ok(found)
}

fn open(number: u32) -> io::Result<Device> {
    let path = PathBuf::from(format!("/dev/loop{number}"));
    let read_write = || File::options().read(true).write(true).open(&path);
    let file = match read_write() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Where nobody makes nodes as devices come.
            let (kind, mode) = (FileType::BlockDevice, Mode::from_raw_mode(0o600));
            let device = rustix::fs::makedev(LOOP_MAJOR, number);
            match mknodat(CWD, &path, kind, mode, device) {
                Ok(()) | Err(Errno::EXIST) => read_write()?,
                Err(error) => return Err(error.into()),
            }
        }
        other => other?,
    };
    Ok(Device { file, path })
}

// === impl Device ===

impl Device {
    /// Mounts the file system where nobody sees it. Mounted again, it is the same one.
    pub(super) fn mount(&self) -> io::Result<OwnedFd> {
        let context = fsopen("ext4", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&context, "source", Path::new(&self.path))?;
        fsconfig_create(&context)?;
        let nodev = MountAttrFlags::MOUNT_ATTR_NODEV;
        Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, nodev)?)
    }

    /// Lets the device take its file's new size.
    pub(super) fn take_size(&self) -> io::Result<()> {
        block::loop_take_size(&self.file)
    }
}

/// Returns the root directory of such a mount, to be used for requests to its file system.
pub(super) fn root_of(mount: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(mount, ".", flags, Mode::empty())?)
}
