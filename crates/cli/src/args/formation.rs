//! The arguments of `hangar formation`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{AppArgs, ShowArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum FormationCommand {
    /// Show what each process group should have; --json prints a file that `set` takes
    Show(ShowArgs),
    /// Set it from a file: the groups that it names, all or none
    Set(FormationSetArgs),
}

#[derive(Debug, Args)]
pub(crate) struct FormationSetArgs {
    /// JSON as `show --json` and `hangar migrate nomad` write it
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) app: AppArgs,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Do not wait until the Machines are where they should be
    #[arg(long)]
    pub(crate) detach: bool,
}
