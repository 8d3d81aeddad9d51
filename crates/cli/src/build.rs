//! Making an image from a folder with whatever builder there is (D10).
//!
//! A folder with a Dockerfile is left to docker, buildah or podman. A folder with a Cargo.toml
//! and no Dockerfile becomes one static program in an image that holds nothing else.

mod cargo;
mod dockerfile;

use std::path::{Path, PathBuf};

use anyhow::Result;

use hangar_config::app::Build as Section;

use crate::error::Exit;

/// An image in an archive, ready to be sent to the server.
#[derive(Debug)]
pub(crate) struct Built {
    /// The archive; it is removed with its folder when this value goes.
    pub(crate) archive: PathBuf,
    /// Keeps the folder.
    pub(crate) _folder: tempfile::TempDir,
}

/// Builds the image of an app. `dir` is the builder's context; what `[build]` names is looked for
/// in `home`, the folder of the fly.toml.
pub(crate) fn build(dir: &Path, home: &Path, section: &Section) -> Result<Built> {
    let named = section.dockerfile.as_deref();
    let path = named.map_or_else(|| dir.join("Dockerfile"), |name| home.join(name));
    if path.is_file() {
        let ignorefile = section.ignorefile.as_ref().map(|name| home.join(name));
        return dockerfile::build(dir, &path, section, ignorefile.as_deref());
    }
    if let Some(named) = named {
        return Err(Exit::Usage.with(format!(
            "[build] dockerfile = {named:?}: there is no such file in {}",
            home.display()
        )));
    }
    if !section.args.is_empty() || section.target.is_some() || section.ignorefile.is_some() {
        return Err(Exit::Usage.with(format!(
            "[build] args, build-target and ignorefile are for a Dockerfile, and there is none in {}",
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
