//! Making an image from a folder with whatever builder there is (D10).
//!
//! A folder with a Dockerfile is left to docker, buildah, podman or a BuildKit daemon. A folder
//! with a Cargo.toml and no Dockerfile becomes one static program in an image that holds nothing
//! else.

mod builder;
mod cargo;
mod dockerfile;

use std::path::{Path, PathBuf};

use anyhow::Result;
use hangar_config::app::Build as Section;

use crate::args::BuildArgs;
use crate::error::Exit;
use crate::output;

/// An image in an archive, ready to be sent to the server.
#[derive(Debug)]
pub(crate) struct Built {
    /// The archive; it is removed with its folder when this value goes.
    pub(crate) archive: PathBuf,
    /// Keeps the folder.
    pub(crate) _folder: tempfile::TempDir,
}

/// What is to be built.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    /// The builder's context.
    pub(crate) dir: PathBuf,
    /// The folder of the fly.toml, in which the files that `[build]` names are looked for.
    pub(crate) home: PathBuf,
    /// `[build]`.
    pub(crate) section: Section,
    /// What flags say.
    pub(crate) flags: BuildArgs,
}

/// Builds the image of an app.
pub(crate) fn build(request: &Request) -> Result<Built> {
    let Request {
        dir,
        home,
        section,
        flags,
    } = request;
    let named = file(
        dir,
        home,
        "dockerfile",
        section.dockerfile.as_deref(),
        flags.dockerfile.as_deref(),
    )?;
    let path = named.unwrap_or_else(|| dir.join("Dockerfile"));
    let ignorefile = file(
        dir,
        home,
        "ignorefile",
        section.ignorefile.as_deref(),
        flags.ignorefile.as_deref(),
    )?;
    if path.is_file() {
        let mut args = section.args.clone();
        args.extend(pairs(&flags.build_arg)?);
        let target = flags.build_target.clone().or(section.target.clone());
        return dockerfile::build(&dockerfile::Plan {
            dir: dir.clone(),
            dockerfile: path,
            ignorefile,
            target: target.filter(|t| !t.is_empty()),
            args: args.into_iter().collect(),
            secrets: pairs(&flags.build_secret)?,
            labels: pairs(&flags.label)?,
            no_cache: flags.no_cache,
        });
    }
    let for_a_dockerfile = !section.args.is_empty()
        || section.target.is_some()
        || ignorefile.is_some()
        || flags.is_set();
    if for_a_dockerfile {
        return Err(Exit::Usage.with(format!(
            "build arguments, secrets, labels, target and ignorefile are for a Dockerfile, and there is none in {}",
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

/// Returns a file that fly.toml or else a flag names: as on Fly the file's word counts first.
fn file(
    dir: &Path,
    home: &Path,
    key: &str,
    section: Option<&str>,
    flag: Option<&Path>,
) -> Result<Option<PathBuf>> {
    let path = match (section, flag) {
        (Some(named), flag) => {
            if flag.is_some() {
                output::say(&format!(
                    "--{key} is not used: [build] {key} = {named:?} of fly.toml is"
                ));
            }
            home.join(named)
        }
        (None, Some(flag)) if flag.is_absolute() || flag.is_file() => flag.to_owned(),
        (None, Some(flag)) => dir.join(flag),
        (None, None) => return Ok(None),
    };
    if path.is_file() {
        return Ok(Some(path));
    }
    let from = if section.is_some() { "[build] " } else { "--" };
    Err(Exit::Usage.with(format!(
        "{from}{key}: there is no such file: {}",
        path.display()
    )))
}

fn pairs(given: &[String]) -> Result<Vec<(String, String)>> {
    let pairs = given.iter().map(|text| match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(Exit::Usage.with(format!(
            "{:?} is no NAME=VALUE",
            text.split('=').next().unwrap_or_default()
        ))),
    });
    pairs.collect()
}

impl BuildArgs {
    /// Returns whether a flag says something about a Dockerfile.
    fn is_set(&self) -> bool {
        !self.build_arg.is_empty()
            || !self.build_secret.is_empty()
            || self.build_target.is_some()
            || !self.label.is_empty()
            || self.no_cache
    }
}
