//! One connection of the host: requests in, replies out, one executed command at a time.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::net::{SendFlags, send};

use super::exec::{Exec, MAX_EXEC_TIME};
use super::session::{self, Session};
use super::{Ended, Init, Token};
use crate::spawn::SpawnError;
use crate::wire::{Decoder, Frame, MAX_REQUEST, MAX_SESSIONS, Reply, Request, VERSION};
use crate::{listeners, sys};

/// Bytes that may wait for the host before a command's output is left in its pipe.
const MAX_WAITING: usize = 64 * 1024;
/// Bytes read at a time.
const READ_BYTES: usize = 4 * 1024;
/// The highest signal number.
const LAST_SIGNAL: i32 = 64;

/// A connection.
#[derive(Debug)]
pub(super) struct Conn {
    stream: UnixStream,
    decoder: Decoder,
    waiting: Vec<u8>,
    exec: Option<Exec>,
    closed: bool,
    /// No more is read: what waits is sent and then it is closed.
    closing: bool,
}

// === impl Conn ===

impl Conn {
    pub(super) fn new(stream: UnixStream) -> Self {
        // A stream that cannot be made non-blocking is one that is of no use.
        let closed = stream.set_nonblocking(true).is_err();
        Self {
            stream,
            decoder: Decoder::new(MAX_REQUEST),
            waiting: Vec::new(),
            exec: None,
            closed,
            closing: false,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.closed || (self.closing && self.waiting.is_empty())
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.exec.as_ref().and_then(Exec::deadline)
    }

    pub(super) fn runs(&self, pid: i32) -> bool {
        self.exec.as_ref().is_some_and(|exec| exec.pid() == pid)
    }

    /// Returns what the loop must wait for.
    pub(super) fn interests(
        &self,
        id: usize,
    ) -> impl Iterator<Item = (Token, BorrowedFd<'_>, PollFlags)> {
        // One whose input is not taken is not read; that it has closed is told all the same.
        let session = self.exec.as_ref().and_then(Exec::session);
        let mut flags = match session {
            Some(session) if !session.has_room() => PollFlags::empty(),
            _ => PollFlags::IN,
        };
        if !self.waiting.is_empty() {
            flags |= PollFlags::OUT;
        }
        let room = self.waiting.len() < MAX_WAITING;
        let pipes = self.exec.as_ref().filter(|_| room).into_iter();
        let pipes = pipes.flat_map(move |exec| {
            let [stdout, stderr] = exec.pipes();
            let stdout = stdout.map(|fd| (Token::ExecStdout(id), fd, PollFlags::IN));
            let stderr = stderr.map(|fd| (Token::ExecStderr(id), fd, PollFlags::IN));
            stdout.into_iter().chain(stderr)
        });
        let input = session.and_then(Session::blocked_on);
        let input = input.map(|fd| (Token::ExecStdin(id), fd, PollFlags::OUT));
        std::iter::once((Token::Conn(id), self.stream.as_fd(), flags))
            .chain(pipes)
            .chain(input)
    }

    pub(super) fn on_ready(&mut self, flags: PollFlags, init: &mut Init) {
        if flags.contains(PollFlags::OUT) {
            self.send_waiting();
        }
        if flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            self.receive(init);
        }
    }

    fn receive(&mut self, init: &mut Init) {
        let mut bytes = [0; READ_BYTES];
        match rustix::io::read(&self.stream, &mut bytes) {
            Ok(0) => self.close(),
            Ok(count) => {
                if self.closing {
                    return;
                }
                self.decoder.feed(bytes.get(..count).unwrap_or_default());
                self.answer_all(init);
            }
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(_) => self.close(),
        }
    }

    fn answer_all(&mut self, init: &mut Init) {
        // A command is answered before the next request is looked at; what comes meanwhile for a
        // session is the session's.
        while !self.closing && self.may_read() {
            match self.decoder.next_frame() {
                Ok(None) => break,
                Ok(Some(frame)) if self.exec.is_some() => self.pass(frame),
                Ok(Some(Frame::Json(body))) => self.answer(&body, init),
                Ok(Some(_)) => {}
                Err(error) => {
                    self.refuse(error.to_string());
                    self.closing = true;
                }
            }
        }
    }

    fn may_read(&self) -> bool {
        match &self.exec {
            None => true,
            Some(exec) => exec.session().is_some_and(Session::has_room),
        }
    }

    pub(super) fn is_session(&self) -> bool {
        self.exec.as_ref().is_some_and(|e| e.session().is_some())
    }

    /// Passes what came for a session on to it.
    fn pass(&mut self, frame: Frame) {
        let Some(session) = self.exec.as_mut().and_then(Exec::session_mut) else {
            return;
        };
        match frame {
            Frame::Stdin(bytes) => session.take(&bytes),
            Frame::Json(body) => {
                if let Ok(Request::Resize(size)) = serde_json::from_slice(&body) {
                    session.resize(size);
                }
            }
            _ => {}
        }
    }

    /// The session takes input again.
    pub(super) fn on_input(&mut self, init: &mut Init) {
        if let Some(session) = self.exec.as_mut().and_then(Exec::session_mut) {
            session.write();
        }
        self.answer_all(init);
    }

    fn open(&mut self, wanted: session::Wanted<'_>, init: &mut Init) {
        if init.sessions >= MAX_SESSIONS {
            return self.refuse(format!(
                "{MAX_SESSIONS} sessions are open in the Machine already: close one first"
            ));
        }
        match session::open(&init.spec, wanted) {
            Ok(opened) => {
                init.sessions += 1;
                self.exec = Some(Exec::of_session(opened, Instant::now() + MAX_EXEC_TIME));
                self.reply(&Reply::Started);
            }
            Err(error) => self.reply(&not_spawned(error)),
        }
    }

    fn answer(&mut self, body: &[u8], init: &mut Init) {
        let request = match serde_json::from_slice::<Request>(body) {
            Ok(request) => request,
            Err(error) => return self.refuse(format!("request is not known: {error}")),
        };
        match request {
            Request::Hello { wire: _ } => self.reply(&Reply::Hello { wire: VERSION }),
            Request::Status => self.reply(&Reply::Status {
                pid: init.main.unwrap_or(0),
                stopping: init.stop.requested(),
                dropped_lines: init.log.dropped(),
            }),
            Request::Stop { signal, timeout_ms } if is_signal(signal) => {
                let timeout = Duration::from_millis(timeout_ms);
                if init.stop.begin(Instant::now(), signal, timeout) {
                    init.signal_main(signal);
                }
                self.reply(&Reply::Ok);
            }
            Request::Signal { signal } if is_signal(signal) => {
                init.signal_main(signal);
                self.reply(&Reply::Ok);
            }
            Request::Stop { signal, .. } | Request::Signal { signal } => {
                self.refuse(format!("there is no signal {signal}"));
            }
            Request::Listeners => self.reply(&Reply::Listeners {
                sockets: listeners::list(),
            }),
            Request::Exec {
                argv,
                stdin,
                timeout_ms,
            } => {
                let timeout = Duration::from_millis(timeout_ms).min(MAX_EXEC_TIME);
                match Exec::start(&init.spec, &argv, &stdin, Instant::now() + timeout) {
                    Ok(exec) => self.exec = Some(exec),
                    Err(error) => self.reply(&not_spawned(error)),
                }
            }
            Request::Session {
                argv,
                env,
                user,
                terminal,
            } => {
                let wanted = session::Wanted {
                    argv: &argv,
                    env,
                    user: &user,
                    terminal,
                };
                self.open(wanted, init);
            }
            // One that comes when the session has ended has nobody to be told.
            Request::Resize(_) => {}
        }
    }

    /// Takes output of the executed command.
    pub(super) fn on_output(&mut self, error: bool) {
        if let Some(exec) = &mut self.exec {
            exec.read(error, &mut self.waiting);
            self.send_waiting();
        }
    }

    /// The executed command has ended: the rest of its output is sent, and how it ended.
    pub(super) fn on_exit(&mut self, ended: Ended) {
        let Some(mut exec) = self.exec.take() else {
            return;
        };
        exec.read_rest(&mut self.waiting);
        self.reply(&Reply::ExecDone {
            exit_code: ended.exit_code,
            signal: ended.signal.unwrap_or(0),
            timed_out: exec.timed_out(),
            spawn_error: None,
            cut: exec.is_cut(),
        });
    }

    pub(super) fn on_time(&mut self, now: Instant) {
        if let Some(exec) = &mut self.exec {
            exec.on_time(now);
        }
    }

    /// The Machine ends: a command that still runs is killed with it.
    pub(super) fn on_end(&mut self) {
        self.on_exit(Ended {
            exit_code: 128 + libc::SIGKILL,
            signal: Some(libc::SIGKILL),
        });
    }

    fn refuse(&mut self, message: String) {
        self.reply(&Reply::Error { message });
    }

    fn reply(&mut self, reply: &Reply) {
        // Our own types always serialise.
        if let Ok(frame) = Frame::json(reply) {
            frame.encode(&mut self.waiting);
        }
        self.send_waiting();
    }

    fn send_waiting(&mut self) {
        while !self.waiting.is_empty() {
            match send(&self.stream, &self.waiting, SendFlags::NOSIGNAL) {
                Ok(count) => {
                    self.waiting.drain(..count);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return,
                Err(_) => return self.close(),
            }
        }
        self.waiting = Vec::new();
    }

    /// Closes the connection; a command that it asked for is killed.
    fn close(&mut self) {
        if let Some(exec) = self.exec.take() {
            exec.kill();
        }
        self.closed = true;
    }
}

fn not_spawned(error: SpawnError) -> Reply {
    Reply::ExecDone {
        exit_code: error.exit_code,
        signal: 0,
        timed_out: false,
        spawn_error: Some(error.message),
        cut: false,
    }
}

fn is_signal(number: i32) -> bool {
    (1..=LAST_SIGNAL).contains(&number)
}

/// Kills a command's whole session, as far as it stayed in its group.
pub(super) fn kill_group(pid: i32) -> io::Result<()> {
    sys::kill(-pid, libc::SIGKILL)
}
