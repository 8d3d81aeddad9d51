//! Typed HTTP client of the API, used by the command line and by tests.
//!
//! One connection a request: commands make few, and a connection that is never kept is never
//! stale. Nothing is retried: a caller that may repeat a request knows it.
#![warn(missing_docs)]

mod apps;
mod certificates;
mod deployments;
mod dial;
mod error;
mod formations;
mod images;
mod logs;
mod machines;
mod sse;
mod ssh;
mod tls;
mod tokens;
mod transport;
mod upgrade;
mod volumes;

pub use deployments::{Follow, Followed};
pub use error::ClientError;
pub use logs::Logs;
pub use machines::{MachineFilter, WaitFor};
pub use ssh::{DIAL_COMMAND, dial_hello};
pub use transport::{Client, Connection, Stream};
pub use upgrade::Upgraded;
