//! The requests to loop devices and file systems that volumes need.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

/// `struct loop_info64` of the kernel.
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of the kernel.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

const LOOP_GET_STATUS64: libc::Ioctl = 0x4c05;
const LOOP_SET_CAPACITY: libc::Ioctl = 0x4c07;
const LOOP_CONFIGURE: libc::Ioctl = 0x4c0a;
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4c82;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;
const FIFREEZE: libc::Ioctl = 0xc004_5877;
const FITHAW: libc::Ioctl = 0xc004_5878;
const EXT4_IOC_RESIZE_FS: libc::Ioctl = 0x4008_6610;

/// Whether a loop device goes past the page cache, where the file system below can do that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caching {
    Direct,
    Cached,
}

fn checked(result: i32) -> io::Result<i32> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// Returns the number of a loop device that is free now.
pub(crate) fn loop_free(control: &File) -> io::Result<u32> {
    // SAFETY: takes no argument.
    let number = checked(unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) })?;
    u32::try_from(number).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Gives a free loop device a file, until nobody has the device open or mounted. The kernel keeps
/// the open file itself meanwhile, with the lock that is held on it. `EBUSY`: it is not free.
pub(crate) fn loop_attach(
    device: &File,
    image: impl AsFd,
    block_size: u32,
    caching: Caching,
) -> io::Result<()> {
    // SAFETY: all-zero is a valid value of these plain numbers.
    let mut config: LoopConfig = unsafe { std::mem::zeroed() };
    config.fd = u32::try_from(image.as_fd().as_raw_fd()).map_err(|_| io::ErrorKind::NotFound)?;
    config.block_size = block_size;
    config.info.flags = LO_FLAGS_AUTOCLEAR;
    if caching == Caching::Direct {
        config.info.flags |= LO_FLAGS_DIRECT_IO;
    }
    // SAFETY: the kernel reads a `struct loop_config`, which this is.
    checked(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) })?;
    Ok(())
}

/// Returns device and inode of a loop device's file, or `None` where it has none.
pub(crate) fn loop_backing(device: &File) -> io::Result<Option<(u64, u64)>> {
    // SAFETY: all-zero is a valid value of these plain numbers.
    let mut info: LoopInfo = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes a `struct loop_info64`, which this is.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64, &raw mut info) };
    match checked(done) {
        Ok(_) => Ok(Some((info.device, info.inode))),
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Lets a loop device take its file's new size.
pub(crate) fn loop_take_size(device: &File) -> io::Result<()> {
    // SAFETY: takes no argument.
    checked(unsafe { libc::ioctl(device.as_raw_fd(), LOOP_SET_CAPACITY) })?;
    Ok(())
}

/// Writes a file system out and holds back every further write until [`thaw`].
pub(crate) fn freeze(dir: impl AsFd) -> io::Result<()> {
    // SAFETY: the argument is not looked at.
    checked(unsafe { libc::ioctl(dir.as_fd().as_raw_fd(), FIFREEZE, 0) })?;
    Ok(())
}

/// Lets writes go on. Returns whether the file system was frozen.
pub(crate) fn thaw(dir: impl AsFd) -> io::Result<bool> {
    // SAFETY: the argument is not looked at.
    match checked(unsafe { libc::ioctl(dir.as_fd().as_raw_fd(), FITHAW, 0) }) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes a mounted ext4 file system as large as so many blocks.
pub(crate) fn ext4_resize(dir: impl AsFd, blocks: u64) -> io::Result<()> {
    // SAFETY: the kernel reads a `__u64`, which this is.
    let done = unsafe {
        libc::ioctl(
            dir.as_fd().as_raw_fd(),
            EXT4_IOC_RESIZE_FS,
            &raw const blocks,
        )
    };
    checked(done)?;
    Ok(())
}
