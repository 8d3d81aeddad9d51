//! A connection to a run's `init`, which is not trusted: every answer is bounded and in time.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::time::Duration;

use hangar_api::error::{ErrorKind, Failure};
use hangar_api::exec::ExecResponse;
use hangar_init::spec::file;
use hangar_init::wire::{Decoder, Frame, MAX_EXEC_OUTPUT, MAX_REPLY, Reply, Request, VERSION};
use rustix::fs::{FileType, Mode, OFlags, fstat, openat};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// How long `init` may take to answer.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// Bytes read at a time.
const READ_BYTES: usize = 8 * 1024;

/// A connection to `init`, greeted.
#[derive(Debug)]
pub(super) struct Dialed {
    stream: UnixStream,
    decoder: Decoder,
}

pub(super) fn nonsense() -> Failure {
    Failure::new(
        ErrorKind::Internal,
        "the Machine's init gave an answer that makes no sense",
    )
}

pub(super) fn away(what: &dyn std::fmt::Display) -> Failure {
    let text = format!("the Machine's init cannot be reached: {what}");
    Failure::new(ErrorKind::Unavailable, text)
}

/// Connects to the socket of a run directory, and to no other by a link in its place.
async fn connect(dir: &File) -> io::Result<UnixStream> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let socket = openat(dir, file::SOCKET, flags, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&socket)?.st_mode) != FileType::Socket {
        return Err(io::Error::other("something else is in its socket's place"));
    }
    // Paths of sockets must be short; a data directory's need not be.
    UnixStream::connect(format!("/proc/self/fd/{}", socket.as_raw_fd())).await
}

// === impl Dialed ===

impl Dialed {
    /// Connects to the `init` of a run directory and greets it.
    pub(super) async fn open(run: &Path) -> Result<Self, Failure> {
        let dir = File::open(run).map_err(|_| {
            Failure::new(ErrorKind::FailedPrecondition, "the Machine is not running")
        })?;
        let stream = connect(&dir).await.map_err(|error| {
            let gone = matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            );
            if gone {
                Failure::new(ErrorKind::FailedPrecondition, "the Machine is not running")
            } else {
                away(&error)
            }
        })?;
        let mut dialed = Self {
            stream,
            decoder: Decoder::new(MAX_REPLY),
        };
        match dialed.ask(&Request::Hello { wire: VERSION }).await? {
            Reply::Hello { .. } => Ok(dialed),
            _ => Err(nonsense()),
        }
    }

    /// Asks and returns the answer.
    pub(super) async fn ask(&mut self, request: &Request) -> Result<Reply, Failure> {
        let answered = tokio::time::timeout(ANSWER_TIME, async {
            self.send(request).await?;
            match self.next_frame().await? {
                Frame::Json(body) => serde_json::from_slice(&body).map_err(|_| nonsense()),
                _ => Err(nonsense()),
            }
        });
        answered.await.map_err(|_| away(&"it does not answer"))?
    }

    /// Runs a command and returns what became of it, and whether it was killed for its time.
    pub(super) async fn exec(
        &mut self,
        request: &Request,
    ) -> Result<(ExecResponse, bool), Failure> {
        self.send(request).await?;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        loop {
            let body = match self.next_frame().await? {
                Frame::Stdout(bytes) => {
                    append(&mut stdout, &bytes);
                    continue;
                }
                Frame::Stderr(bytes) => {
                    append(&mut stderr, &bytes);
                    continue;
                }
                Frame::Stdin(_) | Frame::Unknown(_) => continue,
                Frame::Json(body) => body,
            };
            let reply = serde_json::from_slice(&body).map_err(|_| nonsense())?;
            return match reply {
                Reply::ExecDone {
                    exit_code,
                    signal,
                    timed_out,
                    spawn_error: None,
                    cut,
                } => {
                    let response = ExecResponse {
                        exit_code,
                        exit_signal: signal,
                        stdout: String::from_utf8_lossy(&stdout).into_owned(),
                        stderr: String::from_utf8_lossy(&stderr).into_owned(),
                        truncated: cut,
                    };
                    Ok((response, timed_out))
                }
                Reply::ExecDone {
                    spawn_error: Some(error),
                    ..
                } => Err(Failure::new(ErrorKind::Invalid, error)),
                Reply::Error { message } => Err(Failure::new(ErrorKind::Invalid, message)),
                _ => Err(nonsense()),
            };
        }
    }

    /// Returns when `init` has closed the connection: it has ended, or is about to.
    pub(super) async fn until_closed(mut self) {
        let mut bytes = [0; 64];
        // It has nothing to say; what it says all the same is passed over.
        while matches!(self.stream.read(&mut bytes).await, Ok(count) if count > 0) {}
    }

    /// Takes the connection apart, for a session.
    pub(super) fn into_parts(self) -> (UnixStream, Decoder) {
        (self.stream, self.decoder)
    }

    async fn send(&mut self, request: &Request) -> Result<(), Failure> {
        let mut bytes = Vec::new();
        let frame = Frame::json(request).map_err(|_| nonsense())?;
        frame.encode(&mut bytes);
        let sent = self.stream.write_all(&bytes).await;
        sent.map_err(|error| away(&error))
    }

    async fn next_frame(&mut self) -> Result<Frame, Failure> {
        let mut bytes = vec![0; READ_BYTES];
        loop {
            match self.decoder.next_frame() {
                Ok(Some(frame)) => return Ok(frame),
                Ok(None) => {}
                Err(_) => return Err(nonsense()),
            }
            match self.stream.read(&mut bytes).await {
                Ok(0) => return Err(away(&"it has ended")),
                Ok(count) => self.decoder.feed(bytes.get(..count).unwrap_or_default()),
                Err(error) => return Err(away(&error)),
            }
        }
    }
}

fn append(all: &mut Vec<u8>, bytes: &[u8]) {
    let room = MAX_EXEC_OUTPUT.saturating_sub(all.len());
    all.extend_from_slice(bytes.get(..bytes.len().min(room)).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_link_in_place_of_the_socket_leads_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        std::fs::create_dir(&run).unwrap();
        let elsewhere = dir.path().join("elsewhere");
        let listener = tokio::net::UnixListener::bind(&elsewhere).unwrap();
        let open = File::open(&run).unwrap();
        std::os::unix::fs::symlink(&elsewhere, run.join(file::SOCKET)).unwrap();
        let error = connect(&open).await.unwrap_err();
        assert!(error.to_string().contains("something else"), "{error}");
        std::fs::remove_file(run.join(file::SOCKET)).unwrap();
        std::fs::rename(&elsewhere, run.join(file::SOCKET)).unwrap();
        let (connected, accepted) = tokio::join!(connect(&open), listener.accept());
        connected.unwrap();
        accepted.unwrap();
    }
}
