//! Arguments of `launch`, `migrate` and `explain`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use hangar_api::id::{AppName, MachineId, Region};

use super::{AppArgs, VmArgs};

#[derive(Debug, Args)]
pub(crate) struct LaunchArgs {
    /// The folder of the app, where fly.toml will stand
    #[arg(long, default_value = ".")]
    pub(crate) path: PathBuf,
    /// Name of the new app; else the one in fly.toml or the folder's
    #[arg(long)]
    pub(crate) name: Option<AppName>,
    /// Make up a name
    #[arg(long, conflicts_with = "name")]
    pub(crate) generate_name: bool,
    /// The organization that owns it; without one, the only one that the token is for, or personal
    #[arg(short, long, env = "FLY_ORG")]
    pub(crate) org: Option<String>,
    /// Use the fly.toml that is there, without asking
    #[arg(long)]
    pub(crate) copy_config: bool,
    /// The image, instead of what the folder builds: an imported name, a registry reference or an archive file
    #[arg(short, long)]
    pub(crate) image: Option<String>,
    /// The port that the app listens on; else EXPOSE of the Dockerfile, or 8080
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) internal_port: Option<u16>,
    /// Region of new Machines
    #[arg(short, long)]
    pub(crate) region: Option<Region>,
    /// Two Machines for a new group with services, a standby for one without
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub(crate) ha: bool,
    /// An environment variable for [env], NAME=VALUE; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    #[command(flatten)]
    pub(crate) vm: VmArgs,
    /// Write fly.toml and create the app, but do not deploy
    #[arg(long)]
    pub(crate) no_deploy: bool,
    /// Deploy without asking
    #[arg(long, conflicts_with = "no_deploy")]
    pub(crate) now: bool,
    /// Say yes to all questions
    #[arg(short, long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum MigrateCommand {
    /// Make a fly.toml of a Procfile and its app.json
    Procfile {
        /// The folder with the Procfile
        #[arg(default_value = ".")]
        dir: PathBuf,
        #[command(flatten)]
        out: MigrateArgs,
    },
    /// Rebuild an app of Fly's here, from what Fly's commands print
    Fly(MigrateFlyArgs),
    /// Make fly.tomls of a Nomad job, as `nomad job inspect` or `nomad job run -output` prints it
    Nomad {
        /// The job as JSON
        #[arg(value_name = "JOB.json")]
        file: PathBuf,
        #[command(flatten)]
        out: MigrateArgs,
    },
    /// Make fly.tomls of a Compose file
    Compose {
        /// The Compose file, or the folder it is in
        #[arg(default_value = ".")]
        file: PathBuf,
        #[command(flatten)]
        out: MigrateArgs,
    },
}

#[derive(Debug, Args)]
pub(crate) struct MigrateFlyArgs {
    /// What `fly config show` printed, as a .json file, or the app's fly.toml
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// What `fly machines list --json` printed
    #[arg(long, value_name = "FILE", required_unless_present_any = ["undo", "confirm"])]
    pub(crate) machines: Option<PathBuf>,
    /// What `fly volumes list --json` printed: volumes of the same names and sizes are made, empty
    #[arg(long, value_name = "FILE")]
    pub(crate) volumes: Option<PathBuf>,
    /// What `fly secrets list --json` printed
    #[arg(long, value_name = "FILE")]
    pub(crate) secrets: Option<PathBuf>,
    /// The image, as the server can reach it: an imported name, a registry reference or an archive file
    #[arg(short, long)]
    pub(crate) image: Option<String>,
    /// Another name for the app
    #[arg(long)]
    pub(crate) name: Option<AppName>,
    /// Put Machines of a region that is not here into another one; may be repeated
    #[arg(long, value_name = "FROM=TO")]
    pub(crate) map_region: Vec<String>,
    /// Do it; run again, it goes on where it was
    #[arg(long, conflicts_with_all = ["undo", "confirm"])]
    pub(crate) apply: bool,
    /// Take back all that was made here, until it was confirmed
    #[arg(long, conflicts_with = "confirm")]
    pub(crate) undo: bool,
    /// It works: keep it
    #[arg(long)]
    pub(crate) confirm: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
}

/// Where the result of a conversion goes.
#[derive(Debug, Args)]
pub(crate) struct MigrateArgs {
    /// Name of the app; else what the file says, or the folder's
    #[arg(long)]
    pub(crate) name: Option<AppName>,
    /// Region of new Machines
    #[arg(short, long)]
    pub(crate) region: Option<Region>,
    /// Folder to write into, instead of the one that was read
    #[arg(short, long)]
    pub(crate) output: Option<PathBuf>,
    /// Print what would be written, and write nothing
    #[arg(long)]
    pub(crate) print: bool,
    /// Take the place of a fly.toml that is there
    #[arg(long)]
    pub(crate) overwrite: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The Machine
    pub(crate) id: MachineId,
    #[command(flatten)]
    pub(crate) app: AppArgs,
    /// Print JSON
    #[arg(short, long)]
    pub(crate) json: bool,
}
