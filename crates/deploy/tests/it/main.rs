//! The planner from outside: examples, and random fleets driven to the end by a simulated host.
#![expect(clippy::unwrap_used, reason = "a test ends by panicking")]

mod changes;
mod disks;
mod examples;
mod fleets;
mod formations;
mod golden;
mod merging;
mod retries;
mod scaling;
mod sim;
mod spec;
mod strategies;
