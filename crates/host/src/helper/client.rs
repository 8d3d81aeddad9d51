//! The host's side of the helper: spawns it, asks it, spawns it again when it has died.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hangar_api::env::Env;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::packet;
use super::{ROLE, Reply, Request, volume};
use crate::sys;

/// How long an answer is waited for: longer than a worker may live.
const ANSWER_TIME: Duration = Duration::from_secs(90);
/// Tries to execute a program that somebody holds open for writing, and the pause between them.
const BUSY_TRIES: u32 = 50;
/// See [`BUSY_TRIES`].
const BUSY_PAUSE: Duration = Duration::from_millis(2);
/// Requests at once; more are refused.
const MAX_WAITING: usize = 1024;

/// Asks the helper. Cheap to share; one helper process serves all.
#[derive(Debug)]
pub struct Helper {
    env: Env,
    program: PathBuf,
    now: Mutex<Option<Arc<Connection>>>,
}

/// One helper process.
#[derive(Debug)]
struct Connection {
    socket: Arc<AsyncFd<OwnedFd>>,
    waiting: Arc<Mutex<Waiting>>,
    pid: u32,
    reader: JoinHandle<()>,
    /// Ends by itself when the helper does.
    reaper: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    /// Absent once helper and workers are gone: nobody would answer.
    open: Option<BTreeMap<u64, oneshot::Sender<Reply>>>,
}

// === impl Helper ===

impl Helper {
    /// Returns a client of a helper that will be spawned from this executable when it is needed.
    #[must_use]
    pub fn new(env: Env, program: PathBuf) -> Self {
        Self {
            env,
            program,
            now: Mutex::new(None),
        }
    }

    /// Returns the process id of the helper that serves now.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        lock(&self.now).as_ref().map(|connection| connection.pid)
    }

    /// Asks for one operation. When the helper dies meanwhile the answer is an error that says
    /// so; the operation may be done, half done or not begun, and may be asked for again.
    pub(crate) async fn ask(&self, request: &Request) -> Reply {
        let limit = match request {
            Request::Volume(_) => volume::ANSWER_TIME,
            _ => ANSWER_TIME,
        };
        match self.try_ask(request, limit).await {
            Ok(reply) => reply,
            Err(error) => Reply::failed(format!("ask the container helper: {error}"), true),
        }
    }

    async fn try_ask(&self, request: &Request, limit: Duration) -> io::Result<Reply> {
        let body = packet::memory_file(&serde_json::to_vec(request)?)?;
        let connection = self.connection()?;
        let (id, answer) = connection.expect_answer()?;
        let sent = loop {
            let mut ready = connection.socket.writable().await?;
            match packet::send_request(connection.socket.get_ref(), id, &body) {
                Err(Errno::AGAIN) => ready.clear_ready(),
                other => break other,
            }
        };
        if let Err(error) = sent {
            connection.forget(id);
            self.retire(&connection);
            return Err(error.into());
        }
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(_)) => Err(io::Error::other("it died")),
            Err(_) => {
                connection.forget(id);
                Err(io::Error::other("it does not answer"))
            }
        }
    }

    /// Returns the helper that lives, or a new one.
    fn connection(&self) -> io::Result<Arc<Connection>> {
        let mut now = lock(&self.now);
        if let Some(connection) = now.as_ref().filter(|connection| connection.is_alive()) {
            return Ok(Arc::clone(connection));
        }
        let connection = self.spawn()?;
        *now = Some(Arc::clone(&connection));
        Ok(connection)
    }

    fn retire(&self, dead: &Arc<Connection>) {
        let mut now = lock(&self.now);
        if now.as_ref().is_some_and(|have| Arc::ptr_eq(have, dead)) {
            *now = None;
        }
    }

    fn spawn(&self) -> io::Result<Arc<Connection>> {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        let mut command = Command::new(&self.program);
        command
            .arg(ROLE)
            .env_clear()
            .current_dir("/")
            .stdin(theirs)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C is meant for us alone.
            .process_group(0);
        let child = when_nobody_writes_it(|| command.spawn())?;
        // It holds the helper's end.
        drop(command);
        let pid = child.id();
        let id = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let id = id.ok_or_else(|| io::Error::other("no process id"))?;
        let pidfd = sys::register(pidfd_open(id, PidfdFlags::NONBLOCK)?)?;
        let socket = Arc::new(sys::register(ours)?);
        let waiting = Arc::new(Mutex::new(Waiting {
            next: 1,
            open: Some(BTreeMap::new()),
        }));
        let reading = read_replies(Arc::clone(&socket), Arc::clone(&waiting));
        let connection = Arc::new(Connection {
            reader: self.env.spawn(reading),
            reaper: self.env.spawn(reap(pidfd)),
            socket,
            waiting,
            pid,
        });
        tracing::debug!(pid, "container helper started");
        Ok(connection)
    }
}

/// Spawns a program that was written a moment ago: a process that somebody else began meanwhile
/// holds it open for writing until it executes its own.
fn when_nobody_writes_it(mut spawn: impl FnMut() -> io::Result<Child>) -> io::Result<Child> {
    for _ in 0..BUSY_TRIES {
        match spawn() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {
                std::thread::sleep(BUSY_PAUSE);
            }
            spawned => return spawned,
        }
    }
    spawn()
}

// === impl Connection ===

impl Connection {
    fn is_alive(&self) -> bool {
        lock(&self.waiting).open.is_some() && !self.reaper.is_finished()
    }

    fn expect_answer(&self) -> io::Result<(u64, oneshot::Receiver<Reply>)> {
        let mut waiting = lock(&self.waiting);
        let id = waiting.next;
        waiting.next += 1;
        let open = waiting.open.as_mut();
        let open = open.ok_or_else(|| io::Error::other("it died"))?;
        if open.len() >= MAX_WAITING {
            return Err(io::Error::other("too many requests wait"));
        }
        let (sender, receiver) = oneshot::channel();
        open.insert(id, sender);
        Ok((id, receiver))
    }

    fn forget(&self, id: u64) {
        if let Some(open) = lock(&self.waiting).open.as_mut() {
            open.remove(&id);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Closes our end with the last request: the helper then ends.
        self.reader.abort();
    }
}

/// Hands out replies until the last of helper and workers has closed its end; whoever waits then
/// is told.
///
/// A helper's death alone is not the end: its workers go on and answer for themselves. Asking the
/// next one at once for what they work on would be no gain, for it waits for them
/// ([`super::take_turn`]), and no truth: it finds the run's lock held and says that it is made,
/// before it is. What waits in vain is what the dead one had not taken up or whose worker was killed
/// after it, for as long as the slowest other worker lives.
async fn read_replies(socket: Arc<AsyncFd<OwnedFd>>, waiting: Arc<Mutex<Waiting>>) {
    loop {
        let Ok(mut ready) = socket.readable().await else {
            break;
        };
        match packet::receive_reply(socket.get_ref()) {
            Ok(Some((id, reply))) => {
                let open = &mut lock(&waiting).open;
                let sender = open.as_mut().and_then(|open| open.remove(&id));
                if let Some(sender) = sender {
                    // Whoever asked may have gone.
                    let _taken = sender.send(reply);
                }
            }
            Err(Errno::AGAIN) => ready.clear_ready(),
            Err(Errno::INTR | Errno::BADMSG) => {}
            Ok(None) | Err(_) => break,
        }
    }
    lock(&waiting).open = None;
}

/// Reaps the helper when it ends.
async fn reap(pidfd: AsyncFd<OwnedFd>) {
    let Ok(_ended) = pidfd.readable().await else {
        return;
    };
    let id = WaitId::PidFd(rustix::fd::AsFd::as_fd(pidfd.get_ref()));
    let status = waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    tracing::debug!(?status, "container helper ended");
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
