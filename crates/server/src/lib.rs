//! The API server: the Machines API over HTTP, what Machines should be, and the reconcilers that
//! carry out deployments.
//!
//! The node starts one [`Server`], serves its [`ServerHandle::router`], merges its
//! [`ServerHandle::routes`] with the liveness that the host knows, and stops it. The server talks
//! to hosts by [`hangar_api::link`] messages and the traits of [`hangar_api::seam`] only, and it
//! never does what a host does: it writes what a Machine should be and what is asked of it.
//!
//! ```text
//! http ─► apps, machines, secrets, deployments ─► store ─► view (Cache)
//!                                                            │ deltas
//!            link ◄── routes ◄── tidy ◄── supervise ◄────────┘
//! ```
#![warn(missing_docs)]

mod apps;
mod auth;
mod bells;
mod certificates;
mod core;
mod deployments;
pub mod desk;
mod error;
mod files;
mod formations;
mod hex;
mod http;
mod images;
mod inside;
mod ips;
mod keyring;
mod lease;
mod link;
mod machines;
mod names;
mod orgs;
mod placement;
mod rate;
mod routes;
mod schedules;
mod secrets;
mod server;
mod slots;
mod standby;
mod supervise;
mod tidy;
mod unit;
mod volumes;
mod wait;
mod watch;

pub use auth::{AuthError, Caller};
pub use http::{Need, endpoints};
pub use keyring::KeyringError;
pub use rate::RateLimit;
pub use routes::{AppRoutes, PUBLISH_EVERY, Routes};
pub use server::{Server, ServerConfig, ServerError, ServerHandle, ServerParts};
