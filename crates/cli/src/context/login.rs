//! What `hangar auth login` remembers: a server, a token, and the certificate that was agreed to.
//! One file that only its owner can read.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use hangar_api::fingerprint::Fingerprint;
use serde::{Deserialize, Serialize};

use super::variable;
use crate::error::Exit;

/// The file in the folder.
const FILE: &str = "config.json";

/// A login that is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Login {
    /// The server.
    pub(crate) url: String,
    /// The token; empty for a server that hands over its own by ssh.
    #[serde(default)]
    pub(crate) token: String,
    /// The certificate that was agreed to, where no authority vouches for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fingerprint: Option<Fingerprint>,
}

// === impl Login ===

impl Login {
    /// Returns the login that is remembered.
    pub(crate) fn read() -> Result<Option<Self>> {
        let Some(path) = path() else { return Ok(None) };
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("read {}", path.display()));
            }
        };
        serde_json::from_slice(&text).map(Some).map_err(|error| {
            Exit::Usage.with(format!(
                "{} is damaged ({error}): log in again with hangar auth login, or remove it",
                path.display()
            ))
        })
    }

    /// Remembers it, readable by this user alone.
    pub(crate) fn write(&self) -> Result<()> {
        let path = path().ok_or_else(|| {
            Exit::Usage
                .with("there is no home folder to remember the login in: set HANGAR_CONFIG_DIR")
        })?;
        let failed = || format!("write {}", path.display());
        if let Some(folder) = path.parent() {
            let mut maker = fs::DirBuilder::new();
            let made = maker.recursive(true).mode(0o700).create(folder);
            made.with_context(|| format!("make {}", folder.display()))?;
        }
        let text = serde_json::to_vec_pretty(self).with_context(failed)?;
        let temporary = path.with_extension("new");
        let mut options = fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .with_context(failed)?;
        file.write_all(&text).with_context(failed)?;
        fs::rename(&temporary, &path).with_context(failed)
    }

    /// Forgets it; returns whether there was one.
    pub(crate) fn forget() -> Result<bool> {
        let Some(path) = path() else { return Ok(false) };
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).with_context(|| format!("remove {}", path.display())),
        }
    }
}

fn path() -> Option<PathBuf> {
    let folder = match variable("HANGAR_CONFIG_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(variable("HOME")?).join(".hangar"),
    };
    Some(folder.join(FILE))
}
