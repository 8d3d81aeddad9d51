//! The one thread that writes, with group commit.
//!
//! It takes the transactions that wait, carries them out in their order inside one transaction
//! of SQLite, commits once, hands the changes to the watches and then answers. A transaction
//! whose checks do not hold leaves the others of its group alone. A failure of the disk fails
//! the whole group: nothing of it was written, or nobody knows.

use std::path::Path;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Statement};
use tokio::sync::{mpsc, oneshot};

use super::fault::{self, Doing};
use super::schema::{self, from_sql, to_sql};
use crate::backend::{Change, Entry, RawTxn, Revision, Write};
use crate::error::StoreError;
use crate::feed::Feed;

/// Most transactions in one commit.
const GROUP_TXNS: usize = 128;
/// A group takes no more transactions after so many bytes.
const GROUP_BYTES: usize = 4 * 1024 * 1024;

/// A transaction that waits for the writer.
pub(super) struct Job {
    pub(super) txn: RawTxn,
    pub(super) answer: oneshot::Sender<Result<Revision, StoreError>>,
}

/// The state of the thread.
pub(super) struct Writer {
    pub(super) path: Arc<Path>,
    pub(super) feed: Arc<Feed>,
    pub(super) revision: Revision,
}

struct Statements<'c> {
    get: Statement<'c>,
    put: Statement<'c>,
    delete: Statement<'c>,
    head: Statement<'c>,
}

/// What became of one transaction of a group that is not committed yet.
type Done = Result<(Revision, Vec<Change>), StoreError>;

// === impl Writer ===

impl Writer {
    /// Writes until nobody can ask any more.
    pub(super) fn run(mut self, connection: Connection, mut queue: mpsc::Receiver<Job>) {
        let mut statements = match Statements::prepare(&connection) {
            Ok(statements) => statements,
            Err(error) => {
                let error = fault::words(&self.path, Doing::Opening, &error);
                tracing::error!(error = %error, "store writer cannot start");
                return;
            }
        };
        while let Some(first) = queue.blocking_recv() {
            let group = gather(first, &mut queue);
            self.carry_out(&connection, &mut statements, group);
        }
    }

    fn carry_out(
        &mut self,
        connection: &Connection,
        statements: &mut Statements<'_>,
        group: Vec<Job>,
    ) {
        match self.write_group(connection, statements, &group) {
            Ok(done) => self.answer(group, done),
            Err(error) => {
                tracing::error!(error = %error, "store could not write");
                self.recover(connection);
                for job in group {
                    answer(job, Err(fault::again(&error)));
                }
            }
        }
    }

    fn write_group(
        &self,
        connection: &Connection,
        statements: &mut Statements<'_>,
        group: &[Job],
    ) -> Result<Vec<Done>, StoreError> {
        let writing = |error| fault::words(&self.path, Doing::Writing, &error);
        connection
            .execute_batch("BEGIN IMMEDIATE")
            .map_err(writing)?;
        let mut revision = self.revision;
        let mut done = Vec::with_capacity(group.len());
        for job in group {
            let one = statements.apply(&job.txn, revision).map_err(writing)?;
            if let Ok((after, _)) = &one {
                revision = *after;
            }
            done.push(one);
        }
        if revision == self.revision {
            connection.execute_batch("ROLLBACK").map_err(writing)?;
            return Ok(done);
        }
        statements
            .head
            .execute([to_sql(revision)])
            .map_err(writing)?;
        connection
            .execute_batch("COMMIT")
            .map_err(|error| fault::words(&self.path, Doing::Committing, &error))?;
        Ok(done)
    }

    fn answer(&mut self, group: Vec<Job>, done: Vec<Done>) {
        let mut results = Vec::with_capacity(done.len());
        for one in done {
            results.push(one.map(|(revision, changes)| {
                if revision > self.revision {
                    self.revision = revision;
                    self.feed.publish(revision, changes);
                }
                revision
            }));
        }
        for (job, result) in group.into_iter().zip(results) {
            answer(job, result);
        }
    }

    /// Takes back what is half done, and finds out what is on disk. If a commit whose outcome
    /// was unknown did happen, its changes are missing in the list: watches must list again.
    fn recover(&mut self, connection: &Connection) {
        if !connection.is_autocommit()
            && let Err(error) = connection.execute_batch("ROLLBACK")
        {
            tracing::error!(error = %error, "store could not roll back");
        }
        match schema::revision(connection) {
            Ok(revision) if revision > self.revision => {
                self.revision = revision;
                self.feed.publish(revision, Vec::new());
                self.feed.compact();
            }
            Ok(_) => {}
            Err(error) => tracing::error!(error = %error, "store cannot read its revision"),
        }
    }
}

// === impl Statements ===

impl<'c> Statements<'c> {
    fn prepare(connection: &'c Connection) -> rusqlite::Result<Self> {
        Ok(Self {
            get: connection.prepare("SELECT mod_rev, create_rev FROM kv WHERE key = ?1")?,
            put: connection.prepare(
                "INSERT INTO kv (key, value, create_rev, mod_rev) VALUES (?1, ?2, ?3, ?3) \
                 ON CONFLICT (key) DO UPDATE SET value = ?2, mod_rev = ?3 RETURNING create_rev",
            )?,
            delete: connection.prepare("DELETE FROM kv WHERE key = ?1")?,
            head: connection.prepare("UPDATE head SET revision = ?1")?,
        })
    }

    /// Does one transaction; the outer error is the disk's, the inner one the checks'.
    fn apply(&mut self, txn: &RawTxn, revision: Revision) -> rusqlite::Result<Done> {
        for check in &txn.checks {
            let found = self
                .get
                .query_row([&**check.key()], |row| row.get(0))
                .optional()?;
            if !check.holds(found.map(from_sql)) {
                let key = check.key().to_string();
                return Ok(Err(StoreError::Conflict { key }));
            }
        }
        let mut changes = Vec::with_capacity(txn.writes.len());
        for write in &txn.writes {
            changes.extend(self.write(write, revision + 1)?);
        }
        let changed = u64::from(!changes.is_empty());
        Ok(Ok((revision + changed, changes)))
    }

    fn write(&mut self, write: &Write, revision: Revision) -> rusqlite::Result<Option<Change>> {
        match write {
            Write::Put(key, value) => {
                let parameters = rusqlite::params![&**key, &**value, to_sql(revision)];
                let created = self.put.query_row(parameters, |row| row.get(0))?;
                Ok(Some(Change::from(Entry {
                    key: Arc::clone(key),
                    value: Arc::clone(value),
                    create_revision: from_sql(created),
                    mod_revision: revision,
                })))
            }
            Write::Delete(key) => Ok((self.delete.execute([&**key])? > 0).then(|| Change {
                key: Arc::clone(key),
                entry: None,
            })),
        }
    }
}

/// Takes what waits behind the first, up to the limits of a group.
fn gather(first: Job, queue: &mut mpsc::Receiver<Job>) -> Vec<Job> {
    let mut bytes = first.txn.bytes();
    let mut group = vec![first];
    while group.len() < GROUP_TXNS && bytes < GROUP_BYTES {
        let Ok(job) = queue.try_recv() else {
            break;
        };
        bytes += job.txn.bytes();
        group.push(job);
    }
    group
}

fn answer(job: Job, result: Result<Revision, StoreError>) {
    // Who asked may be gone; the write counts all the same.
    let _ = job.answer.send(result);
}
