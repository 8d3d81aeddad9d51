//! What can go wrong when the API is asked.

/// Why a request was not answered as hoped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The base URL cannot be used.
    #[error("the API's address {url:?} is not usable: {reason}")]
    BadUrl {
        /// What was given.
        url: String,
        /// Why not.
        reason: String,
    },
    /// The token cannot be sent.
    #[error(
        "the access token holds characters that no token has: check HANGAR_ACCESS_TOKEN for line breaks"
    )]
    BadToken,
    /// Nobody answers there.
    #[error(
        "no Hangar server answers at {url}: {reason}\nhint: start one with `hangar server` or `hangar dev`, or set HANGAR_API_URL"
    )]
    Unreachable {
        /// Where.
        url: String,
        /// Why.
        reason: String,
    },
    /// The connection broke before the answer was whole.
    #[error("the connection to the server broke: {0}")]
    Broken(String),
    /// No answer in time.
    #[error("the server did not answer within {0} seconds")]
    TimedOut(u64),
    /// The API said no.
    #[error("{message}")]
    Api {
        /// HTTP status.
        status: u16,
        /// The API's words.
        message: String,
        /// The API's code, where it gave one.
        code: Option<String>,
    },
    /// The answer was not what the API promises.
    #[error("the server's answer could not be read: {0}")]
    BadAnswer(String),
    /// A local file could not be read.
    #[error("read {path}: {source}")]
    File {
        /// Which.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

// === impl ClientError ===

impl ClientError {
    /// Returns whether a server of which this is heard may only be away for a moment.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::Broken(_) | Self::TimedOut(_)
        )
    }

    /// Returns the HTTP status of an answer that said no.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Api { status, .. } => Some(*status),
            _ => None,
        }
    }
}
