//! The `hangar` binary: command line, API server, host, proxy and DNS in one program.
//!
//! It is also PID 1 inside every Machine and the helper that makes containers; those roles are
//! chosen by the first argument before anything else is set up, because they must stay small
//! and single-threaded.

mod args;
mod build;
mod commands;
mod context;
mod error;
mod explain;
mod interrupt;
mod migrate;
mod names;
mod output;
mod terminal;

use std::ffi::OsStr;
use std::process::ExitCode;

use clap::Parser;

use crate::error::{Coded, Exit};

fn main() -> ExitCode {
    match std::env::args_os()
        .nth(1)
        .as_deref()
        .and_then(OsStr::to_str)
    {
        Some(hangar_init::ROLE) => return ExitCode::from(hangar_init::run()),
        Some(hangar_host::helper::ROLE) => return ExitCode::from(hangar_host::helper::run()),
        _ => {}
    }
    let cli = args::Cli::parse();
    match commands::run(cli) {
        Ok(exit) => ExitCode::from(exit.code()),
        Err(error) => {
            let exit = Exit::of(&error);
            let silent = error
                .downcast_ref::<Coded>()
                .is_some_and(|c| c.message.is_empty());
            if !silent {
                output::say(&format!("Error: {error:#}"));
            }
            ExitCode::from(exit.code())
        }
    }
}
