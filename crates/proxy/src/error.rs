//! Why the proxy could not start. What goes wrong later is answered to the client it concerns.

use std::path::PathBuf;

/// Why the proxy could not start.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// A file of the data directory cannot be read or written.
    #[error("use {path}: check the permissions and the free space of the data directory")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The self-signed certificate could not be made.
    #[error("make a self-signed certificate for {domain}")]
    Certificate {
        /// The domain it is for.
        domain: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A serving thread could not be started.
    #[error("start a thread of the proxy: the system may be out of threads or memory")]
    Thread(#[source] std::io::Error),
}
