//! The socket in a Machine on which it speaks the Machines API: `/.fly/api`.
//!
//! The host listens, so that the socket says which Machine asks, and that a host which starts anew
//! can listen again: what the Machine has is a small file system of its own, which the host makes
//! before the start and finds again in the Machine's root, and in which a new socket takes the old
//! one's place. Root in the Machine may do there as it likes: nothing in it is followed or believed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hangar_api::env::Env;
use hangar_api::id::MachineId;
use hangar_api::seam::{BoxFuture, MachineApi};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, chownat, fstat, fstatfs, openat,
    openat2, renameat, unlinkat,
};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};
use tokio::net::UnixListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::AbortOnDropHandle;

use crate::runtime::RunKey;

/// The socket's name in its directory, and the one it has while it is made.
const NAME: &str = "api";
const NEW: &str = ".api.new";
/// The kernel's number of the file system that it is on.
const TMPFS: i64 = 0x0102_1994;
/// Connections that one Machine has at a time; more wait to be accepted.
const PER_MACHINE: usize = 32;
/// Connections that all Machines of the host have; one more is closed at once.
const ALL: usize = 4096;
/// Pause after an accept that failed for want of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(200);
/// Who may connect unless the Machine says otherwise: root (proxy-network-runtime.md 12.2).
const MODE: u32 = 0o600;

/// The sockets of all runs.
#[derive(Debug)]
pub(super) struct Sockets {
    env: Env,
    api: Option<Arc<dyn MachineApi>>,
    /// Absent is who listens where listening failed: it is tried once.
    open: Mutex<BTreeMap<RunKey, Option<AbortOnDropHandle<()>>>>,
    room: Arc<Semaphore>,
}

// === impl Sockets ===

impl Sockets {
    /// Returns none, which serve this API; without one there will be none.
    pub(super) fn new(env: Env, api: Option<Arc<dyn MachineApi>>) -> Self {
        Self {
            env,
            api,
            open: Mutex::default(),
            room: Arc::new(Semaphore::new(ALL)),
        }
    }

    /// Listens for a run that is to be made, and returns the mount that becomes its `/.fly`; what was
    /// made before for this run is closed. A run goes on without where that cannot be.
    pub(super) fn make(&self, key: &RunKey) -> Option<OwnedFd> {
        let api = self.api.clone()?;
        let made = new_mount().and_then(|mount| Ok((listen(&mount)?, mount)));
        let (listener, mount) = made.map_or_else(
            |error| {
                without(key, &error);
                (None, None)
            },
            |(listener, mount)| (Some(listener), Some(mount)),
        );
        self.put(key, listener, api);
        mount
    }

    /// Returns whether listening for a run has not been tried yet.
    pub(super) fn lacks(&self, key: &RunKey) -> bool {
        self.api.is_some() && !self.lock().contains_key(key)
    }

    /// Listens again for a run that was taken over: its root is given.
    pub(super) fn renew(&self, key: &RunKey, root: io::Result<Option<File>>) {
        let Some(api) = self.api.clone() else { return };
        let found = root.and_then(|root| {
            let root = root.ok_or_else(|| io::Error::other("it is not running"))?;
            listen(&own_mount(&root)?)
        });
        let listener = found.map_err(|error| without(key, &error)).ok();
        self.put(key, listener, api);
    }

    fn put(&self, key: &RunKey, listener: Option<UnixListener>, api: Arc<dyn MachineApi>) {
        let listening = listener.map(|listener| {
            let work = accept(listener, key.machine.clone(), api, self.room.clone());
            AbortOnDropHandle::new(self.env.spawn(work))
        });
        self.lock().insert(key.clone(), listening);
    }

    /// Stops listening for a run, and cuts its connections.
    pub(super) fn close(&self, key: &RunKey) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<RunKey, Option<AbortOnDropHandle<()>>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn without(key: &RunKey, error: &io::Error) {
    tracing::warn!(machine = %key.machine, %error, "machine has no /.fly/api");
}

/// Returns a small file system in memory that hangs nowhere: no path of the host leads there, and none
/// can be told from it.
fn new_mount() -> io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (option, value) in [("size", "65536"), ("nr_inodes", "64"), ("mode", "755")] {
        fsconfig_set_string(&context, option, value)?;
    }
    fsconfig_create(&context)?;
    let closed = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, closed)?)
}

/// Opens the `/.fly` of a Machine that runs, which must be what we have mounted there.
fn own_mount(root: &File) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let within = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let found = openat2(root, "/.fly", flags, Mode::empty(), within)?;
    if fstatfs(&found)?.f_type != TMPFS {
        return Err(io::Error::other("its /.fly is not what was mounted there"));
    }
    Ok(found)
}

/// Puts a socket into a directory, in place of a former one whose mode and owner it takes over. The
/// directory may be a Machine's: nothing in it is followed, and nothing beside it can be reached.
fn listen(dir: &OwnedFd) -> io::Result<UnixListener> {
    match unlinkat(dir, NEW, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    // Paths of sockets must be short, and this one leads nowhere else.
    let listener =
        std::os::unix::net::UnixListener::bind(format!("/proc/self/fd/{}/{NEW}", dir.as_raw_fd()))?;
    let (mode, user, group) = former(dir);
    let made = openat(
        dir,
        NEW,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    if FileType::from_raw_mode(fstat(&made)?.st_mode) != FileType::Socket {
        return Err(io::Error::other("something else is in its socket's place"));
    }
    chownat(&made, "", Some(user), Some(group), AtFlags::EMPTY_PATH)?;
    // By its descriptor: whatever has its name by now.
    let itself = format!("/proc/self/fd/{}", made.as_raw_fd());
    fs::set_permissions(itself, fs::Permissions::from_mode(mode))?;
    renameat(dir, NEW, dir, NAME)?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Returns mode and owner of the socket that is there: whoever may change them in the Machine has
/// opened it to others. Those of a new one where there is none.
fn former(shared: &OwnedFd) -> (u32, Uid, Gid) {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let found = openat(shared, NAME, flags, Mode::empty()).and_then(|file| fstat(&file));
    match found {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Socket => (
            stat.st_mode & 0o777,
            Uid::from_raw(stat.st_uid),
            Gid::from_raw(stat.st_gid),
        ),
        _ => (MODE, Uid::ROOT, Gid::ROOT),
    }
}

/// Accepts connections and serves them, all in this one task.
async fn accept(
    listener: UnixListener,
    machine: MachineId,
    api: Arc<dyn MachineApi>,
    room: Arc<Semaphore>,
) {
    let mut connections: FuturesUnordered<BoxFuture<'_, ()>> = FuturesUnordered::new();
    loop {
        let accepted = tokio::select! {
            biased;
            Some(()) = connections.next() => continue,
            accepted = listener.accept(), if connections.len() < PER_MACHINE => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                // Where there is no room, the Machine sees its connection closed.
                if let Ok(place) = Arc::clone(&room).try_acquire_owned() {
                    let served = api.serve(machine.clone(), Box::new(stream));
                    connections.push(Box::pin(held(served, place)));
                }
            }
            Err(error) => {
                tracing::debug!(%machine, %error, "connection to /.fly/api not accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn held(served: BoxFuture<'_, ()>, place: OwnedSemaphorePermit) {
    served.await;
    drop(place);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, symlink};
    use std::path::Path;

    use hangar_api::seam::Connection;
    use rustix::fs::open;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::UnixStream;

    use super::*;

    fn opened(dir: &Path) -> OwnedFd {
        open(dir, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap()
    }

    #[tokio::test]
    async fn a_new_socket_takes_the_old_ones_place_and_its_mode_with_it() {
        let home = tempfile::tempdir().unwrap();
        // Far longer than a socket's path may be.
        let path = home.path().join("x".repeat(150));
        fs::create_dir(&path).unwrap();
        let dir = opened(&path);
        let first = listen(&dir).unwrap();
        let place = path.join(NAME);
        let mode = || fs::symlink_metadata(&place).unwrap().mode() & 0o7777;
        assert_eq!(mode(), 0o600);
        fs::set_permissions(&place, fs::Permissions::from_mode(0o4666)).unwrap();
        drop(first);
        let again = listen(&dir).unwrap();
        assert_eq!(mode(), 0o666);
        let short = format!("/proc/self/fd/{}/{NAME}", dir.as_raw_fd());
        let (connected, accepted) = tokio::join!(UnixStream::connect(short), again.accept());
        connected.unwrap();
        accepted.unwrap();
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn whatever_a_machine_leaves_in_its_place_nothing_else_is_touched() {
        let home = tempfile::tempdir().unwrap();
        let (path, secret) = (home.path().join(".fly"), home.path().join("secret"));
        fs::create_dir(&path).unwrap();
        fs::write(&secret, "host").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let dir = opened(&path);
        for name in [NAME, NEW] {
            let _none = fs::remove_file(path.join(name));
            symlink(&secret, path.join(name)).unwrap();
            drop(listen(&dir).unwrap());
            let kind = fs::symlink_metadata(path.join(NAME)).unwrap().file_type();
            assert!(kind.is_socket());
        }
        fs::remove_file(path.join(NAME)).unwrap();
        fs::create_dir(path.join(NAME)).unwrap();
        assert!(listen(&dir).is_err());
        assert_eq!(fs::read_to_string(&secret).unwrap(), "host");
        assert_eq!(fs::metadata(&secret).unwrap().mode() & 0o777, 0o600);
        // A link in place of the directory leads nowhere, and another directory is none of ours.
        let root = File::open(home.path()).unwrap();
        let refused = own_mount(&root).err().map(|error| error.to_string());
        let is_memory = fstatfs(&root).unwrap().f_type == TMPFS;
        assert!(is_memory || refused.unwrap().contains("not what was mounted"));
        fs::rename(&path, home.path().join("real")).unwrap();
        symlink("real", &path).unwrap();
        assert!(own_mount(&root).is_err());
    }

    /// Holds each connection open.
    #[derive(Debug)]
    struct Patient;

    impl MachineApi for Patient {
        fn serve(&self, _: MachineId, mut connection: Box<dyn Connection>) -> BoxFuture<'_, ()> {
            Box::pin(async move {
                let mut bytes = [0; 1];
                while matches!(connection.read(&mut bytes).await, Ok(1)) {}
            })
        }
    }

    #[tokio::test]
    async fn a_run_that_is_closed_has_its_connections_cut() {
        if !rustix::process::geteuid().is_root() {
            return eprintln!("skipped: needs root");
        }
        let key = RunKey {
            machine: MachineId::new("00000000000001").unwrap(),
            start: 1,
        };
        let sockets = Sockets::new(Env::real(), Some(Arc::new(Patient)));
        assert!(sockets.lacks(&key));
        let mount = sockets.make(&key).unwrap();
        assert!(!sockets.lacks(&key));
        let path = format!("/proc/self/fd/{}/{NAME}", mount.as_raw_fd());
        let mut client = UnixStream::connect(path).await.unwrap();
        sockets.close(&key);
        let mut bytes = [0; 1];
        assert!(matches!(client.read(&mut bytes).await, Ok(0) | Err(_)));
        let none = Sockets::new(Env::real(), None);
        assert!(none.make(&key).is_none() && !none.lacks(&key));
    }
}
