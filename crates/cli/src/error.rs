//! Exit codes, and how an error ends the program.

use std::fmt;

use hangar_client::ClientError;

/// Exit codes. They are documented in `hangar --help` and never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Done,
    /// It failed.
    Failed,
    /// The command line or fly.toml is wrong.
    Usage,
    /// `plan` found something to do.
    Changes,
    /// What it names does not exist.
    NotFound,
    /// The token is missing, wrong or not allowed to.
    NotAllowed,
    /// The deploy failed; former versions are back.
    RolledBack,
    /// The deploy failed; the fleet was left as it is.
    LeftAsIs,
    /// No server answers.
    NoServer,
    /// The code of a command that ran in a Machine.
    Command(u8),
}

/// An error that says which code the program exits with.
#[derive(Debug)]
pub(crate) struct Coded {
    /// The code.
    pub(crate) exit: Exit,
    /// What went wrong; empty when all has been said.
    pub(crate) message: String,
}

// === impl Exit ===

impl Exit {
    /// Returns the number.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage | Self::Changes => 2,
            Self::NotFound => 3,
            Self::NotAllowed => 4,
            Self::RolledBack => 5,
            Self::LeftAsIs => 6,
            Self::NoServer => 7,
            Self::Command(code) => code,
        }
    }

    /// Returns an error with this code.
    pub(crate) fn with(self, message: impl Into<String>) -> anyhow::Error {
        anyhow::Error::new(Coded {
            exit: self,
            message: message.into(),
        })
    }

    /// Returns the code for an error.
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        for cause in error.chain() {
            if let Some(coded) = cause.downcast_ref::<Coded>() {
                return coded.exit;
            }
            if let Some(client) = cause.downcast_ref::<ClientError>() {
                return Self::of_client(client);
            }
        }
        Self::Failed
    }

    fn of_client(error: &ClientError) -> Self {
        match error {
            ClientError::Unreachable { .. } => Self::NoServer,
            ClientError::Api { status: 404, .. } => Self::NotFound,
            ClientError::Api {
                status: 401 | 403, ..
            } => Self::NotAllowed,
            _ => Self::Failed,
        }
    }
}

// === impl Coded ===

impl fmt::Display for Coded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Coded {}
