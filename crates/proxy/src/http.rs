//! The http handler: requests from a client's connection to Machines and back.

pub(crate) mod answer;
pub(crate) mod body;
mod compress;
pub(crate) mod forward;
pub(crate) mod headers;
pub(crate) mod idle;
pub(crate) mod serve;
pub(crate) mod stall;
pub(crate) mod statics;
pub(crate) mod tunnel;
pub(crate) mod upstream;
