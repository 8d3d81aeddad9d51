//! `hangar volumes` on the command line.

use clap::{ArgAction, Args, Subcommand};
use hangar_api::id::{SnapshotId, VolumeId};

use super::{AppArgs, ShowArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum VolumesCommand {
    /// List an app's volumes
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        show: ShowArgs,
        /// Those that were just destroyed too
        #[arg(long)]
        all: bool,
    },
    /// Create a volume: it is on one host, and one Machine can have it
    Create(VolumeCreateArgs),
    /// Show one volume, and how full it is
    #[command(visible_alias = "status")]
    Show {
        id: VolumeId,
        #[command(flatten)]
        show: ShowArgs,
    },
    /// Change how snapshots of a volume are made and kept
    Update {
        id: VolumeId,
        #[command(flatten)]
        show: ShowArgs,
        /// Days that new snapshots are kept, 1 to 60
        #[arg(long)]
        snapshot_retention: Option<u32>,
        /// Whether a snapshot is made every day
        #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
        scheduled_snapshots: Option<bool>,
    },
    /// Make a volume larger; it cannot become smaller
    Extend {
        id: VolumeId,
        #[command(flatten)]
        show: ShowArgs,
        /// The new size in GB, or +GB
        #[arg(short, long)]
        size: String,
        /// Ask nothing; extend never does, so this changes nothing and is taken for scripts' sake
        #[arg(short, long, hide = true)]
        yes: bool,
    },
    /// Destroy volumes with all their data; their snapshots stay
    #[command(visible_aliases = ["delete", "rm"])]
    Destroy {
        #[arg(required = true)]
        ids: Vec<VolumeId>,
        #[command(flatten)]
        app: AppArgs,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Copy a volume, also while a Machine uses it
    Fork {
        id: VolumeId,
        #[command(flatten)]
        show: ShowArgs,
        /// The copy's name, instead of the same
        #[arg(short, long)]
        name: Option<String>,
        /// The copy's region, instead of the same
        #[arg(short, long)]
        region: Option<String>,
        /// In another zone than the volume
        #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
        require_unique_zone: Option<bool>,
    },
    /// Snapshots of a volume
    #[command(subcommand, visible_alias = "snapshot")]
    Snapshots(SnapshotsCommand),
}

#[derive(Debug, Args)]
pub(crate) struct VolumeCreateArgs {
    /// Its name, as [[mounts]] of fly.toml names it
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) show: ShowArgs,
    /// Its region; else the primary region of fly.toml
    #[arg(short, long)]
    pub(crate) region: Option<String>,
    /// Its size in GB; 1, or that of the snapshot
    #[arg(short, long)]
    pub(crate) size: Option<u64>,
    /// How many to create
    #[arg(short = 'n', long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) count: u32,
    /// Fill it from this snapshot
    #[arg(long)]
    pub(crate) snapshot_id: Option<String>,
    /// Days that its snapshots are kept, 1 to 60
    #[arg(long, default_value_t = hangar_api::volume::DEFAULT_RETENTION)]
    pub(crate) snapshot_retention: u32,
    /// Whether a snapshot is made every day
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub(crate) scheduled_snapshots: bool,
    /// In a zone without a volume of this name, where the region has several zones
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub(crate) require_unique_zone: bool,
    /// In a zone without any volume of the app
    #[arg(long)]
    pub(crate) unique_zone_app_wide: bool,
    /// Its file system; ext4 is the one there is
    #[arg(long)]
    pub(crate) fs_type: Option<String>,
    /// Volumes are not encrypted here, so this changes nothing and is taken for scripts' sake
    #[arg(long, hide = true)]
    pub(crate) no_encryption: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// Where the volumes of new Machines come from.
#[derive(Debug, Args)]
pub(crate) struct ScaleVolumeArgs {
    /// New volumes for new Machines, also where there are unattached ones
    #[arg(long)]
    pub(crate) with_new_volumes: bool,
    /// New volumes for new Machines, filled from this snapshot; `last` is the newest of the group's
    #[arg(long, value_name = "ID")]
    pub(crate) from_snapshot: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotsCommand {
    /// List a volume's snapshots, also when it is destroyed
    #[command(visible_alias = "ls")]
    List {
        id: VolumeId,
        #[command(flatten)]
        show: ShowArgs,
    },
    /// Ask for a snapshot of a volume
    Create {
        id: VolumeId,
        #[command(flatten)]
        show: ShowArgs,
    },
    /// Destroy a snapshot
    #[command(visible_aliases = ["delete", "rm"])]
    Destroy {
        id: VolumeId,
        snapshot: SnapshotId,
        #[command(flatten)]
        app: AppArgs,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}
