//! `hangar config`, and reading fly.toml for every other command.

use std::path::Path;

use anyhow::Result;
use hangar_config::{AppConfig, Format, Loaded};

use super::releases::current;
use crate::args::{AppArgs, ConfigCommand};
use crate::context::{self, Context};
use crate::error::Exit;
use crate::output;

/// Releases among which the current one is looked for.
const SEARCHED: usize = 25;

pub(super) async fn run(command: ConfigCommand) -> Result<Exit> {
    match command {
        ConfigCommand::Show { app, local } if local => {
            let file = local_file(&app)?;
            output::data(&hangar_config::render::json(&read(&file)?.definition()))?;
        }
        ConfigCommand::Show { app, .. } => {
            let context = Context::find()?;
            let name = context.app(&app).await?.name;
            let releases = context.client.releases(&name, SEARCHED).await?;
            let current = current(&releases).ok_or_else(|| {
                Exit::NotFound.with(format!("{name} has no release yet, so no configuration"))
            })?;
            output::data(&hangar_config::render::json(&current.definition))?;
        }
        ConfigCommand::Validate { app, strict } => return validate(&local_file(&app)?, strict),
    }
    Ok(Exit::Done)
}

fn local_file(args: &AppArgs) -> Result<std::path::PathBuf> {
    let file = context::config_file(args.config.as_deref())?;
    file.ok_or_else(|| Exit::Usage.with("there is no fly.toml here: say where it is with -c"))
}

fn validate(file: &Path, strict: bool) -> Result<Exit> {
    output::say(&format!("Validating {}", file.display()));
    let loaded = load(file)?;
    tell(file, &loaded);
    if !loaded.is_valid() {
        return Err(Exit::Usage.with("App configuration is not valid"));
    }
    if strict && !loaded.problems.is_empty() {
        return Err(
            Exit::Usage.with("strict validation failed: the warnings above are errors here")
        );
    }
    output::data("✓ Configuration is valid")?;
    Ok(Exit::Done)
}

/// Reads a file, says what is wrong with it, and returns it when it can be used.
pub(crate) fn read(file: &Path) -> Result<AppConfig> {
    let loaded = load(file)?;
    tell(file, &loaded);
    loaded.config.ok_or_else(|| {
        Exit::Usage.with(format!(
            "{}: App configuration is not valid",
            file.display()
        ))
    })
}

/// Returns the app's name in a file; says what is wrong only when there is no reading it.
pub(crate) fn app_name(file: &Path) -> Result<Option<String>> {
    let text = context::read_config(file)?;
    let format = Format::of_path(&file.to_string_lossy());
    if let Some(name) = hangar_config::app_name(&text, format) {
        // Other errors are for the commands that need the rest.
        return Ok(Some(name));
    }
    Ok(read(file)?.app)
}

fn load(file: &Path) -> Result<Loaded> {
    let text = context::read_config(file)?;
    Ok(hangar_config::load(
        &text,
        Format::of_path(&file.to_string_lossy()),
    ))
}

fn tell(file: &Path, loaded: &Loaded) {
    for problem in &loaded.problems {
        output::say(&format!("{}: {problem}", file.display()));
    }
    if let Some(line) = loaded.not_acted_on() {
        output::say(&format!("{}: {line}", file.display()));
    }
}
