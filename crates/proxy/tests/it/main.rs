//! Tests of the proxy: a real one in this process, real sockets, small servers on loopback
//! addresses as Machines, and a waker that does as it is told.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

mod autostop;
mod balance;
mod certificates;
mod datagrams;
mod drain;
mod handlers;
mod headers;
mod hold;
mod limits;
mod options;
mod ports;
mod protocols;
mod retry;
mod rig;
mod routing;
mod stall;
mod statics;
mod wake;
