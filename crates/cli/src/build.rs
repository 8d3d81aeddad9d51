//! Making an image from a folder with whatever builder there is (D10).
//!
//! A folder with a Dockerfile is left to docker, buildah or podman. A folder with a Cargo.toml
//! and no Dockerfile becomes one static program in an image that holds nothing else.

mod cargo;
mod dockerfile;

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::error::Exit;

/// An image in an archive, ready to be sent to the server.
#[derive(Debug)]
pub(crate) struct Built {
    /// The archive; it is removed with its folder when this value goes.
    pub(crate) archive: PathBuf,
    /// Keeps the folder.
    pub(crate) _folder: tempfile::TempDir,
}

/// Builds the image of the app in `dir`. `dockerfile` is what `[build]` names.
pub(crate) fn build(dir: &Path, dockerfile: Option<&str>) -> Result<Built> {
    let path = dir.join(dockerfile.unwrap_or("Dockerfile"));
    if path.is_file() {
        return dockerfile::build(dir, &path);
    }
    if let Some(named) = dockerfile {
        return Err(Exit::Usage.with(format!(
            "[build] dockerfile = {named:?}: there is no such file in {}",
            dir.display()
        )));
    }
    if dir.join("Cargo.toml").is_file() {
        return cargo::build(dir);
    }
    Err(Exit::Usage.with(format!(
        "there is nothing to build in {}: name an image in fly.toml ([build] image = \"NAME\") or with --image, or add a Dockerfile",
        dir.display()
    )))
}
