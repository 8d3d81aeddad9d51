//! PID 1's life: start the program, then wait for signals, output and questions, until it ends.
//!
//! ```text
//! descriptors ─► spec ─► socket, log ─► program ─► [ poll: signals, output, connections ]
//!                                                      │ program ended, or told to kill all
//!                                                      ▼
//!                                       kill the rest ─► drain output ─► exit.json ─► exit
//! ```

mod conn;
mod exec;
mod output;
mod session;
mod stop;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, FlockOperation, flock, unlinkat};
use rustix::process::{DumpableBehavior, WaitOptions, set_dumpable_behavior};

use self::conn::Conn;
use self::output::Output;
use self::stop::Stop;
use crate::exit::{ExitFile, ExitSlot};
use crate::identity::{self, Identity};
use crate::logfile::{Family, SegmentWriter};
use crate::spawn::{self, DEFAULT_PATH, Program, Running, SpawnError};
use crate::spec::{InitSpec, READY, fd, file};
use crate::sys;

/// Signals that PID 1 passes on to the program when somebody sends them to it.
const FORWARDED: [i32; 7] = [
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGHUP,
    libc::SIGQUIT,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGWINCH,
];
/// Connections at once; more wait in the socket's queue.
const MAX_CONNECTIONS: usize = 32;
/// How long the rest is waited for after it was killed.
const LAST_REAP: Duration = Duration::from_secs(5);

/// What every part of the loop needs.
struct Init {
    spec: InitSpec,
    identity: Identity,
    log: SegmentWriter,
    main: Option<i32>,
    stop: Stop,
    /// SIGKILL was sent to the program from here.
    killed: bool,
    /// How the program ended, once it has.
    ended: Option<Ended>,
    /// Sessions that are open.
    sessions: usize,
}

/// How a process ended.
#[derive(Clone, Copy, Debug)]
struct Ended {
    exit_code: i32,
    signal: Option<i32>,
}

/// Who an event of the loop belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Signals,
    Listener,
    Stdout,
    Stderr,
    Conn(usize),
    ExecStdout(usize),
    ExecStderr(usize),
    ExecStdin(usize),
}

/// Runs the role and returns the exit code of the process.
pub(crate) fn run() -> u8 {
    let ready = match sys::take_fd(fd::READY) {
        Ok(ready) => ready,
        // Nobody listens: started by hand.
        Err(_) => return 125,
    };
    match Start::prepare() {
        Ok(start) => start.live(ready),
        Err(error) => {
            // A maker that is gone does not need to know.
            let _told = rustix::io::write(&ready, format!("start init: {error}").as_bytes());
            125
        }
    }
}

/// Everything that is opened before the program starts.
struct Start {
    spec: InitSpec,
    /// Held until the process ends.
    lock: OwnedFd,
    exit: ExitSlot,
    listener: UnixListener,
    signals: OwnedFd,
    log: SegmentWriter,
}

// === impl Start ===

impl Start {
    fn prepare() -> io::Result<Self> {
        let run_dir = sys::take_fd(fd::RUN_DIR)?;
        let spec_file = File::from(sys::take_fd(fd::SPEC)?);
        let log_dir = sys::take_fd(fd::LOG_DIR)?;
        let lock = sys::take_fd(fd::LOCK)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        // Secrets pass through this process: nobody inside may look into it.
        set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        let spec = read_spec(spec_file)?;
        let signals = sys::signal_fd(&[FORWARDED.as_slice(), &[libc::SIGCHLD]].concat())?;
        let listener = bind(&run_dir)?;
        let exit = ExitSlot::reserve(run_dir)?;
        let log = SegmentWriter::open(log_dir, Family::App)?;
        spawn::drop_own_rights()?;
        Ok(Self {
            spec,
            lock,
            exit,
            listener,
            signals,
            log,
        })
    }

    fn live(self, ready: OwnedFd) -> u8 {
        let Self {
            spec,
            lock,
            exit,
            listener,
            signals,
            log,
        } = self;
        let mut init = Init {
            spec,
            identity: Identity::default(),
            log,
            main: None,
            stop: Stop::default(),
            killed: false,
            ended: None,
            sessions: 0,
        };
        let mut record = match init.start_program() {
            Ok(running) => {
                let _told = rustix::io::write(&ready, READY);
                drop(ready);
                init.main = Some(running.pid);
                let mut output = Output::new(running.stdout, running.stderr);
                init.watch(&listener, &signals, &mut output);
                init.end(&mut output)
            }
            Err(error) => {
                init.say(&format!("ERROR {}", error.message));
                init.log.flush();
                ExitFile {
                    exit_code: error.exit_code,
                    spawn_error: Some(error.message),
                    ..ExitFile::default()
                }
            }
        };
        record.exited_at_us = i64::try_from(now_us()).unwrap_or(i64::MAX);
        let written = exit.write(&record);
        if let Err(error) = written {
            init.say(&format!("ERROR could not write down how it ended: {error}"));
            init.log.flush();
        }
        drop(lock);
        u8::try_from(record.exit_code).unwrap_or(255)
    }
}

fn read_spec(mut spec_file: File) -> io::Result<InitSpec> {
    let mut bytes = Vec::new();
    io::Seek::rewind(&mut spec_file)?;
    spec_file.read_to_end(&mut bytes)?;
    let mut spec: InitSpec = serde_json::from_slice(&bytes)?;
    bytes.fill(0);
    spec.env
        .entry("PATH".to_owned())
        .or_insert_with(|| DEFAULT_PATH.to_owned());
    if spec.workdir.is_empty() {
        "/".clone_into(&mut spec.workdir);
    }
    Ok(spec)
}

/// Listens in the run directory, which has no path in here.
fn bind(run_dir: &OwnedFd) -> io::Result<UnixListener> {
    match unlinkat(run_dir, file::SOCKET, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let path = format!("/proc/self/fd/{}/{}", fd::RUN_DIR, file::SOCKET);
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

// === impl Init ===

impl Init {
    fn start_program(&mut self) -> Result<Running, SpawnError> {
        self.identity = identity::resolve(&self.spec.user).map_err(SpawnError::other)?;
        let home = self.identity.home.clone();
        self.spec.env.entry("HOME".to_owned()).or_insert(home);
        self.hand_over_volumes();
        // An error comes out again, better said, when the program enters it.
        let mut folder = std::fs::DirBuilder::new();
        let _made = folder
            .recursive(true)
            .mode(0o755)
            .create(&self.spec.workdir);
        self.say(&format!(
            "INFO Preparing to run: `{}` as {}",
            self.spec.argv.join(" "),
            if self.spec.user.is_empty() {
                "root"
            } else {
                &self.spec.user
            },
        ));
        self.log.flush();
        spawn::spawn(&Program {
            argv: &self.spec.argv,
            env: &self.spec.env,
            identity: &self.identity,
            workdir: &self.spec.workdir,
            nofile: self.spec.nofile,
            stdin: None,
        })
    }

    /// Gives the root directories of volumes to the user that the program runs as.
    fn hand_over_volumes(&mut self) {
        let (uid, gid) = (self.identity.uid, self.identity.gid);
        for path in std::mem::take(&mut self.spec.volumes) {
            let owned = std::os::unix::fs::chown(&path, Some(uid), Some(gid));
            let path = path.display();
            self.say(&match owned {
                Ok(()) => format!("INFO Mounted a volume at {path} w/ uid: {uid}, gid: {gid}"),
                // A volume that is full or broken can still be read.
                Err(error) => {
                    format!("WARN the volume at {path} is not given to uid {uid}: {error}")
                }
            });
        }
    }

    /// Runs the loop until the program has ended or everything must be killed.
    fn watch(&mut self, listener: &UnixListener, signals: &OwnedFd, output: &mut Output) {
        let mut conns: BTreeMap<usize, Conn> = BTreeMap::new();
        let mut next_conn = 0;
        while self.ended.is_none() {
            let deadline = conns
                .values()
                .filter_map(Conn::deadline)
                .chain(self.stop.deadline())
                .min();
            let events = wait_for_events(signals, listener, output, &conns, deadline);
            self.sessions = conns.values().filter(|conn| conn.is_session()).count();
            for (token, flags) in events {
                match token {
                    Token::Signals => self.take_signals(signals, &mut conns),
                    Token::Listener => {
                        if let Ok((stream, _)) = listener.accept() {
                            conns.insert(next_conn, Conn::new(stream));
                            next_conn += 1;
                        }
                    }
                    Token::Stdout | Token::Stderr => {
                        output.read(token == Token::Stderr, &mut self.log, self.spec.start);
                    }
                    Token::Conn(id) => {
                        if let Some(conn) = conns.get_mut(&id) {
                            conn.on_ready(flags, self);
                        }
                    }
                    Token::ExecStdout(id) | Token::ExecStderr(id) => {
                        if let Some(conn) = conns.get_mut(&id) {
                            conn.on_output(matches!(token, Token::ExecStderr(_)));
                        }
                    }
                    Token::ExecStdin(id) => {
                        if let Some(conn) = conns.get_mut(&id) {
                            conn.on_input(self);
                        }
                    }
                }
            }
            self.log.flush();
            let now = Instant::now();
            for conn in conns.values_mut() {
                conn.on_time(now);
            }
            conns.retain(|_, conn| !conn.is_done());
            if self.on_time(now) {
                break;
            }
        }
        for conn in conns.values_mut() {
            conn.on_end();
        }
    }

    /// Goes on with the stop sequence. Returns whether everything must be killed now.
    fn on_time(&mut self, now: Instant) -> bool {
        match self.stop.due(now) {
            None => false,
            Some(stop::Next::Signal(signal)) => {
                self.signal_main(signal);
                false
            }
            Some(stop::Next::KillAll) => true,
        }
    }

    fn take_signals(&mut self, signals: &OwnedFd, conns: &mut BTreeMap<usize, Conn>) {
        while let Some(signal) = sys::next_signal(signals) {
            if signal == libc::SIGCHLD {
                self.reap(conns);
            } else {
                self.signal_main(signal);
            }
        }
    }

    fn reap(&mut self, conns: &mut BTreeMap<usize, Conn>) {
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let ended = Ended::from(status);
            let pid = pid.as_raw_nonzero().get();
            if Some(pid) == self.main {
                self.main = None;
                self.ended = Some(ended);
            } else if let Some(conn) = conns.values_mut().find(|conn| conn.runs(pid)) {
                conn.on_exit(ended);
            }
        }
    }

    fn signal_main(&mut self, signal: i32) {
        let Some(pid) = self.main else { return };
        self.say(&format!(
            "INFO Sending signal {} to main child process w/ PID {pid}",
            stop::signal_name(signal)
        ));
        self.killed |= signal == libc::SIGKILL;
        // It may have ended just now; then there is nothing to signal.
        let _sent = sys::kill(pid, signal);
    }

    /// Kills what is left, writes the last lines and returns how it ended.
    fn end(&mut self, output: &mut Output) -> ExitFile {
        self.killed |= self.ended.is_none();
        let _killed = sys::kill(-1, libc::SIGKILL);
        let until = Instant::now() + LAST_REAP;
        while self.reap_last() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        output.finish(&mut self.log, self.spec.start);
        let ended = self.ended.unwrap_or(Ended {
            exit_code: 128 + libc::SIGKILL,
            signal: Some(libc::SIGKILL),
        });
        self.say(&match ended.signal {
            None => format!(
                "INFO Main child exited normally with code: {}",
                ended.exit_code
            ),
            Some(signal) => format!(
                "INFO Main child exited with signal (with signal '{}', core dumped? false)",
                stop::signal_name(signal)
            ),
        });
        self.log.flush();
        ExitFile {
            exit_code: ended.exit_code,
            signal: ended.signal,
            requested_stop: self.stop.requested(),
            killed_by_init: self.killed,
            ..ExitFile::default()
        }
    }

    /// Reaps what has ended. Returns whether there is more to wait for.
    fn reap_last(&mut self) -> bool {
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    if Some(pid.as_raw_nonzero().get()) == self.main {
                        self.main = None;
                        self.ended = Some(Ended::from(status));
                    }
                }
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }

    /// Writes a line of our own into the log, marked as Fly's `init` marks it.
    fn say(&mut self, text: &str) {
        let line = format!(" {text}");
        self.log.push(
            now_us(),
            crate::logfile::Source::App,
            false,
            self.spec.start,
            line.as_bytes(),
        );
    }
}

// === impl Ended ===

impl From<rustix::process::WaitStatus> for Ended {
    fn from(status: rustix::process::WaitStatus) -> Self {
        match (status.exit_status(), status.terminating_signal()) {
            (Some(exit_code), _) => Self {
                exit_code,
                signal: None,
            },
            (None, Some(signal)) => Self {
                exit_code: 128 + signal,
                signal: Some(signal),
            },
            (None, None) => Self {
                exit_code: 255,
                signal: None,
            },
        }
    }
}

fn wait_for_events(
    signals: &OwnedFd,
    listener: &UnixListener,
    output: &Output,
    conns: &BTreeMap<usize, Conn>,
    deadline: Option<Instant>,
) -> Vec<(Token, PollFlags)> {
    let mut tokens = vec![Token::Signals];
    let mut fds = vec![PollFd::new(signals, PollFlags::IN)];
    if conns.len() < MAX_CONNECTIONS {
        tokens.push(Token::Listener);
        fds.push(PollFd::new(listener, PollFlags::IN));
    }
    for (token, fd) in output.open() {
        tokens.push(token);
        fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
    }
    for (id, conn) in conns {
        for (token, fd, flags) in conn.interests(*id) {
            tokens.push(token);
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        }
    }
    let timeout = deadline.map(|at| {
        let left = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        Timespec::try_from(left).unwrap_or(Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        })
    });
    if poll(&mut fds, timeout.as_ref()).is_err() {
        return Vec::new();
    }
    let ready = fds.iter().map(PollFd::revents);
    tokens
        .into_iter()
        .zip(ready)
        .filter(|(_, flags)| !flags.is_empty())
        .collect()
}

fn now_us() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .ok()
        .and_then(|since| u64::try_from(since.as_micros()).ok())
        .unwrap_or(0)
}
