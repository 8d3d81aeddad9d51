//! File operations below one directory that no path can leave.
//!
//! Called by [`super::apply`] alone. Parents are opened by the kernel with the layer's directory
//! as their root (`openat2`), so that `..` and symlinks, absolute ones too, end inside it; the
//! last part of a path is never followed. Every operation is relative to such a parent.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, XattrFlags};
use rustix::io::Errno;

use super::LayerError;

/// How deep a directory may lie. Removing a tree holds one descriptor per level.
const MAX_DEPTH: usize = 256;
/// Mode of directories that a layer implies without listing them.
const IMPLIED_DIR: u32 = 0o755;
const OPAQUE: &str = "trusted.overlay.opaque";

/// The directory of one layer.
#[derive(Debug)]
pub(super) struct Tree<'fd> {
    root: BorrowedFd<'fd>,
    /// The parent that was used last: entries of one directory come together.
    last: Option<(Vec<u8>, Rc<OwnedFd>)>,
    /// Directories that were made because something lies in them.
    pub(super) implied: BTreeSet<Vec<u8>>,
}

/// Splits a path of an archive into its parts, without `.` and empty ones, or says why not.
pub(super) fn parts(path: &[u8]) -> Result<Vec<&[u8]>, LayerError> {
    let mut parts = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                if parts.pop().is_none() {
                    return Err(bad(path, "leads out of the layer"));
                }
            }
            _ => parts.push(part),
        }
    }
    if parts.len() > MAX_DEPTH {
        return Err(bad(path, "is too deep"));
    }
    if path.contains(&0) {
        return Err(bad(path, "holds a zero byte"));
    }
    Ok(parts)
}

/// Returns whether something is overlayfs's mark for "removed".
pub(super) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

pub(super) fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// Returns the error for a failed call: what the layer is to blame for, apart from what the disk
/// is.
pub(super) fn fault(doing: &'static str, path: &[u8], errno: Errno) -> LayerError {
    match errno {
        Errno::INVAL
        | Errno::NAMETOOLONG
        | Errno::LOOP
        | Errno::NOTDIR
        | Errno::ISDIR
        | Errno::NOENT
        | Errno::EXIST
        | Errno::MLINK
        | Errno::XDEV => bad(path, &format!("cannot be made: {}", io::Error::from(errno))),
        Errno::NOSYS => LayerError::Unsupported(
            "this kernel has no openat2; Linux 5.6 or newer is needed".to_owned(),
        ),
        _ => LayerError::Write {
            doing,
            source: errno.into(),
        },
    }
}

pub(super) fn bad(path: &[u8], reason: &str) -> LayerError {
    let mut shown = String::from_utf8_lossy(path).into_owned();
    if shown.chars().count() > 200 {
        shown = shown.chars().take(200).chain("...".chars()).collect();
    }
    LayerError::Broken(format!("its path {shown:?} {reason}"))
}

// === impl Tree ===

impl<'fd> Tree<'fd> {
    pub(super) fn new(root: BorrowedFd<'fd>) -> Self {
        Self {
            root,
            last: None,
            implied: BTreeSet::new(),
        }
    }

    /// Opens a directory, making what is missing of it. Where a whiteout stands in the way, the
    /// layer removes something and puts a directory in its place.
    pub(super) fn dir(&mut self, parts: &[&[u8]]) -> Result<Rc<OwnedFd>, LayerError> {
        let path = parts.join(&b'/');
        if let Some((last, fd)) = &self.last
            && *last == path
        {
            return Ok(Rc::clone(fd));
        }
        let fd = match self.open(&path) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR) => self.make(parts)?,
            Err(errno) => return Err(fault("open a directory", &path, errno)),
        };
        let fd = Rc::new(fd);
        self.last = Some((path, Rc::clone(&fd)));
        Ok(fd)
    }

    fn make(&mut self, parts: &[&[u8]]) -> Result<OwnedFd, LayerError> {
        let mut fd = self
            .open(b"")
            .map_err(|e| fault("open the layer", b"", e))?;
        for depth in 1..=parts.len() {
            let path = parts[..depth].join(&b'/');
            let name = parts[depth - 1];
            fd = match self.open(&path) {
                Ok(found) => found,
                Err(Errno::NOENT) => {
                    make_dir(fd.as_fd(), name, &path, false)?;
                    self.implied.insert(path.clone());
                    self.open(&path)
                        .map_err(|e| fault("open a directory", &path, e))?
                }
                Err(Errno::NOTDIR) if stat(fd.as_fd(), name).is_some_and(|s| is_whiteout(&s)) => {
                    self.remove(fd.as_fd(), name, &path)?;
                    make_dir(fd.as_fd(), name, &path, true)?;
                    self.open(&path)
                        .map_err(|e| fault("open a directory", &path, e))?
                }
                Err(errno) => return Err(fault("open a directory", &path, errno)),
            };
        }
        Ok(fd)
    }

    /// Opens an existing directory. The way may lead over symlinks, as if the layer were `/`.
    pub(super) fn open(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let path: &[u8] = if path.is_empty() { b"." } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let straight = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match rustix::fs::openat2(self.root, path, flags, Mode::empty(), straight) {
            Err(Errno::LOOP) => {
                let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
                let fd = rustix::fs::openat2(self.root, path, flags, Mode::empty(), within)?;
                self.check_depth(&fd)?;
                Ok(fd)
            }
            other => other,
        }
    }

    /// Symlinks could lead deeper with each entry; `MAX_DEPTH` holds for where they end.
    fn check_depth(&self, fd: &OwnedFd) -> Result<(), Errno> {
        let real = |fd: BorrowedFd<'_>| {
            use std::os::fd::AsRawFd;
            let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
            rustix::fs::readlink(link, Vec::new()).map(|path| path.into_bytes())
        };
        let (root, place) = (real(self.root)?, real(fd.as_fd())?);
        let below = place.strip_prefix(root.as_slice()).ok_or(Errno::XDEV)?;
        if below.iter().filter(|b| **b == b'/').count() > MAX_DEPTH {
            return Err(Errno::NAMETOOLONG);
        }
        Ok(())
    }

    /// Removes what an earlier entry of the layer put here, with all that is in it.
    pub(super) fn remove(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
    ) -> Result<(), LayerError> {
        self.last = None;
        remove_tree(dir, name).map_err(|e| fault("replace an entry", path, e))
    }
}

/// Returns what is there, without following it.
pub(super) fn stat(dir: BorrowedFd<'_>, name: &[u8]) -> Option<Stat> {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).ok()
}

/// Makes a directory; an opaque one hides what lower layers have there.
pub(super) fn make_dir(
    dir: BorrowedFd<'_>,
    name: &[u8],
    path: &[u8],
    opaque: bool,
) -> Result<(), LayerError> {
    let mode = Mode::from_raw_mode(IMPLIED_DIR);
    rustix::fs::mkdirat(dir, name, mode).map_err(|e| fault("make a directory", path, e))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, name, flags, Mode::empty())
        .map_err(|e| fault("open a directory", path, e))?;
    rustix::fs::fchmod(&fd, mode).map_err(|e| fault("set a mode", path, e))?;
    if opaque {
        make_opaque(fd.as_fd(), path)?;
    }
    Ok(())
}

/// Hides what lower layers have in a directory.
pub(super) fn make_opaque(dir: BorrowedFd<'_>, path: &[u8]) -> Result<(), LayerError> {
    rustix::fs::fsetxattr(dir, OPAQUE, b"y", XattrFlags::empty())
        .map_err(|e| fault("mark a directory as opaque", path, e))
}

fn remove_tree(dir: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        other => return other,
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    for entry in rustix::fs::Dir::read_from(&fd)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            remove_tree(fd.as_fd(), name)?;
        }
    }
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
}
