//! Sessions: commands in a Machine whose streams stay open (`POST .../session`), and how they
//! travel over an upgraded connection.
//!
//! A frame is a length (4 bytes, big endian, of what follows), a kind and a body:
//!
//! | kind | from | body |
//! |---|---|---|
//! | 0 | both | JSON: a [`ClientNote`] or a [`ServerNote`] |
//! | 1, 2 | server | what the command wrote to stdout, stderr |
//! | 3 | client | for its standard input; empty at its end |
//!
//! The last frame of the server is [`ServerNote::Exit`] or [`ServerNote::Error`]. Either side
//! sends something at least every [`PING_EVERY`] and gives the other up after [`SILENCE`]. Kinds
//! and notes that a side does not know are passed over.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The protocol's name in the `Upgrade` header of a session.
pub const SESSION_PROTOCOL: &str = "hangar-session/1";
/// The protocol's name in the `Upgrade` header of a tunnel: the bytes of a TCP connection.
pub const TUNNEL_PROTOCOL: &str = "hangar-tunnel/1";
/// Most bytes of a frame.
pub const MAX_FRAME: usize = 64 * 1024;
/// Most bytes of input in one frame.
pub const MAX_INPUT: usize = 16 * 1024;
/// How often a side that has nothing to say says so.
pub const PING_EVERY: Duration = Duration::from_secs(15);
/// A side that has said nothing for so long is gone.
pub const SILENCE: Duration = Duration::from_secs(60);

const HEADER: usize = 5;

/// Body of `session`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionRequest {
    /// The command and its arguments.
    #[serde(default)]
    pub command: Vec<String>,
    /// Variables over those of the Machine's program.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Who it runs as: `name`, `uid`, `name:group`, `uid:gid`; root when empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// The size of its terminal; without one it has pipes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal: Option<TerminalSize>,
}

/// The size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub cols: u16,
}

/// What goes to a session's command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionInput {
    /// For its standard input, at most [`MAX_INPUT`] bytes.
    Stdin(Vec<u8>),
    /// No more input comes.
    End,
    /// Its terminal has another size.
    Resize(TerminalSize),
}

/// What comes from a session's command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionOutput {
    /// What it wrote to standard output, or to its terminal.
    Stdout(Vec<u8>),
    /// What it wrote to standard error.
    Stderr(Vec<u8>),
    /// It has ended. The last one.
    Exit {
        /// Its code, or 128 + signal.
        code: i32,
    },
    /// The session has broken off. The last one.
    Lost(String),
}

/// What a client says beside input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientNote {
    /// The terminal has another size.
    Resize(TerminalSize),
    /// It is still there.
    Ping {},
}

/// What a server says beside output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServerNote {
    /// The command has ended with this code, or 128 + signal.
    Exit(i32),
    /// The session has broken off.
    Error(String),
    /// It is still there.
    Ping {},
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// JSON.
    Note(Vec<u8>),
    /// What the command wrote to stdout.
    Stdout(Vec<u8>),
    /// What the command wrote to stderr.
    Stderr(Vec<u8>),
    /// For the command's standard input.
    Stdin(Vec<u8>),
    /// Of a kind that this version does not know.
    Unknown(u8),
}

/// A frame that is longer than [`MAX_FRAME`], or empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {0} bytes is none: 1 to {MAX_FRAME} are allowed")]
pub struct BadFrame(pub usize);

/// Puts frames together from the bytes of a connection.
#[derive(Debug, Default)]
pub struct Frames {
    buffer: Vec<u8>,
}

// === impl Frame ===

impl Frame {
    /// Returns the frame of a note.
    #[must_use]
    pub fn note<T: Serialize>(note: &T) -> Self {
        // Notes are plain data: they always serialise.
        Self::Note(serde_json::to_vec(note).unwrap_or_default())
    }

    /// Returns the frame's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (kind, body): (u8, &[u8]) = match self {
            Self::Note(body) => (0, body),
            Self::Stdout(body) => (1, body),
            Self::Stderr(body) => (2, body),
            Self::Stdin(body) => (3, body),
            Self::Unknown(kind) => (*kind, &[]),
        };
        let mut out = Vec::with_capacity(HEADER + body.len());
        let length = u32::try_from(body.len() + 1).unwrap_or(u32::MAX);
        out.extend_from_slice(&length.to_be_bytes());
        out.push(kind);
        out.extend_from_slice(body);
        out
    }
}

// === impl Frames ===

impl Frames {
    /// Takes bytes that came.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next whole frame, if it is there. After an error the connection is of no use.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, BadFrame> {
        let Some(header) = self.buffer.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*header)).unwrap_or(usize::MAX);
        if length == 0 || length > MAX_FRAME {
            return Err(BadFrame(length));
        }
        let end = HEADER - 1 + length;
        if self.buffer.len() < end {
            return Ok(None);
        }
        let rest = self.buffer.split_off(end);
        let mut whole = std::mem::replace(&mut self.buffer, rest);
        let body = whole.split_off(HEADER);
        Ok(Some(match whole.last() {
            Some(0) => Frame::Note(body),
            Some(1) => Frame::Stdout(body),
            Some(2) => Frame::Stderr(body),
            Some(3) => Frame::Stdin(body),
            kind => Frame::Unknown(kind.copied().unwrap_or(u8::MAX)),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cut_of_the_stream() {
        let frames = [
            Frame::note(&ClientNote::Resize(TerminalSize { rows: 24, cols: 80 })),
            Frame::Stdin(vec![7; 300]),
            Frame::Stdin(Vec::new()),
            Frame::Stdout(b"out".to_vec()),
            Frame::Stderr(b"err".to_vec()),
            Frame::note(&ServerNote::Exit(3)),
        ];
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
        for size in [1, 2, 3, 7, 64, bytes.len()] {
            let (mut read, mut seen) = (Frames::default(), Vec::new());
            for piece in bytes.chunks(size) {
                read.feed(piece);
                while let Some(frame) = read.next_frame().unwrap() {
                    seen.push(frame);
                }
            }
            assert_eq!(seen, frames, "pieces of {size}");
        }
    }

    #[test]
    fn what_is_no_frame_is_refused_before_it_is_read() {
        for head in [[0, 0, 0, 0], [0, 1, 0, 1], [255; 4]] {
            let mut read = Frames::default();
            read.feed(&head);
            assert!(read.next_frame().is_err(), "{head:?}");
        }
    }

    #[test]
    fn notes_are_read_as_they_are_written() {
        let text = |note: &ServerNote| serde_json::to_string(note).unwrap();
        assert_eq!(text(&ServerNote::Exit(3)), r#"{"exit":3}"#);
        assert_eq!(text(&ServerNote::Ping {}), r#"{"ping":{}}"#);
        let read: Result<ClientNote, _> = serde_json::from_str(r#"{"dance":{}}"#);
        assert!(read.is_err());
    }
}
