//! End-to-end tests: the real binary, real Machines, real sockets.
//!
//! Each test has a world of its own: a network namespace, a data directory and a server in them.
//! They need root, and say so when they do not have it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]
#![expect(
    clippy::print_stderr,
    reason = "a test says what it skips, and what it measured"
)]

mod busybox;
mod world;

mod api;
mod auth;
mod autostop;
mod bad_input;
mod certs;
mod commands;
mod compat;
mod config_remote;
mod deploy;
mod deploy_flags;
mod dev;
mod edge;
mod flyctl;
mod formations;
mod graphql;
mod groups;
mod images;
mod init_pid1;
mod inside;
mod interrupts;
mod kills;
mod launch;
mod letter;
mod load;
mod machine_commands;
mod machine_disks;
mod machine_extent;
mod machine_rows;
mod machines;
mod manifest;
mod migrate;
mod mounts;
mod network;
mod plan;
mod preflight;
mod proxy;
mod regions;
mod registry;
mod release;
mod runtime;
mod scale_commands;
mod schedules;
mod server;
mod sessions;
mod slots;
mod strategies;
mod volumes;
