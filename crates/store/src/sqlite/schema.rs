//! The tables in the file, their version, and the way from older versions.

use std::path::Path;

use rusqlite::{Connection, ErrorCode};

use super::fault::{self, Doing};
use crate::backend::Revision;
use crate::error::StoreError;

/// Marks the file as a store of Hangar ("HNGR").
const APPLICATION_ID: i32 = 0x484e_4752;

/// Step `i` leads from version `i` to `i + 1`. Steps are only ever added.
///
/// `kv` is a plain rowid table: values of 1 KiB in a WITHOUT ROWID table take twice the space
/// and half the speed.
pub(super) const MIGRATIONS: &[&str] = &["
    CREATE TABLE kv (
        id         INTEGER PRIMARY KEY,
        key        TEXT    NOT NULL UNIQUE,
        value      BLOB    NOT NULL,
        create_rev INTEGER NOT NULL,
        mod_rev    INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE head (
        only     INTEGER PRIMARY KEY CHECK (only = 1),
        revision INTEGER NOT NULL
    ) STRICT;
    INSERT INTO head (only, revision) VALUES (1, 0);
"];

/// Brings the file to today's version, in one transaction, and returns its revision. A newer
/// file is refused, and so is one of another program.
pub(super) fn prepare(
    path: &Path,
    connection: &Connection,
    migrations: &[&str],
) -> Result<Revision, StoreError> {
    let supported = u32::try_from(migrations.len()).unwrap_or(u32::MAX);
    let found = version(path, connection)?;
    if found > supported {
        return Err(StoreError::NewerStore {
            path: path.to_owned(),
            found,
            supported,
        });
    }
    let migrate = || {
        let transaction = connection.unchecked_transaction()?;
        for step in migrations.iter().skip(usize::try_from(found).unwrap_or(0)) {
            transaction.execute_batch(step)?;
        }
        if found < supported {
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            transaction.pragma_update(None, "user_version", supported)?;
        }
        let revision = revision(&transaction)?;
        transaction.commit()?;
        Ok(revision)
    };
    migrate().map_err(|error: rusqlite::Error| fault::words(path, Doing::Opening, &error))
}

/// Returns the store's revision.
pub(super) fn revision(connection: &Connection) -> rusqlite::Result<Revision> {
    connection
        .query_row("SELECT revision FROM head", [], |row| row.get::<_, i64>(0))
        .map(from_sql)
}

/// Returns a revision as SQLite keeps it.
pub(super) fn to_sql(revision: Revision) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

/// Returns a revision that SQLite kept.
pub(super) fn from_sql(revision: i64) -> Revision {
    u64::try_from(revision).unwrap_or(0)
}

fn version(path: &Path, connection: &Connection) -> Result<u32, StoreError> {
    let read = |pragma| {
        connection
            .pragma_query_value(None, pragma, |row| row.get::<_, i32>(0))
            .map_err(|error| match error.sqlite_error_code() {
                Some(ErrorCode::NotADatabase) => StoreError::Corrupt {
                    path: path.to_owned(),
                    reason: error.to_string(),
                },
                _ => fault::words(path, Doing::Opening, &error),
            })
    };
    let (id, version) = (read("application_id")?, read("user_version")?);
    let tables = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| {
            row.get::<_, i64>(0)
        })
        .map_err(|error| fault::words(path, Doing::Opening, &error))?;
    let fresh = tables == 0 && version == 0;
    match u32::try_from(version) {
        Ok(version) if fresh || id == APPLICATION_ID => Ok(version),
        _ => Err(StoreError::Corrupt {
            path: path.to_owned(),
            reason: "it is the database of another program".to_owned(),
        }),
    }
}
