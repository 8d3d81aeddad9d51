//! The long forms of the tests: more seeds, more kills, more random fleets, more calls of the API.

use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// Runs every test of the workspace with `HANGAR_LONG=1`, which tests multiply their rounds by; or
/// of these only the ones that are named.
pub(crate) fn run(which: Option<&str>) -> Result<()> {
    let mut command = Command::new("cargo");
    command.args(["test", "--locked"]).env("HANGAR_LONG", "1");
    match which {
        None => command.args(["--workspace", "--release"]),
        Some("api") => {
            make_venv()?;
            let test = [
                "-p",
                "hangar-cli",
                "--test",
                "it",
                "--",
                "--nocapture",
                "api::",
            ];
            example()?;
            command.args(test)
        }
        Some(other) => bail!("there is no long form of {other:?} alone; say `api`, or nothing"),
    };
    let status = command
        .current_dir(crate::root())
        .status()
        .context("run cargo test")?;
    ensure!(status.success(), "the long tests failed");
    Ok(())
}

/// Builds the program that runs in the tests' Machines.
fn example() -> Result<()> {
    let mut command = Command::new("cargo");
    command.args([
        "build",
        "--locked",
        "-p",
        "hangar-cli",
        "--example",
        "testapp",
    ]);
    let status = command.current_dir(crate::root()).status();
    let status = status.context("run cargo build")?;
    ensure!(status.success(), "the test program was not built");
    Ok(())
}

/// Makes `target/api-venv` with the property tester, where it is not there yet.
pub(crate) fn make_venv() -> Result<()> {
    let root = crate::root();
    let venv = root.join("target/api-venv");
    let tell = |command: &mut Command, what: &str| {
        let status = command.status().with_context(|| what.to_owned())?;
        ensure!(status.success(), "{what}: {status}");
        Ok(())
    };
    tell(
        Command::new("python3").args(["-m", "venv"]).arg(&venv),
        "make a venv with python3 (Debian: apt-get install python3-venv)",
    )?;
    tell(
        Command::new(venv.join("bin/python"))
            .args([
                "-m",
                "pip",
                "install",
                "-q",
                "--disable-pip-version-check",
                "-r",
            ])
            .arg(root.join("crates/cli/tests/api/requirements.txt")),
        "install the property tester",
    )
}
