//! The resolver that every Machine asks: the `.internal` zone out of the Catalog, and everything
//! else from the host's own resolvers.
//!
//! - [`zone`] decides: Catalog, asker and question in, answer out. Pure.
//! - [`wire`] turns packets into questions and answers into packets. Pure, and bears any bytes.
//! - [`serve`] owns the sockets, [`forward`] asks others.
//!
//! The node starts it with [`Dns::start`] after the resolver's address exists. Nothing here knows
//! server, host or proxy: the Catalog is all it sees of them.
#![warn(missing_docs)]

pub mod forward;
pub mod serve;
pub mod wire;
pub mod zone;

pub use forward::Upstreams;
pub use serve::{Dns, DnsConfig, DnsError, DnsHandle};
