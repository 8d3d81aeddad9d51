//! The arguments of `hangar deployments`.

use clap::{Args, Subcommand};
use hangar_api::id::DeploymentId;

use super::{AppArgs, ShowArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum DeploymentsCommand {
    /// List an app's deployments, newest first
    List(ShowArgs),
    /// Show how far a deployment is, and what it has done last
    Show {
        /// Which; the newest when not given
        id: Option<DeploymentId>,
        #[command(flatten)]
        show: ShowArgs,
    },
    /// Cancel a deployment: what it has done is undone
    Cancel(DeploymentCancelArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DeploymentCancelArgs {
    /// Which; the one under way when not given
    pub(crate) id: Option<DeploymentId>,
    #[command(flatten)]
    pub(crate) app: AppArgs,
    /// Do not wait until it is undone
    #[arg(long)]
    pub(crate) detach: bool,
}
