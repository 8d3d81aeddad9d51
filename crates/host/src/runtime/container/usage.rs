//! What comes of a look at a run's processes or memory.

use std::io;

use hangar_api::error::{ErrorKind, Failure};
use tokio::task::JoinError;

use crate::runtime::RunKey;

/// Returns what was found, or the failure in words.
pub(super) fn told<T>(
    key: &RunKey,
    what: &str,
    found: Result<io::Result<T>, JoinError>,
) -> Result<T, Failure> {
    let found = found.map_err(io::Error::other).flatten();
    found.map_err(|error| {
        let kind = match error.kind() {
            io::ErrorKind::Unsupported => ErrorKind::Unsupported,
            io::ErrorKind::InvalidInput | io::ErrorKind::NotFound => ErrorKind::FailedPrecondition,
            _ => ErrorKind::Unavailable,
        };
        Failure::new(kind, format!("{what} of machine {}: {error}", key.machine))
    })
}
