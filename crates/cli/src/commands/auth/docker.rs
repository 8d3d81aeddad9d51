//! `hangar auth docker`: the token becomes docker's password for the server's registry.
//!
//! Written into docker's configuration, as `docker login` does where no helper keeps passwords.
//! Podman, buildah and skopeo read the same file.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value, json};

use crate::context::{Choice, variable};
use crate::error::Exit;
use crate::output;

/// The user of every login: the token says who it is.
const USER: &str = "x";

pub(super) fn run(choice: &Choice) -> Result<Exit> {
    let registry = registry(&choice.url)?;
    let token = &choice.token;
    if token.is_empty() {
        return Err(Exit::NotAllowed.with("there is no token here: log in with hangar auth login"));
    }
    let path = path()?;
    let before = match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).map_err(|error| {
            Exit::Failed.with(format!("{} is damaged: {error}", path.display()))
        })?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => json!({}),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    let after = with_login(before, &registry, token)
        .ok_or_else(|| Exit::Failed.with(format!("{} is no JSON object", path.display())))?;
    write(&path, &after)?;
    output::say(&format!(
        "{} can push to and pull from {registry} now: {registry}/APP:TAG",
        path.display()
    ));
    Ok(Exit::Done)
}

/// Returns host and port of the registry: the API's own listener serves it.
fn registry(url: &str) -> Result<String> {
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"));
    let host = rest.map(|rest| rest.trim_end_matches('/'));
    host.map(str::to_owned).ok_or_else(|| {
        Exit::Usage.with(format!(
            "docker cannot reach {url}: forward a port (ssh -L 4280:127.0.0.1:4280 HOST), then HANGAR_API_URL=http://127.0.0.1:4280 hangar auth docker -t TOKEN"
        ))
    })
}

fn path() -> Result<PathBuf> {
    let folder = match variable("DOCKER_CONFIG") {
        Some(folder) => PathBuf::from(folder),
        None => {
            let home = variable("HOME");
            let home = home.ok_or_else(|| Exit::Usage.with("HOME is not set"))?;
            PathBuf::from(home).join(".docker")
        }
    };
    Ok(folder.join("config.json"))
}

/// Adds a login to docker's configuration; `None` when that is no object. Helpers that keep the
/// passwords of all registries are told that this one has none, else docker would not look here.
fn with_login(mut config: Value, registry: &str, token: &str) -> Option<Value> {
    let object = config.as_object_mut()?;
    let auths = object.entry("auths").or_insert_with(|| json!({}));
    let login = BASE64.encode(format!("{USER}:{token}"));
    auths
        .as_object_mut()?
        .insert(registry.to_owned(), json!({"auth": login}));
    if object.contains_key("credsStore") {
        let helpers = object.entry("credHelpers");
        let helpers = helpers.or_insert_with(|| Value::Object(Map::new()));
        helpers
            .as_object_mut()?
            .insert(registry.to_owned(), json!(""));
    }
    Some(config)
}

fn write(path: &Path, config: &Value) -> Result<()> {
    let failed = || format!("write {}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    let text = serde_json::to_vec_pretty(config).with_context(failed)?;
    let temporary = path.with_extension("hangar-new");
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .with_context(failed)?;
    file.write_all(&text).with_context(failed)?;
    fs::rename(&temporary, path).with_context(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_added_and_everything_else_stays() {
        let before = json!({"auths": {"other": {"auth": "y"}}, "psFormat": "z"});
        let after = with_login(before, "127.0.0.1:4280", "fm2_t").unwrap();
        assert_eq!(after["auths"]["other"]["auth"], "y");
        assert_eq!(after["psFormat"], "z");
        let encoded = after["auths"]["127.0.0.1:4280"]["auth"].as_str().unwrap();
        assert_eq!(BASE64.decode(encoded).unwrap(), b"x:fm2_t");
        assert!(after.get("credHelpers").is_none());
        let kept = json!({"credsStore": "desktop"});
        let after = with_login(kept, "h:1", "t").unwrap();
        assert_eq!(after["credHelpers"]["h:1"], "");
        assert_eq!(with_login(json!([]), "h", "t"), None);
    }
}
