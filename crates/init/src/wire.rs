//! The wire between the host and a Machine's `init`: frames over the socket in the run directory.
//!
//! The host dials and asks; `init` answers each request, in order, on the same connection. A frame
//! is a length (4 bytes, big endian, of what follows), a kind and a body:
//!
//! | kind | body |
//! |---|---|
//! | 0 | JSON: a [`Request`] or a [`Reply`] |
//! | 1, 2 | bytes that an executed command wrote to stdout, stderr; followed by [`Reply::ExecDone`] |
//! | 3 | bytes for the standard input of a session; none of them ends it |
//!
//! The first request is [`Request::Hello`]. The wire only grows: a request that `init` does not
//! know is answered with [`Reply::Error`], fields and kinds that a side does not know are passed
//! over. Both sides bound what they read: neither trusts the other's lengths.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// The version of the wire that this code speaks. It grows when an old `init` could misread a new
/// host, which should be never.
pub const VERSION: u32 = 1;
/// Most bytes of one request.
pub const MAX_REQUEST: usize = 4 * 1024 * 1024;
/// Most bytes of one reply or piece of output.
pub const MAX_REPLY: usize = 256 * 1024;
/// Most bytes of each stream that an executed command may return; the rest is dropped.
pub const MAX_EXEC_OUTPUT: usize = 1024 * 1024;
/// Most sessions of a Machine at the same time: they take connections, of which `init` has few.
pub const MAX_SESSIONS: usize = 8;
/// Most bytes of one piece of a session's input.
pub const MAX_INPUT: usize = 16 * 1024;
/// Most listening sockets that are told of.
pub const MAX_LISTENERS: usize = 256;

const HEADER: usize = 5;

/// What the host asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Request {
    /// The first request of a connection.
    Hello {
        /// The version the host speaks.
        wire: u32,
    },
    /// How the program does.
    Status,
    /// Begins the stop sequence: the signal, after the timeout SIGTERM, then SIGKILL.
    Stop {
        /// The first signal.
        signal: i32,
        /// How long it may take.
        timeout_ms: u64,
    },
    /// Sends a signal to the main process.
    Signal {
        /// Which.
        signal: i32,
    },
    /// Runs a command beside the main process, as root, with its environment. The connection is
    /// taken until it is done; closing it kills the command.
    Exec {
        /// The command and its arguments.
        argv: Vec<String>,
        /// Given to its standard input.
        #[serde(default)]
        stdin: String,
        /// After this it is killed.
        timeout_ms: u64,
    },
    /// Which TCP sockets listen.
    Listeners,
    /// Runs a command beside the main process whose streams stay open: answered with
    /// [`Reply::Started`], its output and [`Reply::ExecDone`]. The connection is taken until it is
    /// done; closing it kills the command.
    Session {
        /// The command and its arguments.
        argv: Vec<String>,
        /// Variables over those of the main process.
        #[serde(default)]
        env: BTreeMap<String, String>,
        /// Who it runs as, in the form of an image's `User`; root when empty.
        #[serde(default)]
        user: String,
        /// The size of its terminal; without one it has pipes.
        #[serde(default)]
        terminal: Option<Size>,
    },
    /// The terminal of this connection's session has another size. Not answered.
    Resize(Size),
}

/// The size of a terminal in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub cols: u16,
}

/// What `init` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// To `Hello`.
    Hello {
        /// The version `init` speaks.
        wire: u32,
    },
    /// Done.
    Ok,
    /// To `Status`.
    Status {
        /// The main process's id inside.
        pid: i32,
        /// Whether the stop sequence has begun.
        stopping: bool,
        /// Log lines that could not be written lately.
        dropped_lines: u64,
    },
    /// To `Listeners`.
    Listeners {
        /// The sockets.
        sockets: Vec<SocketAddr>,
    },
    /// To `Session`: the command runs.
    Started,
    /// To `Exec` and `Session`, after its output.
    ExecDone {
        /// The command's code, or 128 + signal.
        exit_code: i32,
        /// The signal that ended it, or 0.
        #[serde(default)]
        signal: i32,
        /// Whether it was killed for taking too long.
        #[serde(default)]
        timed_out: bool,
        /// Why it could not be run at all.
        #[serde(default)]
        spawn_error: Option<String>,
        /// Whether it wrote more than was kept.
        #[serde(default)]
        cut: bool,
    },
    /// It could not be done, or is not known.
    Error {
        /// Why.
        message: String,
    },
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// JSON.
    Json(Vec<u8>),
    /// What a command wrote to stdout.
    Stdout(Vec<u8>),
    /// What a command wrote to stderr.
    Stderr(Vec<u8>),
    /// For the standard input of a session; empty at its end.
    Stdin(Vec<u8>),
    /// Of a kind that this version does not know: passed over.
    Unknown(u8),
}

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Longer than allowed.
    #[error("frame of {0} bytes is longer than allowed")]
    TooLong(usize),
    /// Without a kind.
    #[error("empty frame")]
    Empty,
}

/// Puts frames together from the bytes of a connection.
#[derive(Debug)]
pub struct Decoder {
    buffer: Vec<u8>,
    limit: usize,
}

// === impl Frame ===

impl Frame {
    /// Returns the frame of a request or a reply.
    pub fn json<T: Serialize>(value: &T) -> serde_json::Result<Self> {
        serde_json::to_vec(value).map(Self::Json)
    }

    /// Appends the frame's bytes to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (kind, body): (u8, &[u8]) = match self {
            Self::Json(body) => (0, body),
            Self::Stdout(body) => (1, body),
            Self::Stderr(body) => (2, body),
            Self::Stdin(body) => (3, body),
            Self::Unknown(kind) => (*kind, &[]),
        };
        let length = u32::try_from(body.len() + 1).unwrap_or(u32::MAX);
        out.extend_from_slice(&length.to_be_bytes());
        out.push(kind);
        out.extend_from_slice(body);
    }
}

// === impl Decoder ===

impl Decoder {
    /// Returns a decoder that refuses frames of more than `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            buffer: Vec::new(),
            limit,
        }
    }

    /// Takes bytes that came.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next whole frame, if it is there. After an error the connection is of no use.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, WireError> {
        let Some(header) = self.buffer.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*header)).unwrap_or(usize::MAX);
        if length == 0 {
            return Err(WireError::Empty);
        }
        if length > self.limit {
            return Err(WireError::TooLong(length));
        }
        let end = HEADER - 1 + length;
        if self.buffer.len() < end {
            return Ok(None);
        }
        let rest = self.buffer.split_off(end);
        let mut whole = std::mem::replace(&mut self.buffer, rest);
        let body = whole.split_off(HEADER);
        Ok(Some(match whole.last() {
            Some(0) => Frame::Json(body),
            Some(1) => Frame::Stdout(body),
            Some(2) => Frame::Stderr(body),
            Some(3) => Frame::Stdin(body),
            kind => Frame::Unknown(kind.copied().unwrap_or(u8::MAX)),
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn frames_survive_any_cut_of_the_stream(
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..8),
            cut in 1_usize..50,
        ) {
            let frames: Vec<Frame> = bodies.into_iter().map(Frame::Stdout).collect();
            let mut bytes = Vec::new();
            for frame in &frames {
                frame.encode(&mut bytes);
            }
            let mut decoder = Decoder::new(1000);
            let mut seen = Vec::new();
            for piece in bytes.chunks(cut) {
                decoder.feed(piece);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    seen.push(frame);
                }
            }
            prop_assert_eq!(seen, frames);
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut decoder = Decoder::new(100);
            decoder.feed(&bytes);
            while let Ok(Some(_)) = decoder.next_frame() {}
        }
    }

    #[test]
    fn a_frame_longer_than_allowed_is_refused_before_it_is_read() {
        let mut decoder = Decoder::new(100);
        decoder.feed(&[0, 1, 0, 0]);
        assert_eq!(decoder.next_frame(), Err(WireError::TooLong(65536)));
    }

    #[test]
    fn an_unknown_request_is_told_from_a_known_one() {
        assert!(serde_json::from_str::<Request>(r#"{"ask":"dance","with":"me"}"#).is_err());
        let known = serde_json::from_str::<Request>(r#"{"ask":"status","later":1}"#);
        assert_eq!(known.unwrap(), Request::Status);
    }
}
