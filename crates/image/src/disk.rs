//! Where things lie below `images/`, and how they come and go: whole or not at all.
//!
//! Called by the store. New things are made in `tmp/`, synced and renamed; things that go are
//! renamed into `tmp/` and deleted there, so that nobody sees a half of either.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::digest::Digest;
use crate::error::ImageError;
use crate::layer::Unpacked;

const NAMES: &str = "names.json";
const MARKER: &str = "layer.json";
const ROOT: &str = "fs";
/// Other users of this machine must not reach the set-user-id programs in layers.
const PRIVATE: u32 = 0o700;
const LAYER_ROOT: u32 = 0o755;

/// The directory of the store.
#[derive(Debug)]
pub(crate) struct Disk {
    root: PathBuf,
    next: AtomicU64,
}

/// A path in `tmp/`, removed with all that is in it when dropped.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

// === impl Disk ===

impl Disk {
    /// Opens the directory, making it first if need be, and clears what a crash left in `tmp/`.
    pub(crate) fn open(root: &Path) -> Result<Self, ImageError> {
        let disk = Self {
            root: root.to_owned(),
            next: AtomicU64::new(0),
        };
        let tmp = disk.tmp();
        match fs::remove_dir_all(&tmp) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(ImageError::disk("clear directory", &tmp, e));
            }
            _ => {}
        }
        let (uploads, repositories) = (disk.uploads(), disk.repositories());
        let all = [
            root.to_owned(),
            tmp,
            disk.blobs(),
            disk.layers(),
            uploads,
            repositories,
        ];
        for dir in all {
            DirBuilder::new()
                .recursive(true)
                .mode(PRIVATE)
                .create(&dir)
                .map_err(|e| ImageError::disk("make directory", &dir, e))?;
        }
        Ok(disk)
    }

    pub(crate) fn names(&self) -> PathBuf {
        self.root.join(NAMES)
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    pub(crate) fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    /// Holds uploads to the embedded registry that are not finished.
    pub(crate) fn uploads(&self) -> PathBuf {
        self.root.join("uploads")
    }

    /// Holds what the repositories of the embedded registry have.
    pub(crate) fn repositories(&self) -> PathBuf {
        self.root.join("repositories")
    }

    fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Returns the directory that is to be stacked for a layer.
    pub(crate) fn layer_root(&self, diff_id: &Digest) -> PathBuf {
        self.layers().join(diff_id.hex()).join(ROOT)
    }

    /// Returns an unused path in `tmp/`.
    pub(crate) fn scratch(&self) -> Scratch {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Scratch(self.tmp().join(number.to_string()))
    }

    /// Returns what is known of a layer if it is here, whole.
    pub(crate) fn layer(&self, diff_id: &Digest) -> Option<Unpacked> {
        let bytes = fs::read(self.layers().join(diff_id.hex()).join(MARKER)).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Makes a directory to unpack a layer into.
    pub(crate) fn begin_layer(&self) -> Result<(Scratch, PathBuf), ImageError> {
        let scratch = self.scratch();
        let make = |path: &Path, mode: u32| {
            DirBuilder::new()
                .mode(mode)
                .create(path)
                .and_then(|()| {
                    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
                })
                .map_err(|e| ImageError::disk("make directory", path, e))
        };
        make(scratch.path(), PRIVATE)?;
        let root = scratch.path().join(ROOT);
        make(&root, LAYER_ROOT)?;
        Ok((scratch, root))
    }

    /// Puts an unpacked layer in its place. One that is there already stays.
    pub(crate) fn commit_layer(
        &self,
        scratch: &Scratch,
        layer: &Unpacked,
    ) -> Result<(), ImageError> {
        let place = self.layers().join(layer.diff_id.hex());
        let marker = scratch.path().join(MARKER);
        let damaged = self.scratch();
        let done = (|| {
            if place.exists() && self.layer(&layer.diff_id).is_none() {
                fs::rename(&place, damaged.path())?;
            }
            fs::write(&marker, serde_json::to_vec(layer)?)?;
            // One call for the thousands of files of a layer.
            rustix::fs::syncfs(File::open(scratch.path())?)?;
            match fs::rename(scratch.path(), &place) {
                // Somebody was first; file systems differ in how they say so.
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
                    ) =>
                {
                    Ok(())
                }
                other => other,
            }?;
            sync_dir(&self.layers())
        })();
        done.map_err(|e: io::Error| ImageError::disk("put the layer in its place,", &place, e))
    }

    /// Returns where the file of a blob is, or would be.
    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }

    /// Returns a blob if it is here, no longer than this and still what its name says. Layers,
    /// which may be large, are here too.
    pub(crate) fn blob(&self, digest: &Digest, limit: u64) -> Option<Vec<u8>> {
        let file = File::open(self.blob_path(digest)).ok()?;
        let len = file.metadata().ok()?.len();
        let mut bytes = Vec::with_capacity(usize::try_from(len.min(limit)).ok()?);
        file.take(limit).read_to_end(&mut bytes).ok()?;
        (Digest::of(&bytes) == *digest).then_some(bytes)
    }

    /// Removes a file, synced. One that is not there is gone already.
    pub(crate) fn remove(&self, path: &Path) -> Result<(), ImageError> {
        let removed = match fs::remove_file(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        };
        let synced = removed.and_then(|()| path.parent().map_or(Ok(()), sync_dir));
        synced.map_err(|e| ImageError::disk("remove", path, e))
    }

    pub(crate) fn put_blob(&self, bytes: &[u8]) -> Result<Digest, ImageError> {
        let digest = Digest::of(bytes);
        self.write(&self.blob_path(&digest), bytes)?;
        Ok(digest)
    }

    /// Replaces a file as a whole.
    pub(crate) fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), ImageError> {
        let scratch = self.scratch();
        let done = (|| {
            let mut file = File::create(scratch.path())?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(scratch.path(), path)?;
            path.parent().map_or(Ok(()), sync_dir)
        })();
        done.map_err(|e| ImageError::disk("write", path, e))
    }

    /// Returns the digests that name the entries of `blobs/` or `layers/`.
    pub(crate) fn entries(dir: &Path) -> Result<Vec<Digest>, ImageError> {
        let failed = |e| ImageError::disk("read directory", dir, e);
        let mut found = Vec::new();
        for entry in fs::read_dir(dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if let Ok(digest) = format!("sha256:{}", name.to_string_lossy()).parse() {
                found.push(digest);
            }
        }
        Ok(found)
    }
}

pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

// === impl Scratch ===

impl Scratch {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let removed = match fs::symlink_metadata(&self.0) {
            Ok(meta) if meta.is_dir() => fs::remove_dir_all(&self.0),
            Ok(_) => fs::remove_file(&self.0),
            Err(_) => Ok(()),
        };
        if let Err(error) = removed {
            // The next start clears the directory.
            tracing::warn!(path = %self.0.display(), %error, "could not remove temporary files of an image");
        }
    }
}
