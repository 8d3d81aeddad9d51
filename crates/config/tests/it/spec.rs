//! The families of tests that Fly's own client has for fly.toml, each as a test of ours with
//! inputs of its own: the comment before each says which row (process-groups-and-deploy.md 9.1).

mod forms;
mod groups;
mod machines;
mod rebuilt;
mod wrong;

use std::collections::BTreeMap;

use hangar_api::machine::MachineConfig;
use hangar_config::{AppConfig, Format, Inputs, Problem, load};
use serde_json::{Value as Json, json};

use crate::config;

/// Returns a group's Machine configuration as it is sent.
fn sent(text: &str, group: &str) -> Json {
    let inputs = Inputs {
        files: BTreeMap::new(),
        ..Inputs::default()
    };
    config(text).machine_json(group, &inputs).unwrap()
}

/// Returns what Fly would refuse.
fn errors(text: &str) -> Vec<String> {
    let loaded = load(text, Format::Toml);
    messages(loaded.problems.iter().filter(|p| p.is_error()))
}

/// Returns what stops a deployment.
fn stops(text: &str) -> Vec<String> {
    let loaded = load(text, Format::Toml);
    messages(loaded.problems.iter().filter(|p| p.stops_deploy()))
}

fn messages<'a>(problems: impl Iterator<Item = &'a Problem>) -> Vec<String> {
    problems
        .map(|p| format!("{}: {}", p.path, p.message))
        .collect()
}

/// Returns what is wrong with single groups of a file that may be wrong as a whole.
fn errors_of(text: &str, groups: &[&str]) -> Vec<String> {
    let read = load(text, Format::Toml).read.unwrap();
    let problems = read.validate_groups(groups);
    messages(problems.iter().filter(|p| p.is_error()))
}
