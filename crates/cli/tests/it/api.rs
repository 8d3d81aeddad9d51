//! The whole API, tried from its own document by a property tester, against a real server with real
//! Machines (`tests/api/run.py`).
//!
//! It needs Python with what `tests/api/requirements.txt` names, in `target/api-venv` or where
//! `HANGAR_API_PYTHON` says. `HANGAR_LONG=1` makes 20,000 calls, `HANGAR_API_CALLS` any number;
//! `HANGAR_SEED` tries others. `HANGAR_API_DOCUMENT` names a file with another document of the same
//! paths, such as Fly's; what it leaves out or has wrong is listed in
//! `docs/reference/fly-openapi.md`.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::world::{API, IMAGE, World};

const SHORT: u32 = 3000;
const LONG: u32 = 20_000;

/// Returns the Python that has the tester, or nothing, and says so.
fn python() -> Option<PathBuf> {
    let given = std::env::var_os("HANGAR_API_PYTHON").map(PathBuf::from);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let python = given.unwrap_or_else(|| root.join("target/api-venv/bin/python"));
    if python.exists() {
        return Some(python);
    }
    let missing = python.display();
    eprintln!("skipped: there is no {missing}; `cargo xtask long api` makes it");
    None
}

fn number(name: &str) -> Option<u32> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn the_api_answers_as_its_document_says() {
    let Some(python) = python() else { return };
    let Some(world) = World::start() else { return };
    let toml = format!("app = \"tried\"\n[build]\nimage = \"{IMAGE}\"\n");
    let folder = world.app("tried", &toml);
    world.ok(&["deploy", &folder, "--ha=false"]);

    let long = std::env::var_os("HANGAR_LONG").is_some();
    let calls = number("HANGAR_API_CALLS").unwrap_or(if long { LONG } else { SHORT });
    let api = format!("http://{API}");
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api");
    let mut command = world.command(&python.to_string_lossy());
    command.arg(tests.join("run.py"));
    command.args(["--api", &api, "--token", &world.token()]);
    command.args(["--app", "fuzzed", "--deployed", "tried"]);
    command.args(["--calls", &calls.to_string()]);
    command.args(["--seed", &number("HANGAR_SEED").unwrap_or(1).to_string()]);
    match std::env::var_os("HANGAR_API_DOCUMENT") {
        Some(other) => {
            let known = tests.join("../../../../docs/reference/fly-openapi.md");
            command.arg("--document").arg(other);
            command.args(["--prefix", "/v1", "--known"]).arg(known);
        }
        None => {
            command.args(["--validate", "--document"]);
            command.arg(format!("{api}/v1/openapi.json"));
        }
    }
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command.stdout(Stdio::inherit()).stderr(Stdio::inherit());
    let status = command.status().unwrap();
    assert!(status.success(), "server:\n{}", world.server_log());
}
