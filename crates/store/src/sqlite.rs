//! The store on disk: SQLite in WAL mode with full durability (D14).
//!
//! One thread writes, with group commit: the transactions that wait are committed together, one
//! fsync for all ([`writer`]). Readers have connections of their own. After each commit the
//! writer hands the changes to the watches, then answers.

mod fault;
mod reader;
mod schema;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use hangar_api::seam::{BoxFuture, BoxStream};
use rusqlite::{Connection, OpenFlags};
use tokio::sync::{mpsc, oneshot};

use self::fault::Doing;
use self::reader::Readers;
use self::writer::{Job, Writer};
use crate::backend::{
    Backend, Batch, Entry, Page, RawTxn, Revision, validate_key, validate_prefix,
};
use crate::error::StoreError;
use crate::feed::Feed;

/// Transactions that may wait for the writer; later ones wait for a place.
pub const QUEUE: usize = 1024;

/// How a store on disk is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct SqliteOptions {
    /// Most pages (of 4 KiB) that the file may grow to, beyond which it counts as full.
    pub max_pages: Option<u32>,
}

/// The store on disk. Dropping it waits for what was queued.
#[derive(Debug)]
pub struct SqliteBackend {
    path: Arc<Path>,
    jobs: Option<mpsc::Sender<Job>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    readers: Arc<Readers>,
    feed: Arc<Feed>,
}

// === impl SqliteBackend ===

impl SqliteBackend {
    /// Opens the store in this file, and makes it if there is none (mode 0600). Blocks on the
    /// disk. The caller keeps a second process away: the data dir is locked.
    pub fn open(path: &Path, options: SqliteOptions) -> Result<Self, StoreError> {
        create_file(path).map_err(|error| StoreError::Io {
            doing: "creating",
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        let connection = connect(path, Access::Write)?;
        if let Some(pages) = options.max_pages {
            connection
                .pragma_update(None, "max_page_count", pages)
                .map_err(|error| fault::words(path, Doing::Opening, &error))?;
        }
        let revision = schema::prepare(path, &connection, schema::MIGRATIONS)?;
        let path: Arc<Path> = path.into();
        let feed = Feed::new(revision, None);
        let (jobs, queue) = mpsc::channel(QUEUE);
        let writer = Writer {
            path: Arc::clone(&path),
            feed: Arc::clone(&feed),
            revision,
        };
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run(connection, queue))
            .map_err(|error| StoreError::Io {
                doing: "starting the writer of",
                path: PathBuf::from(&*path),
                reason: error.to_string(),
            })?;
        Ok(Self {
            readers: Arc::new(Readers::new(Arc::clone(&path))),
            path,
            jobs: Some(jobs),
            writer: Mutex::new(Some(thread)),
            feed,
        })
    }

    /// Returns the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    async fn commit(&self, txn: RawTxn) -> Result<Revision, StoreError> {
        txn.validate()?;
        let jobs = self.jobs.as_ref().ok_or(StoreError::Closed)?;
        let (answer, answered) = oneshot::channel();
        jobs.send(Job { txn, answer })
            .await
            .map_err(|_| StoreError::Closed)?;
        answered.await.unwrap_or_else(|_| {
            // The writer is gone with the transaction in its hands.
            Err(StoreError::Unknown {
                reason: "the store was closed meanwhile".to_owned(),
            })
        })
    }
}

impl Drop for SqliteBackend {
    fn drop(&mut self) {
        self.jobs = None;
        let thread = self
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("store writer panicked");
        }
    }
}

impl Backend for SqliteBackend {
    fn get(&self, key: Arc<str>) -> BoxFuture<'_, Result<Option<Entry>, StoreError>> {
        Box::pin(async move {
            validate_key(&key)?;
            self.readers
                .read(move |connection| reader::get(connection, &key))
                .await
        })
    }

    fn list(
        &self,
        prefix: Arc<str>,
        after: Option<Arc<str>>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page, StoreError>> {
        Box::pin(async move {
            validate_prefix(&prefix)?;
            self.readers
                .read(move |connection| reader::page(connection, &prefix, after.as_deref(), limit))
                .await
        })
    }

    fn txn(&self, txn: RawTxn) -> BoxFuture<'_, Result<Revision, StoreError>> {
        Box::pin(self.commit(txn))
    }

    fn watch(
        &self,
        prefix: Arc<str>,
        from: Revision,
    ) -> BoxFuture<'_, Result<BoxStream<Result<Batch, StoreError>>, StoreError>> {
        Box::pin(async move {
            validate_prefix(&prefix)?;
            self.feed.watch(prefix, from)
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

/// Makes the file with mode 0600 if there is none; SQLite gives its other files the same mode.
fn create_file(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let made = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match made {
        Ok(file) => {
            file.sync_all()?;
            let parent = path.parent().filter(|dir| !dir.as_os_str().is_empty());
            std::fs::File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

fn connect(path: &Path, access: Access) -> Result<Connection, StoreError> {
    let mode = match access {
        Access::Write => OpenFlags::SQLITE_OPEN_READ_WRITE,
        Access::Read => OpenFlags::SQLITE_OPEN_READ_ONLY,
    };
    let open = || {
        let flags = mode | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(std::time::Duration::from_secs(10))?;
        if access == Access::Write {
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            // What a burst made the log grow to is given back.
            connection.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024)?;
        }
        Ok(connection)
    };
    open().map_err(|error| fault::words(path, Doing::Opening, &error))
}

#[cfg(test)]
mod tests;
