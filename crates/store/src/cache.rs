//! One typed view of the whole store in memory, kept fresh by a watch.
//!
//! The server reads everything from here. A [`Snapshot`] is the store as of one revision, across
//! all tables; a writer waits for its own revision ([`Cache::commit`]), so that it reads what it
//! wrote. The view changes in place while nobody holds a snapshot, and copies only the tables
//! that changed when somebody does: hold snapshots briefly.
//!
//! ```text
//! list all ──► watch from there ──► batch ──► decode ──► apply ──► tell who waits and follows
//!     ▲              │ compacted                                    
//!     └──────────────┘
//! ```

mod table;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures_util::StreamExt;
use hangar_api::seam::BoxStream;
use tokio::sync::{broadcast, watch};

use self::table::{AnyRow, AnyRows, Rows};
use crate::backend::{Batch, Change, Revision};
use crate::error::StoreError;
use crate::key::KeyPart;
use crate::record::{self, Record, Table};
use crate::store::Store;
use crate::tables::{self, Visit};
use crate::txn::Txn;

/// How long a reader waits for a revision that is already committed.
pub const CATCH_UP_LIMIT: Duration = Duration::from_secs(10);
/// Deltas kept for a follower that is busy; one that misses more is told that all may have
/// changed.
pub const DELTAS_KEPT: usize = 1024;

/// The view. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Cache {
    store: Store,
    shared: Arc<Shared>,
}

/// What keeps the view fresh; [`CacheFeed::run`] is to be spawned by the owner.
pub struct CacheFeed {
    store: Store,
    shared: Arc<Shared>,
    batches: BoxStream<Result<Batch, StoreError>>,
}

#[derive(Debug)]
struct Shared {
    view: RwLock<Arc<Snapshot>>,
    revision: watch::Sender<Revision>,
    deltas: broadcast::Sender<Delta>,
}

/// The store as of one revision.
#[derive(Clone, Debug)]
pub struct Snapshot {
    revision: Revision,
    tables: BTreeMap<&'static str, Arc<dyn AnyRows>>,
}

/// What changed from one view to the next.
#[derive(Clone, Debug)]
pub enum Delta {
    /// These keys, each with its table's prefix, were put or deleted.
    Keys {
        /// The revision after them.
        revision: Revision,
        /// The keys.
        keys: Arc<[Arc<str>]>,
    },
    /// Anything may have changed: look at all of it.
    All {
        /// The revision after it.
        revision: Revision,
    },
}

/// A stream of [`Delta`]s.
#[derive(Debug)]
pub struct Deltas {
    receiver: broadcast::Receiver<Delta>,
    shared: Arc<Shared>,
}

// === impl Cache ===

impl Cache {
    /// Reads the whole store and returns the view with what keeps it fresh. Spawn
    /// [`CacheFeed::run`], else the view stands still.
    pub async fn open(store: &Store) -> Result<(Self, CacheFeed), StoreError> {
        let (snapshot, batches) = load(store).await?;
        let shared = Arc::new(Shared {
            revision: watch::Sender::new(snapshot.revision),
            view: RwLock::new(Arc::new(snapshot)),
            deltas: broadcast::Sender::new(DELTAS_KEPT),
        });
        let feed = CacheFeed {
            store: store.clone(),
            shared: Arc::clone(&shared),
            batches,
        };
        let store = store.clone();
        Ok((Self { store, shared }, feed))
    }

    /// Returns the store that it shows.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Returns the view as it is now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.read()
    }

    /// Returns one record as it is now.
    #[must_use]
    pub fn get<T: Table>(&self, key: &T::Key) -> Option<Arc<Record<T>>> {
        self.snapshot().get::<T>(key).cloned()
    }

    /// Carries a transaction out and waits until the view shows it. The view may by then show
    /// later changes too. Not to be repeated blindly after [`StoreError::Unknown`].
    pub async fn commit(&self, txn: Txn) -> Result<Revision, StoreError> {
        let revision = self.store.commit(txn).await?;
        self.wait_for(revision).await?;
        Ok(revision)
    }

    /// Waits until the view shows this revision, at most [`CATCH_UP_LIMIT`]. May be cancelled.
    pub async fn wait_for(&self, revision: Revision) -> Result<(), StoreError> {
        let mut seen = self.shared.revision.subscribe();
        let reached = seen.wait_for(|at| *at >= revision);
        if let Ok(reached) = tokio::time::timeout(CATCH_UP_LIMIT, reached).await {
            reached.map_err(|_| StoreError::Closed)?;
            return Ok(());
        }
        let at = *self.shared.revision.borrow();
        let wanted = revision;
        Err(StoreError::Behind { wanted, at })
    }

    /// Returns a receiver that is woken when the view changes, with its revision: for
    /// reconcilers, which look at everything anyway.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Revision> {
        self.shared.revision.subscribe()
    }

    /// Returns a follower of what changes from now on: take it first, then a snapshot.
    #[must_use]
    pub fn deltas(&self) -> Deltas {
        Deltas {
            receiver: self.shared.deltas.subscribe(),
            shared: Arc::clone(&self.shared),
        }
    }
}

// === impl CacheFeed ===

impl CacheFeed {
    /// Keeps the view fresh until the store is closed or holds what cannot be read. May be
    /// cancelled: the view then stands still.
    pub async fn run(mut self) -> Result<(), StoreError> {
        loop {
            match self.batches.next().await {
                Some(Ok(batch)) => self.shared.apply(&batch)?,
                Some(Err(StoreError::Compacted { oldest })) => {
                    tracing::info!(oldest, "store view fell behind, reading all again");
                    let (snapshot, batches) = load(&self.store).await?;
                    self.batches = batches;
                    self.shared.replace(snapshot);
                }
                Some(Err(StoreError::Closed)) | None => return Ok(()),
                Some(Err(error)) => return Err(error),
            }
        }
    }
}

impl std::fmt::Debug for CacheFeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CacheFeed").finish_non_exhaustive()
    }
}

// === impl Shared ===

impl Shared {
    fn apply(&self, batch: &Batch) -> Result<(), StoreError> {
        // Decoded before the view is locked for writing.
        let decoded = self.read().decode(&batch.changes)?;
        let keys: Arc<[Arc<str>]> = decoded.iter().map(|d| Arc::clone(&d.key)).collect();
        {
            let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
            let view = Arc::make_mut(&mut view);
            for decoded in decoded {
                view.apply(decoded);
            }
            view.revision = batch.revision;
        }
        let revision = batch.revision;
        if !keys.is_empty() {
            self.tell(Delta::Keys { revision, keys });
        }
        self.revision.send_replace(revision);
        Ok(())
    }

    fn read(&self) -> Arc<Snapshot> {
        Arc::clone(&self.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn replace(&self, snapshot: Snapshot) {
        let revision = snapshot.revision;
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(snapshot);
        self.tell(Delta::All { revision });
        self.revision.send_replace(revision);
    }

    fn tell(&self, delta: Delta) {
        // Nobody follows: nobody to tell.
        let _ = self.deltas.send(delta);
    }
}

// === impl Snapshot ===

impl Snapshot {
    /// Returns the revision it shows.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Returns a record.
    #[must_use]
    pub fn get<T: Table>(&self, key: &T::Key) -> Option<&Arc<Record<T>>> {
        self.rows::<T>().get(&record::full_key::<T>(key))
    }

    /// Returns all records of a table, in the order of their keys.
    pub fn all<T: Table>(&self) -> impl Iterator<Item = &Arc<Record<T>>> {
        self.rows::<T>().under(T::PREFIX.to_owned())
    }

    /// Returns the records of a table whose key's first part is this one, such as all Machines
    /// of an app, in the order of their keys.
    pub fn under<T: Table, P: KeyPart>(&self, first: &P) -> impl Iterator<Item = &Arc<Record<T>>> {
        self.rows::<T>().under(record::prefix_under::<T, P>(first))
    }

    /// Returns how many records a table has.
    #[must_use]
    pub fn count<T: Table>(&self) -> usize {
        self.rows::<T>().len()
    }

    fn rows<T: Table>(&self) -> &Rows<T> {
        self.tables
            .get(T::PREFIX)
            .and_then(|rows| rows.as_any().downcast_ref())
            .expect("every table that is read from the view is one of store::tables")
    }

    fn empty() -> Self {
        let mut tables = AllTables(BTreeMap::new());
        tables::for_each(&mut tables);
        Self {
            revision: 0,
            tables: tables.0,
        }
    }

    /// Takes changes over, all or, where one cannot be read, none.
    fn take(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        for decoded in self.decode(changes)? {
            self.apply(decoded);
        }
        Ok(())
    }

    /// Decodes changes. Keys of no table are left out.
    fn decode(&self, changes: &[Change]) -> Result<Vec<Decoded>, StoreError> {
        let mut decoded = Vec::with_capacity(changes.len());
        for change in changes {
            let word = change.key.find('/').map_or(0, |at| at + 1);
            let Some((prefix, rows)) = self.tables.get_key_value(&change.key[..word]) else {
                tracing::debug!(key = &*change.key, "key of no table left out of the view");
                continue;
            };
            decoded.push(Decoded {
                prefix,
                key: Arc::clone(&change.key),
                row: rows.decode(change)?,
            });
        }
        Ok(decoded)
    }

    fn apply(&mut self, decoded: Decoded) {
        if let Some(rows) = self.tables.get_mut(decoded.prefix) {
            table::make_mut(rows).apply(decoded.key, decoded.row);
        }
    }
}

/// A change that can be applied.
struct Decoded {
    prefix: &'static str,
    key: Arc<str>,
    row: AnyRow,
}

struct AllTables(BTreeMap<&'static str, Arc<dyn AnyRows>>);

impl Visit for AllTables {
    fn table<T: Table>(&mut self) {
        self.0.insert(T::PREFIX, Arc::new(Rows::<T>::default()));
    }
}

// === impl Delta ===

impl Delta {
    /// Returns the revision after the changes.
    #[must_use]
    pub fn revision(&self) -> Revision {
        match self {
            Self::Keys { revision, .. } | Self::All { revision } => *revision,
        }
    }

    /// Returns the keys of this table that were put or deleted, or `None` when all may have
    /// changed.
    #[must_use]
    pub fn keys<T: Table>(&self) -> Option<Vec<T::Key>> {
        match self {
            Self::Keys { keys, .. } => Some(
                keys.iter()
                    .filter_map(|key| record::decode_key::<T>(key).ok())
                    .collect(),
            ),
            Self::All { .. } => None,
        }
    }

    /// Returns whether records of this table may have changed.
    #[must_use]
    pub fn touches<T: Table>(&self) -> bool {
        match self {
            Self::Keys { keys, .. } => keys.iter().any(|key| key.starts_with(T::PREFIX)),
            Self::All { .. } => true,
        }
    }
}

// === impl Deltas ===

impl Deltas {
    /// Waits for the next change; `None` when the view is gone. The view shows it already. May
    /// be cancelled.
    pub async fn next(&mut self) -> Option<Delta> {
        match self.receiver.recv().await {
            Ok(delta) => Some(delta),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(Delta::All {
                revision: *self.shared.revision.borrow(),
            }),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

/// Reads the whole store and begins the watch that goes on from there.
async fn load(
    store: &Store,
) -> Result<(Snapshot, BoxStream<Result<Batch, StoreError>>), StoreError> {
    loop {
        match try_load(store).await {
            // A store that changes faster than it is read; each round is a whole read, so this
            // ends with the burst.
            Err(StoreError::Compacted { .. }) => tokio::task::yield_now().await,
            done => return done,
        }
    }
}

async fn try_load(
    store: &Store,
) -> Result<(Snapshot, BoxStream<Result<Batch, StoreError>>), StoreError> {
    let pages = store.pages("").await?;
    let first = pages.first().map_or(0, |page| page.revision);
    let last = pages.last().map_or(0, |page| page.revision);
    let mut snapshot = Snapshot::empty();
    for page in pages {
        let changes: Vec<Change> = page.entries.into_iter().map(Change::from).collect();
        snapshot.take(&changes)?;
    }
    snapshot.revision = first;
    let mut batches = store.backend().watch("".into(), first + 1).await?;
    // Until the last page's revision, the pages are of different moments.
    while snapshot.revision < last {
        let batch = batches.next().await.ok_or(StoreError::Closed)??;
        snapshot.take(&batch.changes)?;
        snapshot.revision = batch.revision;
    }
    Ok((snapshot, batches))
}
