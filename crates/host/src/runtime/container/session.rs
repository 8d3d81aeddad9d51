//! A session with a command in a run, over the wire to its `init`.
//!
//! Both directions go on at the same time: `init` stops reading while the command takes no input,
//! and the command stops writing while nobody reads its output, so that neither may wait for the
//! other here. What waits is bounded.

use std::io;

use futures_util::{StreamExt as _, stream};
use hangar_api::error::{ErrorKind, Failure};
use hangar_api::seam::BoxStream;
use hangar_api::session::{SessionInput, SessionOutput, SessionRequest, TerminalSize};
use hangar_init::wire::{Decoder, Frame, Reply, Request, Size};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::dial::{Dialed, away, nonsense};

/// Bytes for `init` that may wait before no more input is taken.
const MAX_WAITING: usize = 64 * 1024;
/// Bytes read at a time.
const READ_BYTES: usize = 16 * 1024;

/// A session that runs.
struct Session {
    stream: UnixStream,
    decoder: Decoder,
    /// The client's input, until it has ended.
    input: Option<BoxStream<SessionInput>>,
    /// What is to be sent to `init`.
    waiting: Vec<u8>,
    buffer: Vec<u8>,
}

/// Begins a session; returns once the command runs.
pub(super) async fn begin(
    mut dialed: Dialed,
    request: SessionRequest,
    input: BoxStream<SessionInput>,
) -> Result<BoxStream<SessionOutput>, Failure> {
    let request = Request::Session {
        argv: request.command,
        env: request.env,
        user: request.user,
        terminal: request.terminal.map(size),
    };
    match dialed.ask(&request).await? {
        Reply::Started => {}
        Reply::ExecDone {
            spawn_error: Some(error),
            ..
        } => return Err(Failure::new(ErrorKind::Invalid, error)),
        // An `init` that was there before this version of Hangar does not know the request.
        Reply::Error { message } if message.contains("not known") => {
            let text =
                "the Machine was started by an older Hangar that has no sessions; restart it";
            return Err(Failure::new(ErrorKind::FailedPrecondition, text));
        }
        Reply::Error { message } => return Err(Failure::new(ErrorKind::Exhausted, message)),
        _ => return Err(nonsense()),
    }
    let (stream, decoder) = dialed.into_parts();
    let session = Session {
        stream,
        decoder,
        input: Some(input),
        waiting: Vec::new(),
        buffer: vec![0; READ_BYTES],
    };
    let outputs = stream::unfold(Some(session), |session| async move {
        let mut session = session?;
        let output = session
            .next()
            .await
            .unwrap_or_else(|failure| SessionOutput::Lost(failure.to_string()));
        let is_last = matches!(output, SessionOutput::Exit { .. } | SessionOutput::Lost(_));
        Some((output, (!is_last).then_some(session)))
    });
    Ok(Box::pin(outputs))
}

fn size(size: TerminalSize) -> Size {
    Size {
        rows: size.rows,
        cols: size.cols,
    }
}

// === impl Session ===

impl Session {
    /// Returns what the command writes next, or its end. Input is passed on meanwhile.
    async fn next(&mut self) -> Result<SessionOutput, Failure> {
        loop {
            while let Some(frame) = self.decoder.next_frame().map_err(|_| nonsense())? {
                if let Some(output) = output(frame)? {
                    return Ok(output);
                }
            }
            self.exchange().await?;
        }
    }

    /// Waits for whatever comes first: output, room for input, or input.
    async fn exchange(&mut self) -> Result<(), Failure> {
        let (mut from_init, mut to_init) = self.stream.split();
        let has_room = self.waiting.len() < MAX_WAITING;
        let input = async {
            match &mut self.input {
                Some(input) => input.next().await,
                None => std::future::pending().await,
            }
        };
        let broken = |error: io::Error| away(&error);
        tokio::select! {
            biased;
            sent = to_init.write(&self.waiting), if !self.waiting.is_empty() => {
                let count = sent.map_err(broken)?;
                self.waiting.drain(..count);
            }
            read = from_init.read(&mut self.buffer) => match read.map_err(broken)? {
                0 => return Err(away(&"it has ended")),
                count => self.decoder.feed(self.buffer.get(..count).unwrap_or_default()),
            },
            piece = input, if has_room => self.take(piece)?,
        }
        Ok(())
    }

    /// Takes input. A client that is gone has none any more: the stream's owner ends the session.
    fn take(&mut self, piece: Option<SessionInput>) -> Result<(), Failure> {
        let frame = match piece {
            Some(SessionInput::Stdin(bytes)) if bytes.is_empty() => return Ok(()),
            Some(SessionInput::Stdin(bytes)) => Frame::Stdin(bytes),
            Some(SessionInput::Resize(to)) => {
                Frame::json(&Request::Resize(size(to))).map_err(|_| nonsense())?
            }
            Some(SessionInput::End) => Frame::Stdin(Vec::new()),
            None => {
                self.input = None;
                return Ok(());
            }
        };
        frame.encode(&mut self.waiting);
        Ok(())
    }
}

fn output(frame: Frame) -> Result<Option<SessionOutput>, Failure> {
    Ok(match frame {
        Frame::Stdout(bytes) => Some(SessionOutput::Stdout(bytes)),
        Frame::Stderr(bytes) => Some(SessionOutput::Stderr(bytes)),
        Frame::Stdin(_) | Frame::Unknown(_) => None,
        Frame::Json(body) => match serde_json::from_slice(&body).map_err(|_| nonsense())? {
            Reply::ExecDone {
                timed_out: true, ..
            } => Some(SessionOutput::Lost(
                "the session was open for a day and was closed".to_owned(),
            )),
            Reply::ExecDone { exit_code, .. } => Some(SessionOutput::Exit { code: exit_code }),
            _ => return Err(nonsense()),
        },
    })
}

#[cfg(test)]
mod tests {
    use hangar_init::spec::file;

    use super::*;

    #[tokio::test]
    async fn an_init_without_sessions_is_told_from_one_that_refuses() {
        for (answer, kind, told) in [
            (
                "request is not known: unknown variant `session`",
                ErrorKind::FailedPrecondition,
                "restart it",
            ),
            ("8 sessions are open", ErrorKind::Exhausted, "8 sessions"),
        ] {
            let run = tempfile::tempdir().unwrap();
            let listener = tokio::net::UnixListener::bind(run.path().join(file::SOCKET)).unwrap();
            // A frozen init: it greets, and answers everything else with an error.
            let old = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (mut decoder, mut buffer) = (Decoder::new(1 << 20), [0; 1024]);
                for reply in [
                    Reply::Hello { wire: 1 },
                    Reply::Error {
                        message: answer.to_owned(),
                    },
                ] {
                    while decoder.next_frame().unwrap().is_none() {
                        let count = stream.read(&mut buffer).await.unwrap();
                        decoder.feed(&buffer[..count]);
                    }
                    let mut bytes = Vec::new();
                    Frame::json(&reply).unwrap().encode(&mut bytes);
                    stream.write_all(&bytes).await.unwrap();
                }
                stream
            };
            let new = async {
                let dialed = Dialed::open(run.path()).await.unwrap();
                let request = SessionRequest {
                    command: vec!["sh".to_owned()],
                    ..SessionRequest::default()
                };
                begin(dialed, request, Box::pin(stream::pending())).await
            };
            let (_stream, begun) = tokio::join!(old, new);
            let failure = begun.err().unwrap();
            assert_eq!(failure.kind, kind);
            assert!(failure.message.contains(told), "{failure}");
        }
    }
}
