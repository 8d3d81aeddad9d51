//! Appending to a family of segments.

use std::io::Write as _;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, OFlags, fstat, ftruncate, unlinkat};
use rustix::io::{pread, write};

use super::{Family, KEEP_SEGMENTS, MAX_LINE, SEGMENT_BYTES, Source, segments};
use crate::untrusted;

/// The one writer of a family of segments. A full disk drops lines and counts them.
#[derive(Debug)]
pub struct SegmentWriter {
    dir: OwnedFd,
    family: Family,
    segment_bytes: u64,
    number: u64,
    pub(super) file: OwnedFd,
    pub(super) len: u64,
    dropped: u64,
    batch: Vec<u8>,
    batch_lines: u64,
}

/// Lines are gathered up to this many bytes before they are written.
const BATCH_BYTES: usize = 16 * 1024;

// === impl SegmentWriter ===

impl SegmentWriter {
    /// Opens the newest segment of a family for appending, or the first one.
    pub fn open(dir: OwnedFd, family: Family) -> std::io::Result<Self> {
        Self::open_with(dir, family, SEGMENT_BYTES)
    }

    pub(super) fn open_with(
        dir: OwnedFd,
        family: Family,
        segment_bytes: u64,
    ) -> std::io::Result<Self> {
        let number = segments(&dir, family)?.last().copied().unwrap_or(0);
        let (file, len) = open_segment(&dir, family, number)?;
        let mut writer = Self {
            dir,
            family,
            segment_bytes,
            number,
            file,
            len,
            dropped: 0,
            batch: Vec::new(),
            batch_lines: 0,
        };
        writer.end_torn_line();
        Ok(writer)
    }

    /// Returns how many lines could not be written and have not been told of yet.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Adds a line to the batch; a text longer than [`MAX_LINE`] becomes several lines.
    /// Line ends inside the text end the line.
    pub fn push(&mut self, at_us: u64, source: Source, error: bool, start: u64, text: &[u8]) {
        for part in text.split(|byte| *byte == b'\n') {
            if part.is_empty() {
                self.push_one(at_us, source, error, start, part);
            }
            for chunk in part.chunks(MAX_LINE) {
                self.push_one(at_us, source, error, start, chunk);
            }
        }
    }

    fn push_one(&mut self, at_us: u64, source: Source, error: bool, start: u64, text: &[u8]) {
        let tag = char::from(source.tag(error));
        // Writing to a Vec does not fail.
        let _written = write!(self.batch, "{at_us} {tag} {start} ");
        self.batch.extend_from_slice(text);
        self.batch.push(b'\n');
        self.batch_lines += 1;
        if self.batch.len() >= BATCH_BYTES {
            self.flush();
        }
    }

    /// Writes the batch. Never fails: what cannot be written is counted as dropped.
    pub fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        if self.len >= self.segment_bytes {
            self.rotate();
        }
        let batch = std::mem::take(&mut self.batch);
        if self.append(&batch) {
            self.tell_dropped(&batch);
        } else {
            self.dropped += self.batch_lines;
        }
        self.batch_lines = 0;
        // One buffer for ever would be kept at its largest; small ones are worth keeping.
        if batch.capacity() <= BATCH_BYTES {
            self.batch = batch;
            self.batch.clear();
        }
    }

    /// Says how many lines are missing, with the time and start of the lines that could be
    /// written again.
    fn tell_dropped(&mut self, written: &[u8]) {
        if self.dropped == 0 {
            return;
        }
        let mut parts = written.split(|byte| *byte == b' ');
        let (Some(at), Some(_), Some(start)) = (parts.next(), parts.next(), parts.next()) else {
            return;
        };
        let (at, start) = (String::from_utf8_lossy(at), String::from_utf8_lossy(start));
        let tag = match self.family {
            Family::App => 'e',
            Family::Host => 'R',
        };
        let note = format!(
            "{at} {tag} {start} [hangar] {} log lines were dropped: the disk was full\n",
            self.dropped
        );
        if self.append(note.as_bytes()) {
            self.dropped = 0;
        }
    }

    /// Appends all of `bytes` or, as far as possible, nothing.
    fn append(&mut self, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        while !rest.is_empty() {
            match write(&self.file, rest) {
                Ok(0) => break,
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => break,
            }
        }
        if rest.is_empty() {
            self.len += u64::try_from(bytes.len()).unwrap_or(0);
            return true;
        }
        if ftruncate(&self.file, self.len).is_err() {
            self.len = fstat(&self.file)
                .ok()
                .and_then(|stat| u64::try_from(stat.st_size).ok())
                .unwrap_or(self.len);
        }
        false
    }

    fn rotate(&mut self) {
        let next = self.number + 1;
        // When a new segment cannot be made, the old one grows on: better than losing lines.
        if let Ok((file, len)) = open_segment(&self.dir, self.family, next) {
            self.file = file;
            self.len = len;
            self.number = next;
            self.remove_old();
        }
    }

    fn remove_old(&self) {
        let Ok(all) = segments(&self.dir, self.family) else {
            return;
        };
        for number in all {
            if number + KEEP_SEGMENTS <= self.number {
                // It is tried again with the next segment.
                let _removed = unlinkat(&self.dir, self.family.file_name(number), AtFlags::empty());
            }
        }
    }

    fn end_torn_line(&mut self) {
        let mut last = [b'\n'];
        if let Some(at) = self.len.checked_sub(1) {
            // A byte that cannot be read is taken for a torn line.
            if !matches!(pread(&self.file, &mut last, at), Ok(1)) {
                last = [0];
            }
        }
        if last != [b'\n'] {
            self.append(b"\n");
        }
    }
}

impl Drop for SegmentWriter {
    fn drop(&mut self) {
        self.flush();
    }
}

fn open_segment(dir: &OwnedFd, family: Family, number: u64) -> std::io::Result<(OwnedFd, u64)> {
    let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE;
    let name = family.file_name(number);
    let file = untrusted::open(dir, &name, flags)?.ok_or_else(|| {
        let text = format!("open the log: {name} is no file: remove it");
        std::io::Error::new(std::io::ErrorKind::InvalidInput, text)
    })?;
    let len = u64::try_from(fstat(&file)?.st_size).unwrap_or(0);
    Ok((file, len))
}
