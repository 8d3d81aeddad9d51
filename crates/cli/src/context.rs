//! Where the server is, who we are, and which app is meant.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use hangar_api::id::AppName;
use hangar_client::Client;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::args::AppArgs;
use crate::error::Exit;
use crate::output;

/// Where a server on this machine says how it is reached.
const RUN_FILE: &str = "/run/hangar/server.json";
/// Where state is kept unless told otherwise.
pub(crate) const DATA_DIR: &str = "/var/lib/hangar";
/// Where the API is unless told otherwise.
const DEFAULT_URL: &str = "http://127.0.0.1:4280";

/// How a server on this machine is reached: written at its start.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ServerFile {
    /// Base URL of the API.
    pub(crate) url: String,
    /// File with the admin token.
    pub(crate) token_file: PathBuf,
}

/// What every command that talks to the server needs.
#[derive(Debug)]
pub(crate) struct Context {
    /// The API.
    pub(crate) client: Client,
    /// Its base URL.
    pub(crate) url: String,
    /// The token; empty where none is known.
    pub(crate) token: String,
}

/// An app, and the fly.toml that named it.
#[derive(Debug)]
pub(crate) struct AppChoice {
    /// The app.
    pub(crate) name: AppName,
    /// The configuration file, where there is one.
    pub(crate) file: Option<PathBuf>,
}

// === impl Context ===

impl Context {
    /// Finds the server: `HANGAR_API_URL` and `HANGAR_ACCESS_TOKEN`, else the one on this machine.
    pub(crate) fn find() -> Result<Self> {
        let (url, token) = (variable("HANGAR_API_URL"), variable("HANGAR_ACCESS_TOKEN"));
        let local = local_server();
        let url = url
            .or_else(|| local.as_ref().map(|l| l.url.clone()))
            .unwrap_or_else(|| DEFAULT_URL.to_owned());
        let token = match (token, local) {
            (Some(token), _) => token,
            (None, Some(local)) if plain(&local.url) == plain(&url) => {
                read_token(&local.token_file)?
            }
            // This machine's token is no other server's business.
            (None, Some(_)) => {
                return Err(Exit::NotAllowed.with(format!(
                    "HANGAR_API_URL names {url}, which is not the server of this machine: set HANGAR_ACCESS_TOKEN to a token of that one"
                )));
            }
            (None, None) => String::new(),
        };
        let client =
            Client::new(&url, &token).map_err(|error| Exit::Usage.with(error.to_string()))?;
        Ok(Self { client, url, token })
    }

    /// Returns the app that is meant: `-a`, `FLY_APP`, the fly.toml, else the only one there is.
    pub(crate) async fn app(&self, args: &AppArgs) -> Result<AppChoice> {
        if let Some(choice) = named_app(args)? {
            return Ok(choice);
        }
        let apps = self.client.apps().await?;
        match apps.apps.as_slice() {
            [only] => {
                output::say(&format!(
                    "No fly.toml here and no -a: taking {}, the only app.",
                    only.name
                ));
                Ok(AppChoice {
                    name: only.name.clone(),
                    file: None,
                })
            }
            [] => Err(Exit::NotFound.with(
                "There is no app yet. Deploy one from a folder with a fly.toml: hangar deploy",
            )),
            many => {
                let names: Vec<&str> = many.iter().map(|a| a.name.as_str()).collect();
                Err(Exit::Usage.with(format!(
                    "the config for your app is missing an app name: say which with -a (there are {})",
                    names.join(", ")
                )))
            }
        }
    }
}

/// Returns the app that flags, environment or a fly.toml name, if any does.
pub(crate) fn named_app(args: &AppArgs) -> Result<Option<AppChoice>> {
    let file = config_file(args.config.as_deref())?;
    if let Some(name) = &args.app {
        return Ok(Some(AppChoice {
            name: name.clone(),
            file,
        }));
    }
    if let Some(name) = variable("FLY_APP") {
        let name = AppName::new(name).map_err(|e| Exit::Usage.with(format!("FLY_APP: {e}")))?;
        return Ok(Some(AppChoice { name, file }));
    }
    let Some(path) = file else { return Ok(None) };
    let name = crate::commands::config::app_name(&path)?.ok_or_else(|| {
        Exit::Usage.with(format!(
            "{}: the config for your app is missing an app name: add app = \"NAME\" at the top, or say -a NAME",
            path.display()
        ))
    })?;
    let name =
        AppName::new(name).map_err(|e| Exit::Usage.with(format!("{}: {e}", path.display())))?;
    Ok(Some(AppChoice {
        name,
        file: Some(path),
    }))
}

/// Names of a configuration file, in the order they are looked for.
const FILES: [&str; 3] = ["fly.toml", "fly.json", "fly.yaml"];

/// Returns the configuration file: the one given, the one in the folder given, else here.
pub(crate) fn config_file(given: Option<&Path>) -> Result<Option<PathBuf>> {
    let Some(path) = given else {
        return Ok(FILES.map(PathBuf::from).into_iter().find(|f| f.is_file()));
    };
    if path.is_file() {
        return Ok(Some(path.to_owned()));
    }
    let mut inside = FILES.iter().map(|name| path.join(name));
    inside.find(|file| file.is_file()).map(Some).ok_or_else(|| {
        Exit::Usage.with(format!(
            "config file not found at specified path: {} (also tried: {})",
            path.display(),
            path.join(FILES[0]).display()
        ))
    })
}

/// Reads a configuration file.
pub(crate) fn read_config(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("read {}", path.display()))
}

/// Returns an environment variable that is set and not empty. The only door to the environment.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Says how a server on this machine is reached, for command lines that come later. Another one
/// that is alive stays the one that is found without being named.
pub(crate) fn announce(file: &ServerFile, data_dir: &Path) -> Result<()> {
    let text = serde_json::to_vec_pretty(file).context("write server.json")?;
    let mut places = vec![data_dir.join("server.json")];
    let run = Path::new(RUN_FILE);
    if !belongs_to_another(run, file) {
        if let Some(folder) = run.parent() {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("make {}", folder.display()))?;
        }
        places.push(run.to_owned());
    }
    for path in places {
        std::fs::write(&path, &text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// Returns whether a file was written by a server of another data directory that still holds it.
fn belongs_to_another(path: &Path, ours: &ServerFile) -> bool {
    let Some(known) = read_server_file(path) else {
        return false;
    };
    let Some(dir) = known.token_file.parent() else {
        return false;
    };
    if known.token_file == ours.token_file {
        return false;
    }
    std::fs::File::open(dir.join("lock")).is_ok_and(|lock| {
        let tried = rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared);
        tried == Err(rustix::io::Errno::WOULDBLOCK)
    })
}

/// Returns a base URL in one of the forms that mean the same.
fn plain(url: &str) -> String {
    let url = url.trim_end_matches('/').to_ascii_lowercase();
    url.replacen("://localhost", "://127.0.0.1", 1)
}

fn local_server() -> Option<ServerFile> {
    let data_dir = variable("HANGAR_DATA_DIR").map(|dir| Path::new(&dir).join("server.json"));
    let places = match data_dir {
        Some(file) => vec![file],
        None => vec![
            PathBuf::from(RUN_FILE),
            Path::new(DATA_DIR).join("server.json"),
        ],
    };
    places.iter().find_map(|path| read_server_file(path))
}

fn read_server_file(path: &Path) -> Option<ServerFile> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

fn read_token(path: &Path) -> Result<String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Err(Exit::NotAllowed.with(format!(
            "{} can only be read by the user that runs the server: run as that user, or set HANGAR_ACCESS_TOKEN",
            path.display()
        ))),
        Err(error) => Err(error).with_context(|| format!("read the token in {}", path.display())),
    }
}
