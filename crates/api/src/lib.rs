//! The vocabulary of Hangar: the types that every other crate speaks in.
//!
//! Names, fields and spellings are those of the Fly Machines API wherever it has one, so that the
//! JSON of these types *is* the wire format. Nothing here does I/O, except [`env::Env`], the one
//! door to clock, randomness and tasks, and nothing here decides, except [`rights`], which server
//! and command line must read alike: decisions live in the crates that own them.
#![warn(missing_docs)]

pub mod app;
pub mod catalog;
pub mod certificate;
pub mod check;
pub mod deployment;
pub mod duration;
pub mod edge;
pub mod env;
pub mod error;
pub mod event;
pub mod exec;
pub mod fingerprint;
pub mod fly;
pub mod formation;
pub mod id;
pub mod image;
pub mod ip;
pub mod lease;
pub mod lenient;
pub mod link;
pub mod logs;
pub mod macaroon;
pub mod machine;
pub mod net;
pub mod options;
pub mod org;
pub mod placement;
pub mod preview;
pub mod process;
pub mod region;
pub mod release;
pub mod rights;
pub mod schema;
pub mod seam;
pub mod secret;
pub mod session;
pub mod signal;
pub mod token;
pub mod volume;
pub mod watch;

/// A point in time, written as RFC 3339 on the wire.
pub use jiff::Timestamp;
