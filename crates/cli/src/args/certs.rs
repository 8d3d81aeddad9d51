//! The command line of `hangar certs`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use hangar_api::certificate::Hostname;

use super::{AppArgs, ShowArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum CertsCommand {
    /// List an app's hostnames and their certificates
    #[command(visible_alias = "ls")]
    List(ShowArgs),
    /// Add a hostname to an app, without a certificate
    #[command(visible_alias = "create")]
    Add(OneHostname),
    /// Import a certificate for a hostname, which is added where it is new; it is served at once
    Import {
        #[command(flatten)]
        one: OneHostname,
        /// File with the certificate and those that lead to its root, PEM
        #[arg(long, value_name = "FILE")]
        fullchain: PathBuf,
        /// File with its private key, PEM
        #[arg(long, value_name = "FILE")]
        private_key: PathBuf,
    },
    /// Show a hostname, its certificate and what DNS says of it
    #[command(visible_alias = "show")]
    Check(OneHostname),
    /// Show what the DNS of a hostname should say
    Setup(OneHostname),
    /// Remove a hostname with its certificate
    #[command(visible_alias = "delete")]
    Remove {
        hostname: Hostname,
        #[command(flatten)]
        app: AppArgs,
        /// Only the imported certificate: the hostname stays
        #[arg(long, conflicts_with = "acme")]
        custom: bool,
        /// Only the wish for an issued certificate: hostname and imported one stay
        #[arg(long)]
        acme: bool,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct OneHostname {
    /// Such as example.com, or *.example.com for all one label below
    pub(crate) hostname: Hostname,
    #[command(flatten)]
    pub(crate) show: ShowArgs,
}
