//! Makes the entries of one layer, in the form that overlayfs wants.
//!
//! Called by the layer pipeline. A whiteout becomes a character device 0/0, an opaque directory
//! gets overlayfs's attribute, and attributes of overlayfs's own that an image brings are dropped:
//! with them it could show itself other directories.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, makedev,
};
use rustix::io::Errno;

use super::LayerError;
use super::tar::{Entry, What};
use super::tree::{self, Tree, bad, fault};

const WHITEOUT: &[u8] = b".wh.";
/// Marks of the union file system that whiteouts come from; all but the opaque one are noise.
const WHITEOUT_META: &[u8] = b".wh..wh.";
const WHITEOUT_OPAQUE: &[u8] = b".wh..wh..opq";
const COPY_BUFFER: usize = 128 << 10;
/// Bytes of directory names that are remembered until their times can be set.
const MAX_DIR_NAMES: usize = 256 << 20;
/// Directories that something lies in without being listed.
const MAX_IMPLIED_DIRS: usize = 100_000;

/// Applies entries to a tree.
#[derive(Debug)]
pub(super) struct Apply<'fd> {
    tree: Tree<'fd>,
    root: BorrowedFd<'fd>,
    /// Directories get their times last: making entries in them changes these.
    dir_times: BTreeMap<Vec<u8>, (i64, u32)>,
    dir_names: usize,
    done: Done,
    buffer: Vec<u8>,
}

/// What was made.
#[derive(Clone, Debug, Default)]
pub(super) struct Done {
    pub(super) entries: u64,
    pub(super) bytes: u64,
    pub(super) opaque_root: bool,
    pub(super) skipped_devices: u64,
    pub(super) implied_dirs: Vec<String>,
}

/// Where an entry goes.
struct Place<'a> {
    dir: BorrowedFd<'a>,
    name: &'a [u8],
    path: &'a [u8],
}

// === impl Apply ===

impl<'fd> Apply<'fd> {
    pub(super) fn new(root: BorrowedFd<'fd>) -> Self {
        Self {
            tree: Tree::new(root),
            root,
            dir_times: BTreeMap::new(),
            dir_names: 0,
            done: Done::default(),
            buffer: vec![0; COPY_BUFFER],
        }
    }

    /// Makes one entry. `content` gives the bytes of a file.
    pub(super) fn entry(
        &mut self,
        entry: &Entry,
        content: &mut impl Read,
    ) -> Result<(), LayerError> {
        let parts = tree::parts(&entry.path)?;
        self.done.entries += 1;
        let Some((name, dirs)) = parts.split_last() else {
            return self.root(entry);
        };
        let path = parts.join(&b'/');
        let dir = self.tree.dir(dirs)?;
        if self.tree.implied.len() > MAX_IMPLIED_DIRS {
            return Err(LayerError::Broken(
                "it leaves out too many directories".to_owned(),
            ));
        }
        let place = Place {
            dir: dir.as_fd(),
            name,
            path: &path,
        };
        if *name == WHITEOUT_OPAQUE {
            self.done.opaque_root |= dirs.is_empty();
            return tree::make_opaque(place.dir, &path);
        }
        if name.starts_with(WHITEOUT_META) {
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            let place = Place {
                name: hidden,
                ..place
            };
            return self.whiteout(&place);
        }
        self.make(entry, &place, content)
    }

    /// Sets the times of directories and returns what was made.
    pub(super) fn finish(mut self) -> Result<Done, LayerError> {
        for (path, mtime) in &self.dir_times {
            match self.tree.open(path) {
                Ok(fd) => set_times(fd.as_fd(), *mtime, path)?,
                // A later entry replaced it.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(fault("open a directory", path, errno)),
            }
        }
        let root = (!self.dir_times.contains_key(&b""[..])).then(Vec::new);
        let implied = root
            .into_iter()
            .chain(std::mem::take(&mut self.tree.implied));
        let unlisted = implied.filter(|path| !self.dir_times.contains_key(path));
        self.done.implied_dirs = unlisted.filter_map(|p| String::from_utf8(p).ok()).collect();
        Ok(self.done)
    }

    fn root(&mut self, entry: &Entry) -> Result<(), LayerError> {
        if entry.what == What::Dir {
            set_attributes(self.root, entry, b"/")?;
            self.remember(b"", entry.mtime)?;
        }
        Ok(())
    }

    fn whiteout(&mut self, place: &Place<'_>) -> Result<(), LayerError> {
        if matches!(place.name, b"" | b"." | b"..") {
            return Err(bad(place.path, "removes nothing that could exist"));
        }
        match tree::stat(place.dir, place.name) {
            // Removed below and made anew in this layer: only what is new may be seen.
            Some(stat) if tree::is_dir(&stat) => {
                let fd = open_dir(place)?;
                tree::make_opaque(fd.as_fd(), place.path)
            }
            Some(_) => Ok(()),
            None => {
                let kind = FileType::CharacterDevice;
                let mode = Mode::empty();
                rustix::fs::mknodat(place.dir, place.name, kind, mode, makedev(0, 0))
                    .map_err(|e| fault("make a whiteout", place.path, e))
            }
        }
    }

    fn make(
        &mut self,
        entry: &Entry,
        place: &Place<'_>,
        content: &mut impl Read,
    ) -> Result<(), LayerError> {
        let there = tree::stat(place.dir, place.name);
        if entry.what == What::Dir {
            let replaces = there.as_ref().is_some_and(tree::is_whiteout);
            if !there.as_ref().is_some_and(tree::is_dir) {
                if there.is_some() {
                    self.tree.remove(place.dir, place.name, place.path)?;
                }
                tree::make_dir(place.dir, place.name, place.path, replaces)?;
            }
            let fd = open_dir(place)?;
            set_attributes(fd.as_fd(), entry, place.path)?;
            return self.remember(place.path, entry.mtime);
        }
        if entry.what == What::Hardlink {
            return self.hardlink(entry, place);
        }
        if there.is_some() {
            self.tree.remove(place.dir, place.name, place.path)?;
        }
        match entry.what {
            What::File => self.file(entry, place, content),
            What::Symlink => {
                rustix::fs::symlinkat(entry.link.as_slice(), place.dir, place.name)
                    .map_err(|e| fault("make a symlink", place.path, e))?;
                set_node_attributes(entry, place)
            }
            What::Fifo => self.node(entry, place, FileType::Fifo, 0),
            What::Char { major: 0, minor: 0 } => {
                Err(bad(place.path, "is a device that means \"removed\""))
            }
            What::Char { major, minor } => self.node(
                entry,
                place,
                FileType::CharacterDevice,
                makedev(major, minor),
            ),
            What::Block { major, minor } => {
                self.node(entry, place, FileType::BlockDevice, makedev(major, minor))
            }
            What::Dir | What::Hardlink => Ok(()),
        }
    }

    fn file(
        &mut self,
        entry: &Entry,
        place: &Place<'_>,
        content: &mut impl Read,
    ) -> Result<(), LayerError> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        let fd = rustix::fs::openat(place.dir, place.name, flags, mode)
            .map_err(|e| fault("make a file", place.path, e))?;
        let mut file = File::from(fd);
        loop {
            let n = match content.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(LayerError::Read(e)),
            };
            file.write_all(&self.buffer[..n])
                .map_err(|source| LayerError::Write {
                    doing: "write a file of an image",
                    source,
                })?;
            self.done.bytes += u64::try_from(n).unwrap_or(0);
        }
        set_attributes(file.as_fd(), entry, place.path)?;
        set_times(file.as_fd(), entry.mtime, place.path)
    }

    fn hardlink(&mut self, entry: &Entry, place: &Place<'_>) -> Result<(), LayerError> {
        let parts = tree::parts(&entry.link)?;
        let Some((name, dirs)) = parts.split_last() else {
            return Err(bad(place.path, "is a hard link to the root"));
        };
        let missing = || {
            bad(
                place.path,
                "is a hard link to something that the layer lacks",
            )
        };
        let dir = self.tree.open(&dirs.join(&b'/')).map_err(|_| missing())?;
        let target = tree::stat(dir.as_fd(), name).ok_or_else(missing)?;
        if tree::is_dir(&target) || tree::is_whiteout(&target) {
            return Err(missing());
        }
        if let Some(there) = tree::stat(place.dir, place.name) {
            if (there.st_dev, there.st_ino) == (target.st_dev, target.st_ino) {
                return Ok(());
            }
            self.tree.remove(place.dir, place.name, place.path)?;
        }
        rustix::fs::linkat(&dir, *name, place.dir, place.name, AtFlags::empty())
            .map_err(|e| fault("make a hard link", place.path, e))
    }

    fn node(
        &mut self,
        entry: &Entry,
        place: &Place<'_>,
        kind: FileType,
        device: u64,
    ) -> Result<(), LayerError> {
        let mode = Mode::from_raw_mode(entry.mode);
        match rustix::fs::mknodat(place.dir, place.name, kind, mode, device) {
            Ok(()) => set_node_attributes(entry, place),
            // Containers and user namespaces may not make devices; a Machine has its own /dev.
            Err(Errno::PERM) if kind != FileType::Fifo => {
                self.done.skipped_devices += 1;
                Ok(())
            }
            Err(errno) => Err(fault("make a device", place.path, errno)),
        }
    }

    fn remember(&mut self, path: &[u8], mtime: (i64, u32)) -> Result<(), LayerError> {
        if self.dir_times.insert(path.to_vec(), mtime).is_none() {
            self.dir_names += path.len() + 64;
        }
        if self.dir_names > MAX_DIR_NAMES {
            return Err(LayerError::Broken("it has too many directories".to_owned()));
        }
        Ok(())
    }
}

fn open_dir(place: &Place<'_>) -> Result<std::os::fd::OwnedFd, LayerError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(place.dir, place.name, flags, Mode::empty())
        .map_err(|e| fault("open a directory", place.path, e))
}

/// Sets owner, mode and extended attributes. The order matters: a change of owner takes the
/// set-user-id bit and the capabilities away.
fn set_attributes(fd: BorrowedFd<'_>, entry: &Entry, path: &[u8]) -> Result<(), LayerError> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    rustix::fs::fchown(fd, Some(uid), Some(gid)).map_err(|e| fault("set an owner", path, e))?;
    rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode))
        .map_err(|e| fault("set a mode", path, e))?;
    for (name, value) in &entry.xattrs {
        if !wanted(name) {
            continue;
        }
        match rustix::fs::fsetxattr(fd, name.as_str(), value, XattrFlags::empty()) {
            // Not every file system keeps these; the image runs without them, as elsewhere.
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(fault("set an extended attribute", path, errno)),
        }
    }
    Ok(())
}

/// Capabilities and what users set. Never what steers overlayfs or the host's security modules.
fn wanted(xattr: &str) -> bool {
    xattr == "security.capability"
        || (xattr.starts_with("user.") && !xattr.starts_with("user.overlay."))
}

/// Like [`set_attributes`] and [`set_times`], for what cannot be opened without side effects.
fn set_node_attributes(entry: &Entry, place: &Place<'_>) -> Result<(), LayerError> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    let follow = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(place.dir, place.name, Some(uid), Some(gid), follow)
        .map_err(|e| fault("set an owner", place.path, e))?;
    if entry.what != What::Symlink {
        let mode = Mode::from_raw_mode(entry.mode);
        rustix::fs::chmodat(place.dir, place.name, mode, AtFlags::empty())
            .map_err(|e| fault("set a mode", place.path, e))?;
    }
    rustix::fs::utimensat(place.dir, place.name, &times(entry.mtime), follow)
        .map_err(|e| fault("set a time", place.path, e))
}

fn set_times(fd: BorrowedFd<'_>, mtime: (i64, u32), path: &[u8]) -> Result<(), LayerError> {
    rustix::fs::futimens(fd, &times(mtime)).map_err(|e| fault("set a time", path, e))
}

fn times((seconds, nanos): (i64, u32)) -> Timestamps {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanos.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}
