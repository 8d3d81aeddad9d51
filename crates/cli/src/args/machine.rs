//! The arguments of `hangar machine`.

use clap::{Args, Subcommand};
use hangar_api::duration::GoDuration;
use hangar_api::id::{GroupName, MachineId, Region};

use super::{AppArgs, ShowArgs, VmArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum MachineCommand {
    /// List all Machines of an app
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        show: ShowArgs,
        /// Only ids
        #[arg(short, long)]
        quiet: bool,
    },
    /// Show one Machine with its checks and events
    Status {
        #[command(flatten)]
        which: OneMachine,
        /// Print JSON
        #[arg(short, long)]
        json: bool,
        /// Only its configuration, as JSON
        #[arg(short, long)]
        display_config: bool,
    },
    /// Create a Machine and start it
    Run(Box<RunArgs>),
    /// Create a Machine, but do not start it
    Create(Box<MachineRunArgs>),
    /// Make another Machine like this one
    Clone(Box<CloneArgs>),
    /// Change a Machine's configuration
    Update(Box<MachineUpdateArgs>),
    /// Start Machines
    Start(MachineIds),
    /// Stop Machines
    Stop(StopArgs),
    /// Suspend Machines: freeze them with their memory, until a start or a request
    Suspend {
        #[command(flatten)]
        ids: MachineIds,
        /// Wait so long for each to be suspended; 5 minutes when no time is given
        #[arg(short, long, value_name = "TIME", num_args = 0..=1, default_missing_value = "5m")]
        wait_timeout: Option<GoDuration>,
    },
    /// Restart Machines
    Restart(RestartArgs),
    /// Send SIGKILL to a Machine's program; its restart policy says what comes then
    Kill(OneMachine),
    /// Destroy Machines
    #[command(visible_aliases = ["rm", "remove"])]
    Destroy {
        #[command(flatten)]
        ids: MachineIds,
        /// Even while started
        #[arg(short, long)]
        force: bool,
        /// All Machines of the app that run this image, as REPOSITORY:TAG
        #[arg(short, long, conflicts_with = "ids")]
        image: Option<String>,
        /// With --image: do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Keep Machines out of the proxy until they are uncordoned
    Cordon(MachineIds),
    /// Give cordoned Machines back to the proxy
    Uncordon(MachineIds),
    /// Wait until a Machine is in a state
    Wait {
        #[command(flatten)]
        which: OneMachine,
        /// The state: started, stopped, destroyed, failed, or settled for any in which it rests
        #[arg(long, default_value = "settled")]
        state: String,
        /// How long at most, such as 90s
        #[arg(short, long, default_value = "5m")]
        wait_timeout: String,
    },
    /// Who may change which Machine
    #[command(subcommand, visible_alias = "lease")]
    Leases(LeasesCommand),
    /// Run a command in a started Machine; exits with the command's own code
    Exec {
        id: MachineId,
        /// The command and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
        #[command(flatten)]
        app: AppArgs,
        /// Seconds it may take
        #[arg(long)]
        timeout: Option<u64>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum LeasesCommand {
    /// Show who holds leases; of all Machines when none is named
    View {
        #[command(flatten)]
        ids: MachineIds,
        /// Print JSON
        #[arg(short, long)]
        json: bool,
    },
    /// Take leases away from whoever holds them
    Clear(MachineIds),
}

/// One Machine, or a choice from a list.
#[derive(Debug, Args)]
pub(crate) struct OneMachine {
    /// The Machine; on a terminal it can be chosen from a list
    pub(crate) id: Option<MachineId>,
    #[command(flatten)]
    pub(crate) app: AppArgs,
    /// Choose from a list
    #[arg(long)]
    pub(crate) select: bool,
}

/// Several Machines, or a choice from a list.
#[derive(Debug, Args)]
pub(crate) struct MachineIds {
    /// The Machines; on a terminal one can be chosen from a list
    pub(crate) ids: Vec<MachineId>,
    #[command(flatten)]
    pub(crate) app: AppArgs,
    /// Choose from a list
    #[arg(long)]
    pub(crate) select: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    #[command(flatten)]
    pub(crate) ids: MachineIds,
    /// Instead of the configured signal
    #[arg(short, long)]
    pub(crate) signal: Option<String>,
    /// Seconds before it is stopped by force
    #[arg(long)]
    pub(crate) timeout: Option<u32>,
    /// Time that each may take to be stopped, such as 30s; 5m when not given
    #[arg(short, long)]
    pub(crate) wait_timeout: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RestartArgs {
    #[command(flatten)]
    pub(crate) ids: MachineIds,
    /// Instead of the configured signal
    #[arg(short, long)]
    pub(crate) signal: Option<String>,
    /// Seconds before it is stopped by force
    #[arg(long)]
    pub(crate) time: Option<u32>,
    /// Kill instead of asking to stop
    #[arg(long)]
    pub(crate) force: bool,
    /// Do not wait for health checks
    #[arg(long)]
    pub(crate) skip_health_checks: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CloneArgs {
    #[command(flatten)]
    pub(crate) which: OneMachine,
    /// Its region, instead of the same
    #[arg(short, long)]
    pub(crate) region: Option<Region>,
    /// Its name
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// VOLUME[:PATH]: a volume that no Machine has, instead of a new one; at the source's path when
    /// none is given
    #[arg(long, value_name = "VOLUME[:PATH]", conflicts_with = "from_snapshot")]
    pub(crate) attach_volume: Option<String>,
    /// Fill the new volume from a snapshot: its id, or `last` for the newest of the source's
    /// volume; else it is empty
    #[arg(long, value_name = "ID")]
    pub(crate) from_snapshot: Option<String>,
    /// Put the new volume into another zone than others of its name, or refuse
    #[arg(long, alias = "require-unique-zone", default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub(crate) volume_requires_unique_zone: bool,
    /// Another command, split like a shell would
    #[arg(long, conflicts_with = "clear_cmd")]
    pub(crate) override_cmd: Option<String>,
    /// The image's own command
    #[arg(long)]
    pub(crate) clear_cmd: bool,
    /// Do not destroy it when its program ends, even if that is so for the source
    #[arg(long)]
    pub(crate) clear_auto_destroy: bool,
    /// Machines whose loss starts the clone, separated by commas; `source` is the Machine cloned
    #[arg(long, value_name = "ID,...")]
    pub(crate) standby_for: Option<String>,
    /// Do not wait until it is up and healthy
    #[arg(long)]
    pub(crate) detach: bool,
    #[command(flatten)]
    pub(crate) vm: VmArgs,
}

/// What can be said about a configuration when a Machine is made or changed.
#[derive(Debug, Default, Args)]
pub(crate) struct MachineConfigArgs {
    /// PORT[:MACHINE_PORT][/PROTOCOL[:HANDLER...]], such as 443:8080/tcp:http:tls; the handler -
    /// removes the service's ports; may be repeated
    #[arg(short, long, value_name = "PORT", value_delimiter = ',')]
    pub(crate) port: Vec<String>,
    /// NAME=VALUE merged into its environment; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// NAME=VALUE merged into its metadata; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(crate) metadata: Vec<String>,
    /// Instead of the image's ENTRYPOINT, split like a shell would
    #[arg(long)]
    pub(crate) entrypoint: Option<String>,
    /// A Machine's configuration to begin with, as JSON text or a file of it
    #[arg(long, value_name = "JSON")]
    pub(crate) machine_config: Option<String>,
    /// Keep it out of .internal names
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) skip_dns_registration: Option<bool>,
    /// Whether a request starts it when it is stopped
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) autostart: Option<bool>,
    /// Whether it is stopped when nobody asks for it: off, stop or suspend
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "stop")]
    pub(crate) autostop: Option<String>,
    /// Its restart policy: no, always or on-failure; "" goes back to the default
    #[arg(long)]
    pub(crate) restart: Option<String>,
    /// Start it once in each interval, from its first start on: hourly, daily, weekly or monthly; ""
    /// is never
    #[arg(long)]
    pub(crate) schedule: Option<String>,
    /// Machines whose loss starts it, separated by commas; "" is none
    #[arg(long, value_name = "ID,...")]
    pub(crate) standby_for: Option<String>,
    /// Swap in MB, or with a unit: 512, 1gb
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true)]
    pub(crate) swap_size: Option<String>,
    /// Keep what its program writes: never, restart (over restarts) or always (over updates too)
    #[arg(long, value_name = "WHEN")]
    pub(crate) rootfs_persist: Option<String>,
    /// Room for its root file system in GB, or with a unit; 0 is none in particular. It has as much
    /// as the host has
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true)]
    pub(crate) rootfs_size: Option<String>,
    /// Not offered: Machines share the host's kernel
    #[arg(long, value_name = "ARG", hide = true)]
    pub(crate) kernel_arg: Vec<String>,
    /// Not offered: there are no cache drives
    #[arg(long, value_name = "SIZE", hide = true)]
    pub(crate) cachedrive_size: Option<String>,
    /// PATH=FILE writes a local file into it; PATH= removes one; may be repeated
    #[arg(long, value_name = "PATH=FILE")]
    pub(crate) file_local: Vec<String>,
    /// PATH=TEXT writes a text into it; may be repeated
    #[arg(long, value_name = "PATH=TEXT")]
    pub(crate) file_literal: Vec<String>,
    /// PATH=SECRET writes a secret, whose value is base64, into it; may be repeated
    #[arg(long, value_name = "PATH=SECRET")]
    pub(crate) file_secret: Vec<String>,
    #[command(flatten)]
    pub(crate) vm: VmArgs,
}

#[derive(Debug, Args)]
pub(crate) struct MachineRunArgs {
    /// The image: an imported name or a registry reference
    pub(crate) image: String,
    /// Instead of the image's CMD; put -- before words that begin with a dash
    pub(crate) command: Vec<String>,
    #[command(flatten)]
    pub(crate) app: AppArgs,
    /// Its name; made up when not given
    #[arg(short, long)]
    pub(crate) name: Option<String>,
    /// Its region
    #[arg(short, long)]
    pub(crate) region: Option<Region>,
    /// VOLUME:PATH: a volume by its id, or a free one by its name, and where it is seen
    #[arg(short, long, value_name = "VOLUME:PATH", value_delimiter = ',')]
    pub(crate) volume: Vec<String>,
    /// Destroy it when its program has ended
    #[arg(long)]
    pub(crate) rm: bool,
    /// Do not wait for health checks
    #[arg(long)]
    pub(crate) detach: bool,
    #[command(flatten)]
    pub(crate) config: MachineConfigArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) run: MachineRunArgs,
    /// Open a shell in it, and destroy it when that ends
    #[arg(long, conflicts_with_all = ["detach", "standby_for"])]
    pub(crate) shell: bool,
    /// With --shell: who it runs as
    #[arg(long, default_value = "root", requires = "shell")]
    pub(crate) user: String,
    /// With --shell: another command than a shell, split like a shell would
    #[arg(long = "command", value_name = "COMMAND", requires = "shell")]
    pub(crate) shell_command: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct MachineUpdateArgs {
    #[command(flatten)]
    pub(crate) which: OneMachine,
    /// All Machines of a process group, one after the other
    #[arg(short = 'g', long, alias = "group", value_name = "GROUP", conflicts_with_all = ["id", "select"])]
    pub(crate) process_group: Option<GroupName>,
    /// The image
    #[arg(short, long)]
    pub(crate) image: Option<String>,
    /// Its command, split like a shell would; "" goes back to the image's
    #[arg(short = 'C', long)]
    pub(crate) command: Option<String>,
    /// Put its volume at another path
    #[arg(long, value_name = "PATH")]
    pub(crate) mount_point: Option<String>,
    /// Change the configuration but do not start it
    #[arg(long)]
    pub(crate) skip_start: bool,
    /// Do not wait for health checks
    #[arg(long)]
    pub(crate) skip_health_checks: bool,
    /// Seconds that it may take
    #[arg(long, default_value_t = 300)]
    pub(crate) wait_timeout: u64,
    #[command(flatten)]
    pub(crate) config: MachineConfigArgs,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
}
