//! The proxy: from a client's connection to the right Machine of the right app.
//!
//! ```text
//! accept -> detect, TLS -> route -> policy -> pick -> claim -> dial -> forward
//! datagram -> the flow of its client, or a new one: pick -> claim -> forward
//! ```
//!
//! It reads the Catalog and nothing else, asks a [`Waker`] for Machines that are down and to bring
//! those to rest that nobody uses, and tells the host through [`Drain`] when nothing is in flight to a Machine any more. It never writes
//! the state of a Machine, and never listens on another address than the one it was given.
//!
//! [`Waker`]: hangar_api::seam::Waker
//! [`Drain`]: hangar_api::seam::Drain

mod acquire;
mod announce;
mod autoscale;
mod autostop;
mod config;
mod connection;
mod control;
mod core;
mod error;
mod handle;
mod http;
mod index;
mod listen;
mod load;
mod pick;
mod policy;
mod ports;
mod postgres;
mod queue;
mod registry;
mod shared;
mod tcp;
mod tls;
mod udp;
mod wake;

pub use config::{AUTOSTOP_EVERY, Limits, ProxyConfig};
pub use error::ProxyError;
pub use handle::{Proxy, ProxyHandle};
