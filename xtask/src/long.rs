//! The long forms of the tests: more seeds, more kills, more random fleets.

use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Runs every test of the workspace with `HANGAR_LONG=1`, which tests multiply their rounds by.
pub(crate) fn run() -> Result<()> {
    let status = Command::new("cargo")
        .args(["test", "--workspace", "--release"])
        .env("HANGAR_LONG", "1")
        .current_dir(crate::root())
        .status()
        .context("run cargo test")?;
    ensure!(status.success(), "the long tests failed");
    Ok(())
}
