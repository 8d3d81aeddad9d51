//! Gives directories back what a layer above took by accident.
//!
//! A layer may hold `tmp/file` without listing `tmp/`. Unpacked on its own it needs a directory
//! all the same, and overlayfs shows the attributes of the uppermost one: `/tmp` would lose its
//! mode. Layers are shared between images, so nothing can be mended in them. Instead an image
//! that needs it gets one more layer on top: those directories, empty, as they were meant.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid,
};
use rustix::io::Errno;

use super::Inner;
use crate::digest::Digest;
use crate::error::ImageError;
use crate::layer::Unpacked;

/// One layer of a stack, open for looking.
struct Level<'a> {
    root: OwnedFd,
    implied: BTreeSet<&'a str>,
}

/// Returns the id of the layer that mends images of these layers.
pub(super) fn layer_id(diff_ids: &[Digest]) -> Digest {
    let ids: Vec<String> = diff_ids.iter().map(Digest::to_string).collect();
    Digest::of(format!("attributes of {}", ids.join(" ")).as_bytes())
}

impl Inner {
    /// Makes the mending layer of a stack (lowest first) and returns whether one is needed.
    pub(super) fn restore_attributes(
        &self,
        stack: &[Unpacked],
        id: &Digest,
    ) -> Result<bool, ImageError> {
        let implied = stack
            .iter()
            .skip(1)
            .any(|layer| !layer.implied_dirs.is_empty());
        if !implied {
            return Ok(false);
        }
        if self.disk.layer(id).is_some() {
            return Ok(true);
        }
        let failed =
            |e: Errno| ImageError::disk("read the layers in", &self.disk.layers(), e.into());
        let mut levels = Vec::new();
        for layer in stack {
            let root = self.disk.layer_root(&layer.diff_id);
            levels.push(Level {
                root: rustix::fs::open(&root, dir_flags(), Mode::empty()).map_err(failed)?,
                implied: layer.implied_dirs.iter().map(String::as_str).collect(),
            });
        }
        let wrong = wrong_dirs(&levels).map_err(failed)?;
        if wrong.is_empty() {
            return Ok(false);
        }
        let (scratch, root) = self.disk.begin_layer()?;
        let made = rustix::fs::open(&root, dir_flags(), Mode::empty())
            .and_then(|root| make(&levels, &wrong, &root));
        made.map_err(|e| ImageError::disk("write", &root, e.into()))?;
        let layer = Unpacked {
            diff_id: id.clone(),
            blob: id.clone(),
            blob_bytes: 0,
            entries: wrong.len().try_into().unwrap_or(u64::MAX),
            bytes: 0,
            opaque_root: false,
            skipped_devices: 0,
            implied_dirs: Vec::new(),
        };
        self.disk.commit_layer(&scratch, &layer)?;
        Ok(true)
    }
}

/// Returns the directories that overlayfs would show with attributes nobody meant, and all above
/// them.
fn wrong_dirs(levels: &[Level<'_>]) -> Result<BTreeSet<String>, Errno> {
    let implied: BTreeSet<&str> = levels
        .iter()
        .flat_map(|l| l.implied.iter().copied())
        .collect();
    let mut wrong = BTreeSet::new();
    for path in implied {
        let Some((shown, meant)) = attributes(levels, path)? else {
            continue;
        };
        let same = |a: &Stat, b: &Stat| {
            (a.st_mode, a.st_uid, a.st_gid) == (b.st_mode, b.st_uid, b.st_gid)
                // Every layer touches the root; its time says nothing.
                && (path.is_empty() || (a.st_mtime, a.st_mtime_nsec) == (b.st_mtime, b.st_mtime_nsec))
        };
        if !same(&shown, &meant) {
            wrong.insert(path.to_owned());
            wrong.extend(path.match_indices('/').map(|(at, _)| path[..at].to_owned()));
            wrong.insert(String::new());
        }
    }
    Ok(wrong)
}

/// Returns what overlayfs shows of a directory and what was meant: what the uppermost layer says
/// that lists it.
fn attributes(levels: &[Level<'_>], path: &str) -> Result<Option<(Stat, Stat)>, Errno> {
    let mut shown = None;
    for level in levels.iter().rev() {
        let here = match stat(&level.root, path) {
            Ok(here) => here,
            Err(Errno::NOENT) if !is_opaque(&level.root, path) => continue,
            // Hidden here: by an opaque directory, a whiteout, a file or a symlink above.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => break,
            Err(errno) => return Err(errno),
        };
        if FileType::from_raw_mode(here.st_mode) != FileType::Directory {
            break;
        }
        let top = *shown.get_or_insert(here);
        if !level.implied.contains(path) {
            return Ok(Some((top, here)));
        }
        if is_opaque(&level.root, path) {
            break;
        }
    }
    Ok(shown.map(|top| (top, top)))
}

/// Returns whether a directory, or one above it, hides what is below.
fn is_opaque(root: &OwnedFd, path: &str) -> bool {
    let above = path.match_indices('/').map(|(at, _)| &path[..at]);
    above.chain([path]).any(|dir| {
        let mut value = [0_u8; 1];
        open(root, dir).is_ok_and(|fd| {
            rustix::fs::fgetxattr(&fd, "trusted.overlay.opaque", &mut value[..]) == Ok(1)
        })
    })
}

/// Makes directories with the attributes that are meant.
fn make(levels: &[Level<'_>], paths: &BTreeSet<String>, root: &OwnedFd) -> Result<(), Errno> {
    // Sorted, so that a directory comes before what is in it.
    for path in paths.iter().filter(|path| !path.is_empty()) {
        rustix::fs::mkdirat(root, path.as_str(), Mode::from_raw_mode(0o700))?;
    }
    for path in paths.iter().rev() {
        let Some((_, stat)) = attributes(levels, path)? else {
            continue;
        };
        let fd = open(root, path)?;
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        rustix::fs::fchown(&fd, Some(uid), Some(gid))?;
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(stat.st_mode))?;
        let time = Timespec {
            tv_sec: stat.st_mtime,
            tv_nsec: stat.st_mtime_nsec.try_into().unwrap_or(0),
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        rustix::fs::futimens(&fd, &times)?;
    }
    Ok(())
}

fn stat(root: &OwnedFd, path: &str) -> Result<Stat, Errno> {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    let dir = open(root, dir)?;
    let name = if name.is_empty() { "." } else { name };
    rustix::fs::statat(dir.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW)
}

/// Opens a directory of a layer, following no symlinks.
fn open(root: &OwnedFd, path: &str) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { "." } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(root, path, dir_flags(), Mode::empty(), resolve)
}

fn dir_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC
}
