//! What a Machine's `init` is told, and the descriptors it is started with.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The descriptors that are open when `init` starts.
pub mod fd {
    /// The run directory.
    pub const RUN_DIR: i32 = 3;
    /// A memory file with the JSON of [`super::InitSpec`].
    pub const SPEC: i32 = 4;
    /// The directory of the Machine's log.
    pub const LOG_DIR: i32 = 5;
    /// The lock file of the run directory, locked: `init` lives as long as the lock is held.
    pub const LOCK: i32 = 6;
    /// A pipe to the maker: [`super::READY`], or why the start failed.
    pub const READY: i32 = 7;
    /// One past the last.
    pub const END: i32 = 8;
}

/// What the maker reads from its pipe when the program has been executed, or could not be.
pub const READY: &[u8] = b"ready\n";

/// Files of the run directory.
pub mod file {
    /// Held locked while `init` lives, and while a run is being made.
    pub const LOCK: &str = "lock";
    /// The socket on which `init` answers.
    pub const SOCKET: &str = "sock";
    /// How the run ended; see [`crate::exit::ExitFile`].
    pub const EXIT: &str = "exit.json";
    /// The same before it is whole.
    pub const EXIT_TEMPORARY: &str = "exit.tmp";
}

/// What to run. Holds secrets: it is handed over in a memory file and never printed.
#[derive(Clone, Serialize, Deserialize)]
pub struct InitSpec {
    /// Which start of the Machine this is; marks its log lines.
    pub start: u64,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// The environment.
    pub env: BTreeMap<String, String>,
    /// `User` of the image: "", `name`, `uid`, `name:group`, `uid:gid`.
    #[serde(default)]
    pub user: String,
    /// Working directory, made when it does not exist.
    pub workdir: String,
    /// Open files allowed, clamped to what this machine allows.
    pub nofile: u64,
    /// Where volumes are mounted: their root directories become the user's.
    #[serde(default)]
    pub volumes: Vec<PathBuf>,
}

// === impl InitSpec ===

impl fmt::Debug for InitSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InitSpec")
            .field("start", &self.start)
            .field("argv", &self.argv)
            .finish_non_exhaustive()
    }
}
