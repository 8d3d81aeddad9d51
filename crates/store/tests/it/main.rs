//! Tests of the store from outside.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod conformance;
mod durability;
mod faulty;
mod typed;
mod view;
