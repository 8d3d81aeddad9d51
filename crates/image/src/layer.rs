//! Turns a layer (a tar stream, perhaps compressed) into a directory for overlayfs.
//!
//! Called by the store, on a blocking thread. The stream is hostile: it may name any path, link
//! anywhere and inflate without end. Nothing is ever made, changed or read outside the target
//! directory, and what is used of memory does not depend on the stream.

mod apply;
pub(crate) mod tar;
mod tree;

use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::digest::{Digest, HashReader};
use crate::error::ImageError;

/// Bytes that one layer may take unpacked.
const MAX_LAYER_BYTES: u64 = 128 << 30;
/// Files and directories in one layer.
const MAX_LAYER_ENTRIES: u64 = 10_000_000;
const READ_BUFFER: usize = 128 << 10;

const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// What a layer turned out to hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unpacked {
    /// Digest of the tar stream, decompressed.
    pub diff_id: Digest,
    /// Digest of the bytes as they came.
    pub blob: Digest,
    /// How many bytes came.
    pub blob_bytes: u64,
    /// Entries made.
    pub entries: u64,
    /// Bytes of file content.
    pub bytes: u64,
    /// Whether the layer hides everything below it.
    pub opaque_root: bool,
    /// Device nodes left out because the system would not make them.
    pub skipped_devices: u64,
    /// Directories that were made because something lies in them, without being listed; "" is
    /// the layer's root. Where a lower layer has them, its owner, mode and time are meant.
    #[serde(default)]
    pub implied_dirs: Vec<String>,
}

/// Why a layer could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LayerError {
    /// The stream is no proper layer.
    #[error("{0}")]
    Broken(String),
    /// It is, but we do not do that.
    #[error("{0}")]
    Unsupported(String),
    /// Reading the stream failed.
    #[error("reading failed: {0}")]
    Read(io::Error),
    /// Writing the directory failed.
    #[error("{doing} failed: {source}")]
    Write {
        doing: &'static str,
        source: io::Error,
    },
}

/// Unpacks a layer into the empty directory `into`, as root.
///
/// Made for arbitrary bytes: the outcome is a directory or an error, and nothing outside `into`
/// is touched. What is left in `into` after an error is for the caller to remove.
pub fn unpack(layer: impl Read, into: &Path) -> Result<Unpacked, ImageError> {
    if !rustix::process::geteuid().is_root() {
        return Err(ImageError::NotRoot);
    }
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    let root = rustix::fs::open(into, flags, Mode::empty())
        .map_err(|e| ImageError::disk("open directory", into, e.into()))?;
    unpack_into(layer, &root).map_err(|e| e.into_image_error(into))
}

fn unpack_into(layer: impl Read, root: &OwnedFd) -> Result<Unpacked, LayerError> {
    let mut raw = BufReader::with_capacity(READ_BUFFER, HashReader::new(layer));
    let start = raw.fill_buf().map_err(LayerError::Read)?;
    if start.starts_with(ZSTD_MAGIC) {
        return Err(LayerError::Unsupported(
            "it is compressed with zstd, which Hangar does not read yet; push the image with gzip"
                .to_owned(),
        ));
    }
    let gzip = start.starts_with(GZIP_MAGIC);
    let (done, diff_id) = if gzip {
        apply_all(MultiGzDecoder::new(&mut raw), root)?
    } else {
        apply_all(&mut raw, root)?
    };
    drain(&mut raw)?;
    let (blob, blob_bytes) = raw.into_inner().finish();
    Ok(Unpacked {
        diff_id,
        blob,
        blob_bytes,
        entries: done.entries,
        bytes: done.bytes,
        opaque_root: done.opaque_root,
        skipped_devices: done.skipped_devices,
        implied_dirs: done.implied_dirs,
    })
}

fn apply_all(stream: impl Read, root: &OwnedFd) -> Result<(apply::Done, Digest), LayerError> {
    let mut stream = HashReader::new(stream.take(MAX_LAYER_BYTES));
    let mut apply = apply::Apply::new(root.as_fd());
    let mut entries = tar::Entries::new(&mut stream);
    let mut count = 0_u64;
    while let Some(entry) = entries.next()? {
        count += 1;
        if count > MAX_LAYER_ENTRIES {
            return Err(LayerError::Broken(format!(
                "it has more than {MAX_LAYER_ENTRIES} entries"
            )));
        }
        apply.entry(&entry, &mut entries)?;
    }
    let done = apply.finish()?;
    // The diff id covers what follows the end of the archive, too.
    drain(&mut stream)?;
    let (diff_id, len) = stream.finish();
    if len >= MAX_LAYER_BYTES {
        return Err(LayerError::Broken(format!(
            "it is larger than {MAX_LAYER_BYTES} bytes"
        )));
    }
    Ok((done, diff_id))
}

fn drain(reader: &mut impl Read) -> Result<(), LayerError> {
    io::copy(reader, &mut io::sink())
        .map(drop)
        .map_err(LayerError::Read)
}

// === impl LayerError ===

impl LayerError {
    fn into_image_error(self, into: &Path) -> ImageError {
        match self {
            Self::Broken(reason) => ImageError::broken("a layer", reason),
            Self::Read(e) => ImageError::broken("a layer", e.to_string()),
            Self::Unsupported(reason) => {
                ImageError::Unsupported(format!("a layer cannot be used: {reason}"))
            }
            Self::Write { doing, source } => ImageError::disk(doing, into, source),
        }
    }
}

#[cfg(test)]
mod tests;
