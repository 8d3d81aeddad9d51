//! Dockerfiles, built by whichever builder is found first.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::Built;
use super::builder::{ALL, Builder, SecretFile};
use crate::error::Exit;
use crate::output;

/// What is to be built, whatever builds it.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// The context.
    pub(super) dir: PathBuf,
    pub(super) dockerfile: PathBuf,
    pub(super) ignorefile: Option<PathBuf>,
    pub(super) target: Option<String>,
    pub(super) args: Vec<(String, String)>,
    /// Names and values that the build may read and that are in no layer.
    pub(super) secrets: Vec<(String, String)>,
    /// Labels of the image.
    pub(super) labels: Vec<(String, String)>,
    pub(super) no_cache: bool,
}

/// Builds a plan.
pub(super) fn build(plan: &Plan) -> Result<Built> {
    let builder = ALL.into_iter().find(|b| b.works()).ok_or_else(|| {
        Exit::Failed.with(format!(
            "{} needs a builder, and none works here (tried docker, buildah, podman, buildctl): apt-get install buildah",
            plan.dockerfile.display()
        ))
    })?;
    let program = builder.program();
    let shown = plan.dockerfile.display();
    output::say(&format!("Building {shown} with {program}"));
    let folder = tempfile::tempdir().context("make a folder for the image")?;
    let plan = beside(plan, builder, folder.path())?;
    let secrets = secret_files(&plan.secrets, folder.path())?;
    let archive = folder.path().join("image.tar");
    // A name of its own: two builds at once must not take each other's image.
    let unique = folder.path().file_name().unwrap_or_default();
    let unique = unique.to_string_lossy();
    let name = format!("hangar-build:{}", unique.trim_start_matches(['.', '-']));
    run(program, &builder.build(&plan, &secrets, &name, &archive))?;
    if !builder.writes_at_once() {
        let saved = run(program, &builder.save(&name, &archive));
        // Its layers stay in the builder's cache; the name has done its work.
        let _removed = command(program)
            .args(["rmi", &name])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        saved?;
    }
    for (_, file) in secrets {
        // The folder goes later; the values go now.
        let _gone = std::fs::remove_file(file);
    }
    Ok(Built {
        archive,
        _folder: folder,
    })
}

/// BuildKit takes only the ignore file that stands beside the Dockerfile and is called after it:
/// where another one is named, both are copied.
fn beside(plan: &Plan, builder: Builder, folder: &Path) -> Result<Plan> {
    let takes_any = matches!(builder, Builder::Buildah | Builder::Podman);
    let Some(ignorefile) = plan.ignorefile.as_ref().filter(|_| !takes_any) else {
        return Ok(plan.clone());
    };
    let dockerfile = folder.join("Dockerfile");
    let copy = |from: &Path, to: &Path| {
        std::fs::copy(from, to).with_context(|| format!("copy {}", from.display()))
    };
    copy(&plan.dockerfile, &dockerfile)?;
    copy(ignorefile, &folder.join("Dockerfile.dockerignore"))?;
    Ok(Plan {
        dockerfile,
        ..plan.clone()
    })
}

/// Writes secrets where only their owner reads them: on a command line everybody could.
fn secret_files(secrets: &[(String, String)], folder: &Path) -> Result<Vec<SecretFile>> {
    let mut files = Vec::new();
    for (i, (name, value)) in secrets.iter().enumerate() {
        let path = folder.join(format!("secret-{i}"));
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&path);
        let mut file = file.context("write a build secret")?;
        std::io::Write::write_all(&mut file, value.as_bytes()).context("write a build secret")?;
        files.push((name.clone(), path));
    }
    Ok(files)
}

fn run(program: &str, arguments: &[String]) -> Result<()> {
    let status = command(program)
        .args(arguments)
        .stdout(Stdio::from(std::io::stderr()))
        .status()
        .with_context(|| format!("run {program}"))?;
    if status.success() {
        return Ok(());
    }
    Err(Exit::Failed.with(format!(
        "{program} {} failed: its messages are above",
        arguments[0]
    )))
}

fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    command
}
