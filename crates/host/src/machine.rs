//! One Machine on this host: what it may do next, and the task that does it.
//!
//! `lifecycle` decides (pure, with `restart`), `actor` performs, `plan` says what a
//! start looks like, `images` is the seam to the image store. Called by the agent alone.

pub(crate) mod actor;
pub mod images;
pub mod lifecycle;
pub mod plan;
pub mod restart;
#[cfg(test)]
pub(crate) mod testing;
