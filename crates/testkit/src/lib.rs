//! What tests share: conformance suites for the traits that have several implementations, and
//! seeded randomness.
//!
//! A dev-dependency only; nothing of it is in the product.

pub mod conformance;
pub mod random;
