//! PID 1 inside a Machine, and the wire between it and the host.
#![warn(missing_docs)]

pub mod logfile;
