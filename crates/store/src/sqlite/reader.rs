//! Reading: a few connections, taken in turn on the runtime's blocking threads.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension, Row};
use tokio::sync::Semaphore;

use super::fault::{self, Doing};
use super::{Access, connect, schema};
use crate::backend::{Entry, MAX_PAGE_BYTES, MAX_PAGE_ENTRIES, Page};
use crate::error::StoreError;

/// Most reads at once; others wait.
const READERS: usize = 4;

/// Connections that only read.
#[derive(Debug)]
pub(super) struct Readers {
    path: Arc<Path>,
    places: Semaphore,
    idle: Mutex<Vec<Connection>>,
}

// === impl Readers ===

impl Readers {
    pub(super) fn new(path: Arc<Path>) -> Self {
        Self {
            path,
            places: Semaphore::new(READERS),
            idle: Mutex::default(),
        }
    }

    /// Runs one read on a blocking thread. A read sees all that was committed before it began.
    pub(super) async fn read<T, F>(self: &Arc<Self>, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let _place = self
            .places
            .acquire()
            .await
            .map_err(|_| StoreError::Closed)?;
        let readers = Arc::clone(self);
        tokio::task::spawn_blocking(move || readers.read_now(read))
            .await
            .map_err(|_| StoreError::Closed)?
    }

    fn read_now<T>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let idle = self.idle().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => connect(&self.path, Access::Read)?,
        };
        let result = read(&connection);
        // A connection that failed is not kept.
        if result.is_ok() {
            self.idle().push(connection);
        }
        result.map_err(|error| fault::words(&self.path, Doing::Reading, &error))
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads one entry.
pub(super) fn get(connection: &Connection, key: &str) -> rusqlite::Result<Option<Entry>> {
    connection
        .query_row(
            "SELECT key, value, create_rev, mod_rev FROM kv WHERE key = ?1",
            [key],
            entry,
        )
        .optional()
}

/// Reads a page and the revision that it is of.
pub(super) fn page(
    connection: &Connection,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> rusqlite::Result<Page> {
    let transaction = connection.unchecked_transaction()?;
    let mut page = Page {
        revision: schema::revision(&transaction)?,
        ..Page::default()
    };
    let limit = limit.clamp(1, MAX_PAGE_ENTRIES);
    // Keys are printable ASCII: DEL comes after every character that may follow the prefix.
    let end = format!("{prefix}\u{7f}");
    let mut statement = transaction.prepare(
        "SELECT key, value, create_rev, mod_rev FROM kv \
         WHERE key >= ?1 AND key > ?2 AND key < ?3 ORDER BY key",
    )?;
    let mut rows = statement.query([prefix, after.unwrap_or(""), &end])?;
    let mut bytes = 0;
    while let Some(row) = rows.next()? {
        if page.entries.len() == limit || bytes >= MAX_PAGE_BYTES {
            page.next = page.entries.last().map(|entry| Arc::clone(&entry.key));
            break;
        }
        let entry = entry(row)?;
        bytes += entry.key.len() + entry.value.len();
        page.entries.push(entry);
    }
    Ok(page)
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        key: row.get_ref(0)?.as_str()?.into(),
        value: row.get_ref(1)?.as_blob()?.into(),
        create_revision: schema::from_sql(row.get(2)?),
        mod_revision: schema::from_sql(row.get(3)?),
    })
}
