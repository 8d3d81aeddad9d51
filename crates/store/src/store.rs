//! The typed store: tables over a backend.

use std::sync::Arc;

use futures_util::StreamExt;
use hangar_api::seam::BoxStream;

use crate::backend::{Backend, Batch, MAX_PAGE_ENTRIES, Page, Revision};
use crate::error::StoreError;
use crate::key::KeyPart;
use crate::memory::MemoryBackend;
use crate::record::{self, Record, Table};
use crate::txn::Txn;

/// Typed access to a backend. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    backend: Arc<dyn Backend>,
}

/// Records that were listed.
#[derive(Clone, Debug)]
pub struct Listed<T: Table> {
    /// In the order of their keys.
    pub records: Vec<Record<T>>,
    /// Watch from this revision + 1 to hear of everything that the list does not show.
    pub revision: Revision,
}

/// Changes of a table that a watch reports together.
#[derive(Clone, Debug)]
pub struct TypedBatch<T: Table> {
    /// All changes up to and including this revision have now been reported.
    pub revision: Revision,
    /// One for each changed key; may be empty.
    pub changes: Vec<TypedChange<T>>,
}

/// A change of a record.
#[derive(Clone, Debug)]
pub enum TypedChange<T: Table> {
    /// It is new or changed.
    Put(Record<T>),
    /// It is gone.
    Deleted(T::Key),
}

// === impl Store ===

impl Store {
    /// Returns a store over this backend.
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>) -> Self {
        Self { backend }
    }

    /// Returns an empty store in memory.
    #[must_use]
    pub fn memory() -> Self {
        Self::new(Arc::new(MemoryBackend::default()))
    }

    /// Returns the backend.
    #[must_use]
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// Returns a record. May be repeated.
    pub async fn get<T: Table>(&self, key: &T::Key) -> Result<Option<Record<T>>, StoreError> {
        let entry = self.backend.get(record::full_key::<T>(key).into()).await?;
        entry.as_ref().map(record::decode).transpose()
    }

    /// Returns all records of a table. May be repeated.
    pub async fn list<T: Table>(&self) -> Result<Listed<T>, StoreError> {
        self.list_prefix(T::PREFIX.to_owned()).await
    }

    /// Returns the records of a table whose key's first part is this one, such as all Machines
    /// of an app. May be repeated.
    pub async fn list_under<T: Table, P: KeyPart>(
        &self,
        first: &P,
    ) -> Result<Listed<T>, StoreError> {
        self.list_prefix(record::prefix_under::<T, P>(first)).await
    }

    async fn list_prefix<T: Table>(&self, prefix: String) -> Result<Listed<T>, StoreError> {
        let mut records = Vec::new();
        let pages = self.pages(&prefix).await?;
        let revision = pages.first().map_or(0, |page| page.revision);
        for entry in pages.iter().flat_map(|page| &page.entries) {
            records.push(record::decode(entry)?);
        }
        Ok(Listed { records, revision })
    }

    /// Returns all pages of a prefix; the first one's revision is where a watch goes on.
    pub(crate) async fn pages(&self, prefix: &str) -> Result<Vec<Page>, StoreError> {
        let mut pages = Vec::new();
        let mut after = None;
        loop {
            let page = self
                .backend
                .list(prefix.into(), after, MAX_PAGE_ENTRIES)
                .await?;
            after = page.next.clone();
            pages.push(page);
            if after.is_none() {
                return Ok(pages);
            }
        }
    }

    /// Carries a transaction out and returns the store's revision after it. Not to be repeated
    /// blindly after [`StoreError::Unknown`]: read again first.
    pub async fn commit(&self, txn: Txn) -> Result<Revision, StoreError> {
        self.backend.txn(txn.into_raw()?).await
    }

    /// Returns the changes of a table at `from` and later, then those to come; see
    /// [`Backend::watch`].
    pub async fn watch<T: Table>(
        &self,
        from: Revision,
    ) -> Result<BoxStream<Result<TypedBatch<T>, StoreError>>, StoreError> {
        let batches = self.backend.watch(T::PREFIX.into(), from).await?;
        Ok(Box::pin(batches.map(|batch| typed(batch?))))
    }
}

fn typed<T: Table>(batch: Batch) -> Result<TypedBatch<T>, StoreError> {
    let changes = batch.changes.iter().map(|change| {
        Ok(match &change.entry {
            Some(entry) => TypedChange::Put(record::decode(entry)?),
            None => TypedChange::Deleted(record::decode_key::<T>(&change.key)?),
        })
    });
    Ok(TypedBatch {
        revision: batch.revision,
        changes: changes.collect::<Result<_, StoreError>>()?,
    })
}
