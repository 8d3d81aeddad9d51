//! Everything that happens on one host: machine actors, ledger, runtimes, network, checks, logs.

pub mod agent;
pub mod checks;
pub mod ledger;
pub mod machine;
pub mod runtime;
