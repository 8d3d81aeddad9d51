//! What the program writes, cut into lines for the log. The program never waits for the log.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use super::{Token, now_us};
use crate::logfile::{MAX_LINE, SegmentWriter, Source};

/// Both streams of the program.
#[derive(Debug)]
pub(super) struct Output {
    stdout: Stream,
    stderr: Stream,
}

#[derive(Debug)]
struct Stream {
    /// Absent once it is closed.
    pipe: Option<OwnedFd>,
    /// The line that has begun.
    partial: Vec<u8>,
}

/// Bytes read at a time.
const READ_BYTES: usize = 8 * 1024;
/// Pieces read in a row before others get their turn.
const READS_IN_A_ROW: usize = 16;
/// Pieces read after the end: more than any pipe holds by default.
const READS_AT_THE_END: usize = 256;

// === impl Output ===

impl Output {
    pub(super) fn new(stdout: OwnedFd, stderr: OwnedFd) -> Self {
        let stream = |pipe| Stream {
            pipe: Some(pipe),
            partial: Vec::new(),
        };
        Self {
            stdout: stream(stdout),
            stderr: stream(stderr),
        }
    }

    /// Returns the streams that are still open.
    pub(super) fn open(&self) -> impl Iterator<Item = (Token, BorrowedFd<'_>)> {
        [(Token::Stdout, &self.stdout), (Token::Stderr, &self.stderr)]
            .into_iter()
            .filter_map(|(token, stream)| Some((token, stream.pipe.as_ref()?.as_fd())))
    }

    /// Takes what one stream has.
    pub(super) fn read(&mut self, error: bool, log: &mut SegmentWriter, start: u64) {
        let stream = if error {
            &mut self.stderr
        } else {
            &mut self.stdout
        };
        stream.read(error, log, start, READS_IN_A_ROW);
    }

    /// Takes all that is left in the pipes, and the unfinished lines.
    pub(super) fn finish(&mut self, log: &mut SegmentWriter, start: u64) {
        for (error, stream) in [(false, &mut self.stdout), (true, &mut self.stderr)] {
            stream.read(error, log, start, READS_AT_THE_END);
            stream.end(error, log, start);
        }
        log.flush();
    }
}

// === impl Stream ===

impl Stream {
    fn read(&mut self, error: bool, log: &mut SegmentWriter, start: u64, times: usize) {
        let mut bytes = [0; READ_BYTES];
        for _ in 0..times {
            let Some(pipe) = &self.pipe else { return };
            match rustix::io::read(pipe, &mut bytes) {
                Ok(0) => {
                    self.pipe = None;
                    self.end(error, log, start);
                }
                Ok(count) => {
                    self.take(bytes.get(..count).unwrap_or_default(), error, log, start);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    fn take(&mut self, bytes: &[u8], error: bool, log: &mut SegmentWriter, start: u64) {
        let now = now_us();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, whole) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            self.partial.extend_from_slice(text);
            while self.partial.len() > MAX_LINE {
                let rest = self.partial.split_off(MAX_LINE);
                log.push(now, Source::App, error, start, &self.partial);
                self.partial = rest;
            }
            if whole {
                let line = self.partial.strip_suffix(b"\r").unwrap_or(&self.partial);
                log.push(now, Source::App, error, start, line);
                self.partial.clear();
            }
        }
    }

    fn end(&mut self, error: bool, log: &mut SegmentWriter, start: u64) {
        if !self.partial.is_empty() {
            log.push(now_us(), Source::App, error, start, &self.partial);
            self.partial = Vec::new();
        }
    }
}
