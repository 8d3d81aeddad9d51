//! fly.toml: from text to one Machine configuration per process group.
//!
//! Pure: no clock, no file system, no network, no environment. Called by the command line, which
//! reads the files; what is wrong is collected and told all at once, each with its line.
//!
//! ```text
//! text ─parse─► RawConfig ─validate─► AppConfig ─machine_configs─► GroupSpec for each group
//!         └─────────┴─ problems, with line, column and a hint
//! ```
#![warn(missing_docs)]

pub mod app;
mod decode;
pub mod group;
mod machine;
pub mod problem;
mod raw;
mod read;
pub mod render;
pub mod size;
mod suggest;
pub mod support;
mod validate;
pub mod words;

pub use app::AppConfig;
pub use machine::Inputs;
pub use problem::{Problem, Severity};
pub use raw::{Format, RawConfig, parse};
pub use support::Named;

/// All that there is to say about a configuration file.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The configuration; absent when there is an error among the problems.
    pub config: Option<AppConfig>,
    /// Errors and warnings, by line.
    pub problems: Vec<Problem>,
    /// What the file asks for and Hangar does not act on yet.
    pub named: Vec<Named>,
}

/// Reads and checks a configuration file.
#[must_use]
pub fn load(text: &str, format: Format) -> Loaded {
    let raw = match parse(text, format) {
        Ok(raw) => raw,
        Err(problem) => {
            return Loaded {
                problems: vec![*problem],
                ..Loaded::default()
            };
        }
    };
    raw.validate()
}

/// Returns the app that a configuration file names, also where the rest of it is in error.
#[must_use]
pub fn app_name(text: &str, format: Format) -> Option<String> {
    let raw = parse(text, format).ok()?;
    raw.app_name()
}

impl Loaded {
    /// Returns whether it can be deployed.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.config.is_some()
    }

    /// Returns the one line that names what is not acted on yet.
    #[must_use]
    pub fn not_acted_on(&self) -> Option<String> {
        support::line(&self.named)
    }
}
