//! `hangar config`.

use clap::{Args, Subcommand};

use super::AppArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print the configuration of the current release; of an app without releases that of its Machines
    Show {
        #[command(flatten)]
        app: AppArgs,
        /// Print the local fly.toml instead
        #[arg(long)]
        local: bool,
        #[command(flatten)]
        format: ConfigFormat,
    },
    /// Write the configuration of the current release, or else of its Machines, to fly.toml
    Save {
        #[command(flatten)]
        app: AppArgs,
        #[command(flatten)]
        format: ConfigFormat,
        /// Overwrite a file, and keep its [build], without asking
        #[arg(short, long)]
        yes: bool,
    },
    /// Check the local fly.toml; without one, the configuration of the current release
    Validate {
        #[command(flatten)]
        app: AppArgs,
        /// Unknown keys, and all else that is warned of, are errors
        #[arg(short, long)]
        strict: bool,
    },
    /// Print the app's secrets, without their values, and its variables
    Env {
        #[command(flatten)]
        app: AppArgs,
    },
    /// Print a JSON Schema of fly.toml, for editors
    Schema,
}

/// How a configuration is written.
#[derive(Debug, Args)]
pub(crate) struct ConfigFormat {
    /// As TOML
    #[arg(long, conflicts_with_all = ["yaml", "json"])]
    pub(crate) toml: bool,
    /// As YAML
    #[arg(long, conflicts_with = "json")]
    pub(crate) yaml: bool,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}
