//! One process with every role in it: API server, host, proxy and DNS.
//!
//! Owns the data directory, the order of start and stop, and the places where roles meet: the
//! message stream between server and host, and the Catalog that is merged from what the server
//! and the host know. Started by the CLI; decides nothing that a role decides.
#![warn(missing_docs)]

mod catalog;
mod data_dir;
mod error;
mod http;
mod inside;
mod link;
mod parts;
mod slots;
mod start;
mod tls;

pub use error::NodeError;
pub use hangar_server::RateLimit;
pub use start::{Node, NodeConfig};
pub use tls::TlsFiles;
