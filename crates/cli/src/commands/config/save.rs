//! `hangar config save`: the app's configuration as a file.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use hangar_config::app::Build;
use hangar_config::{AppConfig, Format};

use super::load;
use crate::args::{AppArgs, ConfigFormat};
use crate::error::Exit;
use crate::output;

/// Writes the file. A `[build]` that only the local file has is kept, when the person agrees: it
/// says how the image comes about, which no release knows.
pub(super) fn run(
    app: &AppArgs,
    mut config: AppConfig,
    format: &ConfigFormat,
    yes: bool,
) -> Result<()> {
    let (path, format) = target(app.config.as_deref(), format);
    if path.is_file() {
        if !yes && !output::confirm(&format!("Overwrite {}?", path.display()))? {
            return Err(Exit::Failed.with("nothing was written"));
        }
        if let Some(build) = local_build(&path)
            && config.build.as_ref() != Some(&build)
            && (yes || output::confirm("Keep the local [build] section?")?)
        {
            config.build = Some(build);
        }
    }
    write(&path, &config, format)?;
    output::data(&format!("Wrote config file {}", path.display()))
}

/// Returns where the file goes, and how it is written.
fn target(given: Option<&Path>, format: &ConfigFormat) -> (PathBuf, Format) {
    let named = |name: &Path| Format::of_path(&name.to_string_lossy());
    match given {
        Some(path) if path.is_dir() => {
            let format = format.format(Format::Toml);
            (path.join(name(format)), format)
        }
        Some(path) => (path.to_owned(), format.format(named(path))),
        None => {
            let format = format.format(Format::Toml);
            (PathBuf::from(name(format)), format)
        }
    }
}

fn name(format: Format) -> &'static str {
    match format {
        Format::Toml => "fly.toml",
        Format::Json => "fly.json",
        Format::Yaml => "fly.yaml",
    }
}

/// Returns the `[build]` of a file that can be read.
fn local_build(path: &Path) -> Option<Build> {
    load(path).ok()?.read?.build
}

/// Writes beside the file first: one that is cut off in the middle takes nobody's place.
fn write(path: &Path, config: &AppConfig, format: Format) -> Result<()> {
    let now = output::rfc3339(hangar_api::env::Env::real().now());
    let text = config.write_with_head(format, &now);
    let beside = path.with_extension("new");
    let writing = || format!("write {}", path.display());
    std::fs::write(&beside, text).with_context(writing)?;
    std::fs::rename(&beside, path).with_context(writing)
}
