//! `exit.json`: how a run ended, written by `init` before it exits and read by the host.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FallocateFlags, Mode, OFlags, fallocate, fsync, openat, renameat};
use serde::{Deserialize, Serialize};

use crate::spec::file;

/// How a run ended. Fields are only ever added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitFile {
    /// The main process's code, or 128 + signal.
    pub exit_code: i32,
    /// The signal that ended it, if one did.
    #[serde(default)]
    pub signal: Option<i32>,
    /// Whether a stop had been asked for.
    #[serde(default)]
    pub requested_stop: bool,
    /// Whether SIGKILL came from `init`: a stop by force is no lack of memory.
    #[serde(default)]
    pub killed_by_init: bool,
    /// Why the program could not be run at all.
    #[serde(default)]
    pub spawn_error: Option<String>,
    /// When, in microseconds since 1970.
    #[serde(default)]
    pub exited_at_us: i64,
}

/// Room that is set aside for the file at the start, so that a full disk cannot lose an exit.
const RESERVED: usize = 4096;
/// Longest spawn error, so that the file fits into its room.
const MAX_SPAWN_ERROR: usize = 1024;

/// The room for `exit.json`, reserved.
#[derive(Debug)]
pub(crate) struct ExitSlot {
    dir: OwnedFd,
    file: OwnedFd,
}

// === impl ExitFile ===

impl ExitFile {
    /// Returns the record of these bytes, or `None` if they are none.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

// === impl ExitSlot ===

impl ExitSlot {
    pub(crate) fn reserve(dir: OwnedFd) -> io::Result<Self> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = openat(&dir, file::EXIT_TEMPORARY, flags, mode)?;
        // Not every file system can reserve; then the file is written like any other.
        match fallocate(&file, FallocateFlags::empty(), 0, RESERVED as u64) {
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Self { dir, file })
    }

    /// Writes the record, padded with blanks to the reserved length, and puts it in place.
    pub(crate) fn write(&self, record: &ExitFile) -> io::Result<()> {
        let mut record = record.clone();
        if let Some(text) = &mut record.spawn_error {
            let end = text.floor_char_boundary(MAX_SPAWN_ERROR);
            text.truncate(end);
        }
        let mut bytes = serde_json::to_vec(&record)?;
        bytes.resize(bytes.len().max(RESERVED), b' ');
        let mut at = 0;
        while at < bytes.len() {
            let rest = bytes.get(at..).unwrap_or_default();
            let offset = u64::try_from(at).unwrap_or(0);
            at += rustix::io::pwrite(&self.file, rest, offset)?.max(1);
        }
        fsync(&self.file)?;
        renameat(&self.dir, file::EXIT_TEMPORARY, &self.dir, file::EXIT)?;
        fsync(self.dir.as_fd())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let open = std::fs::File::open(dir.path()).unwrap();
        let slot = ExitSlot::reserve(open.into()).unwrap();
        let record = ExitFile {
            exit_code: 127,
            spawn_error: Some("ä".repeat(4000)),
            ..ExitFile::default()
        };
        assert!(!dir.path().join(file::EXIT).exists());
        slot.write(&record).unwrap();
        let read = ExitFile::parse(&std::fs::read(dir.path().join(file::EXIT)).unwrap()).unwrap();
        assert_eq!(read.exit_code, 127);
        assert_eq!(read.spawn_error.unwrap().len(), MAX_SPAWN_ERROR);
    }
}
