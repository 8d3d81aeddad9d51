//! Chores of this repository, run as `cargo xtask TASK`.
//!
//! `tidy` checks the house rules that no lint knows. `long` runs the long forms of the tests,
//! `long api` the one of the API alone. `api-venv` makes what that needs. `docs` writes the pages that are generated from the types.

mod docs;
mod long;
mod tidy;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.first().map(String::as_str) {
        Some("tidy") => tidy::run(),
        Some("long") => long::run(arguments.get(1).map(String::as_str)),
        Some("api-venv") => long::make_venv(),
        Some("docs") => docs::run(),
        _ => Err(anyhow::anyhow!(
            "usage: cargo xtask tidy | long [api] | api-venv | docs"
        )),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("xtask: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Returns the root of the repository.
fn root() -> std::path::PathBuf {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

#[expect(
    clippy::print_stderr,
    reason = "a chore talks to the person who runs it"
)]
fn say(line: &str) {
    eprintln!("{line}");
}
