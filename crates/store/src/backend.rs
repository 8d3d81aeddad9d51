//! The untyped store: what every backend promises, and the limits that all of them keep.
//!
//! The promises are etcd's, cut to what SQLite can keep too. The conformance suite in `testkit`
//! is their executable form.

use std::sync::Arc;

use hangar_api::seam::{BoxFuture, BoxStream};

use crate::error::StoreError;

/// A point in the life of the store: each transaction that changes something makes the next one.
/// The first change of an empty store is revision 1.
pub type Revision = u64;

/// Most checks, and most writes, of one transaction.
pub const MAX_TXN_OPS: usize = 128;
/// Most bytes of keys and values of one transaction.
pub const MAX_TXN_BYTES: usize = 1024 * 1024;
/// Most bytes of a key.
pub const MAX_KEY_BYTES: usize = 512;
/// Most entries of one page of a list.
pub const MAX_PAGE_ENTRIES: usize = 1000;
/// A page ends after so many bytes, however few entries they are.
pub const MAX_PAGE_BYTES: usize = 1024 * 1024;

/// A key with its value now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Arc<str>,
    /// The value.
    pub value: Arc<[u8]>,
    /// The revision that created the key; a key that was deleted and put again is created anew.
    pub create_revision: Revision,
    /// The revision that last put it.
    pub mod_revision: Revision,
}

/// A part of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Entries in the order of their keys.
    pub entries: Vec<Entry>,
    /// The store's revision when the page was read. Later pages may be of later revisions: a
    /// watch from the first page's revision + 1 tells what changed between them.
    pub revision: Revision,
    /// Give this as `after` for the next page; `None` when this was the last.
    pub next: Option<Arc<str>>,
}

/// A condition of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// The key exists and was last put at this revision.
    Revision(Arc<str>, Revision),
    /// The key does not exist.
    Absent(Arc<str>),
    /// The key exists.
    Present(Arc<str>),
}

/// A write of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Sets the value of a key.
    Put(Arc<str>, Arc<[u8]>),
    /// Removes a key; one that does not exist stays so.
    Delete(Arc<str>),
}

/// Writes that happen all or not at all, if all checks hold. A key is written at most once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RawTxn {
    /// All must hold, before any write.
    pub checks: Vec<Check>,
    /// What is then written.
    pub writes: Vec<Write>,
}

/// A change that a watch reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: Arc<str>,
    /// Its latest value as of the batch's revision, or `None` when it is deleted.
    pub entry: Option<Entry>,
}

/// Changes that a watch reports together. What one transaction wrote is never split between two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// All changes up to and including this revision have now been reported. Grows with every
    /// batch.
    pub revision: Revision,
    /// One for each changed key of the prefix. Empty when the revision grew by other keys only.
    pub changes: Vec<Change>,
}

/// What keeps the state. All methods may be called from many tasks at once.
///
/// An implementer promises: a transaction that returned `Ok` is on disk (if the backend has one)
/// and seen by every later read; [`StoreError::Conflict`], [`StoreError::Limit`] and
/// [`StoreError::Full`] mean that nothing was written; [`StoreError::Unknown`] means that it may
/// or may not have been, now or soon. Dropping a future of `txn` leaves its outcome unknown too.
pub trait Backend: Send + Sync + std::fmt::Debug {
    /// Returns the entry of a key. May be repeated.
    fn get(&self, key: Arc<str>) -> BoxFuture<'_, Result<Option<Entry>, StoreError>>;

    /// Returns a page of the entries whose keys begin with `prefix`, those after the key `after`
    /// if that is given. May be repeated.
    fn list(
        &self,
        prefix: Arc<str>,
        after: Option<Arc<str>>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page, StoreError>>;

    /// Does the writes if all checks hold, and returns the store's revision after them: a new
    /// one if anything changed.
    fn txn(&self, txn: RawTxn) -> BoxFuture<'_, Result<Revision, StoreError>>;

    /// Returns the changes at `from` and later of keys that begin with `prefix`, then those to
    /// come. Steps between may be skipped: of a key that changed three times, the last may be
    /// all that is told. A batch also comes, soon and possibly empty, when other keys changed.
    ///
    /// Fails with [`StoreError::Compacted`], at once or as the last item of the stream, when the
    /// changes since are not kept any more; the stream ends after an error.
    fn watch(
        &self,
        prefix: Arc<str>,
        from: Revision,
    ) -> BoxFuture<'_, Result<BoxStream<Result<Batch, StoreError>>, StoreError>>;
}

// === impl Change ===

impl From<Entry> for Change {
    fn from(entry: Entry) -> Self {
        Self {
            key: Arc::clone(&entry.key),
            entry: Some(entry),
        }
    }
}

// === impl Check ===

impl Check {
    /// Returns the key it is about.
    #[must_use]
    pub fn key(&self) -> &Arc<str> {
        match self {
            Self::Revision(key, _) | Self::Absent(key) | Self::Present(key) => key,
        }
    }

    /// Returns whether it holds for a key that was last put at this revision.
    #[must_use]
    pub fn holds(&self, mod_revision: Option<Revision>) -> bool {
        match self {
            Self::Revision(_, wanted) => mod_revision == Some(*wanted),
            Self::Absent(_) => mod_revision.is_none(),
            Self::Present(_) => mod_revision.is_some(),
        }
    }
}

// === impl Write ===

impl Write {
    /// Returns the key it is about.
    #[must_use]
    pub fn key(&self) -> &Arc<str> {
        match self {
            Self::Put(key, _) | Self::Delete(key) => key,
        }
    }
}

// === impl RawTxn ===

impl RawTxn {
    /// Returns the bytes that count against [`MAX_TXN_BYTES`].
    #[must_use]
    pub fn bytes(&self) -> usize {
        let checks: usize = self.checks.iter().map(|check| check.key().len()).sum();
        let writes = self.writes.iter().map(|write| match write {
            Write::Put(key, value) => key.len() + value.len(),
            Write::Delete(key) => key.len(),
        });
        checks + writes.sum::<usize>()
    }

    /// Refuses what etcd would refuse. Every backend calls this first.
    pub fn validate(&self) -> Result<(), StoreError> {
        at_most("checks", MAX_TXN_OPS, self.checks.len())?;
        at_most("writes", MAX_TXN_OPS, self.writes.len())?;
        at_most("bytes", MAX_TXN_BYTES, self.bytes())?;
        let mut written = std::collections::BTreeSet::new();
        for check in &self.checks {
            validate_key(check.key())?;
        }
        for write in &self.writes {
            validate_key(write.key())?;
            if !written.insert(write.key()) {
                return Err(invalid(write.key(), "a transaction writes each key once"));
            }
        }
        Ok(())
    }
}

/// Refuses what is no key: keys are 1 to [`MAX_KEY_BYTES`] printable ASCII characters.
pub fn validate_key(key: &str) -> Result<(), StoreError> {
    let fits = (1..=MAX_KEY_BYTES).contains(&key.len());
    if fits && key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    Err(invalid(key, "use 1 to 512 printable ASCII characters"))
}

/// Refuses what is no prefix: a key, or nothing for all keys.
pub fn validate_prefix(prefix: &str) -> Result<(), StoreError> {
    if prefix.is_empty() {
        Ok(())
    } else {
        validate_key(prefix)
    }
}

fn invalid(key: &str, rule: &'static str) -> StoreError {
    StoreError::InvalidKey {
        key: key.chars().take(80).collect(),
        rule,
    }
}

fn at_most(what: &'static str, limit: usize, given: usize) -> Result<(), StoreError> {
    if given <= limit {
        Ok(())
    } else {
        Err(StoreError::Limit { what, limit, given })
    }
}
