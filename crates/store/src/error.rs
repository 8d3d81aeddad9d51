//! What can go wrong with the store, in words a person can act on.

use std::path::PathBuf;

use hangar_api::error::{ErrorKind, Failure};

use crate::backend::Revision;

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A check of the transaction did not hold: somebody else was first. Nothing was written.
    #[error("{key} changed meanwhile: read it again and retry")]
    Conflict {
        /// The key of the first check that did not hold.
        key: String,
    },
    /// Nobody can say whether the transaction was written. Read again before anything else.
    #[error("whether the change was written is not known ({reason}): read it again")]
    Unknown {
        /// What happened, in words.
        reason: String,
    },
    /// The changes since that revision are not kept any more: list again.
    #[error("changes before revision {oldest} are not kept any more: list again")]
    Compacted {
        /// The oldest revision that a watch can begin at.
        oldest: Revision,
    },
    /// More than a transaction may hold.
    #[error("a transaction has at most {limit} {what}, this one has {given}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        limit: usize,
        /// How much was given.
        given: usize,
    },
    /// Not a key.
    #[error("key {key:?} is not valid: {rule}")]
    InvalidKey {
        /// The key, cut to 80 characters.
        key: String,
        /// What would be accepted.
        rule: &'static str,
    },
    /// A newer Hangar has written this store.
    #[error(
        "the store {path} has schema {found} and this binary knows up to {supported}: \
         it was written by a newer Hangar, start that one"
    )]
    NewerStore {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u32,
        /// The newest schema we know.
        supported: u32,
    },
    /// A newer Hangar has written this value.
    #[error(
        "{key} is written in form {found} and this binary reads forms {oldest} to {newest}: \
         start the Hangar that wrote it"
    )]
    OtherForm {
        /// The key.
        key: String,
        /// The form of the value.
        found: u32,
        /// The oldest form we read.
        oldest: u32,
        /// The newest form we read.
        newest: u32,
    },
    /// A value is not what its table holds.
    #[error("the value of {key} cannot be read or written")]
    Malformed {
        /// The key.
        key: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// No room. Nothing was written; what is stored can still be read.
    #[error("no room left for the store {path}: free disk space, then try again")]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// The file is no store, or is damaged.
    #[error(
        "the store {path} is damaged or is not a store ({reason}): \
         put a backup in its place, or move it away to begin anew"
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        reason: String,
    },
    /// The file cannot be opened, read or written.
    #[error("{doing} the store {path} failed: {reason}")]
    Io {
        /// What we were doing.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
    /// The store is shut down.
    #[error("the store is closed")]
    Closed,
    /// The view in memory did not come to the revision in time.
    #[error("the server's view of the store stays behind revision {wanted}, it is at {at}")]
    Behind {
        /// The revision that was waited for.
        wanted: Revision,
        /// How far the view was.
        at: Revision,
    },
}

// === impl StoreError ===

impl StoreError {
    /// Returns whether a check did not hold, so that reading again and retrying makes sense.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }

    /// Returns whether the transaction may have been written.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown { .. })
    }

    /// Returns what a caller can do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Conflict { .. } => ErrorKind::Conflict,
            Self::Unknown { .. } | Self::Closed | Self::Compacted { .. } => ErrorKind::Unavailable,
            Self::Limit { .. } | Self::Full { .. } => ErrorKind::Exhausted,
            Self::InvalidKey { .. } => ErrorKind::Invalid,
            Self::Behind { .. } => ErrorKind::TimedOut,
            Self::NewerStore { .. }
            | Self::OtherForm { .. }
            | Self::Malformed { .. }
            | Self::Corrupt { .. }
            | Self::Io { .. } => ErrorKind::Internal,
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Failure::new(error.kind(), error.to_string())
    }
}
