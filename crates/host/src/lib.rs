//! Everything that happens on one host: machine actors, ledger, runtimes, network, checks, logs.

pub mod runtime;
