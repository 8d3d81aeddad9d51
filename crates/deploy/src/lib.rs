//! The planner of deployments: what should be, what is and what was done go in, the next wave of
//! steps comes out (D4).
//!
//! Pure: no clock, no store, no network, no randomness. The server's reconciler observes the
//! fleet, asks [`plan`], stores [`Plan::progress`], carries out [`Plan::ready`] as one wave, and
//! plans again when the wave has ended, when a gate has an edge ([`Gate::has_edge`]), when a step
//! was refused because the world had moved, or at [`Plan::wake_at`].
//!
//! The release command runs in *releasing*, canaries are tried in *trying*; bluegreen doubles the
//! fleet and switches over to it, all other strategies update Machines in place.
//!
//! ```text
//! begin ─► releasing ─► trying ─► creating ─┬─► updating ─────────────┬─► retiring ─► complete
//!              │           │          │      └─► doubling ─► switching ┘
//!              └───────────┴──────────┴── failure ─► rolling back ─► rolled back, or failed
//! ```
#![warn(missing_docs)]

pub mod changes;
pub mod desired;
pub mod fleet;
pub mod formation;
mod judge;
pub mod merge;
pub mod mounts;
mod plan;
mod preview;
pub mod progress;
pub mod scale;

pub use desired::{Desired, Kind, LaunchKey};
pub use fleet::{FleetMachine, ObservedFleet};
pub use plan::{Condition, Gate, Plan, Step, Verdict, plan};
pub use preview::{preview, refuse};
pub use progress::Progress;
