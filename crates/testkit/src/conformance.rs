//! Conformance suites: the promises of a trait as a program, run on every implementation of it.

pub mod runtime;
pub mod store;
pub mod volumes;
