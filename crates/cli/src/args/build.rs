//! How a Dockerfile is built.

use std::path::PathBuf;

use clap::Args;

/// How a Dockerfile is built.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct BuildArgs {
    /// The Dockerfile, where fly.toml names none
    #[arg(long, value_name = "PATH")]
    pub(crate) dockerfile: Option<PathBuf>,
    /// The ignore file, where fly.toml names none
    #[arg(long, value_name = "PATH")]
    pub(crate) ignorefile: Option<PathBuf>,
    /// An argument of the build, over those of fly.toml; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) build_arg: Vec<String>,
    /// A secret that the build may mount and that is in no layer; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) build_secret: Vec<String>,
    /// The stage to build, over that of fly.toml
    #[arg(long, value_name = "STAGE")]
    pub(crate) build_target: Option<String>,
    /// A label of the image; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) label: Vec<String>,
    /// Build every step anew
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Build the image and send it to the server, and deploy nothing
    #[arg(long)]
    pub(crate) build_only: bool,
    /// Build here; nothing else is done, so this changes nothing and is taken for scripts' sake
    #[arg(long, hide = true)]
    pub(crate) local_only: bool,
}
