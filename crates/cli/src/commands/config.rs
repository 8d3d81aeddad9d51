//! `hangar config`, and reading fly.toml for every other command.

mod save;

use std::path::{Path, PathBuf};

use anyhow::Result;
use hangar_api::id::{AppName, GroupName};
use hangar_api::machine::config::{GROUP_CONSOLE, GROUP_RELEASE_COMMAND, GROUP_TEST};
use hangar_api::machine::{Guest, Machine};
use hangar_api::release::Release;
use hangar_client::MachineFilter;
use hangar_config::{AppConfig, Format, Loaded, rebuild};

use super::releases::current;
use crate::args::{AppArgs, ConfigCommand, ConfigFormat};
use crate::context::{self, Context};
use crate::error::Exit;
use crate::output;

/// Releases among which the current one is looked for.
const SEARCHED: usize = 25;

pub(super) async fn run(command: ConfigCommand) -> Result<Exit> {
    match command {
        ConfigCommand::Show { app, local, format } => {
            let config = if local {
                read(&local_file(&app)?)?
            } else {
                remote(&Context::find()?, &app).await?.config
            };
            print(&config, format.format(Format::Json))?;
        }
        ConfigCommand::Save { app, format, yes } => {
            let context = Context::find()?;
            // The file need not be there yet.
            let who = AppArgs {
                app: app.app.clone(),
                config: app.config.clone().filter(|file| file.exists()),
            };
            let config = remote(&context, &who).await?.config;
            save::run(&app, config, &format, yes)?;
        }
        ConfigCommand::Validate { app, strict } => return validate(&app, strict).await,
        ConfigCommand::Env { app } => env(&app).await?,
        ConfigCommand::Schema => output::json(&hangar_config::schema::json_schema())?,
    }
    Ok(Exit::Done)
}

impl ConfigFormat {
    fn format(&self, by_default: Format) -> Format {
        match (self.toml, self.yaml, self.json) {
            (true, ..) => Format::Toml,
            (_, true, _) => Format::Yaml,
            (.., true) => Format::Json,
            _ => by_default,
        }
    }
}

fn print(config: &AppConfig, format: Format) -> Result<()> {
    let now = output::rfc3339(hangar_api::env::Env::real().now());
    let text = config.write_with_head(format, &now);
    output::data(text.trim_end_matches('\n'))
}

/// An app's configuration, as the server knows it.
struct Remote {
    app: AppName,
    /// Where it comes from, in words.
    source: String,
    config: AppConfig,
}

/// Returns the configuration of the current release; of an app without releases the one that most
/// of its Machines would come from (process-groups-and-deploy.md 1.5).
async fn remote(context: &Context, app: &AppArgs) -> Result<Remote> {
    let app = context.app(app).await?.name;
    let releases = context.client.releases(&app, SEARCHED).await?;
    if let Some(release) = current(&releases) {
        let mut config = stored(release)?;
        config.app = Some(app.to_string());
        return Ok(Remote {
            source: format!("the configuration of v{}", release.version),
            config,
            app,
        });
    }
    let config = of_machines(context, &app).await?.ok_or_else(|| {
        Exit::NotFound.with(format!(
            "{app} has no release yet and no Machines, so no configuration"
        ))
    })?;
    Ok(Remote {
        source: OF_MACHINES.to_owned(),
        config,
        app,
    })
}

/// What [`of_machines`] returns, in words.
pub(super) const OF_MACHINES: &str = "the configuration of its Machines";

/// Returns the configuration that most Machines of an app would come from, and warns of what
/// deviates; `None` where there are none.
pub(super) async fn of_machines(context: &Context, app: &AppName) -> Result<Option<AppConfig>> {
    let filter = MachineFilter::default();
    let mut machines = context.client.machines(app, &filter).await?;
    machines.retain(|machine| machine.state.is_active() && !runs_once(machine));
    let those: Vec<_> = machines
        .iter()
        .map(|m| (m.id.as_str(), &m.config))
        .collect();
    let Some(rebuilt) = rebuild::from_machines(app.as_str(), &those) else {
        return Ok(None);
    };
    if !rebuilt.warnings.is_empty() {
        output::say(&format!("WARNINGS:\n{}", rebuilt.warnings.join("\n")));
    }
    Ok(Some(rebuilt.config))
}

/// Returns whether a Machine was made for one command, and is no part of what the app is.
fn runs_once(machine: &Machine) -> bool {
    let group = machine.process_group();
    [GROUP_RELEASE_COMMAND, GROUP_TEST, GROUP_CONSOLE].contains(&group)
}

/// Returns the configuration that is stored with a release.
pub(super) fn stored(release: &Release) -> Result<AppConfig> {
    AppConfig::from_definition(&release.definition).map_err(|error| {
        Exit::Failed.with(format!(
            "read the configuration of v{}: {error}",
            release.version
        ))
    })
}

fn local_file(args: &AppArgs) -> Result<PathBuf> {
    let file = context::config_file(args.config.as_deref())?;
    file.ok_or_else(|| Exit::Usage.with("there is no fly.toml here: say where it is with -c"))
}

/// Checks the local file; without one, what is stored with the current release.
async fn validate(app: &AppArgs, strict: bool) -> Result<Exit> {
    if let Some(file) = context::config_file(app.config.as_deref())? {
        let name = file.display().to_string();
        return judge(&name, &load(&file)?, strict);
    }
    if app.app.is_none() && context::variable("FLY_APP").is_none() {
        local_file(app)?;
    }
    let remote = remote(&Context::find()?, app).await?;
    let text = remote.config.definition().to_string();
    judge(
        &remote.source,
        &hangar_config::load(&text, Format::Json),
        strict,
    )
}

fn judge(name: &str, loaded: &Loaded, strict: bool) -> Result<Exit> {
    output::say(&format!("Validating {name}"));
    tell(name, loaded);
    if !loaded.is_valid() {
        return Err(Exit::Usage.with("App configuration is not valid"));
    }
    if strict && !loaded.problems.is_empty() {
        return Err(
            Exit::Usage.with("strict validation failed: the warnings above are errors here")
        );
    }
    let all = loaded.problems.iter();
    let refused = all.filter(|p| p.stops_deploy()).count();
    if refused == 0 {
        output::data("✓ Configuration is valid")?;
    } else {
        let s = if refused == 1 { "" } else { "s" };
        output::data(&format!(
            "✓ Configuration is valid, but `deploy` refuses it for the {refused} reason{s} above"
        ))?;
    }
    Ok(Exit::Done)
}

/// Prints secrets (never their values) and variables, as `fly config env` does.
async fn env(app: &AppArgs) -> Result<()> {
    let context = Context::find()?;
    let remote = remote(&context, app).await?;
    let secrets = context.client.secrets(&remote.app).await?.secrets;
    let secrets = secrets.into_iter().map(|s| vec![s.name, s.digest]);
    output::table(
        Some("Secrets"),
        &["Name", "Digest"],
        &secrets.collect::<Vec<_>>(),
    )?;
    let variables = remote
        .config
        .env
        .into_iter()
        .map(|(name, value)| vec![name, value]);
    let rows: Vec<Vec<String>> = variables.collect();
    output::data("")?;
    output::table(Some("Environment Variables"), &["Name", "Value"], &rows)
}

/// Reads a file, says what is wrong with it, and returns it when it can be deployed.
pub(crate) fn read(file: &Path) -> Result<AppConfig> {
    usable(&file.display().to_string(), load(file)?)
}

/// Reads a configuration that stands in something else, such as a manifest.
pub(super) fn read_definition(name: &str, definition: &serde_json::Value) -> Result<AppConfig> {
    let text = definition.to_string();
    usable(name, hangar_config::load(&text, Format::Json))
}

fn usable(name: &str, loaded: Loaded) -> Result<AppConfig> {
    tell(name, &loaded);
    let deployable = loaded.is_deployable();
    let why = if loaded.is_valid() {
        "asks for what is refused above"
    } else {
        "App configuration is not valid"
    };
    loaded
        .config
        .filter(|_| deployable)
        .ok_or_else(|| Exit::Usage.with(format!("{name}: {why}")))
}

/// Refuses what is wrong with the process groups that a deploy is for; mistakes that only others have
/// do not matter then. Of no groups, what is wrong with the whole. Says nothing of what is right.
pub(super) fn check_groups(name: &str, config: &AppConfig, groups: &[GroupName]) -> Result<()> {
    let groups: Vec<&str> = groups.iter().map(GroupName::as_str).collect();
    let problems = config.validate_groups(&groups);
    let stops = problems.iter().filter(|problem| problem.stops_deploy());
    if stops.clone().next().is_none() {
        return Ok(());
    }
    for problem in stops {
        output::say(&format!("{name}: {problem}"));
    }
    let whose = match groups.as_slice() {
        [] => String::new(),
        some => format!(" for process group {}", some.join(", ")),
    };
    Err(Exit::Usage.with(format!("{name}: App configuration is not valid{whose}")))
}

/// Returns the app's name in a file; says what is wrong only when there is no reading it.
pub(crate) fn app_name(file: &Path) -> Result<Option<String>> {
    let bytes = context::read_config(file)?;
    let format = Format::of_path(&file.to_string_lossy());
    if let Some(name) = hangar_config::app_name(&bytes, format) {
        // Other errors are for the commands that need the rest.
        return Ok(Some(name));
    }
    Ok(read(file)?.app)
}

fn load(file: &Path) -> Result<Loaded> {
    let bytes = context::read_config(file)?;
    let format = Format::of_path(&file.to_string_lossy());
    Ok(hangar_config::load_bytes(&bytes, format))
}

fn tell(name: &str, loaded: &Loaded) {
    for problem in &loaded.problems {
        output::say(&format!("{name}: {problem}"));
    }
    if let Some(line) = loaded.not_acted_on() {
        output::say(&format!("{name}: {line}"));
    }
}

/// Returns the size that a file's `[[vm]]` gives a group, if it gives one and can be read. Says
/// nothing: it is asked for on the side.
pub(super) fn guest_of_group(file: &Path, group: &GroupName) -> Option<Guest> {
    let mut config = load(file).ok()?.config?;
    // They play no part here and need not be there.
    config.files.clear();
    let inputs = hangar_config::Inputs::default();
    let spec = config.group_spec(group.as_str(), &inputs).ok()?;
    spec.config.guest.filter(|_| spec.sets_guest)
}
