//! A Machine's log: numbered segments in one directory, written line by line, read while written.
//!
//! There are two families of segments, each with one writer: `app.<n>.log` belongs to `init`, which
//! writes what the program says, and `host.<n>.log` belongs to the host, which writes what it has
//! to say about the Machine. Numbers only grow; a family keeps its newest [`KEEP_SEGMENTS`].
//! A place in the log ([`Cursor`]) is therefore good for ever: it names a segment and an offset.
//!
//! A line is `<unix microseconds> <tag> <start> <text>\n`. A torn last line (the disk was full, or
//! the writer was killed) is never shown: readers take whole lines only, and writers begin on a new
//! line. Nothing here may block on a reader or keep more than a few lines in memory.

mod line;
mod reader;
mod writer;

pub use line::{Line, Source};
pub use reader::{Cursor, Position, read_from, tail};
pub use writer::SegmentWriter;

/// Longest text of one line in bytes; longer ones are split.
pub const MAX_LINE: usize = 16 * 1024;
/// Size at which a segment is full.
pub const SEGMENT_BYTES: u64 = 10 * 1000 * 1000;
/// Segments kept in a family.
pub const KEEP_SEGMENTS: u64 = 5;

/// The highest number of a segment that is taken for one: nobody gets so far by counting.
const LAST_SEGMENT: u64 = 1 << 48;

/// Who writes a family of segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `init`, from the program's output.
    App,
    /// The host: runner, health checks, proxy.
    Host,
}

// === impl Family ===

impl Family {
    fn prefix(self) -> &'static str {
        match self {
            Self::App => "app.",
            Self::Host => "host.",
        }
    }

    fn file_name(self, segment: u64) -> String {
        format!("{}{segment}.log", self.prefix())
    }

    fn segment_of(self, file_name: &[u8]) -> Option<u64> {
        let number = file_name
            .strip_prefix(self.prefix().as_bytes())?
            .strip_suffix(b".log")?;
        let number = std::str::from_utf8(number).ok()?.parse().ok()?;
        (number <= LAST_SEGMENT).then_some(number)
    }
}

/// Returns the numbers of a family's segments, lowest first.
fn segments(dir: impl std::os::fd::AsFd, family: Family) -> std::io::Result<Vec<u64>> {
    let mut found = Vec::new();
    let mut entries = rustix::fs::Dir::read_from(dir)?;
    while let Some(entry) = entries.read() {
        if let Some(number) = family.segment_of(entry?.file_name().to_bytes()) {
            found.push(number);
        }
    }
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests;
