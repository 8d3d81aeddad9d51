//! Dockerfiles, built by docker, buildah or podman, whichever is found first.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use hangar_config::app::Build as Section;

use super::Built;
use crate::error::Exit;
use crate::output;

/// The builders, in the order they are tried.
const BUILDERS: [&str; 3] = ["docker", "buildah", "podman"];

/// Builds `dockerfile` with `dir` as its context, as the section says.
pub(super) fn build(
    dir: &Path,
    dockerfile: &Path,
    section: &Section,
    ignorefile: Option<&Path>,
) -> Result<Built> {
    let builder = BUILDERS.into_iter().find(|b| works(b)).ok_or_else(|| {
        Exit::Failed.with(format!(
            "{} needs a builder, and none works here (tried docker, buildah, podman): apt-get install buildah",
            dockerfile.display()
        ))
    })?;
    output::say(&format!("Building {} with {builder}", dockerfile.display()));
    let folder = tempfile::tempdir().context("make a folder for the image")?;
    let archive = folder.path().join("image.tar");
    // A name of its own: two builds at once must not take each other's image.
    let unique = folder.path().file_name().unwrap_or_default();
    let unique = unique.to_string_lossy();
    let tag = format!("hangar-build:{}", unique.trim_start_matches(['.', '-']));
    let mut words = vec!["build".to_owned(), "--file".to_owned()];
    words.push(dockerfile.to_string_lossy().into_owned());
    words.extend(["--tag".to_owned(), tag.clone()]);
    if let Some(target) = section.target.as_ref().filter(|t| !t.is_empty()) {
        words.extend(["--target".to_owned(), target.clone()]);
    }
    for (name, value) in &section.args {
        words.extend(["--build-arg".to_owned(), format!("{name}={value}")]);
    }
    if let Some(file) = ignorefile {
        if builder == "docker" {
            return Err(Exit::Usage.with(
                "[build] ignorefile: docker takes none; call it .dockerignore, or build with buildah or podman",
            ));
        }
        words.extend([
            "--ignorefile".to_owned(),
            file.to_string_lossy().into_owned(),
        ]);
    }
    words.push(dir.to_string_lossy().into_owned());
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    run(builder, &words)?;
    let archive_text = archive.to_string_lossy();
    let saved = match builder {
        "buildah" => run(
            builder,
            &["push", &tag, &format!("oci-archive:{archive_text}")],
        ),
        _ => run(builder, &["save", "--output", &archive_text, &tag]),
    };
    // Its layers stay in the builder's cache; the name has done its work.
    let _removed = command(builder)
        .args(["rmi", &tag])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    saved?;
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
