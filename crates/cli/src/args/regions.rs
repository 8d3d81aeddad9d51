//! The arguments of `hangar regions`.

use clap::{Args, Subcommand};
use hangar_api::id::{GroupName, Region};

use super::AppArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum RegionsCommand {
    /// List the region pool of each process group
    List(RegionsListArgs),
    /// Add regions to the pool; Machines are spread over all of it
    Add(RegionsArgs),
    /// Take regions out of the pool; their Machines are made anew in the others
    Remove(RegionsArgs),
    /// Set the pool
    Set(RegionsArgs),
    /// Set where Machines go while no slot of the pool can be had; `none` means nowhere
    Backup(BackupArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RegionsListArgs {
    #[command(flatten)]
    pub(crate) app: AppArgs,
    /// Only this group
    #[arg(short = 'g', long = "group", visible_alias = "process-group")]
    pub(crate) group: Option<GroupName>,
    /// Print JSON
    #[arg(short, long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RegionsArgs {
    /// Region codes, such as iad
    #[arg(required = true, value_name = "REGION")]
    pub(crate) regions: Vec<Region>,
    #[command(flatten)]
    pub(crate) how: RegionsHow,
}

#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// Region codes in order of preference, or `none`
    #[arg(required = true, value_name = "REGION")]
    pub(crate) regions: Vec<Region>,
    #[command(flatten)]
    pub(crate) how: RegionsHow,
}

/// Whose regions are changed, and how it is told.
#[derive(Debug, Args)]
pub(crate) struct RegionsHow {
    #[command(flatten)]
    pub(crate) app: AppArgs,
    /// The group; every group when not given
    #[arg(short = 'g', long = "group", visible_alias = "process-group")]
    pub(crate) group: Option<GroupName>,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Do not wait until the Machines are where they should be
    #[arg(long)]
    pub(crate) detach: bool,
    /// Print JSON
    #[arg(short, long)]
    pub(crate) json: bool,
}
