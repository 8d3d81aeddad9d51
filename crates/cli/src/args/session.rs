//! The arguments of `hangar console`, `hangar ssh console` and `hangar proxy`.

use std::net::IpAddr;

use clap::{Args, Subcommand};
use hangar_api::id::{GroupName, MachineId, Region};

use super::{AppArgs, MachineConfigArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum SshCommand {
    /// Open a shell, or run a command, in a started Machine of an app
    Console(SshArgs),
}

/// What runs in a session.
#[derive(Debug, Args)]
pub(crate) struct CommandArgs {
    /// The command, split like a shell would; a shell when not given
    #[arg(short = 'C', long)]
    pub(crate) command: Option<String>,
    /// Who it runs as
    #[arg(short, long, default_value = "root")]
    pub(crate) user: String,
}

#[derive(Debug, Args)]
pub(crate) struct SshArgs {
    #[command(flatten)]
    pub(crate) app: AppArgs,
    #[command(flatten)]
    pub(crate) run: CommandArgs,
    /// In this Machine
    #[arg(long)]
    pub(crate) machine: Option<MachineId>,
    /// Choose the Machine from a list
    #[arg(short, long)]
    pub(crate) select: bool,
    /// In a Machine of this process group
    #[arg(short = 'g', long, alias = "group")]
    pub(crate) process_group: Option<GroupName>,
    /// In a Machine of this region
    #[arg(short, long)]
    pub(crate) region: Option<Region>,
    /// In the Machine with this address or .internal name
    #[arg(short = 'A', long)]
    pub(crate) address: Option<String>,
    /// On a terminal; without a command it is one whenever this is run on one
    #[arg(long)]
    pub(crate) pty: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ConsoleArgs {
    #[command(flatten)]
    pub(crate) app: AppArgs,
    #[command(flatten)]
    pub(crate) run: CommandArgs,
    /// With the configuration of this process group; the default group's when not given
    #[arg(short = 'g', long, alias = "group")]
    pub(crate) process_group: Option<GroupName>,
    /// In this Machine instead of a new one
    #[arg(long)]
    pub(crate) machine: Option<MachineId>,
    /// Choose from a list: a new Machine, or one that is started
    #[arg(short, long, conflicts_with = "machine")]
    pub(crate) select: bool,
    /// The new Machine's image; the current release's when not given
    #[arg(short, long)]
    pub(crate) image: Option<String>,
    /// The new Machine's region
    #[arg(short, long)]
    pub(crate) region: Option<Region>,
    #[command(flatten)]
    pub(crate) config: MachineConfigArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ProxyArgs {
    /// LOCAL:REMOTE ports, or one for both; local port 0 is any that is free
    #[arg(value_name = "LOCAL:REMOTE")]
    pub(crate) ports: String,
    /// The Machine: its address, its id, or an .internal name such as GROUP.process.APP.internal;
    /// any started one of the app when not given
    #[arg(value_name = "HOST")]
    pub(crate) host: Option<String>,
    #[command(flatten)]
    pub(crate) app: AppArgs,
    /// Choose the Machine from a list
    #[arg(short, long, conflicts_with = "host")]
    pub(crate) select: bool,
    /// Local address to listen on
    #[arg(short, long, default_value = "127.0.0.1")]
    pub(crate) bind_addr: IpAddr,
    /// Say nothing but errors
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// End when standard input ends
    #[arg(long)]
    pub(crate) watch_stdin: bool,
}
