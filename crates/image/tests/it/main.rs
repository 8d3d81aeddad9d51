//! The image store against images made by other tools and against real and unruly registries.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stderr, reason = "skipped tests say so")]

mod archives;
mod fake;
mod hosted;
mod prune;
mod registry;
mod unruly;
mod world;
