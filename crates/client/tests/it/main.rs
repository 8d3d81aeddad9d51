//! Tests of the client against a small server that answers as it is told.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod errors;
mod requests;
mod server;
mod streams;
