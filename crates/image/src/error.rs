//! What can go wrong with an image, in words for the person who asked for it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hangar_api::error::{ErrorKind, Failure};

/// Why an image could not be had. Cloned to everybody who waits for the same piece of work.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ImageError {
    /// The text is no image name.
    #[error("image name {name:?} is not valid: {reason}")]
    Name {
        /// What was given.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no such image.
    #[error("image {name} was not found: {reason}")]
    NotFound {
        /// Which image.
        name: String,
        /// Where we looked, and what to do.
        reason: String,
    },
    /// The image exists, but not for this machine.
    #[error("image {name} has nothing for {wanted}; it is made for {found}")]
    NoPlatform {
        /// Which image.
        name: String,
        /// This machine's platform.
        wanted: String,
        /// The platforms there are.
        found: String,
    },
    /// The image uses something that Hangar does not do.
    #[error("{0}")]
    Unsupported(String),
    /// What came is not what its digest or its format promises.
    #[error("{what} is broken: {reason}")]
    Broken {
        /// Blob, manifest, archive.
        what: String,
        /// How it shows.
        reason: String,
    },
    /// The registry wants other credentials.
    #[error("registry {registry} refused access to {name}: {reason}")]
    Denied {
        /// The registry's host.
        registry: String,
        /// The repository.
        name: String,
        /// What it said.
        reason: String,
    },
    /// The registry cannot be reached or answers with faults.
    #[error("failed to get {name} from registry {registry}: {reason}")]
    Registry {
        /// The registry's host.
        registry: String,
        /// The repository.
        name: String,
        /// What happened.
        reason: String,
    },
    /// The disk is full.
    #[error("failed to {doing}: the disk that holds {} is full; free some space, or remove images with `hangar image prune`", path.display())]
    DiskFull {
        /// What we were doing.
        doing: String,
        /// Where.
        path: PathBuf,
    },
    /// Unpacking was asked of a process that may not set owners.
    #[error(
        "failed to unpack a layer: only root can set owners and devices; run the server as root"
    )]
    NotRoot,
    /// The disk failed us.
    #[error("failed to {doing} {}: {source}", path.display())]
    Disk {
        /// What we were doing.
        doing: String,
        /// To what.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// Work was cut off by shutdown.
    #[error("the work on the image was cut off")]
    CutOff,
}

// === impl ImageError ===

impl ImageError {
    /// Returns the error for a failed file operation; a full disk is told apart.
    pub(crate) fn disk(doing: &str, path: &Path, source: io::Error) -> Self {
        if matches!(
            source.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        ) {
            return Self::DiskFull {
                doing: doing.to_owned(),
                path: path.to_owned(),
            };
        }
        Self::Disk {
            doing: doing.to_owned(),
            path: path.to_owned(),
            source: Arc::new(source),
        }
    }

    pub(crate) fn broken(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Broken {
            what: what.into(),
            reason: reason.into(),
        }
    }

    /// Returns what a caller can do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Name { .. } | Self::Broken { .. } => ErrorKind::Invalid,
            Self::NotFound { .. } | Self::NoPlatform { .. } => ErrorKind::NotFound,
            Self::Unsupported(_) => ErrorKind::Unsupported,
            Self::Denied { .. } | Self::NotRoot => ErrorKind::FailedPrecondition,
            Self::Registry { .. } | Self::CutOff => ErrorKind::Unavailable,
            Self::DiskFull { .. } => ErrorKind::Exhausted,
            Self::Disk { .. } => ErrorKind::Internal,
        }
    }
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Self {
        Self::new(error.kind(), error.to_string())
    }
}
