//! `hangar deploy`: read fly.toml, get the image to the server, ask for a deployment, follow it.

mod files;
mod manifest;
mod options;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use hangar_api::deployment::{CreateDeployment, DeploymentSource};
use hangar_api::id::{AppName, Region};
use hangar_api::release::{ReleaseCommand, ReleaseStatus};
use hangar_client::MachineFilter;
use hangar_config::{AppConfig, Inputs};
use hangar_deploy::mounts;

use self::options::options;
pub(super) use self::options::options_of;
use super::machine::pairs;
use super::{config, follow, image};
use crate::args::{BuildArgs, DeployArgs, FileArgs, PaceArgs, RolloutArgs, VmArgs, WhatArgs};
use crate::build;
use crate::context::{self, Context};
use crate::error::Exit;
use crate::output;

/// The image of a dry run that would be built or sent first: nothing is, so it has no name.
const UNBUILT: &str = "";

/// What a deployment is made from, as the user said it.
#[derive(Debug, Default)]
pub(super) struct DeployInput {
    /// The configuration of a manifest, instead of the file's.
    pub(super) manifest: Option<Box<FromManifest>>,
    /// The fly.toml; without one the current release's configuration is deployed again.
    pub(super) file: Option<PathBuf>,
    /// Where things are built, and files to be copied in are found.
    pub(super) folder: PathBuf,
    /// The app, instead of the file's.
    pub(super) app: Option<AppName>,
    /// An image, instead of the file's or a built one.
    pub(super) image: Option<String>,
    pub(super) ha: Option<bool>,
    pub(super) image_label: Option<String>,
    pub(super) rollout: RolloutArgs,
    pub(super) files: FileArgs,
    pub(super) pace: PaceArgs,
    pub(super) primary_region: Option<Region>,
    pub(super) env: Vec<String>,
    pub(super) vm: VmArgs,
    pub(super) build: BuildArgs,
    pub(super) volume_initial_size: Option<u64>,
    pub(super) yes: bool,
    pub(super) dry_run: bool,
    /// Nobody waits for its end: a manifest says so.
    pub(super) detach: bool,
    /// It is only written down: the image is built and sent, and nothing else is made.
    pub(super) export: bool,
}

/// What a deploy is that was written down before.
#[derive(Debug)]
pub(super) struct FromManifest {
    /// Where it stands, for what is told.
    name: String,
    config: AppConfig,
    /// Files laid over those of the configuration.
    files: files::Laid,
}

/// A deployment that is ready to be asked for.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) app: AppName,
    pub(super) body: CreateDeployment,
}

pub(super) async fn run(args: DeployArgs) -> Result<Exit> {
    let context = Context::find()?;
    let input = match args.from_manifest {
        Some(from) => {
            let WhatArgs { dir, app, .. } = args.what;
            manifest::read(&from, dir, app.app)?
        }
        None => DeployInput {
            pace: args.pace,
            image_label: args.image_label,
            build: args.build,
            dry_run: args.dry_run,
            export: args.export_manifest.is_some(),
            ..DeployInput::of(&context, args.what).await?
        },
    };
    if input.build.build_only {
        return build_only(&context, &input).await;
    }
    let mut prepared = prepare(&context, &input).await?;
    if let Some(to) = args.export_manifest {
        manifest::write(&to, &input, &prepared, args.detach)?;
        return Ok(Exit::Done);
    }
    if args.dry_run {
        let preview = context
            .client
            .preview_deployment(&prepared.app, &prepared.body)
            .await?;
        output::data(&preview.steps.join("\n"))?;
        return Ok(Exit::Done);
    }
    let detach = args.detach || input.detach;
    if !args.now {
        ask_of_volumes(&context, &mut prepared).await?;
    }
    let deployment = follow::begin(&context, &prepared.app, &prepared.body).await?;
    let exit = follow::to_the_end(&context, deployment, detach).await?;
    if !args.detach
        && let Some(url) = context.client.app(&prepared.app).await?.app_url
    {
        output::say(&format!("\nVisit your newly deployed app at {url}"));
    }
    Ok(exit)
}

/// Asks before Machines are parted from their volumes; without a terminal the server says no.
async fn ask_of_volumes(context: &Context, prepared: &mut Prepared) -> Result<()> {
    let options = &mut prepared.body.options;
    let DeploymentSource::Config { groups, .. } = &prepared.body.source else {
        return Ok(());
    };
    if options.detach_volumes || !output::is_interactive() {
        return Ok(());
    }
    let filter = MachineFilter::default();
    let machines = context.client.machines(&prepared.app, &filter).await?;
    let managed = machines.iter().filter(|m| m.config.is_managed());
    let parted = mounts::parted(groups, managed.map(|m| (&m.id, &m.config)));
    for (machine, volume) in &parted {
        output::say(&format!(
            "Warning! Machine {machine} has volume {volume} mounted, and fly.toml has no [[mounts]] for its group"
        ));
    }
    if parted.is_empty() {
        return Ok(());
    }
    let question =
        "Do you still want to continue and detach the volume? This will replace the machine.";
    if !output::confirm(question)? {
        return Err(Exit::Failed.with("deployment cancelled: nothing was changed"));
    }
    options.detach_volumes = true;
    Ok(())
}

/// Builds the image and sends it, and leaves it at that.
async fn build_only(context: &Context, input: &DeployInput) -> Result<Exit> {
    let (Some(file), Some(app)) = (&input.file, &input.app) else {
        return Err(Exit::Usage.with("there is no fly.toml here, so nothing is to be built"));
    };
    let config = config::read(file)?;
    let image = ensure_image(context, app, &config, input).await?;
    output::data(&image)?;
    Ok(Exit::Done)
}

// === impl DeployInput ===

impl DeployInput {
    /// Returns the input for what a command line says, with the app that it means.
    pub(super) async fn of(context: &Context, what: WhatArgs) -> Result<Self> {
        let mut app = what.app;
        let mut folder = PathBuf::from(".");
        if let Some(dir) = what.dir {
            // The folder comes first, and a configuration is looked for from there.
            app.config = match app.config {
                Some(config) => Some(dir.join(config)),
                None => Some(dir.clone()),
            };
            folder = if dir.is_file() { parent(&dir) } else { dir };
        }
        let choice = context.app(&app).await?;
        Ok(Self {
            file: choice.file,
            folder,
            app: Some(choice.name),
            image: what.image,
            ha: Some(what.ha),
            rollout: what.rollout,
            files: what.files,
            primary_region: what.primary_region,
            env: what.env,
            vm: what.vm,
            volume_initial_size: what.volume_initial_size,
            yes: what.yes,
            ..Self::default()
        })
    }

    /// Returns the files that are laid over those of the configuration.
    fn laid_files(&self) -> Result<files::Laid> {
        let mut laid = files::read(&self.files, &self.folder)?;
        let from = self.manifest.iter().flat_map(|from| from.files.clone());
        laid.extend(from);
        Ok(laid)
    }

    /// Returns the input for a file with nothing else said.
    pub(super) fn of_file(file: PathBuf) -> Self {
        Self {
            folder: parent(&file),
            file: Some(file),
            ..Self::default()
        }
    }
}

/// Returns the folder that a file is in.
fn parent(file: &Path) -> PathBuf {
    let parent = file.parent().filter(|p| !p.as_os_str().is_empty());
    parent.unwrap_or(Path::new(".")).to_owned()
}

/// Does all that comes before the deployment: nothing is created when it fails.
pub(super) async fn prepare(context: &Context, input: &DeployInput) -> Result<Prepared> {
    let (mut config, name) = match (&input.manifest, &input.file) {
        (Some(from), _) => (from.config.clone(), from.name.clone()),
        (None, Some(file)) => (config::read(file)?, file.display().to_string()),
        (None, None) => match redeploy(context, input).await? {
            Some(prepared) => return Ok(prepared),
            None => (
                of_machines(context, input).await?,
                config::OF_MACHINES.to_owned(),
            ),
        },
    };
    let app = app_of(input, &config, &name)?;
    if let Some(region) = &input.primary_region {
        config.primary_region = Some(region.to_string());
    }
    // Part of the release, so that a rollback to it has them too.
    config.env.extend(pairs(&input.env)?);
    check_groups(&name, &config, &input.rollout)?;
    let options = options(&config.definition(), input)?;
    if input.rollout.max_unavailable.is_none() {
        options::warn_of_max_unavailable(&config.definition(), options.strategy);
    }
    let inputs = inputs(&config, input)?;
    let laid = input.laid_files()?;
    warn_of_secrets(config.env.keys().chain(inputs.env.keys()));
    // What cannot become a Machine is said before anything is built or sent.
    let usage = |error: &dyn std::fmt::Display| Exit::Usage.with(format!("{name}: {error}"));
    config.machine_configs(&inputs).map_err(|e| usage(&e))?;
    let image = ensure_image(context, &app, &config, input).await?;
    let inputs = Inputs {
        image: image.clone(),
        ..inputs
    };
    let mut groups = config.machine_configs(&inputs).map_err(|e| usage(&e))?;
    let mut release_command = config.release_command(&inputs).map_err(|e| usage(&e))?;
    for group in groups.values_mut() {
        files::lay_over(&laid, &mut group.config);
    }
    if let Some(command) = &mut release_command {
        files::lay_over(&laid, &mut command.config);
        limit(command, input)?;
    }
    let primary_region = config
        .primary_region
        .as_deref()
        .map(Region::new)
        .transpose();
    let primary_region = primary_region.map_err(|e| usage(&e))?;
    let source = DeploymentSource::Config {
        groups,
        release_command,
        image,
        primary_region,
        definition: config.definition(),
    };
    let body = CreateDeployment {
        source,
        options,
        dry_run: false,
    };
    if !input.dry_run && !input.export {
        ensure_app(context, &app, &body).await?;
    }
    Ok(Prepared { app, body })
}

/// Returns the app that is meant: the one that was said, else the configuration's.
fn app_of(input: &DeployInput, config: &AppConfig, name: &str) -> Result<AppName> {
    match (&input.app, &config.app) {
        (Some(app), _) => Ok(app.clone()),
        (None, Some(name)) => AppName::new(name).map_err(|e| Exit::Usage.with(e.to_string())),
        (None, None) => Err(Exit::Usage.with(format!(
            "{name}: the config for your app is missing an app name"
        ))),
    }
}

/// Returns the app that is meant where there is no file.
fn app_without_file(input: &DeployInput) -> Result<AppName> {
    let app = input.app.clone();
    app.ok_or_else(|| Exit::Usage.with("there is no fly.toml here, and no -a"))
}

fn nothing_to_deploy_again(app: &AppName) -> anyhow::Error {
    Exit::Failed.with(format!(
        "{app} has no complete release to deploy again: deploy it from a folder with its fly.toml"
    ))
}

/// Without a file, and without a release, an app is what its Machines are.
async fn of_machines(context: &Context, input: &DeployInput) -> Result<AppConfig> {
    let app = app_without_file(input)?;
    let config = config::of_machines(context, &app).await?;
    let config = config.ok_or_else(|| nothing_to_deploy_again(&app))?;
    output::say("No fly.toml here and no release: deploying the configuration of its Machines");
    Ok(config)
}

/// Without a file the newest complete release is deployed again, with what the flags change.
/// Returns `None` where there never was a release: of one that failed, Machines say too little.
async fn redeploy(context: &Context, input: &DeployInput) -> Result<Option<Prepared>> {
    let app = app_without_file(input)?;
    let releases = context.client.releases(&app, 25).await?;
    if releases.is_empty() {
        return Ok(None);
    }
    let mut releases = releases.into_iter();
    let newest = releases.find(|r| r.status == ReleaseStatus::Complete);
    let newest = newest.ok_or_else(|| nothing_to_deploy_again(&app))?;
    output::say(&format!(
        "No fly.toml here: deploying the configuration of v{} again",
        newest.version
    ));
    if !input.env.is_empty() || input.primary_region.is_some() {
        return Err(Exit::Usage
            .with("--env and --primary-region change a fly.toml, and there is none here"));
    }
    let config = config::stored(&newest)?;
    check_groups(&format!("v{}", newest.version), &config, &input.rollout)?;
    let options = options(&newest.definition, input)?;
    let image = match &input.image {
        Some(given) => send_or_name(context, &app, given, input).await?,
        None => newest
            .groups
            .values()
            .map(|g| g.config.image.clone())
            .next()
            .unwrap_or_default(),
    };
    let laid = input.laid_files()?;
    let mut groups = newest.groups;
    for group in groups.values_mut() {
        group.config.image.clone_from(&image);
        files::lay_over(&laid, &mut group.config);
    }
    let mut release_command = newest.release_command;
    if let Some(command) = &mut release_command {
        command.config.image.clone_from(&image);
        files::lay_over(&laid, &mut command.config);
        limit(command, input)?;
    }
    let region = newest
        .definition
        .get("primary_region")
        .and_then(|v| v.as_str())
        .and_then(|r| Region::new(r).ok());
    let source = DeploymentSource::Config {
        groups,
        release_command,
        image,
        primary_region: region,
        definition: newest.definition,
    };
    Ok(Some(Prepared {
        app,
        body: CreateDeployment {
            source,
            options,
            dry_run: false,
        },
    }))
}

/// Checks the process groups that are deployed, under the strategy that the flag gives: one may be
/// for all but the groups with a mount (process-groups-and-deploy.md 4.2).
fn check_groups(name: &str, config: &AppConfig, rollout: &RolloutArgs) -> Result<()> {
    let mut config = config.clone();
    if let Some(strategy) = rollout.strategy {
        config.deploy.get_or_insert_default().strategy = Some(strategy.to_string());
    }
    config::check_groups(name, &config, &rollout.process_groups)
}

/// Puts the time that the flag gives the release command in place of fly.toml's.
fn limit(command: &mut ReleaseCommand, input: &DeployInput) -> Result<()> {
    if let Some(text) = &input.pace.release_command_timeout {
        command.timeout_secs = options::seconds("--release-command-timeout", text)?;
    }
    Ok(())
}

/// Parts of names that secrets tend to have (process-groups-and-deploy.md 4.1).
const SECRET_WORDS: [&str; 5] = ["KEY", "PRIVATE", "DATABASE_URL", "PASSWORD", "SECRET"];
/// Names that have one and are no secrets.
const NO_SECRETS: [&str; 2] = ["AWS_ACCESS_KEY_ID", "TIGRIS_ACCESS_KEY_ID"];

/// Warns of variables that look like secrets: everybody who may read the app's configuration can
/// read them.
fn warn_of_secrets<'a>(names: impl Iterator<Item = &'a String>) {
    for name in names.collect::<std::collections::BTreeSet<_>>() {
        let has_word = SECRET_WORDS.iter().any(|word| name.contains(word));
        if has_word && !NO_SECRETS.contains(&name.as_str()) {
            output::say(&format!(
                "WARN {name} may be a potentially sensitive environment variable. Consider \
                 setting it as a secret, and removing it from the [env] section"
            ));
        }
    }
}

fn inputs(config: &AppConfig, input: &DeployInput) -> Result<Inputs> {
    let folder = &input.folder;
    let mut files = std::collections::BTreeMap::new();
    for path in config.needed_files() {
        let content = std::fs::read(folder.join(path)).map_err(|e| {
            Exit::Usage.with(format!(
                "a file of fly.toml: read {path} in {}: {e}",
                folder.display()
            ))
        })?;
        files.insert(path.to_owned(), content);
    }
    Ok(Inputs {
        image: "unknown".to_owned(),
        client_version: env!("CARGO_PKG_VERSION").to_owned(),
        files,
        more_files: Vec::new(),
        env: pairs(&input.env)?.into_iter().collect(),
    })
}

/// Makes the app where there is none, once it is sure that there is something to deploy.
async fn ensure_app(context: &Context, app: &AppName, body: &CreateDeployment) -> Result<()> {
    match context.client.app(app).await {
        Ok(_) => Ok(()),
        Err(error) if error.status() == Some(404) => {
            context.client.preview_deployment(app, body).await?;
            output::say(&format!("Creating app {app}"));
            context
                .client
                .create_app(app, context::org().as_deref(), None)
                .await?;
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Returns the name of an image that the server has or can pull: `--image`, the file's, or one
/// that is built now.
async fn ensure_image(
    context: &Context,
    app: &AppName,
    config: &AppConfig,
    input: &DeployInput,
) -> Result<String> {
    let section = config.build.clone().unwrap_or_default();
    if let Some(given) = &input.image {
        if input.dry_run && is_archive(given) {
            return Ok(UNBUILT.to_owned());
        }
        return send_or_name(context, app, given, input).await;
    }
    if let Some(image) = &section.image {
        return Ok(image.clone());
    }
    if input.dry_run {
        return Ok(UNBUILT.to_owned());
    }
    let request = build::Request {
        dir: input.folder.clone(),
        home: input.file.as_deref().map_or_else(PathBuf::new, parent),
        section,
        flags: input.build.clone(),
    };
    let built = tokio::task::spawn_blocking(move || build::build(&request))
        .await
        .context("build")??;
    send(context, app, &built.archive, input).await
}

/// Returns whether `--image` names a file or layout here. A name that could be an image's is one:
/// a program called `web` that lies here is not meant by it.
pub(super) fn is_archive(given: &str) -> bool {
    let path = Path::new(given);
    let ending = path.extension().and_then(|ending| ending.to_str());
    let says_so = given.contains('/') || matches!(ending, Some("tar" | "gz" | "tgz"));
    (says_so && path.is_file()) || path.join("oci-layout").is_file()
}

/// Takes `--image` as an archive where there is such a file, else as a name.
async fn send_or_name(
    context: &Context,
    app: &AppName,
    given: &str,
    input: &DeployInput,
) -> Result<String> {
    if is_archive(given) {
        send(context, app, Path::new(given), input).await
    } else {
        Ok(given.to_owned())
    }
}

/// Sends an archive; it gets the app's own name, so that the next one takes its place, and the tag
/// that `--image-label` gives it.
async fn send(
    context: &Context,
    app: &AppName,
    archive: &Path,
    input: &DeployInput,
) -> Result<String> {
    let label = input.image_label.as_deref().unwrap_or("built");
    let name = format!("{app}:{label}");
    let image = image::import(context, archive, &name).await?;
    output::say(&format!("Image {} is on the server", image.digest));
    // What is carried out later is to be of this very image, whatever its name means then.
    Ok(if input.export {
        format!("{name}@{}", image.digest)
    } else {
        name
    })
}
