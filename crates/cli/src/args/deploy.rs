//! The arguments of `hangar deploy` and `hangar plan`.

use std::path::PathBuf;

use clap::Args;
use hangar_api::deployment::Strategy;
use hangar_api::id::{GroupName, MachineId, Region};

use super::{AppArgs, BuildArgs, VmArgs};

#[derive(Debug, Args)]
pub(crate) struct DeployArgs {
    #[command(flatten)]
    pub(crate) what: WhatArgs,
    #[command(flatten)]
    pub(crate) pace: PaceArgs,
    /// The tag of an image that is built or sent, after the app's name
    #[arg(long, value_name = "TAG")]
    pub(crate) image_label: Option<String>,
    #[command(flatten)]
    pub(crate) build: BuildArgs,
    /// Print the plan and change nothing; `hangar plan` shows more of it
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Return as soon as the deployment is accepted
    #[arg(long)]
    pub(crate) detach: bool,
    /// Build and send the image, write down what the deploy would be, in Fly's form, and deploy
    /// nothing; .json is added to the name, and - is standard output
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dry_run", "build_only"])]
    pub(crate) export_manifest: Option<PathBuf>,
    /// Deploy what --export-manifest wrote; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "RolloutArgs", "FileArgs", "VmArgs", "PaceArgs", "BuildArgs", "config", "image", "ha", "primary_region",
        "env", "volume_initial_size", "yes", "image_label", "dry_run", "export_manifest"
    ])]
    pub(crate) from_manifest: Option<PathBuf>,
    /// Ask nothing: without --yes, what needs a yes is refused, as it is where nobody can answer
    #[arg(long)]
    pub(crate) now: bool,
}

/// What is deployed, to which Machines, and how they are replaced: `plan` takes the same.
#[derive(Debug, Args)]
pub(crate) struct WhatArgs {
    /// Change to this folder first
    pub(crate) dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) app: AppArgs,
    /// The image: an imported name, a registry reference, or an archive file
    #[arg(short, long)]
    pub(crate) image: Option<String>,
    /// Two Machines for a new group with services, a standby for one without
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub(crate) ha: bool,
    #[command(flatten)]
    pub(crate) rollout: RolloutArgs,
    /// Region of new Machines
    #[arg(long)]
    pub(crate) primary_region: Option<Region>,
    /// An environment variable for this deploy, NAME=VALUE; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    #[command(flatten)]
    pub(crate) files: FileArgs,
    #[command(flatten)]
    pub(crate) vm: VmArgs,
    /// Size in GB of the volumes that a first deploy makes where fly.toml says none
    #[arg(long, value_name = "GB", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) volume_initial_size: Option<u64>,
    /// Do not ask: also replace Machines by such without their volume where fly.toml has no
    /// [[mounts]] for them any more
    #[arg(short, long, visible_alias = "auto-confirm")]
    pub(crate) yes: bool,
}

/// How long is waited for what, and what becomes of a deploy that fails.
#[derive(Debug, Default, Args)]
pub(crate) struct PaceArgs {
    /// Time that one Machine may take to start and pass its checks, such as 5m; a bare number is
    /// seconds, none is as long as it takes
    #[arg(long)]
    pub(crate) wait_timeout: Option<String>,
    /// Time that the release command may take; none or 0 is as long as it takes
    #[arg(long)]
    pub(crate) release_command_timeout: Option<String>,
    /// Time that the deploy's leases on Machines last when nobody renews them: while the server is
    /// away, others stay locked out for so long; 60 s unless said otherwise, at least 5 s
    #[arg(long)]
    pub(crate) lease_timeout: Option<String>,
    /// Watch each Machine for an exit right after its start: true unless said otherwise
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub(crate) smoke_checks: Option<bool>,
    /// How often the update of a Machine is tried again that its host could not do, or that did not
    /// bring it up; a crash or a failing check fails at once. auto is 0
    #[arg(long, value_name = "TIMES")]
    pub(crate) deploy_retries: Option<Retries>,
    /// Leave Machines as they are when the deploy fails
    #[arg(long)]
    pub(crate) no_rollback: bool,
    /// What bluegreen stops former Machines with, instead of each one's own signal
    #[arg(short, long)]
    pub(crate) signal: Option<String>,
}

/// How Machines are replaced, and which.
#[derive(Debug, Default, Args)]
pub(crate) struct RolloutArgs {
    /// How Machines are replaced: rolling, immediate, canary or bluegreen
    #[arg(long)]
    pub(crate) strategy: Option<Strategy>,
    /// Of each group at once: a share below 1, or a number of Machines
    #[arg(long)]
    pub(crate) max_unavailable: Option<f64>,
    /// Machines that immediate updates, and bluegreen creates, at a time
    #[arg(long, alias = "immediate-max-concurrent", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_concurrent: Option<u32>,
    /// Leave the release command out
    #[arg(long)]
    pub(crate) skip_release_command: bool,
    /// Create no Machines for process groups that have none
    #[arg(long)]
    pub(crate) update_only: bool,
    /// Only these process groups
    #[arg(long, value_delimiter = ',', value_name = "GROUPS")]
    pub(crate) process_groups: Vec<GroupName>,
    /// Only Machines in these regions
    #[arg(long, alias = "only-regions", value_delimiter = ',')]
    pub(crate) regions: Vec<Region>,
    /// No Machines in these regions
    #[arg(long, value_delimiter = ',', value_name = "REGIONS")]
    pub(crate) exclude_regions: Vec<Region>,
    /// Only these Machines
    #[arg(long, value_delimiter = ',', value_name = "MACHINES")]
    pub(crate) only_machines: Vec<MachineId>,
    /// None of these Machines
    #[arg(long, value_delimiter = ',', value_name = "MACHINES")]
    pub(crate) exclude_machines: Vec<MachineId>,
}

/// How often something is tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Retries(pub(crate) u32);

impl std::str::FromStr for Retries {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "auto" {
            return Ok(Self(0));
        }
        let times = text.parse();
        times
            .map(Self)
            .map_err(|_| "it must be a positive integer, 0, or 'auto'")
    }
}

/// Files laid over the `[[files]]` of fly.toml for one deploy.
#[derive(Debug, Default, Args)]
pub(crate) struct FileArgs {
    /// A file from here, /PATH/IN/MACHINE=LOCAL/PATH; may be repeated
    #[arg(long, value_name = "PATH=FILE")]
    pub(crate) file_local: Vec<String>,
    /// A file of this content, /PATH/IN/MACHINE=CONTENT; without content that file of fly.toml is
    /// left out; may be repeated
    #[arg(long, value_name = "PATH=CONTENT")]
    pub(crate) file_literal: Vec<String>,
    /// A file of a secret's base64 value, /PATH/IN/MACHINE=SECRET; may be repeated
    #[arg(long, value_name = "PATH=SECRET")]
    pub(crate) file_secret: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) what: WhatArgs,
    /// Print JSON
    #[arg(short, long)]
    pub(crate) json: bool,
}
