//! Typed transactions.

use std::sync::Arc;

use crate::backend::{Check, RawTxn, Revision, Write};
use crate::error::StoreError;
use crate::record::{self, Record, Table};

/// A transaction being put together: checks that must hold and writes that are then done, all or
/// none. [`crate::Store::commit`] carries it out.
#[derive(Debug, Default)]
#[must_use = "a transaction does nothing until it is committed"]
pub struct Txn {
    raw: RawTxn,
    failed: Option<StoreError>,
}

// === impl Txn ===

impl Txn {
    /// Returns an empty transaction.
    pub fn new() -> Self {
        Self::default()
    }

    /// Requires that the record was last put at this revision.
    pub fn check_revision<T: Table>(mut self, key: &T::Key, revision: Revision) -> Self {
        self.raw
            .checks
            .push(Check::Revision(record::full_key::<T>(key).into(), revision));
        self
    }

    /// Requires that the record is as it was read.
    pub fn check_same<T: Table>(self, record: &Record<T>) -> Self {
        self.check_revision::<T>(&record.key, record.mod_revision)
    }

    /// Requires that there is no such record.
    pub fn check_absent<T: Table>(mut self, key: &T::Key) -> Self {
        self.raw
            .checks
            .push(Check::Absent(record::full_key::<T>(key).into()));
        self
    }

    /// Requires that there is such a record, whatever it holds.
    pub fn check_present<T: Table>(mut self, key: &T::Key) -> Self {
        self.raw
            .checks
            .push(Check::Present(record::full_key::<T>(key).into()));
        self
    }

    /// Writes a record, whether or not there is one.
    pub fn put<T: Table>(mut self, key: &T::Key, value: &T::Value) -> Self {
        let key: Arc<str> = record::full_key::<T>(key).into();
        match record::encode::<T>(&key, value) {
            Ok(bytes) => self.raw.writes.push(Write::Put(key, bytes.into())),
            Err(error) => self.failed = self.failed.or(Some(error)),
        }
        self
    }

    /// Removes a record; one that does not exist stays so.
    pub fn delete<T: Table>(mut self, key: &T::Key) -> Self {
        self.raw
            .writes
            .push(Write::Delete(record::full_key::<T>(key).into()));
        self
    }

    /// Writes a record that must not exist yet.
    pub fn create<T: Table>(self, key: &T::Key, value: &T::Value) -> Self {
        self.check_absent::<T>(key).put::<T>(key, value)
    }

    /// Writes a new value of a record that must be as it was read.
    pub fn update<T: Table>(self, record: &Record<T>, value: &T::Value) -> Self {
        self.check_same(record).put::<T>(&record.key, value)
    }

    /// Removes a record that must be as it was read.
    pub fn remove<T: Table>(self, record: &Record<T>) -> Self {
        self.check_same(record).delete::<T>(&record.key)
    }

    /// Adds all checks and writes of another transaction.
    pub fn and(mut self, other: Self) -> Self {
        self.raw.checks.extend(other.raw.checks);
        self.raw.writes.extend(other.raw.writes);
        self.failed = self.failed.or(other.failed);
        self
    }

    /// Returns whether it would write nothing.
    pub fn is_empty(&self) -> bool {
        self.raw.writes.is_empty()
    }

    /// Returns how many checks or writes it has, whichever is more: at most
    /// [`crate::backend::MAX_TXN_OPS`] are taken.
    pub fn len(&self) -> usize {
        self.raw.checks.len().max(self.raw.writes.len())
    }

    pub(crate) fn into_raw(self) -> Result<RawTxn, StoreError> {
        match self.failed {
            Some(error) => Err(error),
            None => Ok(self.raw),
        }
    }
}
