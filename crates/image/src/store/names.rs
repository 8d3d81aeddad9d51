//! Which names were imported and pulled, and what they mean: `names.json`.

use std::collections::BTreeMap;
use std::path::Path;

use hangar_api::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::ImageError;

const VERSION: u32 = 1;

/// The names of a store. Written as a whole after each change.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Names {
    version: u32,
    /// What people imported, by `name:tag`.
    imported: BTreeMap<String, Imported>,
    /// Every image that was ever ready and not removed since, by its digest.
    seen: BTreeMap<Digest, Seen>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Imported {
    digest: Digest,
    at: Timestamp,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Seen {
    name: String,
    at: Timestamp,
}

// === impl Names ===

impl Default for Names {
    fn default() -> Self {
        Self {
            version: VERSION,
            imported: BTreeMap::new(),
            seen: BTreeMap::new(),
        }
    }
}

impl Names {
    pub(super) fn read(path: &Path) -> Result<Self, ImageError> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(ImageError::disk("read", path, e)),
        };
        let broken = |reason: String| ImageError::broken(path.display().to_string(), reason);
        let names: Self = serde_json::from_slice(&bytes).map_err(|e| broken(e.to_string()))?;
        if names.version > VERSION {
            return Err(broken(format!(
                "a newer Hangar wrote it (version {}); run that one",
                names.version
            )));
        }
        Ok(names)
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("names are strings and times")
    }

    /// Returns the image that was imported under a key, if it has the digest that is asked for.
    pub(super) fn imported(&self, key: &str, wanted: Option<&Digest>) -> Option<Digest> {
        let found = &self.imported.get(key)?.digest;
        wanted
            .is_none_or(|wanted| wanted == found)
            .then(|| found.clone())
    }

    /// Returns whether something was imported under a key, whatever its digest.
    pub(super) fn is_imported(&self, key: &str) -> bool {
        self.imported.contains_key(key)
    }

    pub(super) fn import(&mut self, key: &str, digest: &Digest, at: Timestamp) {
        let entry = Imported {
            digest: digest.clone(),
            at,
        };
        self.imported.insert(key.to_owned(), entry);
    }

    /// Remembers that an image is ready, under the name by which it came last.
    pub(super) fn saw(&mut self, digest: &str, name: &str, at: Timestamp) {
        if let Ok(digest) = digest.parse() {
            let name = name.to_owned();
            self.seen.insert(digest, Seen { name, at });
        }
    }

    /// Returns what a pulled name last meant.
    pub(super) fn last_pulled(&self, name: &str) -> Option<Digest> {
        let of_name = self.seen.iter().filter(|(_, seen)| seen.name == name);
        of_name
            .max_by_key(|(_, seen)| seen.at)
            .map(|(digest, _)| digest.clone())
    }

    /// Returns name, digest and time of all: imported names, then images that have none.
    pub(super) fn rows(&self) -> Vec<(String, Digest, Timestamp)> {
        let imported = self
            .imported
            .iter()
            .map(|(name, e)| (name.clone(), e.digest.clone(), e.at));
        let named = |digest: &Digest| self.imported.values().any(|e| e.digest == *digest);
        let others = self.seen.iter().filter(|(digest, _)| !named(digest));
        imported
            .chain(others.map(|(digest, e)| (e.name.clone(), digest.clone(), e.at)))
            .collect()
    }

    pub(super) fn imported_digests(&self) -> Vec<Digest> {
        self.imported.values().map(|e| e.digest.clone()).collect()
    }

    /// Forgets what `keep` refuses, and returns the names that are gone, with their digests.
    pub(super) fn retain(&mut self, keep: impl Fn(&Digest) -> bool) -> Vec<(String, Digest)> {
        let gone = self
            .rows()
            .into_iter()
            .filter(|(_, digest, _)| !keep(digest));
        let gone = gone.map(|(name, digest, _)| (name, digest)).collect();
        self.imported.retain(|_, e| keep(&e.digest));
        self.seen.retain(|digest, _| keep(digest));
        gone
    }
}
