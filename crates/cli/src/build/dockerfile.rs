//! Dockerfiles, built by docker, buildah or podman, whichever is found first.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::Built;
use crate::error::Exit;
use crate::output;

/// The builders, in the order they are tried.
const BUILDERS: [&str; 3] = ["docker", "buildah", "podman"];
const TAG: &str = "hangar-build:latest";

/// Builds `dockerfile` with `dir` as its context.
pub(super) fn build(dir: &Path, dockerfile: &Path) -> Result<Built> {
    let builder = BUILDERS.into_iter().find(|b| works(b)).ok_or_else(|| {
        Exit::Failed.with(format!(
            "{} needs a builder, and none works here (tried docker, buildah, podman): apt-get install buildah",
            dockerfile.display()
        ))
    })?;
    output::say(&format!("Building {} with {builder}", dockerfile.display()));
    let folder = tempfile::tempdir().context("make a folder for the image")?;
    let archive = folder.path().join("image.tar");
    let file = dockerfile.to_string_lossy();
    run(
        builder,
        &[
            "build",
            "--file",
            &file,
            "--tag",
            TAG,
            &dir.to_string_lossy(),
        ],
    )?;
    let archive_text = archive.to_string_lossy();
    match builder {
        "buildah" => run(
            builder,
            &["push", TAG, &format!("oci-archive:{archive_text}")],
        )?,
        _ => run(builder, &["save", "--output", &archive_text, TAG])?,
    }
    Ok(Built {
        archive,
        _folder: folder,
    })
}

/// Returns whether a builder is installed and can do its work: docker's client alone cannot.
fn works(builder: &str) -> bool {
    let arguments: &[&str] = if builder == "docker" {
        &["info"]
    } else {
        &["version"]
    };
    command(builder)
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn run(builder: &str, arguments: &[&str]) -> Result<()> {
    let status = command(builder)
        .args(arguments)
        .stdout(Stdio::from(std::io::stderr()))
        .status()
        .with_context(|| format!("run {builder}"))?;
    if status.success() {
        return Ok(());
    }
    Err(Exit::Failed.with(format!(
        "{builder} {} failed: its messages are above",
        arguments[0]
    )))
}

fn command(builder: &str) -> Command {
    let mut command = Command::new(builder);
    command.stdin(Stdio::null());
    command
}
