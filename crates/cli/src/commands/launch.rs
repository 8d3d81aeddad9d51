//! `hangar launch`: a folder or an image becomes an app: fly.toml is written, shown, and deployed.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use hangar_api::env::Env;
use hangar_api::id::AppName;
use hangar_api::region::RegionInfo;
use hangar_config::Format;

use super::deploy::{self, DeployInput};
use super::machine::{guest, pairs};
use super::migrate::{
    COMPOSE, find, folder_name, from_compose, read, read_if_there, refused, say_notes, write,
};
use super::{config, follow};
use crate::args::migrate::LaunchArgs;
use crate::context::Context;
use crate::error::Exit;
use crate::migrate::Converted;
use crate::migrate::draft::Vm;
use crate::migrate::folder::{self, Folder, Wish};
use crate::names;
use crate::output;

/// Configuration files, in the order they are looked for.
const CONFIGS: [&str; 3] = ["fly.toml", "fly.json", "fly.yaml"];
/// Names that are tried before giving up.
const TRIES: u32 = 5;

/// What is going to be made, and where each part of it comes from.
struct Launch {
    name: AppName,
    /// The files to write; none where the file that is there is used.
    files: Option<Converted>,
    /// Whether a fly.toml that is there may go.
    overwrite: bool,
    /// The fly.toml that is there and used.
    file: Option<PathBuf>,
    /// What a deploy of that file needs besides, because it does not name this app.
    by_name: String,
    rows: Vec<[String; 3]>,
}

pub(super) async fn run(args: LaunchArgs) -> Result<Exit> {
    let context = Context::find()?;
    let there = find(&args.path, &CONFIGS)?;
    output::say(&format!("Creating app in {}", absolute(&args.path)));
    let launch = match there {
        None => new(&context, &args, false).await?,
        Some((name, file)) => match what_of(&name, &file, &args)? {
            Existing::Used => copied(&context, &args, file).await?,
            Existing::Replaced => new(&context, &args, true).await?,
        },
    };
    show(&launch);
    if !(args.yes || args.now) {
        let question = if args.no_deploy {
            "Create it?"
        } else {
            "Create it and deploy?"
        };
        if !output::confirm(question)? {
            return Err(Exit::Failed.with("nothing was made"));
        }
    }
    carry_out(&context, args, launch).await
}

/// What becomes of a fly.toml that is there.
enum Existing {
    Used,
    Replaced,
}

fn what_of(name: &str, file: &Path, args: &LaunchArgs) -> Result<Existing> {
    let app = config::app_name(file).ok().flatten();
    output::say(&match app {
        Some(app) => format!("An existing {name} file was found for app {app}"),
        None => format!("An existing {name} file was found"),
    });
    let question = format!("Would you like to use this {name} configuration for this app?");
    if args.copy_config || args.yes || output::confirm(&question)? {
        return Ok(Existing::Used);
    }
    // Only fly.toml is written: a fly.json beside it would be read no more, and nobody asked.
    if name == "fly.toml" && output::confirm("Overwrite it with a new one?")? {
        return Ok(Existing::Replaced);
    }
    Err(Exit::Failed.with(format!("{name} was left as it is, and nothing was made")))
}

async fn copied(context: &Context, args: &LaunchArgs, file: PathBuf) -> Result<Launch> {
    if args.internal_port.is_some() {
        return Err(Exit::Usage.with(format!(
            "--internal-port is for a fly.toml that is made now: change internal_port in {}",
            file.display()
        )));
    }
    let definition = config::read(&file)?.definition();
    let said = |key: &str| definition[key].as_str().map(str::to_owned);
    let named = said("app").map(AppName::new).transpose();
    let named = named.map_err(|error| Exit::Usage.with(format!("{}: {error}", file.display())))?;
    let (name, source) = name(context, args, named.clone()).await?;
    let regions = context.client.regions().await?;
    let wanted = args
        .region
        .as_ref()
        .map(ToString::to_string)
        .or_else(|| said("primary_region"));
    let region = region(&regions, wanted.as_deref())?;
    let mut launch = Launch {
        rows: vec![
            row("Name", name.as_str(), source),
            row("Region", &region.name, "primary_region"),
        ],
        name,
        files: None,
        overwrite: false,
        file: Some(file.clone()),
        by_name: String::new(),
    };
    let groups = definition["processes"].as_object();
    let groups: Vec<&str> = groups
        .into_iter()
        .flat_map(|g| g.keys())
        .map(String::as_str)
        .collect();
    if !groups.is_empty() {
        let from = file.file_name().unwrap_or_default().to_string_lossy();
        launch
            .rows
            .push(row("Processes", &groups.join(", "), &from));
    }
    if named.as_ref() != Some(&launch.name) {
        launch.by_name = format!(" -a {}", launch.name);
        let line = match named {
            Some(_) => "keeps its app = line",
            None => "has no app = line",
        };
        output::say(&format!(
            "{} {line}: deploy to this one with -a {}",
            file.display(),
            launch.name
        ));
    }
    Ok(launch)
}

async fn new(context: &Context, args: &LaunchArgs, overwrite: bool) -> Result<Launch> {
    let (name, name_source) = name(context, args, None).await?;
    let regions = context.client.regions().await?;
    let asked = args.region.as_ref().map(ToString::to_string);
    let region = region(&regions, asked.as_deref())?;
    let sized = [&args.vm.vm_size, &args.vm.vm_cpu_kind, &args.vm.vm_memory]
        .iter()
        .any(|flag| flag.is_some())
        || args.vm.vm_cpus.is_some();
    let vm = match sized {
        true => {
            let guest = guest(hangar_api::machine::Guest::default(), &args.vm)?;
            Some(Vm::sized(&guest.cpu_kind, guest.cpus, guest.memory_mb))
        }
        false => None,
    };
    let wish = Wish {
        name: name.to_string(),
        region: Some(region.code.to_string()),
        internal_port: args.internal_port,
        vm,
        env: pairs(&args.env)?.into_iter().collect(),
    };
    let (mut converted, from) = convert(args, &wish)?;
    converted.sign("hangar launch");
    refuse_invalid(&converted)?;
    for app in &converted.apps {
        let other = AppName::new(app.draft.app.as_str()).context("name the app")?;
        if other != name && is_taken(context, &other).await? {
            return Err(Exit::Usage.with(format!(
                "app name {other} is already taken: specify a different app name with --name"
            )));
        }
    }
    let mut rows = vec![
        row("Name", name.as_str(), name_source),
        row(
            "Region",
            &region.name,
            if args.region.is_some() {
                "specified on the command line"
            } else {
                "the first one that is offered"
            },
        ),
    ];
    rows.extend(rows_of(&converted, &from));
    Ok(Launch {
        name,
        files: Some(converted),
        overwrite,
        file: None,
        by_name: String::new(),
        rows,
    })
}

/// Reads the folder and makes of it what it can become.
fn convert(args: &LaunchArgs, wish: &Wish) -> Result<(Converted, String)> {
    let dir = &args.path;
    let archive = args.image.as_deref().is_some_and(deploy::is_archive);
    let dockerfile = match find(dir, &["Dockerfile", "Containerfile"])? {
        Some((name, path)) => Some((name, read(&path)?)),
        None => None,
    };
    let compose = find(dir, &COMPOSE)?;
    let found = Folder {
        image: args.image.clone().filter(|_| !archive),
        brings_image: archive,
        dockerfile,
        procfile: read_if_there(&dir.join("Procfile"))?,
        app_json: read_if_there(&dir.join("app.json"))?,
        compose: compose.as_ref().map(|(name, _)| name.clone()),
        cargo: dir.join("Cargo.toml").is_file(),
    };
    if found.is_bare()
        && let Some((name, path)) = compose
    {
        let mut converted = from_compose(&path, Some(&wish.name))?;
        folder::wish_for(&mut converted, wish);
        return Ok((converted, name));
    }
    folder::convert(&found, wish).map_err(|error| refused(dir, &error))
}

/// Nothing is made of a file that this Hangar would not deploy.
fn refuse_invalid(converted: &Converted) -> Result<()> {
    for app in &converted.apps {
        let loaded = hangar_config::load(&app.draft.render(), Format::Toml);
        if loaded.is_valid() {
            continue;
        }
        for problem in loaded.problems.iter().filter(|p| p.is_error()) {
            output::say(&format!(
                "{}: {}: {}",
                app.draft.app, problem.path, problem.message
            ));
        }
        return Err(Exit::Usage.with(
            "the fly.toml that this makes cannot be deployed, so nothing was made: `hangar migrate` writes it, for you to change",
        ));
    }
    Ok(())
}

fn rows_of(converted: &Converted, from: &str) -> Vec<[String; 3]> {
    let Some(app) = converted.apps.last() else {
        return Vec::new();
    };
    let sizes: Vec<String> = app
        .draft
        .vm
        .iter()
        .map(|vm| {
            let size = vm.size.clone().or(vm.cpu_kind.clone()).unwrap_or_default();
            format!(
                "{size}, {} RAM",
                vm.memory.clone().unwrap_or_default().to_uppercase()
            )
        })
        .collect();
    let mut rows = vec![row("Source", from, "found in the folder")];
    if converted.apps.len() > 1 {
        let names: Vec<&str> = converted
            .apps
            .iter()
            .map(|a| a.draft.app.as_str())
            .collect();
        rows.push(row("Apps", &names.join(", "), "deployed in this order"));
    }
    rows.push(row(
        "App Machines",
        &sizes.join("; "),
        "change it with --vm-size and --vm-memory",
    ));
    let groups: Vec<&str> = app.draft.processes.keys().map(String::as_str).collect();
    if !groups.is_empty() {
        rows.push(row(
            "Processes",
            &groups.join(", "),
            "one group of Machines each",
        ));
    }
    if let Some(service) = &app.draft.http_service {
        let port = service.internal_port.to_string();
        rows.push(row("Port", &port, "requests reach the app there"));
    }
    rows
}

fn row(label: &str, value: &str, source: &str) -> [String; 3] {
    [label.to_owned(), value.to_owned(), source.to_owned()]
}

fn show(launch: &Launch) {
    output::say("We're about to launch your app. Here's what you're getting:\n");
    let width = |column: usize| {
        let cells = launch.rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    };
    let (labels, values) = (width(0) + 1, width(1));
    for [label, value, source] in &launch.rows {
        let label = format!("{label}:");
        output::say(&format!("{label:<labels$} {value:<values$} ({source})"));
    }
    if let Some(converted) = &launch.files {
        say_notes(converted);
    }
    output::say("");
}

async fn carry_out(context: &Context, args: LaunchArgs, launch: Launch) -> Result<Exit> {
    let Some(converted) = launch.files else {
        let file = launch.file.context("a file is used")?;
        create(context, &launch.name, args.org.as_deref()).await?;
        if args.no_deploy {
            ready(&file, &launch.by_name);
            return Ok(Exit::Done);
        }
        let input = DeployInput {
            app: Some(launch.name),
            image: args.image,
            ha: Some(args.ha),
            folder: args.path,
            primary_region: args.region,
            env: args.env,
            vm: args.vm,
            ..DeployInput::of_file(file)
        };
        return deploy(context, &input).await;
    };
    let paths = write(&converted, &args.path, launch.overwrite)?;
    let mut exit = Exit::Done;
    for (app, path) in converted.apps.iter().zip(paths) {
        let name = AppName::new(app.draft.app.as_str()).context("name the app")?;
        create(context, &name, args.org.as_deref()).await?;
        if args.no_deploy {
            for secret in &app.secrets {
                output::say(&format!(
                    "Set before the first deploy: hangar secrets set {secret}=... --stage -a {name}"
                ));
            }
            ready(&path, "");
            continue;
        }
        let main = name == launch.name;
        let input = DeployInput {
            app: Some(name.clone()),
            image: args.image.clone().filter(|_| main),
            ha: Some(args.ha),
            ..DeployInput::of_file(path)
        };
        exit = deploy(context, &input).await?;
        if let Some(counts) = app.scale_arguments() {
            output::say(&format!(
                "Scale it as it was: hangar scale count {counts} -a {name}"
            ));
        }
    }
    Ok(exit)
}

async fn create(context: &Context, name: &AppName, org: Option<&str>) -> Result<()> {
    context.client.create_app(name, org, None).await?;
    let app = context.client.app(name).await?;
    output::say(&format!(
        "Created app '{}' in organization '{}'",
        app.name, app.organization.slug
    ));
    output::say(&format!("Hostname: {}", app.hostname));
    Ok(())
}

fn ready(file: &Path, by_name: &str) {
    output::say(&format!(
        "Your app is ready! Deploy it with `hangar deploy -c {}{by_name}`",
        file.display()
    ));
}

async fn deploy(context: &Context, input: &DeployInput) -> Result<Exit> {
    let prepared = deploy::prepare(context, input).await?;
    let deployment = follow::begin(context, &prepared.app, &prepared.body).await?;
    let exit = follow::to_the_end(context, deployment, false).await?;
    if let Some(url) = context.client.app(&prepared.app).await?.app_url {
        output::say(&format!("\nVisit your newly deployed app at {url}"));
    }
    Ok(exit)
}

/// Returns the app's name and where it comes from: one that nobody has yet.
async fn name(
    context: &Context,
    args: &LaunchArgs,
    in_file: Option<AppName>,
) -> Result<(AppName, &'static str)> {
    if args.generate_name {
        return free_name(context, None).await;
    }
    let from_file = in_file.is_some();
    let (name, source) = match (&args.name, in_file) {
        (Some(name), _) => (name.clone(), "specified on the command line"),
        (None, Some(name)) => (name, "from your fly.toml"),
        (None, None) => {
            let name = AppName::new(folder_name(&args.path)?).context("name the app")?;
            (name, "derived from your directory name")
        }
    };
    if !is_taken(context, &name).await? {
        return Ok((name, source));
    }
    if args.name.is_some() {
        return Err(Exit::Usage.with(format!(
            "app name {name} is already taken: specify a different app name with --name"
        )));
    }
    output::say(&format!(
        "App '{name}' already exists. You can deploy to it using `hangar deploy`."
    ));
    if from_file {
        return Err(Exit::Usage.with(
            "nothing was made: to launch another app of this fly.toml, say --name or --generate-name",
        ));
    }
    free_name(context, Some(name.as_str())).await
}

async fn free_name(context: &Context, prefix: Option<&str>) -> Result<(AppName, &'static str)> {
    let env = Env::real();
    for _ in 0..TRIES {
        let name =
            AppName::new(names::generate(prefix, env.random_u64())).context("make a name")?;
        if !is_taken(context, &name).await? {
            return Ok((name, "generated"));
        }
    }
    Err(Exit::Failed.with("unable to determine app name: specify it with --name"))
}

async fn is_taken(context: &Context, name: &AppName) -> Result<bool> {
    match context.client.app(name).await {
        Ok(_) => Ok(true),
        Err(error) if error.status() == Some(404) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Returns the region that is wanted, or the first one.
fn region<'a>(regions: &'a [RegionInfo], wanted: Option<&str>) -> Result<&'a RegionInfo> {
    let found = match wanted {
        Some(code) => regions.iter().find(|region| region.code.as_str() == code),
        None => regions.first(),
    };
    found.ok_or_else(|| {
        let codes: Vec<&str> = regions.iter().map(|region| region.code.as_str()).collect();
        Exit::Usage.with(format!(
            "region {} not found: there are {}",
            wanted.unwrap_or("to put Machines in"),
            codes.join(", ")
        ))
    })
}

fn absolute(dir: &Path) -> String {
    let whole = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    whole.display().to_string()
}
