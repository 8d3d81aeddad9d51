//! A command whose streams stay open: its standard input, and its terminal if it has one.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::identity;
use crate::spawn::{self, Program, Running, SpawnError};
use crate::spec::InitSpec;
use crate::wire::Size;

/// Bytes of input that may wait for the command before the connection is left alone.
pub(super) const MAX_INPUT_WAITING: usize = 64 * 1024;
/// What ends the input of a terminal.
const END_OF_TRANSMISSION: u8 = 4;

/// What a session is asked to run.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub(super) argv: &'a [String],
    pub(super) env: BTreeMap<String, String>,
    pub(super) user: &'a str,
    pub(super) terminal: Option<Size>,
}

/// A session that has just begun.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) pid: i32,
    pub(super) stdout: OwnedFd,
    /// Absent on a terminal, where both are one.
    pub(super) stderr: Option<OwnedFd>,
    pub(super) session: Session,
}

/// The side of a session that the host writes to.
#[derive(Debug)]
pub(super) struct Session {
    /// Where input goes; absent once it has ended.
    input: Option<OwnedFd>,
    waiting: Vec<u8>,
    /// No more comes: what waits is written and then it ends.
    ending: bool,
    on_terminal: bool,
}

/// Begins a session.
pub(super) fn open(spec: &InitSpec, wanted: Wanted<'_>) -> Result<Opened, SpawnError> {
    // Root is there whatever the image's files say.
    let user = match wanted.user {
        "" | "root" => "0",
        other => other,
    };
    let identity = identity::resolve(user).map_err(SpawnError::other)?;
    let mut env = spec.env.clone();
    env.insert("HOME".to_owned(), identity.home.clone());
    env.extend(wanted.env);
    let mut program = Program {
        argv: wanted.argv,
        env: &env,
        identity: &identity,
        workdir: &spec.workdir,
        nofile: spec.nofile,
        stdin: None,
    };
    if let Some(size) = wanted.terminal {
        return on_terminal(&program, size);
    }
    let (stdin, input) = spawn::pipe()?;
    spawn::non_blocking(&input)?;
    program.stdin = Some(stdin);
    let Running {
        pid,
        stdout,
        stderr,
    } = spawn::spawn(&program)?;
    Ok(Opened {
        pid,
        stdout,
        stderr: Some(stderr),
        session: Session::new(input, false),
    })
}

fn on_terminal(program: &Program<'_>, size: Size) -> Result<Opened, SpawnError> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |error: rustix::io::Errno| SpawnError::other(format!("{what} a terminal: {error}"))
    };
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = openpt(flags).map_err(failed("make"))?;
    grantpt(&ours).map_err(failed("make"))?;
    unlockpt(&ours).map_err(failed("make"))?;
    let theirs = ioctl_tiocgptpeer(&ours, flags).map_err(failed("open"))?;
    tcsetwinsize(&ours, winsize(size)).map_err(failed("size"))?;
    let input = ours
        .try_clone()
        .map_err(|error| SpawnError::other(format!("open a terminal: {error}")))?;
    spawn::non_blocking(&ours)?;
    let pid = spawn::spawn_on_terminal(program, &theirs)?;
    Ok(Opened {
        pid,
        stdout: ours,
        stderr: None,
        session: Session::new(input, true),
    })
}

fn winsize(size: Size) -> Winsize {
    Winsize {
        ws_row: size.rows,
        ws_col: size.cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

// === impl Session ===

impl Session {
    fn new(input: OwnedFd, on_terminal: bool) -> Self {
        Self {
            input: Some(input),
            waiting: Vec::new(),
            ending: false,
            on_terminal,
        }
    }

    /// Returns whether more input may come now.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < MAX_INPUT_WAITING
    }

    /// Returns where input that waits is to be written.
    pub(super) fn blocked_on(&self) -> Option<BorrowedFd<'_>> {
        let input = self.input.as_ref()?;
        (!self.waiting.is_empty()).then(|| input.as_fd())
    }

    /// Takes input; nothing at all ends it.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        if self.ending {
            return;
        }
        if bytes.is_empty() {
            self.ending = true;
            if self.on_terminal {
                self.waiting.push(END_OF_TRANSMISSION);
            }
        }
        self.waiting.extend_from_slice(bytes);
        self.write();
    }

    /// Writes what waits, as far as the command takes it.
    pub(super) fn write(&mut self) {
        while let Some(input) = self.input.as_ref().filter(|_| !self.waiting.is_empty()) {
            match rustix::io::write(input, &self.waiting) {
                Ok(count) => {
                    self.waiting.drain(..count);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return,
                Err(_) => {
                    // The command has closed it: what comes is for nobody.
                    self.input = None;
                    self.waiting.clear();
                }
            }
        }
        if self.input.is_none() {
            self.waiting.clear();
        }
        if self.ending && !self.on_terminal {
            self.input = None;
        }
    }

    /// Tells the terminal its size.
    pub(super) fn resize(&self, size: Size) {
        if let Some(terminal) = self.input.as_ref().filter(|_| self.on_terminal) {
            // A terminal that is closed needs no size.
            let _told = tcsetwinsize(terminal, winsize(size));
        }
    }
}
