//! The planner from outside: examples, and random fleets driven to the end by a simulated host.

mod examples;
mod fleets;
mod merging;
mod scaling;
mod sim;
