//! `hangar auth`, `tokens` and `orgs`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use hangar_api::duration::GoDuration;
use hangar_api::fingerprint::Fingerprint;
use hangar_api::id::{GroupName, OrgSlug};

use super::{AppArgs, JsonArgs};

#[derive(Debug, Subcommand)]
pub(crate) enum AuthCommand {
    /// Log in to a server: check a token and remember it, with the server's certificate
    Login(LoginArgs),
    /// Forget server and token of `auth login`
    Logout,
    /// Show as whom one is logged in
    Whoami(JsonArgs),
    /// Print the token that commands use
    Token(JsonArgs),
    /// Give docker the token, for pushes to the server's registry
    Docker,
}

#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// The server: https://HOST:PORT, ssh://USER@HOST, http://127.0.0.1:PORT
    pub(crate) url: Option<String>,
    /// The token; without it, it is asked for, or read from standard input
    #[arg(long)]
    pub(crate) token: Option<String>,
    /// Take the certificate with this fingerprint, as the server printed it, without asking
    #[arg(long)]
    pub(crate) fingerprint: Option<Fingerprint>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokensCommand {
    /// Make a token. It is printed once, and kept nowhere
    #[command(subcommand)]
    Create(CreateTokenCommand),
    /// Make a token for one app
    Deploy {
        #[command(flatten)]
        app: AppArgs,
        #[command(flatten)]
        new: NewTokenArgs,
    },
    /// List the tokens of an app, or of an organization with its apps
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        app: AppArgs,
        /// Those of this organization and its apps
        #[arg(short, long, conflicts_with_all = ["app", "config"])]
        org: Option<OrgSlug>,
        /// Whose: app or org
        #[arg(short, long, value_parser = ["app", "org"])]
        scope: Option<String>,
        #[command(flatten)]
        form: JsonArgs,
    },
    /// Revoke tokens, and those that they have made
    Revoke {
        /// Their ids
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
    },
    /// Limit a token further, without asking the server, and print the new one
    Attenuate(AttenuateArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum CreateTokenCommand {
    /// For an organization and all that is in it
    Org {
        #[command(flatten)]
        org: OrgArgs,
        #[command(flatten)]
        new: NewTokenArgs,
    },
    /// For one app
    Deploy {
        #[command(flatten)]
        app: AppArgs,
        #[command(flatten)]
        new: NewTokenArgs,
    },
    /// For reading an app with -a, else an organization
    Readonly {
        #[command(flatten)]
        app: AppArgs,
        #[command(flatten)]
        org: OrgArgs,
        #[command(flatten)]
        new: NewTokenArgs,
    },
    /// For any command in Machines of an app, and reading them
    Ssh {
        #[command(flatten)]
        exec: ExecTokenArgs,
        #[command(flatten)]
        new: NewTokenArgs,
    },
    /// For some commands in Machines of an app, and reading them; any without a command
    MachineExec {
        /// An allowed command with all its arguments
        #[arg(trailing_var_arg = true)]
        words: Vec<String>,
        /// An allowed command with all its arguments, as one text; may be repeated
        #[arg(short = 'C', long = "command", value_name = "COMMAND")]
        commands: Vec<String>,
        /// What an allowed command begins with, as one text; may be repeated
        #[arg(short = 'p', long = "command-prefix", value_name = "COMMAND")]
        prefixes: Vec<String>,
        #[command(flatten)]
        exec: ExecTokenArgs,
        #[command(flatten)]
        new: NewTokenArgs,
    },
}

#[derive(Debug, Args)]
pub(crate) struct OrgArgs {
    /// The organization; personal without
    #[arg(short, long, env = "FLY_ORG")]
    pub(crate) org: Option<OrgSlug>,
}

#[derive(Debug, Args)]
pub(crate) struct ExecTokenArgs {
    #[command(flatten)]
    pub(crate) app: AppArgs,
    /// Only in Machines of this process group
    #[arg(short, long, alias = "process-group")]
    pub(crate) group: Option<GroupName>,
}

#[derive(Debug, Args)]
pub(crate) struct NewTokenArgs {
    /// What it is called in lists
    #[arg(short, long)]
    pub(crate) name: Option<String>,
    /// How long it is good, such as 24h; 20 years without
    #[arg(short = 'x', long, value_name = "TIME")]
    pub(crate) expiry: Option<GoDuration>,
    /// A short opaque token, which cannot be limited further
    #[arg(long)]
    pub(crate) opaque: bool,
    #[command(flatten)]
    pub(crate) form: JsonArgs,
}

#[derive(Debug, Args)]
pub(crate) struct AttenuateArgs {
    /// Caveats as JSON, as `flyctl tokens attenuate` takes them; - for standard input
    #[arg(short, long, required_unless_present_any = ["read_only", "expiry"])]
    pub(crate) file: Option<PathBuf>,
    /// Only for reading
    #[arg(long)]
    pub(crate) read_only: bool,
    /// Only for so long, such as 1h
    #[arg(short = 'x', long, value_name = "TIME")]
    pub(crate) expiry: Option<GoDuration>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum OrgsCommand {
    /// List them
    #[command(visible_alias = "ls")]
    List(JsonArgs),
    /// Create one
    Create {
        /// Its name
        name: String,
        #[command(flatten)]
        form: JsonArgs,
    },
    /// Show one
    Show {
        /// Its slug
        slug: OrgSlug,
        #[command(flatten)]
        form: JsonArgs,
    },
    /// Delete one that has no app, with its tokens
    Delete {
        /// Its slug
        slug: OrgSlug,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}
