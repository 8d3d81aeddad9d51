//! Everything that happens on one host: machine actors, ledger, runtimes, network, checks, logs.

pub mod agent;
pub mod cgroup;
pub mod checks;
pub mod helper;
pub mod ledger;
pub mod logs;
pub mod machine;
pub mod net;
pub mod probe;
pub mod runtime;
mod sys;
pub mod volumes;
