//! The server over real HTTP, on the store in memory, with a scripted host behind the link.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod auth;
mod certificates;
mod clients;
mod cluster;
mod deploys;
mod disk;
mod echo;
mod formations;
mod host;
mod leases;
mod letter;
mod lifecycle;
mod limits;
mod platform;
mod registry;
mod rights;
mod schedules;
mod secrets;
mod sessions;
mod sloppy;
mod storms;
mod suspend;
mod tokens;
mod volumes;
mod watch;
