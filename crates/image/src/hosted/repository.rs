//! One repository: what its tags mean, which manifests and blobs may be read through it. Pure.
//!
//! Blobs are kept once for all repositories; a repository only says which of them are its own. So
//! nobody reads another app's layer by knowing its digest.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use hangar_api::Timestamp;
use hangar_api::id::AppName;
use serde::{Deserialize, Serialize};

use crate::digest::Digest;

use super::HostedError;

/// Characters of a repository's name. Clients limit host and name together to 255.
const MAX_NAME: usize = 200;
/// Characters of a tag, by the specification.
const MAX_TAG: usize = 128;
/// Most manifests of a repository. It is written as a whole at every change.
const MAX_MANIFESTS: usize = 5000;
/// Most tags of a repository.
const MAX_TAGS: usize = 10_000;
const VERSION: u32 = 1;

/// The name of a repository: `APP`, or `APP/` and more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepositoryName {
    text: String,
    app: AppName,
}

/// A manifest as it is asked for: by digest or by tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// `sha256:...`.
    Digest(Digest),
    /// A tag.
    Tag(String),
}

/// The content of one repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Repository {
    version: u32,
    tags: BTreeMap<String, Digest>,
    manifests: BTreeMap<Digest, Entry>,
    /// Blobs, and when they last came.
    blobs: BTreeMap<Digest, Timestamp>,
}

/// A manifest of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) media_type: String,
    pub(crate) size: u64,
    /// When it last came.
    pub(crate) at: Timestamp,
    /// The config and layers it names.
    #[serde(default)]
    pub(crate) blobs: Vec<Digest>,
    /// The manifests that an index names.
    #[serde(default)]
    pub(crate) children: Vec<Digest>,
    /// The manifest that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) subject: Option<Digest>,
}

// === impl RepositoryName ===

impl RepositoryName {
    /// Returns the app that the repository belongs to: the first part of its name.
    #[must_use]
    pub fn app(&self) -> &AppName {
        &self.app
    }

    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the name as one file name: `+` is in no name.
    pub(super) fn file(&self) -> String {
        format!("{}.json", self.text.replace('/', "+"))
    }

    pub(super) fn of_file(file: &str) -> Option<Self> {
        file.strip_suffix(".json")?.replace('+', "/").parse().ok()
    }
}

impl FromStr for RepositoryName {
    type Err = HostedError;

    fn from_str(text: &str) -> Result<Self, HostedError> {
        let bad = || HostedError::NameInvalid(text.chars().take(MAX_NAME).collect());
        if text.len() > MAX_NAME || !text.split('/').all(is_part) {
            return Err(bad());
        }
        let first = text.split('/').next().unwrap_or_default();
        Ok(Self {
            app: AppName::new(first).map_err(|_| bad())?,
            text: text.to_owned(),
        })
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Returns whether a part of a name is as the specification has it: lower-case letters and digits,
/// with `.`, `_`, `__` or dashes between them.
fn is_part(part: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    if !ends.iter().all(|end| end.is_some_and(|b| inner(*b))) {
        return false;
    }
    part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|between| {
            matches!(between, "" | "." | "_" | "__") || between.bytes().all(|b| b == b'-')
        })
}

// === impl Reference ===

impl FromStr for Reference {
    type Err = HostedError;

    fn from_str(text: &str) -> Result<Self, HostedError> {
        if text.contains(':') {
            let digest = text.parse();
            return digest
                .map(Self::Digest)
                .map_err(|_| HostedError::DigestInvalid(format!("{text:?} is no sha256 digest")));
        }
        let first = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let rest = |b: u8| first(b) || b == b'.' || b == b'-';
        let bytes = text.as_bytes();
        if bytes.len() <= MAX_TAG
            && bytes.first().is_some_and(|b| first(*b))
            && bytes.iter().all(|b| rest(*b))
        {
            return Ok(Self::Tag(text.to_owned()));
        }
        Err(HostedError::ManifestInvalid(format!(
            "{text:?} is neither a tag nor a digest"
        )))
    }
}

// === impl Repository ===

impl Default for Repository {
    fn default() -> Self {
        Self {
            version: VERSION,
            tags: BTreeMap::new(),
            manifests: BTreeMap::new(),
            blobs: BTreeMap::new(),
        }
    }
}

impl Repository {
    /// Returns whether a newer Hangar wrote this.
    pub(super) fn is_newer(&self) -> bool {
        self.version > VERSION
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tags.is_empty() && self.manifests.is_empty() && self.blobs.is_empty()
    }

    /// Returns whether the file of a digest is needed here.
    pub(super) fn holds(&self, digest: &Digest) -> bool {
        self.blobs.contains_key(digest) || self.manifests.contains_key(digest)
    }

    pub(super) fn has_blob(&self, digest: &Digest) -> bool {
        self.blobs.contains_key(digest)
    }

    /// Makes a blob this repository's own.
    pub(super) fn link(&mut self, digest: &Digest, at: Timestamp) {
        self.blobs.insert(digest.clone(), at);
    }

    /// Lets go of a blob; returns whether it was there.
    pub(super) fn unlink(&mut self, digest: &Digest) -> bool {
        self.blobs.remove(digest).is_some()
    }

    /// Returns what a manifest names and the repository does not have. What it is about need not
    /// be there.
    pub(super) fn missing(&self, entry: &Entry) -> Vec<Digest> {
        let blobs = entry.blobs.iter().filter(|d| !self.blobs.contains_key(d));
        let children = entry.children.iter();
        let children = children.filter(|d| !self.manifests.contains_key(d));
        blobs.chain(children).cloned().collect()
    }

    /// Adds a manifest, or one that is there again, with tags.
    pub(super) fn put(
        &mut self,
        digest: &Digest,
        entry: Entry,
        tags: &[String],
    ) -> Result<(), HostedError> {
        let is_new = !self.manifests.contains_key(digest);
        if is_new && self.manifests.len() >= MAX_MANIFESTS {
            return Err(HostedError::TooMany(format!(
                "the repository holds {MAX_MANIFESTS} manifests, the most it may; delete some first"
            )));
        }
        let more = tags.iter().filter(|tag| !self.tags.contains_key(*tag));
        if self.tags.len() + more.count() > MAX_TAGS {
            return Err(HostedError::TooMany(format!(
                "the repository has {MAX_TAGS} tags, the most it may; delete some first"
            )));
        }
        self.manifests.insert(digest.clone(), entry);
        for tag in tags {
            self.tags.insert(tag.clone(), digest.clone());
        }
        Ok(())
    }

    /// Returns the manifest that a reference means.
    pub(super) fn manifest(&self, wanted: &Reference) -> Option<(Digest, &Entry)> {
        let digest = match wanted {
            Reference::Digest(digest) => digest,
            Reference::Tag(tag) => self.tags.get(tag)?,
        };
        Some((digest.clone(), self.manifests.get(digest)?))
    }

    /// Removes a tag, or a manifest with all its tags; returns whether it was there.
    pub(super) fn remove(&mut self, wanted: &Reference) -> bool {
        match wanted {
            Reference::Tag(tag) => self.tags.remove(tag).is_some(),
            Reference::Digest(digest) => {
                self.tags.retain(|_, of| of != digest);
                self.manifests.remove(digest).is_some()
            }
        }
    }

    /// Returns all tags with what they mean.
    pub(super) fn tags(&self) -> impl Iterator<Item = (&String, &Digest)> {
        self.tags.iter()
    }

    /// Returns the manifests that are about this one, in order of their digests.
    pub(super) fn referrers(&self, subject: &Digest) -> Vec<(Digest, Entry)> {
        let about = self.manifests.iter();
        let about = about.filter(|(_, entry)| entry.subject.as_ref() == Some(subject));
        about.map(|(d, e)| (d.clone(), e.clone())).collect()
    }

    /// Lets go of what no tag and nobody in `keep` needs and what came before a time: half pushes,
    /// and what is left of deleted tags. Returns whether anything went. What is `in_hand` was asked
    /// about a moment ago and stays.
    pub(super) fn expire(
        &mut self,
        keep: &BTreeSet<Digest>,
        before: Timestamp,
        in_hand: impl Fn(&Digest) -> bool,
    ) -> bool {
        let had = (self.manifests.len(), self.blobs.len());
        let live = self.live(keep, before);
        self.manifests.retain(|digest, _| live.contains(digest));
        let manifests = &self.manifests;
        let named: BTreeSet<&Digest> = manifests.values().flat_map(|e| &e.blobs).collect();
        self.blobs
            .retain(|digest, at| *at >= before || named.contains(digest) || in_hand(digest));
        self.tags.retain(|_, digest| manifests.contains_key(digest));
        had != (self.manifests.len(), self.blobs.len())
    }

    /// Returns the manifests that stay: tagged, needed or new ones, what they name, and what is
    /// about them.
    fn live(&self, keep: &BTreeSet<Digest>, before: Timestamp) -> BTreeSet<Digest> {
        let mut about: BTreeMap<&Digest, Vec<&Digest>> = BTreeMap::new();
        for (digest, entry) in &self.manifests {
            if let Some(subject) = &entry.subject {
                about.entry(subject).or_default().push(digest);
            }
        }
        let new = self.manifests.iter();
        let new = new.filter(|(d, entry)| entry.at >= before || keep.contains(d));
        let mut queue: Vec<&Digest> = self.tags.values().chain(new.map(|(d, _)| d)).collect();
        let mut live = BTreeSet::new();
        while let Some(digest) = queue.pop() {
            let Some(entry) = self.manifests.get(digest) else {
                continue;
            };
            if live.insert(digest.clone()) {
                queue.extend(&entry.children);
                queue.extend(about.get(digest).into_iter().flatten());
            }
        }
        live
    }
}

/// One page of a sorted list: what comes after `last`, at most `n`, and whether there is more.
#[must_use]
pub fn page(
    all: impl Iterator<Item = String>,
    last: Option<&str>,
    n: Option<usize>,
) -> (Vec<String>, bool) {
    let mut rest = all.filter(|item| last.is_none_or(|last| item.as_str() > last));
    let found: Vec<String> = match n {
        Some(n) => rest.by_ref().take(n).collect(),
        None => rest.by_ref().collect(),
    };
    let more = !found.is_empty() && rest.next().is_some();
    (found, more)
}

#[cfg(test)]
#[path = "repository/tests.rs"]
mod tests;
