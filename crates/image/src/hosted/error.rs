//! Why the embedded registry refuses something, with the specification's code for it.

use crate::digest::Digest;
use crate::error::ImageError;

/// A refusal or a failure of the embedded registry. The HTTP status is decided by whoever answers.
#[derive(Debug, thiserror::Error)]
pub enum HostedError {
    /// No repository can have this name.
    #[error(
        "{0:?} is no repository name; it is the name of an app, or APP/NAME in lower-case letters, \
         digits and single separators"
    )]
    NameInvalid(String),
    /// There is no such repository, or none that the caller may read.
    #[error("repository name not known to registry")]
    NameUnknown,
    /// The repository has no such blob.
    #[error("blob unknown to registry: {0}")]
    BlobUnknown(Digest),
    /// The repository has no such upload: it never began, has ended or is too old.
    #[error("blob upload unknown to registry; begin it again")]
    UploadUnknown,
    /// The upload was cut off. What came is kept.
    #[error("blob upload invalid: {0}")]
    UploadInvalid(String),
    /// A chunk does not begin where the last one ended.
    #[error("the next byte of this upload is number {have}")]
    OutOfOrder {
        /// Bytes that are here.
        have: u64,
    },
    /// The content has another digest, or the digest is none.
    #[error("provided digest did not match uploaded content: {0}")]
    DigestInvalid(String),
    /// The repository has no such manifest.
    #[error("manifest unknown to registry: {0}")]
    ManifestUnknown(String),
    /// The manifest is not one that is taken.
    #[error("manifest invalid: {0}")]
    ManifestInvalid(String),
    /// A manifest names what was not pushed.
    #[error("manifest references a manifest or blob unknown to registry: {}", list(.0))]
    ManifestBlobUnknown(Vec<Digest>),
    /// More or less came than was said.
    #[error("provided length did not match content length: {0}")]
    SizeInvalid(String),
    /// Longer than anything that is taken.
    #[error("it is longer than {0} bytes, the most that is taken")]
    TooLarge(u64),
    /// Too much at once; the text says of what.
    #[error("{0}")]
    TooMany(String),
    /// Another request works on the same upload.
    #[error("another request is writing to this upload; try again in a moment")]
    Busy,
    /// The disk is, or would be, full.
    #[error("{0}")]
    Full(String),
    /// The disk failed, or the server is stopping.
    #[error(transparent)]
    Failed(ImageError),
}

fn list(digests: &[Digest]) -> String {
    let shown: Vec<String> = digests.iter().take(5).map(Digest::to_string).collect();
    shown.join(", ")
}

// === impl HostedError ===

impl HostedError {
    /// Returns the specification's code; `UNKNOWN`, which registries use beside it, for a failure.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NameInvalid(_) => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::BlobUnknown(_) => "BLOB_UNKNOWN",
            Self::UploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::UploadInvalid(_) | Self::OutOfOrder { .. } => "BLOB_UPLOAD_INVALID",
            Self::DigestInvalid(_) => "DIGEST_INVALID",
            Self::ManifestUnknown(_) => "MANIFEST_UNKNOWN",
            Self::ManifestInvalid(_) => "MANIFEST_INVALID",
            Self::ManifestBlobUnknown(_) => "MANIFEST_BLOB_UNKNOWN",
            Self::SizeInvalid(_) | Self::TooLarge(_) => "SIZE_INVALID",
            Self::TooMany(_) | Self::Busy => "TOOMANYREQUESTS",
            Self::Full(_) => "DENIED",
            Self::Failed(_) => "UNKNOWN",
        }
    }
}

impl From<ImageError> for HostedError {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::DiskFull { .. } => Self::Full(error.to_string()),
            other => Self::Failed(other),
        }
    }
}
