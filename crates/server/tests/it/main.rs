//! The server over real HTTP, on the store in memory, with a scripted host behind the link.

mod auth;
mod cluster;
mod deploys;
mod host;
mod leases;
mod lifecycle;
mod platform;
mod secrets;
