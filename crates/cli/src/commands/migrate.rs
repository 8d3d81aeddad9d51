//! `hangar migrate`: reads other platforms' files, and writes what [`crate::migrate`] makes of them.

mod fly;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use hangar_api::formation::FormationUpdate;
use hangar_api::region::REGIONS;

use crate::args::migrate::{MigrateArgs, MigrateCommand};
use crate::error::Exit;
use crate::migrate::{Converted, ConvertedApp, Unreadable, app_name, compose, nomad, procfile};
use crate::output;

/// Largest file that is read.
const MAX_BYTES: u64 = 16 << 20;
/// Compose files, in the order they are looked for.
pub(super) const COMPOSE: [&str; 4] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yaml",
    "docker-compose.yml",
];

pub(super) async fn run(command: MigrateCommand) -> Result<Exit> {
    match command {
        MigrateCommand::Procfile { dir, out } => from_procfile(&dir, &out),
        MigrateCommand::Fly(args) => fly::run(args).await,
        MigrateCommand::Nomad { file, out } => from_nomad(&file, &out),
        MigrateCommand::Compose { file, out } => {
            let file = if file.is_dir() {
                let found = find(&file, &COMPOSE)?;
                found.map(|(_, path)| path).ok_or_else(|| {
                    Exit::Usage.with(format!("there is no Compose file in {}", file.display()))
                })?
            } else {
                file
            };
            let name = out.name.as_ref().map(ToString::to_string);
            let converted = from_compose(&file, name.as_deref())?;
            deliver(converted, &out, parent(&file), "hangar migrate compose")
        }
    }
}

fn from_procfile(dir: &Path, args: &MigrateArgs) -> Result<Exit> {
    let text = read(&dir.join("Procfile"))?;
    let app_json = read_if_there(&dir.join("app.json"))?;
    let (dockerfile, _) = find(dir, &["Dockerfile", "Containerfile"])?.unzip();
    let exposed = match &dockerfile {
        Some(name) => crate::migrate::dockerfile::read(&read(&dir.join(name))?)
            .exposed
            .first()
            .copied(),
        None => None,
    };
    let source = procfile::Source {
        procfile: &text,
        app_json: app_json.as_deref(),
        name: &folder_name(dir)?,
        exposed,
        builds: dockerfile.is_some() || dir.join("Cargo.toml").is_file(),
    };
    let converted = procfile::convert(&source).map_err(|error| refused(dir, &error))?;
    deliver(converted, args, dir, "hangar migrate procfile")
}

/// Makes apps of a Nomad job. Datacenters that are called like a region are taken for it.
fn from_nomad(file: &Path, out: &MigrateArgs) -> Result<Exit> {
    let regions: Vec<&str> = REGIONS.iter().map(|(code, _)| *code).collect();
    let converted = nomad::convert(&read(file)?, &regions).map_err(|e| refused(file, &e))?;
    deliver(converted, out, parent(file), "hangar migrate nomad")
}

/// Makes apps of a Compose file and of the files that it names.
pub(super) fn from_compose(file: &Path, name: Option<&str>) -> Result<Converted> {
    let text = read(file)?;
    let dir = parent(file);
    let about = |error: Unreadable| refused(file, &error);
    let mut files = BTreeMap::new();
    for path in compose::env_files(&text).map_err(about)? {
        if let Some(content) = read_if_there(&dir.join(&path))? {
            files.insert(path, content);
        }
    }
    let dotenv = read_if_there(&dir.join(".env"))?.unwrap_or_default();
    let (pairs, _) = compose::env_file(&dotenv);
    let variables: BTreeMap<String, String> = pairs.into_iter().collect();
    let source = compose::Source {
        name: &folder_name(dir)?,
        rename: name,
        text: &text,
        variables: &variables,
        files: &files,
    };
    compose::convert(&source).map_err(about)
}

/// Returns the folder that a file is in.
fn parent(file: &Path) -> &Path {
    let parent = file.parent().filter(|p| !p.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

/// Writes what came out, or prints it, and says what is left to do.
fn deliver(mut converted: Converted, args: &MigrateArgs, dir: &Path, by: &str) -> Result<Exit> {
    if let (Some(name), Some(app)) = (&args.name, converted.apps.last_mut()) {
        name.as_str().clone_into(&mut app.draft.app);
    }
    if let Some(region) = &args.region {
        for app in &mut converted.apps {
            app.draft.primary_region = Some(region.to_string());
        }
    }
    converted.sign(by);
    if args.print {
        for (app, name) in converted.apps.iter().zip(converted.file_names()) {
            if converted.apps.len() > 1 {
                output::data(&format!("# ---- {name}"))?;
            }
            output::data(app.draft.render().trim_end())?;
        }
        for (app, name) in converted.apps.iter().zip(converted.formation_names()) {
            if let (Some(formation), Some(name)) = (app.formation(), name) {
                output::say(&format!("{name}:\n{}", json_text(&formation)?.trim_end()));
            }
        }
        say_notes(&converted);
        return Ok(Exit::Done);
    }
    let folder = args.output.as_deref().unwrap_or(dir);
    let paths = write(&converted, folder, args.overwrite)?;
    say_problems(&converted, &paths);
    say_notes(&converted);
    output::say("\nNext:");
    let formations = converted.formation_names();
    for ((app, path), formation) in converted.apps.iter().zip(&paths).zip(formations) {
        let formation = formation.map(|name| folder.join(name));
        for line in next(app, path, formation.as_deref()) {
            output::say(&format!("  {line}"));
        }
    }
    Ok(Exit::Done)
}

/// Returns the commands that bring an app up as it was; `formation` is the file with its counts.
fn next(app: &ConvertedApp, path: &Path, formation: Option<&Path>) -> Vec<String> {
    let name = &app.draft.app;
    let mut lines = Vec::new();
    if !app.secrets.is_empty() || formation.is_some() {
        lines.push(format!("hangar apps create {name}"));
    }
    if let Some(file) = formation {
        lines.push(format!(
            "hangar formation set {} -a {name} --yes",
            file.display()
        ));
    }
    if !app.secrets.is_empty() {
        let pairs: Vec<String> = app.secrets.iter().map(|s| format!("{s}=...")).collect();
        lines.push(format!(
            "hangar secrets set {} --stage -a {name}",
            pairs.join(" ")
        ));
    }
    // Counts that are known are made after it; pairs for availability would be in their way.
    let ha = if app.counts.is_empty() {
        ""
    } else {
        " --ha=false"
    };
    let (folder, file) = (parent(path), path.file_name().unwrap_or_default());
    let named = match file.to_string_lossy().as_ref() {
        "fly.toml" => String::new(),
        other => format!(" -c {other}"),
    };
    lines.push(format!("hangar deploy {}{named}{ha}", folder.display()));
    if let Some(counts) = app.scale_arguments() {
        lines.push(format!("hangar scale count {counts} -a {name} --yes"));
    }
    lines.extend(app.schedules.iter().map(|(group, schedule)| {
        format!("hangar machine update -g {group} --schedule {schedule} -a {name} --yes")
    }));
    lines
}

/// Writes the files of a conversion: all of them or none, and none that is there already unless
/// that was asked for.
pub(super) fn write(converted: &Converted, folder: &Path, overwrite: bool) -> Result<Vec<PathBuf>> {
    let paths: Vec<PathBuf> = converted
        .file_names()
        .iter()
        .map(|name| folder.join(name))
        .collect();
    let formations = converted.formation_names();
    let formations: Vec<Option<PathBuf>> = formations
        .into_iter()
        .map(|name| name.map(|name| folder.join(name)))
        .collect();
    let mut all = paths.iter().chain(formations.iter().flatten());
    if let Some(there) = all.find(|path| !overwrite && path.exists()) {
        return Err(Exit::Usage.with(format!(
            "{} is there already and is not overwritten: say --overwrite, or another folder with --output",
            there.display()
        )));
    }
    std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    for ((app, path), formation) in converted.apps.iter().zip(&paths).zip(&formations) {
        let text = app.draft.render();
        if let Some(folder) = path.parent().filter(|_| app.folder.is_some()) {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("make {}", folder.display()))?;
        }
        put(path, &text, overwrite).with_context(|| format!("write {}", path.display()))?;
        output::say(&format!("Wrote config file {}", path.display()));
        if let (Some(path), Some(formation)) = (formation, app.formation()) {
            put(path, &json_text(&formation)?, overwrite)
                .with_context(|| format!("write {}", path.display()))?;
            output::say(&format!("Wrote formation {}", path.display()));
        }
    }
    Ok(paths)
}

/// Returns a formation as the text of a file.
fn json_text(formation: &FormationUpdate) -> Result<String> {
    let text = serde_json::to_string_pretty(formation).context("write the formation as JSON")?;
    Ok(text + "\n")
}

/// Writes a file whole; one that appeared in the meantime stays.
fn put(path: &Path, text: &str, overwrite: bool) -> std::io::Result<()> {
    use std::io::Write as _;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
    let mut file = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
    file.write_all(text.as_bytes())?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(mode)?;
    file.as_file().sync_all()?;
    if overwrite {
        file.persist(path)?;
    } else {
        file.persist_noclobber(path)?;
    }
    Ok(())
}

/// Says what this Hangar does not take of the files.
fn say_problems(converted: &Converted, paths: &[PathBuf]) {
    for (app, path) in converted.apps.iter().zip(paths) {
        let loaded = hangar_config::load(&app.draft.render(), hangar_config::Format::Toml);
        for problem in &loaded.problems {
            output::say(&format!("{}: {problem}", path.display()));
        }
        if let Some(line) = loaded.not_acted_on() {
            output::say(&format!("{}: {line}", path.display()));
        }
    }
}

/// Says what was not carried over.
pub(super) fn say_notes(converted: &Converted) {
    if converted.notes.is_empty() {
        return;
    }
    output::say("\nNot carried over, or to be looked at:");
    for note in &converted.notes {
        output::say(&format!("  {note}"));
    }
}

pub(super) fn refused(at: &Path, error: &Unreadable) -> anyhow::Error {
    Exit::Usage.with(format!("{}: {error}", at.display()))
}

/// Returns the name that a folder gives an app.
pub(super) fn folder_name(dir: &Path) -> Result<String> {
    let whole = dir
        .canonicalize()
        .map_err(|error| Exit::Usage.with(format!("{}: {error}", dir.display())))?;
    let name = whole.file_name().unwrap_or_default().to_string_lossy();
    Ok(app_name(&name).unwrap_or_else(|| "app".to_owned()))
}

/// Returns the first of these files that is in the folder, with its path.
pub(super) fn find(dir: &Path, names: &[&str]) -> Result<Option<(String, PathBuf)>> {
    if !dir.is_dir() {
        return Err(Exit::Usage.with(format!("there is no folder {}", dir.display())));
    }
    let found = names
        .iter()
        .map(|name| ((*name).to_owned(), dir.join(name)));
    Ok(found.into_iter().find(|(_, path)| path.is_file()))
}

/// Reads a text file of a bounded size.
pub(super) fn read(path: &Path) -> Result<String> {
    let shown = path.display();
    let about = |error: std::io::Error| Exit::Usage.with(format!("read {shown}: {error}"));
    let size = std::fs::metadata(path).map_err(about)?.len();
    if size > MAX_BYTES {
        return Err(Exit::Usage.with(format!(
            "{shown} is larger than {} MiB: this is no file that is written by hand",
            MAX_BYTES >> 20
        )));
    }
    let bytes = std::fs::read(path).map_err(about)?;
    String::from_utf8(bytes).map_err(|_| Exit::Usage.with(format!("{shown}: not UTF-8 text")))
}

/// Reads a text file where there is one.
pub(super) fn read_if_there(path: &Path) -> Result<Option<String>> {
    if path.is_file() {
        read(path).map(Some)
    } else {
        Ok(None)
    }
}
