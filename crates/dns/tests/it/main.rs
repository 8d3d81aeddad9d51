//! The resolver on real sockets.
#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

mod resolver;
