//! The records of one table in the view, and the face that all tables share there.

use std::any::Any;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::backend::Change;
use crate::error::StoreError;
use crate::record::{self, Record, Table};

/// A decoded value: an `Arc<Record<T>>` of the table, or `None` for a deletion.
pub(super) type AnyRow = Option<Arc<dyn Any + Send + Sync>>;

/// The records of a table whose type the caller does not know.
pub(super) trait AnyRows: std::fmt::Debug + Send + Sync {
    fn decode(&self, change: &Change) -> Result<AnyRow, StoreError>;
    fn apply(&mut self, key: Arc<str>, row: AnyRow);
    fn copy(&self) -> Arc<dyn AnyRows>;
    fn as_any(&self) -> &dyn Any;
}

/// The records of a table by their whole key: copying costs no allocation for a record.
#[derive(Clone, Debug)]
pub(super) struct Rows<T: Table>(BTreeMap<Arc<str>, Arc<Record<T>>>);

/// Returns the rows to write to; copies them when a snapshot holds them too.
pub(super) fn make_mut(rows: &mut Arc<dyn AnyRows>) -> &mut dyn AnyRows {
    if Arc::get_mut(rows).is_none() {
        *rows = rows.copy();
    }
    Arc::get_mut(rows).expect("a fresh copy has one owner")
}

// === impl Rows ===

impl<T: Table> Default for Rows<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Table> Rows<T> {
    pub(super) fn get(&self, key: &str) -> Option<&Arc<Record<T>>> {
        self.0.get(key)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn under(&self, prefix: String) -> impl Iterator<Item = &Arc<Record<T>>> {
        self.0
            .range::<str, _>((Bound::Included(prefix.as_str()), Bound::Unbounded))
            .take_while(move |(key, _)| key.starts_with(&prefix))
            .map(|(_, row)| row)
    }
}

impl<T: Table> AnyRows for Rows<T> {
    fn decode(&self, change: &Change) -> Result<AnyRow, StoreError> {
        let Some(entry) = &change.entry else {
            return Ok(None);
        };
        Ok(Some(Arc::new(record::decode::<T>(entry)?)))
    }

    fn apply(&mut self, key: Arc<str>, row: AnyRow) {
        match row.map(|row| row.downcast::<Record<T>>().expect("decoded by this table")) {
            Some(row) => self.0.insert(key, row),
            None => self.0.remove(&key),
        };
    }

    fn copy(&self) -> Arc<dyn AnyRows> {
        Arc::new(self.clone())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
