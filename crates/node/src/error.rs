//! Why a node could not be started.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a node could not be started, in words that say what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// Machines are made of namespaces, mounts and cgroups.
    #[error(
        "Hangar makes containers and networks, and that needs root: run it with sudo (`hangar doctor` says what else is missing)"
    )]
    NotRoot,
    /// The directory cannot be used.
    #[error("use the data directory {path}: {source}")]
    DataDir {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Somebody else has it.
    #[error(
        "the data directory {path} is in use by another Hangar server{holder}: stop that one, or give this one its own --data-dir"
    )]
    Locked {
        /// Which.
        path: PathBuf,
        /// " (pid N)" where it is known.
        holder: String,
    },
    /// The API's port cannot be had.
    #[error("listen on {address} for the API: {source}; choose another with --listen")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The API's certificate cannot be used.
    #[error(
        "use the certificate {certificate} with the key {key} for the API: {reason}; give a pair in PEM form with --tls-cert and --tls-key, or neither for one that is made here"
    )]
    Certificate {
        /// Which.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A `--host` is not one.
    #[error("--host {given:?}: {reason}")]
    BadSlot {
        /// What was given.
        given: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A role could not start.
    #[error("start {role}: {message}")]
    Role {
        /// Which.
        role: &'static str,
        /// Why not.
        message: String,
    },
}

// === impl NodeError ===

impl NodeError {
    /// Returns a closure that turns an error of a role into one of ours.
    pub(crate) fn role<E: std::error::Error>(role: &'static str) -> impl Fn(E) -> Self {
        move |error| {
            let mut message = error.to_string();
            let mut cause = error.source();
            while let Some(next) = cause {
                // Some errors repeat their source in their own words.
                if !message.contains(&next.to_string()) {
                    message = format!("{message}: {next}");
                }
                cause = next.source();
            }
            Self::Role { role, message }
        }
    }
}
