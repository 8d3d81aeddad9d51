//! The cargo builder: one static program in an otherwise empty image.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use hangar_image::build::{ImageFile, ImageSpec, write_oci_archive};
use serde::Deserialize;

use super::Built;
use crate::error::Exit;
use crate::output;

/// A line of cargo's `--message-format=json`.
#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    reason: String,
    #[serde(default)]
    executable: Option<PathBuf>,
}

/// Builds the package in `dir` and puts its program into an image.
pub(super) fn build(dir: &Path) -> Result<Built> {
    output::say(&format!("Building {} with cargo", dir.display()));
    let program = compile(dir)?;
    let folder = tempfile::tempdir().context("make a folder for the image")?;
    let archive = folder.path().join("image.tar");
    let name = program
        .file_name()
        .map_or_else(|| "app".to_owned(), |n| n.to_string_lossy().into_owned());
    let path = format!("/{name}");
    let content = std::fs::read(&program).with_context(|| format!("read {}", program.display()))?;
    let spec = ImageSpec {
        files: vec![ImageFile {
            path: path.clone(),
            mode: 0o755,
            content,
        }],
        entrypoint: vec![path],
        ..ImageSpec::default()
    };
    write_oci_archive(&spec, &archive).context("write the image")?;
    Ok(Built {
        archive,
        _folder: folder,
    })
}

fn compile(dir: &Path) -> Result<PathBuf> {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new("cargo")
        .args([
            "build",
            "--release",
            "--bins",
            "--message-format=json-render-diagnostics",
            "--target",
            &target,
        ])
        .env(
            "RUSTFLAGS",
            "-C target-feature=+crt-static -C relocation-model=static",
        )
        .current_dir(dir)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| {
            Exit::Failed.with(format!("run cargo to build {}: {error}", dir.display()))
        })?;
    if !output.status.success() {
        return Err(Exit::Failed.with(format!(
            "cargo could not build {}: its messages are above",
            dir.display()
        )));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok());
    let mut programs: Vec<PathBuf> = messages
        .filter(|m| m.reason == "compiler-artifact")
        .filter_map(|m| m.executable)
        .collect();
    match (programs.pop(), programs.is_empty()) {
        (Some(program), true) => Ok(program),
        (None, _) => Err(Exit::Usage.with(format!("the package in {} has no program to run", dir.display()))),
        (Some(_), false) => Err(Exit::Usage.with(format!(
            "the package in {} has several programs; write a Dockerfile that says which one the image runs",
            dir.display()
        ))),
    }
}
