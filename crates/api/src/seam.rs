//! Traits where roles meet without importing each other. The node wires them.

use std::future::Future;
use std::net::{SocketAddr, SocketAddrV6};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_core::Stream;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::{ErrorKind, Failure};
use crate::exec::{ExecRequest, ExecResponse};
use crate::id::{AppName, MachineId, SnapshotId, VolumeId};
use crate::image::{ImageInfo, ImageRef, Pruned};
use crate::logs::{LogLine, LogQuery};
use crate::process::{Memory, Process, Reclaimed};
use crate::session::{SessionInput, SessionOutput, SessionRequest};
use crate::volume::{VolumeSource, VolumeUsage};

/// A boxed future, for object-safe traits.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
/// A boxed stream, for object-safe traits.
pub type BoxStream<T> = Pin<Box<dyn Stream<Item = T> + Send>>;

/// A connection of bytes both ways; each way ends by itself.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// What the server asks of a host beside the stream of [`crate::link`]: questions and streams
/// that leave no trace in the store. Implemented by the host (and its fake).
pub trait HostCalls: Send + Sync + std::fmt::Debug {
    /// Runs a command in a started Machine. Dropping the future kills the command.
    fn exec(
        &self,
        machine: MachineId,
        request: ExecRequest,
    ) -> BoxFuture<'_, Result<ExecResponse, Failure>>;

    /// Begins a session in a started Machine; returns once its command runs. What comes in
    /// `input` goes to it, what it writes comes out. Dropping the stream kills the command.
    fn session(
        &self,
        machine: MachineId,
        request: SessionRequest,
        input: BoxStream<SessionInput>,
    ) -> BoxFuture<'_, Result<BoxStream<SessionOutput>, Failure>>;

    /// Connects to a TCP port of a started Machine: at its 6PN address, which is given, else
    /// where the proxy reaches it, since many programs listen on IPv4 alone.
    fn dial(
        &self,
        machine: MachineId,
        address: SocketAddrV6,
    ) -> BoxFuture<'_, Result<Box<dyn Connection>, Failure>>;

    /// Returns log lines, oldest first; ends unless `follow`. Machines are those of the host.
    fn logs(&self, query: LogQuery) -> BoxFuture<'_, Result<BoxStream<LogLine>, Failure>>;

    /// Returns the TCP sockets that listen in a started Machine.
    fn listeners(&self, machine: MachineId) -> BoxFuture<'_, Result<Vec<SocketAddr>, Failure>>;

    /// Returns the processes of a started Machine.
    fn processes(&self, machine: MachineId) -> BoxFuture<'_, Result<Vec<Process>, Failure>> {
        not_offered(machine, "lists no processes")
    }

    /// Returns the memory of a started Machine.
    fn memory(&self, machine: MachineId) -> BoxFuture<'_, Result<Memory, Failure>> {
        not_offered(machine, "counts no memory")
    }

    /// Limits the memory of a started Machine to so many MiB until it starts anew, and returns it.
    /// Refused where it uses more.
    fn set_memory(
        &self,
        machine: MachineId,
        limit_mb: u64,
    ) -> BoxFuture<'_, Result<Memory, Failure>> {
        let _ = limit_mb;
        not_offered(machine, "limits no memory")
    }

    /// Takes so many MiB of a started Machine's memory back, as far as the kernel can, and returns
    /// how many it was.
    fn reclaim_memory(
        &self,
        machine: MachineId,
        amount_mb: u64,
    ) -> BoxFuture<'_, Result<Reclaimed, Failure>> {
        let _ = amount_mb;
        not_offered(machine, "takes no memory back")
    }
}

/// Returns the refusal of what a host does not do.
fn not_offered<'a, T: Send + 'a>(
    machine: MachineId,
    what: &str,
) -> BoxFuture<'a, Result<T, Failure>> {
    let text = format!("the host of machine {machine} {what}");
    let failure = Failure::new(ErrorKind::Unsupported, text);
    Box::pin(std::future::ready(Err(failure)))
}

/// Says whether what was pushed to an app may be used by whoever asks.
pub type MayUse = Arc<dyn Fn(&AppName) -> bool + Send + Sync>;

/// Images of a host, shared by server and host. Implemented by `image`.
pub trait ImageCalls: Send + Sync + std::fmt::Debug {
    /// Imports an OCI archive or `docker save` archive from a file under a name, and returns its
    /// reference. May be repeated.
    fn import(&self, archive: PathBuf, name: String) -> BoxFuture<'_, Result<ImageRef, Failure>>;

    /// Resolves a name (imported, else registry) to a reference with a digest. Imported names
    /// win. Fails with the reason when there is no such image, or none for this platform.
    fn resolve(&self, name: String) -> BoxFuture<'_, Result<ImageRef, Failure>>;

    /// Like [`ImageCalls::resolve`], but what was pushed to an app is found only when it may be
    /// used. Without an implementation, nothing is pushed.
    fn resolve_for(
        &self,
        name: String,
        may_use: MayUse,
    ) -> BoxFuture<'_, Result<ImageRef, Failure>> {
        drop(may_use);
        self.resolve(name)
    }

    /// Returns the apps whose pushed image a name means, by tag or digest. An import of the same
    /// name still wins.
    fn pushed_to(&self, name: &str) -> Vec<AppName> {
        let _ = name;
        Vec::new()
    }

    /// Returns whether something was imported under a name. Without an implementation, it may be.
    fn is_imported(&self, name: &str) -> bool {
        let _ = name;
        true
    }

    /// Returns the images that are ready.
    fn list(&self) -> BoxFuture<'_, Result<Vec<ImageInfo>, Failure>>;

    /// Removes what nobody needs; `keep` are digests of manifests that are needed.
    fn prune(&self, keep: Vec<String>) -> BoxFuture<'_, Result<Pruned, Failure>>;

    /// Like [`ImageCalls::prune`], but imported images stay: for the daily collection. Without an
    /// implementation, everything stays.
    fn collect(&self, keep: Vec<String>) -> BoxFuture<'_, Result<Pruned, Failure>> {
        drop(keep);
        Box::pin(std::future::ready(Ok(Pruned::default())))
    }
}

/// What came of [`VolumeCalls::extend`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extended {
    /// The Machine that has the volume sees the room only after a restart: its host does not let
    /// root extend a file system in use.
    pub needs_restart: bool,
}

/// The data of volumes and snapshots on a host, of which the server keeps the records.
/// Implemented by the host (and its fake).
///
/// An implementer promises: what a method that returned well has made is on disk; every method
/// may be repeated, also while an earlier one of a server that was killed still works; a volume
/// or snapshot is whole or not there; no failure and no crash loses a byte of any other.
pub trait VolumeCalls: Send + Sync + std::fmt::Debug {
    /// Makes a volume of this size in bytes. One that is there already stays as it is. Fails with
    /// `NotFound` where there is no such source, with `Exhausted` where the disk has no room for
    /// all of it.
    fn make(
        &self,
        volume: VolumeId,
        size: u64,
        source: VolumeSource,
    ) -> BoxFuture<'_, Result<(), Failure>>;

    /// Makes a volume as large as this, also while a Machine uses it. One that is as large or
    /// larger stays as it is.
    fn extend(&self, volume: VolumeId, size: u64) -> BoxFuture<'_, Result<Extended, Failure>>;

    /// Copies a volume as it is at one moment, also while a Machine uses it, and returns the bytes
    /// that the copy takes on disk. A snapshot that is there already stays as it is.
    fn snapshot(
        &self,
        volume: VolumeId,
        snapshot: SnapshotId,
    ) -> BoxFuture<'_, Result<u64, Failure>>;

    /// Removes a volume for ever; no error where there is none. Fails with `FailedPrecondition`
    /// while a Machine uses it.
    fn remove_volume(&self, volume: VolumeId) -> BoxFuture<'_, Result<(), Failure>>;

    /// Removes a snapshot for ever; no error where there is none.
    fn remove_snapshot(&self, snapshot: SnapshotId) -> BoxFuture<'_, Result<(), Failure>>;

    /// Returns how full a volume is.
    fn usage(&self, volume: VolumeId) -> BoxFuture<'_, Result<VolumeUsage, Failure>>;
}

/// Files of Machines that run, for the proxy to answer with. Implemented by the host.
pub trait MachineFiles: Send + Sync + std::fmt::Debug {
    /// Opens a file of a started Machine by its absolute path inside. `None` where there is no
    /// regular file, or a symlink on the way. Never opens anything outside of the Machine.
    fn open(
        &self,
        machine: MachineId,
        path: PathBuf,
    ) -> BoxFuture<'_, Result<Option<std::fs::File>, Failure>>;
}

/// The API for Machines, over connections that the host knows to come from them. Implemented by the
/// server.
pub trait MachineApi: Send + Sync + std::fmt::Debug {
    /// Serves the API over a connection that came from this Machine, whatever it says of itself.
    /// Returns when the connection has ended; dropping the future ends it.
    fn serve(&self, machine: MachineId, connection: Box<dyn Connection>) -> BoxFuture<'_, ()>;
}

/// Brings Machines up that a request needs (autostart), and to rest when none does (autostop).
/// Implemented by the host, called by the proxy; honours leases and cordons. Many calls share one
/// start.
pub trait Waker: Send + Sync + std::fmt::Debug {
    /// Asks for a start and returns once it is accepted or refused; the Catalog tells the rest.
    /// A failure that is [`Unavailable`] means "not now", such as while the Machine is being
    /// updated: it is worth asking again soon. Any other means that the Machine is not for
    /// requests to start, as it is.
    ///
    /// [`Unavailable`]: crate::error::ErrorKind::Unavailable
    fn wake(&self, machine: MachineId) -> BoxFuture<'_, Result<(), Failure>>;

    /// Brings a Machine to rest that nobody uses, and returns once that is accepted or refused;
    /// the Catalog tells the rest. Refused where it is not that start any more, or where somebody
    /// asks something of it. Without an implementation, all that run go on.
    fn rest(&self, idle: IdleMachine) -> BoxFuture<'_, Result<(), Failure>> {
        drop(idle);
        let text = "this host brings nothing to rest by itself";
        Box::pin(std::future::ready(Err(Failure::new(
            ErrorKind::FailedPrecondition,
            text,
        ))))
    }
}

/// A Machine that nobody uses, and what is to become of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdleMachine {
    /// Which.
    pub machine: MachineId,
    /// The start that was seen idle.
    pub starts: u64,
    /// Suspended, where that can be, instead of stopped.
    pub suspend: bool,
    /// How many Machines of its group and region run once it rests.
    pub left: usize,
    /// Out of how many, those that rest included.
    pub all: usize,
}

/// Lets what is in flight end before a Machine stops. Implemented by the proxy, called by the
/// host after it has published the Machine as draining.
pub trait Drain: Send + Sync + std::fmt::Debug {
    /// Returns when the proxy gives the start `starts` of the Machine nothing new and nothing is
    /// in flight to it, or after `limit`.
    fn drained(&self, machine: MachineId, starts: u64, limit: Duration) -> BoxFuture<'_, ()>;

    /// Says that this start goes on after all, having been drained: called before the Machine is
    /// published as up again. May be repeated.
    fn reopened(&self, machine: &MachineId, starts: u64) {
        let _nothing_was_closed = (machine, starts);
    }
}

/// A [`Drain`] for a host without a proxy: returns at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDrain;

impl Drain for NoDrain {
    fn drained(&self, _machine: MachineId, _starts: u64, _limit: Duration) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}
