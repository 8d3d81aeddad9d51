//! Where the server is, who we are, and which app is meant.

mod login;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context as _, Result};
use hangar_api::fingerprint::Fingerprint;
use hangar_api::id::AppName;
use hangar_client::Client;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

pub(crate) use self::login::Login;
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
    /// The API's certificate, when it speaks TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fingerprint: Option<Fingerprint>,
}

/// A server, and as whom it is asked.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Its URL.
    pub(crate) url: String,
    /// The token; empty when there is none.
    pub(crate) token: String,
    /// The only certificate that is taken, where it is not an authority's to say.
    pub(crate) fingerprint: Option<Fingerprint>,
}

/// The token of the command line.
static GIVEN: OnceLock<String> = OnceLock::new();

/// What every command that talks to the server needs.
#[derive(Debug)]
pub(crate) struct Context {
    /// The API.
    pub(crate) client: Client,
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
    /// Finds the server and the token, see [`choose`].
    pub(crate) fn find() -> Result<Self> {
        let client = choose()?.client()?;
        Ok(Self { client })
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

/// Takes the token of the command line, before anything asks for one.
pub(crate) fn take_token(given: Option<String>) {
    if let Some(token) = given {
        // The command line is read once.
        let _taken = GIVEN.set(token);
    }
}

/// Returns the server and the token: this is the one place that knows where they come from.
///
/// The server is that of `HANGAR_API_URL`, else of `HANGAR_DATA_DIR`, else of `auth login`, else of
/// this machine. The token is that of the command line, of `HANGAR_ACCESS_TOKEN` or `HANGAR_TOKEN`;
/// else the one that is remembered or kept for this very server; and for a server that
/// `HANGAR_API_URL` names, at last `FLY_ACCESS_TOKEN` or `FLY_API_TOKEN`: elsewhere those are Fly's
/// own business.
pub(crate) fn choose() -> Result<Choice> {
    let named = variable("HANGAR_API_URL");
    let local = local_server();
    let login = Login::read()?;
    let here = variable("HANGAR_DATA_DIR").and(local.as_ref());
    let url = named
        .clone()
        .or_else(|| here.map(|local| local.url.clone()))
        .or_else(|| login.as_ref().map(|login| login.url.clone()))
        .or_else(|| local.as_ref().map(|local| local.url.clone()))
        .unwrap_or_else(|| DEFAULT_URL.to_owned());
    let login = login.filter(|login| plain(&login.url) == plain(&url));
    let is_local = |local: &&ServerFile| plain(&local.url) == plain(&url);
    let ours = local.as_ref().filter(is_local);
    let fingerprint = match variable("HANGAR_API_FINGERPRINT") {
        Some(text) => Some(
            text.parse::<Fingerprint>()
                .map_err(|error| Exit::Usage.with(format!("HANGAR_API_FINGERPRINT: {error}")))?,
        ),
        // What this machine's server says of itself is newer than what was agreed to.
        None => ours
            .and_then(|ours| ours.fingerprint)
            .or_else(|| login.as_ref().and_then(|login| login.fingerprint)),
    };
    let for_others = || {
        let of_fly = variable("FLY_ACCESS_TOKEN").or_else(|| variable("FLY_API_TOKEN"));
        of_fly.filter(|_| named.is_some()).map(|token| bare(&token))
    };
    let token = match (given_token(), login, ours) {
        (Some(token), _, _) => token,
        (None, Some(login), _) => login.token,
        (None, None, Some(ours)) => read_token(&ours.token_file)?,
        // The user over there has one.
        (None, None, None) if url.starts_with("ssh://") => String::new(),
        (None, None, None) => match (for_others(), &local) {
            (Some(token), _) => token,
            (None, None) => String::new(),
            // This machine's token is no other server's business.
            (None, Some(_)) => {
                return Err(Exit::NotAllowed.with(format!(
                    "HANGAR_API_URL names {url}, which is not the server of this machine: set HANGAR_ACCESS_TOKEN to a token of that one, or log in with hangar auth login {url}"
                )));
            }
        },
    };
    Ok(Choice {
        url,
        token,
        fingerprint,
    })
}

/// Returns the token that command line or environment give.
pub(crate) fn given_token() -> Option<String> {
    let flag = GIVEN.get().cloned().filter(|token| !token.is_empty());
    let token = flag
        .or_else(|| variable("HANGAR_ACCESS_TOKEN"))
        .or_else(|| variable("HANGAR_TOKEN"));
    token.map(|token| bare(&token))
}

/// Returns a token, or a list of them, without the scheme of a header that it may come from.
pub(crate) fn bare(token: &str) -> String {
    let token = token.trim();
    match token.split_once(' ') {
        Some((scheme, rest))
            if scheme.eq_ignore_ascii_case("flyv1") || scheme.eq_ignore_ascii_case("bearer") =>
        {
            rest.trim().to_owned()
        }
        _ => token.to_owned(),
    }
}

// === impl Choice ===

impl Choice {
    /// Returns the client that it means.
    pub(crate) fn client(&self) -> Result<Client> {
        let client = Client::new(&self.url, &self.token);
        let client = client.map_err(|error| Exit::Usage.with(error.to_string()))?;
        Ok(match self.fingerprint {
            Some(fingerprint) => client.pinned(fingerprint),
            None => client,
        })
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

/// Returns the organization that new apps are of, where the environment names one.
pub(crate) fn org() -> Option<String> {
    variable("FLY_ORG").or_else(|| variable("FLY_ORGANIZATION"))
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
