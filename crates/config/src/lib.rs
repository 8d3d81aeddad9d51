//! fly.toml: from text to one Machine configuration per process group.
//!
//! Pure: no clock, no file system, no network, no environment. Called by the command line, which
//! reads the files; what is wrong is collected and told all at once, each with its line.
//!
//! ```text
//! text ─parse─► tree ─legacy─► modern tree ─decode─► AppConfig ─machine_configs─► GroupSpec for
//!         └────────┴───────────────┴──────────┴─ problems, with line, column and a hint    each group
//! ```
#![warn(missing_docs)]

pub mod app;
mod decode;
mod flatten;
mod go;
pub mod group;
mod legacy;
mod machine;
pub mod problem;
mod raw;
mod read;
pub mod rebuild;
pub mod schema;
pub mod size;
mod suggest;
pub mod support;
mod validate;
pub mod words;
pub mod write;

pub use app::{AppConfig, IpKind};
pub use decode::Unknown;
pub use machine::{Inputs, MachineError};
pub use problem::{Problem, Severity};
pub use raw::{Format, RawConfig, parse};
pub use support::Named;

use schema::Described;

/// All that there is to say about a configuration file.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The configuration; absent when there is an error among the problems.
    pub config: Option<AppConfig>,
    /// What could be read of a configuration with errors: all of it where only
    /// [`crate::validate`] has found any, else what is left.
    pub read: Option<AppConfig>,
    /// Whether every value has the type that it must have.
    pub decodes: bool,
    /// Errors and warnings, by line.
    pub problems: Vec<Problem>,
    /// Keys that nobody knows.
    pub unknown: Vec<Unknown>,
    /// What the file asks for and Hangar does not act on yet.
    pub named: Vec<Named>,
}

/// Reads and checks a configuration file.
#[must_use]
pub fn load(text: &str, format: Format) -> Loaded {
    load_bytes(text.as_bytes(), format)
}

/// Reads and checks a configuration file that may be no UTF-8.
#[must_use]
pub fn load_bytes(bytes: &[u8], format: Format) -> Loaded {
    let raw = match parse(bytes, format) {
        Ok(raw) => raw,
        Err(problem) => {
            return Loaded {
                problems: vec![*problem],
                ..Loaded::default()
            };
        }
    };
    raw.load()
}

/// Returns the app that a configuration file names, also where the rest of it is in error.
#[must_use]
pub fn app_name(bytes: &[u8], format: Format) -> Option<String> {
    let raw = parse(bytes, format).ok()?;
    raw.app_name()
}

impl RawConfig {
    /// Decodes and checks the file, and returns all that there is to say about it.
    #[must_use]
    pub fn load(&self) -> Loaded {
        let reader = read::Reader::new(&self.source, self.format);
        let modern = legacy::modern(&reader, &self.root);
        decode::refuse_nan(&reader, "", &modern);
        let mut decoder = decode::Decoder::new(&reader);
        let root = decoder.table("", &modern, AppConfig::SECTION);
        let root = root.unwrap_or(raw::Node::new(raw::Value::Table(Vec::new()), 0..0));
        let unknown = decoder.unknown;
        let decodes = !reader.has_errors();
        let mut config: AppConfig = match serde_json::from_value(root.to_json()) {
            Ok(config) => config,
            Err(error) => {
                // The tree has the types of the sections, so this is a fault of ours.
                reader.error("", &root.span, format!("cannot be read: {error}"));
                AppConfig::default()
            }
        };
        config.app = config
            .app
            .or_else(|| self.app_name().filter(|name| !name.is_empty()));
        if let Some(experimental) = &mut config.experimental {
            let some = |a: &app::Attached| a.secrets.as_ref().is_some_and(|s| !s.export.is_empty());
            experimental.attached = experimental.attached.take().filter(some);
        }
        validate::whole(&reader, &config, &root);
        let named = support::find(&reader, &root);
        let valid = !reader.has_errors();
        Loaded {
            config: valid.then(|| config.clone()),
            read: Some(config),
            decodes,
            problems: reader.into_problems(),
            unknown,
            named,
        }
    }
}

impl Loaded {
    /// Returns whether Fly would take it.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.config.is_some()
    }

    /// Returns whether it can be deployed.
    #[must_use]
    pub fn is_deployable(&self) -> bool {
        self.is_valid() && !self.problems.iter().any(Problem::stops_deploy)
    }

    /// Returns the one line that names what is not acted on yet.
    #[must_use]
    pub fn not_acted_on(&self) -> Option<String> {
        support::line(&self.named)
    }
}
