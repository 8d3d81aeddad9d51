//! Durable state: an etcd-shaped store and no more (D5, D14).
//!
//! Get, list, compare-and-set transactions and watch over a flat space of keys, on SQLite or in
//! memory ([`Backend`]); typed tables above ([`Store`], [`Txn`], [`tables`]); and one typed view
//! in memory that a watch keeps fresh ([`Cache`]), from which the server reads everything.
//!
//! Only current values are kept: no history, no leases of the store's own. A Machine lease, a
//! claim or a deadline is a record that the caller checks in its transaction.
//!
//! ```no_run
//! use hangar_store::{Store, Txn, tables::Counters};
//!
//! # async fn shown() -> Result<(), hangar_store::StoreError> {
//! let store = Store::memory();
//! let key = "networks".to_owned();
//! store.commit(Txn::new().create::<Counters>(&key, &1)).await?;
//! let record = store.get::<Counters>(&key).await?.expect("just written");
//! store.commit(Txn::new().update(&record, &2)).await?;
//! # Ok(())
//! # }
//! ```
#![warn(missing_docs)]

pub mod backend;
pub mod cache;
pub mod error;
mod feed;
pub mod key;
pub mod memory;
mod record;
pub mod sqlite;
mod store;
pub mod tables;
mod txn;

pub use backend::{Backend, Revision};
pub use cache::{Cache, CacheFeed, Delta, Deltas, Snapshot};
pub use error::StoreError;
pub use key::{KeyPart, TableKey};
pub use memory::{MemoryBackend, MemoryOptions};
pub use record::{Record, Table};
pub use sqlite::{SqliteBackend, SqliteOptions};
pub use store::{Listed, Store, TypedBatch, TypedChange};
pub use txn::Txn;
