//! The arguments of `hangar scale`.

use clap::{Args, Subcommand};
use hangar_api::id::{GroupName, Region};

use super::{AppArgs, ScaleVolumeArgs, ShowArgs, VmArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum ScaleCommand {
    /// Set how many Machines groups have: `3`, `+1`, or `web=3 worker=+2`
    ///
    /// The server places the Machines and goes on when this command is interrupted. With --env, --vm-*,
    /// --with-new-volumes, --from-snapshot, and for groups with volumes, this command makes and destroys
    /// them itself.
    Count(CountArgs),
    /// Set the size of a group's Machines
    Vm {
        /// Size preset, such as shared-cpu-2x
        size: String,
        #[command(flatten)]
        app: AppArgs,
        /// The group; needed where the app has several
        #[arg(short = 'g', long, alias = "group")]
        process_group: Option<GroupName>,
        /// Memory in MB, or with a unit, instead of the preset's
        #[arg(long, alias = "memory")]
        vm_memory: Option<String>,
    },
    /// Set the memory of a group's Machines
    Memory {
        /// Memory in MB, or with a unit: 512, 1gb
        memory: String,
        #[command(flatten)]
        app: AppArgs,
        /// The group; needed where the app has several
        #[arg(short = 'g', long, alias = "group")]
        process_group: Option<GroupName>,
    },
    /// Show count, size and regions of each group
    Show(ShowArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CountArgs {
    /// A number for one group, or GROUP=NUMBER; a sign makes it relative
    #[arg(required = true, allow_negative_numbers = true)]
    pub(crate) counts: Vec<String>,
    #[command(flatten)]
    pub(crate) app: AppArgs,
    /// The group that a bare number is for; `app` when not given
    #[arg(short = 'g', long, alias = "group")]
    pub(crate) process_group: Option<GroupName>,
    /// Regions to spread over, separated by commas; the group's own when not given
    #[arg(short, long, value_delimiter = ',')]
    pub(crate) region: Vec<Region>,
    /// At most so many of a group in one region, from now on; -1 is no limit
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) max_per_region: Option<i64>,
    /// NAME=VALUE in the environment of new Machines; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    #[command(flatten)]
    pub(crate) vm: VmArgs,
    #[command(flatten)]
    pub(crate) volumes: ScaleVolumeArgs,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
}
