//! Tests of a host as its server sees it, on fakes and a paused clock.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

mod conformance;
mod container;
mod host;
mod net;
mod rig;
mod simulation;
mod suspend;
mod volumes;
