//! Errors of SQLite in words, sorted by what a caller can do.

use std::path::Path;

use rusqlite::ErrorCode;

use crate::error::StoreError;

/// What we were doing when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    Opening,
    Reading,
    Writing,
    /// From here on the data may be on disk.
    Committing,
}

/// Returns what a failure of SQLite means.
pub(super) fn words(path: &Path, doing: Doing, error: &rusqlite::Error) -> StoreError {
    let path = path.to_owned();
    let reason = error.to_string();
    match error.sqlite_error_code() {
        // Raised before the commit record is written, so nothing of it counts.
        Some(ErrorCode::DiskFull) => StoreError::Full { path },
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            StoreError::Corrupt { path, reason }
        }
        _ if doing == Doing::Committing => StoreError::Unknown { reason },
        _ => StoreError::Io {
            doing: match doing {
                Doing::Opening => "opening",
                Doing::Reading => "reading",
                Doing::Writing | Doing::Committing => "writing",
            },
            path,
            reason,
        },
    }
}

/// Returns the same error once more: every transaction of a group gets it.
pub(super) fn again(error: &StoreError) -> StoreError {
    match error {
        StoreError::Full { path } => StoreError::Full { path: path.clone() },
        StoreError::Corrupt { path, reason } => StoreError::Corrupt {
            path: path.clone(),
            reason: reason.clone(),
        },
        StoreError::Io {
            doing,
            path,
            reason,
        } => StoreError::Io {
            doing,
            path: path.clone(),
            reason: reason.clone(),
        },
        other => StoreError::Unknown {
            reason: other.to_string(),
        },
    }
}
