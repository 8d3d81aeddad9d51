//! Tests of a host as its server sees it, on fakes and a paused clock.

mod container;
mod conformance;
mod host;
mod net;
mod rig;
mod simulation;
