//! What a host must not forget: one record per Machine, written before the effect it allows.
//!
//! Read at start by the agent, written by each Machine's actor. File operations go through
//! [`Files`], so that a simulation can keep them in memory and let them fail.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use hangar_api::seam::BoxFuture;

pub mod record;
pub mod seal;

pub use record::{Ledger, LedgerError, Record, SpecEntry};

/// The ledger's file operations. Paths are those of the data dir.
///
/// An implementer promises: a `write` that returned is still there after a power cut, and one that
/// failed left the former content whole; every method may be repeated.
pub trait Files: Send + Sync + fmt::Debug {
    /// Returns a file's content, or `None` where there is no such file.
    fn read(&self, path: PathBuf) -> BoxFuture<'_, io::Result<Option<Vec<u8>>>>;
    /// Replaces a file's content, making its directory where needed. Readable by the owner only.
    fn write(&self, path: PathBuf, content: Vec<u8>) -> BoxFuture<'_, io::Result<()>>;
    /// Removes a file or a directory with all that is in it; no error where there is none.
    fn remove(&self, path: PathBuf) -> BoxFuture<'_, io::Result<()>>;
    /// Returns the names in a directory; none where there is no such directory.
    fn list(&self, path: PathBuf) -> BoxFuture<'_, io::Result<Vec<String>>>;
}

/// [`Files`] on disk: temporary file, fsync, rename, fsync of the directory.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskFiles;

/// [`Files`] in memory, shared by its clones: what a simulated disk keeps across a crash.
#[derive(Clone, Debug, Default)]
pub struct MemoryFiles(Arc<Mutex<Memory>>);

#[derive(Debug, Default)]
struct Memory {
    files: BTreeMap<PathBuf, Vec<u8>>,
    /// So many writes fail from now on.
    failing_writes: u32,
    latency: std::time::Duration,
}

// === impl DiskFiles ===

impl DiskFiles {
    /// Returns the file operations of this machine.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

/// Runs file operations off the async threads.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error)))
}

impl Files for DiskFiles {
    fn read(&self, path: PathBuf) -> BoxFuture<'_, io::Result<Option<Vec<u8>>>> {
        Box::pin(blocking(move || absent_is_none(std::fs::read(path))))
    }

    fn write(&self, path: PathBuf, content: Vec<u8>) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(blocking(move || write_durably(&path, &content)))
    }

    fn remove(&self, path: PathBuf) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(blocking(move || {
            let found = absent_is_none(std::fs::symlink_metadata(&path))?;
            let gone = match found {
                None => return Ok(()),
                Some(meta) if meta.is_dir() => std::fs::remove_dir_all(&path),
                Some(_) => std::fs::remove_file(&path),
            };
            absent_is_none(gone).map(|_| ())
        }))
    }

    fn list(&self, path: PathBuf) -> BoxFuture<'_, io::Result<Vec<String>>> {
        Box::pin(blocking(move || {
            let Some(entries) = absent_is_none(std::fs::read_dir(path))? else {
                return Ok(Vec::new());
            };
            let mut names = Vec::new();
            for entry in entries {
                names.extend(entry?.file_name().into_string());
            }
            names.sort();
            Ok(names)
        }))
    }
}

fn absent_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a file so that either the former content or the new one is there, whatever happens.
fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    if !dir.is_dir() {
        std::fs::create_dir_all(dir)?;
        if let Some(above) = dir.parent() {
            std::fs::File::open(above)?.sync_all()?;
        }
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = dir.join(name);
    let written = (|| {
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    })();
    if written.is_err() {
        // The former content stays; what was begun must not fill the disk.
        drop(std::fs::remove_file(&temporary));
    }
    written?;
    std::fs::File::open(dir)?.sync_all()
}

// === impl MemoryFiles ===

impl MemoryFiles {
    /// Makes the next `count` writes fail as on a full disk.
    pub fn fail_writes(&self, count: u32) {
        self.lock().failing_writes = count;
    }

    /// Makes every write take this long, before and after the moment at which it counts.
    pub fn set_latency(&self, latency: std::time::Duration) {
        self.lock().latency = latency;
    }

    /// Returns whether any file holds these bytes.
    #[must_use]
    pub fn contains(&self, bytes: &[u8]) -> bool {
        let memory = self.lock();
        let mut files = memory.files.values();
        files.any(|file| file.windows(bytes.len()).any(|part| part == bytes))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Files for MemoryFiles {
    fn read(&self, path: PathBuf) -> BoxFuture<'_, io::Result<Option<Vec<u8>>>> {
        let content = self.lock().files.get(&path).cloned();
        Box::pin(std::future::ready(Ok(content)))
    }

    fn write(&self, path: PathBuf, content: Vec<u8>) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            // A real write takes time, before and after the moment at which it counts.
            let latency = self.lock().latency;
            tokio::time::sleep(latency).await;
            {
                let mut memory = self.lock();
                if memory.failing_writes > 0 {
                    memory.failing_writes -= 1;
                    return Err(io::ErrorKind::StorageFull.into());
                }
                memory.files.insert(path, content);
            }
            tokio::time::sleep(latency).await;
            Ok(())
        })
    }

    fn remove(&self, path: PathBuf) -> BoxFuture<'_, io::Result<()>> {
        self.lock().files.retain(|name, _| !name.starts_with(&path));
        Box::pin(std::future::ready(Ok(())))
    }

    fn list(&self, path: PathBuf) -> BoxFuture<'_, io::Result<Vec<String>>> {
        let mut names: Vec<String> = self
            .lock()
            .files
            .keys()
            .filter_map(|name| name.strip_prefix(&path).ok())
            .filter_map(|rest| rest.components().next())
            .filter_map(|first| first.as_os_str().to_str().map(str::to_owned))
            .collect();
        names.dedup();
        Box::pin(std::future::ready(Ok(names)))
    }
}
