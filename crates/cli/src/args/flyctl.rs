//! Arguments of `hangar flyctl-env`.

use clap::{Args, ValueEnum};

/// Arguments of `flyctl-env`.
#[derive(Debug, Args)]
pub(crate) struct FlyctlEnvArgs {
    /// The shell that reads it
    #[arg(long, value_enum, default_value_t = Shell::Sh)]
    pub(crate) shell: Shell,
}

/// A shell, by how it sets a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    /// sh, bash, zsh
    Sh,
    /// fish
    Fish,
    /// PowerShell
    Powershell,
}
