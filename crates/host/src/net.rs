//! The private network of one host (D8): a namespace and a cable for every Machine, and one
//! firewall table of Hangar's own.
//!
//! [`veth`] is called by the container helper; the rest by the host agent.

pub(crate) mod netlink;
pub mod veth;
