//! End-to-end tests: the real binary, real Machines, real sockets.
//!
//! Each test has a world of its own: a network namespace, a data directory and a server in them.
//! They need root, and say so when they do not have it.

mod world;

mod bad_input;
mod groups;
mod load;
