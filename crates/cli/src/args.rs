//! The command line, as close to what was typed as possible. Filling these types only checks
//! what the user gave; commands resolve it. Names and flags are flyctl's where it has them.

mod auth;
mod build;
mod certs;
mod config;
mod deploy;
mod deployments;
mod flyctl;
mod formation;
mod machine;
pub(crate) mod migrate;
mod regions;
mod scale;
mod session;
mod volume;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use hangar_api::duration::GoDuration;
use hangar_api::id::{AppName, GroupName, MachineId, Region, SlotId};
use hangar_host::net::IpNet;

pub(crate) use self::auth::{
    AttenuateArgs, AuthCommand, CreateTokenCommand, ExecTokenArgs, LoginArgs, NewTokenArgs,
    OrgsCommand, TokensCommand,
};
pub(crate) use self::build::BuildArgs;
pub(crate) use self::certs::{CertsCommand, OneHostname};
pub(crate) use self::config::{ConfigCommand, ConfigFormat};
pub(crate) use self::deploy::{
    DeployArgs, FileArgs, PaceArgs, PlanArgs, Retries, RolloutArgs, WhatArgs,
};
pub(crate) use self::deployments::{DeploymentCancelArgs, DeploymentsCommand};
pub(crate) use self::flyctl::{FlyctlEnvArgs, Shell};
pub(crate) use self::formation::{FormationCommand, FormationSetArgs};
pub(crate) use self::machine::{
    CloneArgs, LeasesCommand, MachineCommand, MachineConfigArgs, MachineIds, MachineRunArgs,
    MachineUpdateArgs, OneMachine, RestartArgs, RunArgs, StopArgs,
};
pub(crate) use self::regions::{
    BackupArgs, RegionsArgs, RegionsCommand, RegionsHow, RegionsListArgs,
};
pub(crate) use self::scale::{CountArgs, ScaleCommand};
pub(crate) use self::session::{CommandArgs, ConsoleArgs, ProxyArgs, SshArgs, SshCommand};
pub(crate) use self::volume::{
    ScaleVolumeArgs, SnapshotsCommand, VolumeCreateArgs, VolumesCommand,
};

/// Run apps from fly.toml on your own machine.
#[derive(Debug, Parser)]
#[command(name = "hangar", version, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed, 2 usage (or `plan` found something to do), 3 not found, 4 not allowed, \
5 deploy failed and former versions are back, 6 deploy failed and the fleet was left as it is, 7 no server."
)]
pub(crate) struct Cli {
    /// The access token; else HANGAR_ACCESS_TOKEN, HANGAR_TOKEN, that of `auth login`, or this
    /// machine's own
    #[arg(short = 't', long, global = true, value_name = "TOKEN")]
    pub(crate) access_token: Option<String>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server: API, host, proxy and DNS in one process
    Server(ServerArgs),
    /// Run a server here, deploy the app in DIR and follow its logs
    Dev(DevArgs),
    /// Make a new app of a folder or an image: write its fly.toml and deploy it
    Launch(migrate::LaunchArgs),
    /// Deploy the app in a folder with a fly.toml
    #[command(
        after_help = "Ctrl-C cancels the deploy: what it has done is undone. A second one leaves it to the server, as ending the \
                      command in any other way does."
    )]
    Deploy(Box<DeployArgs>),
    /// Make a fly.toml of another platform's files
    #[command(subcommand)]
    Migrate(migrate::MigrateCommand),
    /// Show what a deploy would do, field by field; exit code 2 when there is something to do
    Plan(Box<PlanArgs>),
    /// Say why a Machine is where and what it is
    Explain(migrate::ExplainArgs),
    /// Show an app and its Machines, by process group
    Status(StatusArgs),
    /// Log in to a server, and show as whom one is
    #[command(subcommand)]
    Auth(AuthCommand),
    /// Make, list, limit and revoke tokens
    #[command(subcommand, visible_alias = "token")]
    Tokens(TokensCommand),
    /// List, create, show and delete organizations
    #[command(subcommand, visible_alias = "org")]
    Orgs(OrgsCommand),
    /// Connect standard input and output to the server of this machine: the far side of ssh://
    #[command(name = hangar_client::DIAL_COMMAND, hide = true)]
    DialStdio,
    /// List, create, destroy and restart apps
    #[command(subcommand)]
    Apps(AppsCommand),
    /// Show or change how many Machines each process group has
    #[command(subcommand)]
    Scale(ScaleCommand),
    /// Show or change in which regions each process group runs
    #[command(subcommand)]
    Regions(RegionsCommand),
    /// Show or set what each process group should have, as a file
    #[command(subcommand)]
    Formation(FormationCommand),
    /// Work with single Machines
    #[command(subcommand, visible_aliases = ["machines", "m"])]
    Machine(MachineCommand),
    /// Open a console in a new Machine of the app, which goes when the console ends
    Console(Box<ConsoleArgs>),
    /// Open a shell, or run a command, in a Machine that runs
    #[command(subcommand)]
    Ssh(SshCommand),
    /// Connect a local port to a port of a Machine
    Proxy(ProxyArgs),
    /// List deployments, show one, or cancel one
    #[command(subcommand)]
    Deployments(DeploymentsCommand),
    /// List releases, or go back to one
    Releases(ReleasesArgs),
    /// Show an app's logs and follow them
    Logs(LogsArgs),
    /// Health checks
    #[command(subcommand)]
    Checks(ChecksCommand),
    /// Services and their ports
    #[command(subcommand)]
    Services(ListCommand),
    /// Show or check an app's configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Hostnames of an app's own, and certificates for them
    #[command(subcommand)]
    Certs(CertsCommand),
    /// Set, list and remove secrets
    #[command(subcommand)]
    Secrets(SecretsCommand),
    /// Create, extend, copy and destroy volumes, and their snapshots
    #[command(subcommand, visible_aliases = ["volume", "vol"])]
    Volumes(VolumesCommand),
    /// Import, list and remove images
    #[command(subcommand, visible_alias = "images")]
    Image(ImageCommand),
    /// What the platform offers
    #[command(subcommand)]
    Platform(PlatformCommand),
    /// List the slots that Machines are placed on, and mark one lost or back
    #[command(subcommand)]
    Slots(SlotsCommand),
    /// Say what this machine lacks, and how to mend it
    Doctor(JsonArgs),
    /// Print the variables with which flyctl works with this server
    #[command(after_help = "In a shell: eval \"$(hangar flyctl-env)\"")]
    FlyctlEnv(FlyctlEnvArgs),
    /// Print the version
    Version,
    /// Print shell completions
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
pub(crate) struct JsonArgs {
    /// Print JSON
    #[arg(short, long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AppArgs {
    /// The app; else FLY_APP, the fly.toml here, or the only app there is
    #[arg(short, long)]
    pub(crate) app: Option<AppName>,
    /// The fly.toml, or a folder that has one
    #[arg(short, long)]
    pub(crate) config: Option<PathBuf>,
}

/// An app of which something is shown.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    pub(crate) app: AppArgs,
    /// Print JSON
    #[arg(short, long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) show: ShowArgs,
    /// Show it again and again, until interrupted
    #[arg(long, conflicts_with = "json")]
    pub(crate) watch: bool,
    /// With --watch: seconds between two looks
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) rate: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// Where state is kept
    #[arg(long, env = "HANGAR_DATA_DIR", default_value = "/var/lib/hangar")]
    pub(crate) data_dir: PathBuf,
    /// Address of the API. One that is not loopback speaks TLS, with a certificate that is made here
    /// unless one is given
    #[arg(long, default_value = "127.0.0.1:4280")]
    pub(crate) listen: SocketAddr,
    /// Certificate of the API, PEM; read again when the file changes
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Address that the proxy serves apps on
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) edge: IpAddr,
    /// Apps are found at APP.DOMAIN
    #[arg(long, default_value = "localhost")]
    pub(crate) domain: String,
    /// A slot that Machines are placed on; may be repeated. Without it two stand for every region
    #[arg(long = "host", value_name = "NAME=REGION")]
    pub(crate) hosts: Vec<String>,
    /// Where names outside .internal are asked, instead of /etc/resolv.conf; may be repeated
    #[arg(long = "dns-upstream", value_name = "ADDRESS")]
    pub(crate) dns_upstreams: Vec<IpAddr>,
    /// A private range of addresses that Machines may reach, such as a database's; may be repeated.
    /// Without it they reach each other and the internet, not the host's neighbours
    #[arg(long = "allow-egress", value_name = "CIDR", value_parser = hangar_host::net::parse_range)]
    pub(crate) egress: Vec<IpNet>,
    /// A registry spoken to over plain HTTP, as HOST[:PORT]; may be repeated. Loopback always is
    #[arg(long = "insecure-registry", value_name = "HOST")]
    pub(crate) insecure_registries: Vec<String>,
    /// A registry that is asked before another one, as [REGISTRY=]HOST[:PORT], with http:// before
    /// a host without HTTPS; without REGISTRY= a mirror of Docker Hub; may be repeated
    #[arg(long = "registry-mirror", value_name = "[REGISTRY=]HOST")]
    pub(crate) registry_mirrors: Vec<hangar_image::Mirror>,
    /// Sign-ins to private registries: a file in the form of Docker's config.json, read at start
    #[arg(long, value_name = "FILE")]
    pub(crate) registry_auth: Option<PathBuf>,
    /// Another host that image names may begin with to mean the registry of this server, beside
    /// registry.fly.io and its own address; may be repeated
    #[arg(long = "registry-host", value_name = "HOST[:PORT]")]
    pub(crate) registry_hosts: Vec<String>,
    /// Time between two looks for Machines that nobody uses, to stop or suspend those whose services
    /// have autostop on; 0s for never
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = interval)]
    pub(crate) autostop_interval: GoDuration,
    /// How often a client may ask for the same thing: on (as on Fly), off, or how many times Fly's
    /// limits. Without it off on loopback, else on
    #[arg(long, value_name = "LIMIT")]
    pub(crate) rate_limit: Option<hangar_node::RateLimit>,
    /// Form of the log on standard error
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// Least level of log lines: error, warn, info, debug or trace; info for a server, warn for dev
    #[arg(long)]
    pub(crate) log_level: Option<tracing::Level>,
}

/// Reads the time between two looks: none at all, or not so little that looking is all it does.
fn interval(text: &str) -> Result<GoDuration, String> {
    let given: GoDuration = text
        .parse()
        .map_err(|_| "write a time such as 30s or 5m".to_owned())?;
    match given.to_std().as_millis() {
        1..100 => Err("at least 100ms, or 0s for never".to_owned()),
        _ => Ok(given),
    }
}

#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    /// A folder with a fly.toml
    #[arg(default_value = ".")]
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    /// Deploy this image instead of building one
    #[arg(short, long)]
    pub(crate) image: Option<String>,
}

#[derive(Debug, Default, Args)]
pub(crate) struct VmArgs {
    /// Size preset, such as shared-cpu-1x
    #[arg(long)]
    pub(crate) vm_size: Option<String>,
    /// Number of CPUs
    #[arg(long)]
    pub(crate) vm_cpus: Option<u32>,
    /// Kind of CPU: shared or performance
    #[arg(long)]
    pub(crate) vm_cpu_kind: Option<String>,
    /// Memory in MB, or with a unit: 512, 1gb
    #[arg(long)]
    pub(crate) vm_memory: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AppsCommand {
    /// List all apps
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        form: JsonArgs,
        /// Only names
        #[arg(short, long)]
        quiet: bool,
        /// Only those of this organization
        #[arg(short, long)]
        org: Option<String>,
    },
    /// Create an app without deploying anything
    Create {
        /// Its name
        name: Option<AppName>,
        /// Its name, as a flag
        #[arg(long = "name", value_name = "NAME", conflicts_with_all = ["name", "generate_name"])]
        named: Option<AppName>,
        /// Make up a name
        #[arg(long, conflicts_with = "name")]
        generate_name: bool,
        /// The organization that owns it; without one, the only one that the token is for, or personal
        #[arg(short, long, env = "FLY_ORG")]
        org: Option<String>,
        /// Put it on a private network of this name
        #[arg(long)]
        network: Option<String>,
    },
    /// Destroy apps with all their Machines
    Destroy {
        /// Their names
        #[arg(required = true)]
        names: Vec<AppName>,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Restart the started Machines of an app, one after another
    Restart {
        /// The app
        name: Option<AppName>,
        /// Kill instead of asking to stop
        #[arg(long)]
        force_stop: bool,
        /// Go on without waiting for health checks
        #[arg(long)]
        skip_health_checks: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ReleasesArgs {
    #[command(subcommand)]
    pub(crate) command: Option<ReleasesCommand>,
    #[command(flatten)]
    pub(crate) show: ShowArgs,
    /// With each release's image
    #[arg(long)]
    pub(crate) image: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ReleasesCommand {
    /// Make a new release from an old one and deploy it
    Rollback {
        /// The release to go back to, such as v3; without it the one before the current
        version: Option<String>,
        #[command(flatten)]
        app: AppArgs,
        /// Return as soon as the deployment is accepted
        #[arg(long)]
        detach: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    #[command(flatten)]
    pub(crate) show: ShowArgs,
    /// Show what there is and return
    #[arg(short, long)]
    pub(crate) no_tail: bool,
    /// Only this process group
    #[arg(short, long, alias = "process-group")]
    pub(crate) group: Option<GroupName>,
    /// Only this Machine
    #[arg(short, long, visible_alias = "instance", visible_short_alias = 'i')]
    pub(crate) machine: Option<MachineId>,
    /// Only this region
    #[arg(short, long)]
    pub(crate) region: Option<Region>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ListCommand {
    /// List them
    #[command(visible_alias = "ls")]
    List(ShowArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ChecksCommand {
    /// List them
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        show: ShowArgs,
        /// Only checks of this name
        #[arg(long)]
        check_name: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum SecretsCommand {
    /// Set secrets, NAME=VALUE, and restart the app's Machines with them
    Set {
        #[arg(required = true, value_name = "NAME=VALUE")]
        secrets: Vec<String>,
        #[command(flatten)]
        how: SecretsArgs,
    },
    /// Remove secrets
    Unset {
        #[arg(required = true)]
        names: Vec<String>,
        #[command(flatten)]
        how: SecretsArgs,
    },
    /// List names and digests; values are never shown
    #[command(visible_alias = "ls")]
    List(ShowArgs),
    /// Set secrets from NAME=VALUE lines on standard input
    Import {
        #[command(flatten)]
        how: SecretsArgs,
    },
}

#[derive(Debug, Args)]
pub(crate) struct SecretsArgs {
    #[command(flatten)]
    pub(crate) app: AppArgs,
    /// Only store them: Machines see them when they are next started or updated
    #[arg(long)]
    pub(crate) stage: bool,
    /// Return as soon as the deployment is accepted
    #[arg(long)]
    pub(crate) detach: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Import an OCI layout, an OCI archive or a `docker save` archive
    Import {
        path: PathBuf,
        /// The name it gets, which can stand in fly.toml and in --image
        #[arg(long)]
        name: String,
    },
    /// List the images that are ready
    #[command(visible_alias = "ls")]
    List(JsonArgs),
    /// Remove what no Machine and no recent release needs
    Prune(JsonArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum SlotsCommand {
    /// List slots
    List(JsonArgs),
    /// Say that nobody may count on a slot: nothing is placed there, standbys take over, and the
    /// next deploy replaces its Machines elsewhere
    Lost {
        /// The slot
        slot: SlotId,
    },
    /// Say that a slot is as it was; standbys that took over are stopped again
    Back {
        /// The slot
        slot: SlotId,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum PlatformCommand {
    /// List regions
    Regions(JsonArgs),
    /// List the sizes that Machines can have
    VmSizes(JsonArgs),
}
