//! The registry that Hangar embeds: what clients push, and pull again.
//!
//! Called by the server for `/v2/` and by the store, which resolves names to what was pushed. Owns
//! `repositories/` and `uploads/`; blobs lie where the store's own lie, so that what was pushed is
//! unpacked from where it is. Who may do what is the server's business.
//!
//! What is promised is on disk: a blob is synced and in its place before it is linked, and linked
//! before the client hears of it. A blob's file stays while any repository links it.

mod error;
mod push;
mod pushed;
mod repository;
mod upload;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hangar_api::Timestamp;
use hangar_api::env::Env;
use hangar_api::id::AppName;
use jiff::SignedDuration;
use tokio::sync::Semaphore;

use crate::digest::Digest;
use crate::disk::Disk;
use crate::error::ImageError;
use crate::manifest::MAX_MANIFEST;
use crate::pins::{Kind, Pins};

pub use error::HostedError;
pub use repository::{Reference, RepositoryName, page};
pub use upload::Part;

use repository::Repository;
use upload::Uploads;

/// What belongs to no tag is kept so long: an upload that nobody goes on with, a blob that no
/// manifest names, a manifest without a tag.
pub(crate) const PUSH_KEEP: SignedDuration = SignedDuration::from_hours(24);
/// Bytes of one answer that lists referrers.
const MAX_REFERRERS: usize = 4 << 20;
/// Requests that change repositories at the same time.
const MAX_CHANGES: usize = 8;
/// Blobs that were asked about and are kept in mind.
const MAX_IN_HAND: usize = 100_000;

/// The embedded registry of one store.
#[derive(Debug)]
pub struct Hosted {
    disk: Arc<Disk>,
    pins: Pins,
    env: Env,
    uploads: Uploads,
    state: Mutex<State>,
    /// One change at a time: each is read, changed, written and shown.
    writing: Mutex<()>,
    /// Requests that change something, so that those that wait do not hold every thread for the
    /// disk.
    changes: Semaphore,
}

#[derive(Debug, Default)]
struct State {
    repositories: BTreeMap<RepositoryName, Repository>,
    /// Blobs that a client was told are here: it will not push them, and names them soon.
    in_hand: BTreeMap<Digest, Timestamp>,
}

/// A manifest that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundManifest {
    /// Its digest.
    pub digest: Digest,
    /// The type it was pushed as.
    pub media_type: String,
    /// Its bytes, as they came.
    pub bytes: Vec<u8>,
}

/// A blob that was found.
#[derive(Debug)]
pub struct FoundBlob {
    /// Its content, from the beginning.
    pub file: File,
    /// Its bytes.
    pub len: u64,
}

/// What became of a manifest that was pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutManifest {
    /// Its digest.
    pub digest: Digest,
    /// What it is about.
    pub subject: Option<Digest>,
}

/// One answer with referrers: an index's `manifests`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referrers {
    /// Their descriptors.
    pub manifests: Vec<serde_json::Value>,
    /// The digest to go on after, if there are more.
    pub next: Option<Digest>,
}

// === impl Hosted ===

impl Hosted {
    /// Reads all repositories and takes over uploads.
    pub(crate) fn open(disk: Arc<Disk>, pins: Pins, env: Env) -> Result<Arc<Self>, ImageError> {
        let dir = disk.repositories();
        let failed = |e| ImageError::disk("read directory", &dir, e);
        let mut repositories = BTreeMap::new();
        for entry in fs::read_dir(&dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            let Some(name) = RepositoryName::of_file(&file) else {
                continue;
            };
            let bytes = fs::read(&path).map_err(|e| ImageError::disk("read", &path, e))?;
            let broken = |reason: String| ImageError::broken(path.display().to_string(), reason);
            let found: Repository =
                serde_json::from_slice(&bytes).map_err(|e| broken(e.to_string()))?;
            if found.is_newer() {
                return Err(broken("a newer Hangar wrote it; run that one".to_owned()));
            }
            repositories.insert(name, found);
        }
        Ok(Arc::new(Self {
            uploads: Uploads::open(disk.uploads(), env.clone())?,
            state: Mutex::new(State {
                repositories,
                in_hand: BTreeMap::new(),
            }),
            writing: Mutex::default(),
            changes: Semaphore::new(MAX_CHANGES),
            disk,
            pins,
            env,
        }))
    }

    /// Opens a blob of a repository.
    pub async fn blob(
        self: &Arc<Self>,
        name: &RepositoryName,
        digest: &Digest,
    ) -> Result<FoundBlob, HostedError> {
        let (name, digest) = (name.clone(), digest.clone());
        self.blocking(move |hosted| {
            let now = hosted.env.now();
            {
                let mut state = hosted.lock();
                let own = state
                    .repositories
                    .get(&name)
                    .ok_or(HostedError::NameUnknown)?;
                if !own.has_blob(&digest) {
                    return Err(HostedError::BlobUnknown(digest));
                }
                if state.in_hand.len() < MAX_IN_HAND {
                    state.in_hand.insert(digest.clone(), now);
                }
            }
            let path = hosted.disk.blob_path(&digest);
            let opened = File::open(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
            match opened {
                Ok((len, file)) => Ok(FoundBlob { file, len }),
                // Somebody has damaged the directory; pushing it again mends it.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                    Err(HostedError::BlobUnknown(digest))
                }
                Err(e) => Err(ImageError::disk("open", &path, e).into()),
            }
        })
        .await
    }

    /// Lets go of a blob of a repository. Others that have it keep it.
    pub async fn remove_blob(
        self: &Arc<Self>,
        name: &RepositoryName,
        digest: &Digest,
    ) -> Result<(), HostedError> {
        let (name, digest) = (name.clone(), digest.clone());
        self.changing(move |hosted| {
            hosted.known(&name)?;
            hosted.change(&name, |own| {
                let there = own.unlink(&digest);
                there.then_some(()).ok_or(HostedError::BlobUnknown(digest))
            })
        })
        .await
    }

    /// Takes a manifest, whose blobs and children the repository has, and gives it its tags.
    pub async fn put_manifest(
        self: &Arc<Self>,
        name: &RepositoryName,
        reference: &Reference,
        tags: Vec<String>,
        content_type: &str,
        bytes: Bytes,
    ) -> Result<PutManifest, HostedError> {
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_MANIFEST {
            return Err(HostedError::TooLarge(MAX_MANIFEST));
        }
        let digest = Digest::of(&bytes);
        let mut tags = tags;
        match reference {
            Reference::Tag(tag) => tags.push(tag.clone()),
            Reference::Digest(wanted) if *wanted != digest => {
                let reason = format!("it is {digest}, not {wanted}");
                return Err(HostedError::DigestInvalid(reason));
            }
            Reference::Digest(_) => {}
        }
        let entry = pushed::entry(&bytes, content_type, self.env.now())?;
        let subject = entry.subject.clone();
        let (name, kept) = (name.clone(), digest.clone());
        self.changing(move |hosted| {
            let _pin = hosted.pins.pin(Kind::Blob, &kept);
            upload::enough_room(&hosted.disk.blobs(), entry.size)?;
            hosted.disk.put_blob(&bytes)?;
            hosted.change(&name, |own| {
                let missing = own.missing(&entry);
                if !missing.is_empty() {
                    return Err(HostedError::ManifestBlobUnknown(missing));
                }
                own.put(&kept, entry, &tags)
            })
        })
        .await?;
        Ok(PutManifest { digest, subject })
    }

    /// Returns a manifest by tag or digest.
    pub async fn manifest(
        self: &Arc<Self>,
        name: &RepositoryName,
        reference: &Reference,
    ) -> Result<FoundManifest, HostedError> {
        let (name, reference) = (name.clone(), reference.clone());
        self.blocking(move |hosted| {
            let found = {
                let state = hosted.lock();
                let own = state
                    .repositories
                    .get(&name)
                    .ok_or(HostedError::NameUnknown)?;
                let found = own.manifest(&reference);
                found.map(|(digest, entry)| (digest, entry.media_type.clone()))
            };
            let read = found.and_then(|(digest, media_type)| {
                let bytes = hosted.disk.blob(&digest, MAX_MANIFEST)?;
                Some(FoundManifest {
                    digest,
                    media_type,
                    bytes,
                })
            });
            read.ok_or_else(|| unknown(&reference))
        })
        .await
    }

    /// Removes a tag, or a manifest with all its tags.
    pub async fn remove_manifest(
        self: &Arc<Self>,
        name: &RepositoryName,
        reference: &Reference,
    ) -> Result<(), HostedError> {
        let (name, reference) = (name.clone(), reference.clone());
        self.changing(move |hosted| {
            hosted.known(&name)?;
            hosted.change(&name, |own| {
                let there = own.remove(&reference);
                there.then_some(()).ok_or_else(|| unknown(&reference))
            })
        })
        .await
    }

    /// Returns the tags of a repository, sorted.
    pub fn tags(&self, name: &RepositoryName) -> Result<Vec<String>, HostedError> {
        let state = self.lock();
        let own = state
            .repositories
            .get(name)
            .ok_or(HostedError::NameUnknown)?;
        Ok(own.tags().map(|(tag, _)| tag.clone()).collect())
    }

    /// Returns the names of all repositories, sorted.
    #[must_use]
    pub fn repositories(&self) -> Vec<RepositoryName> {
        self.lock().repositories.keys().cloned().collect()
    }

    /// Returns the manifests that are about this one, of one type or all, those after `last`. A
    /// repository that nobody pushed to has none.
    pub async fn referrers(
        self: &Arc<Self>,
        name: &RepositoryName,
        subject: &Digest,
        artifact_type: Option<String>,
        last: Option<Digest>,
    ) -> Result<Referrers, HostedError> {
        let own = self
            .lock()
            .repositories
            .get(name)
            .map(|r| r.referrers(subject));
        self.blocking(move |hosted| {
            let mut found = Referrers {
                manifests: Vec::new(),
                next: None,
            };
            let (mut size, mut before) = (0, None);
            for (digest, entry) in own.unwrap_or_default() {
                if last.as_ref().is_some_and(|last| digest <= *last) {
                    continue;
                }
                let Some(bytes) = hosted.disk.blob(&digest, MAX_MANIFEST) else {
                    continue;
                };
                let row = pushed::referrer(&digest, &entry, &bytes)?;
                if artifact_type.is_some() && row.artifact_type != artifact_type {
                    continue;
                }
                size += bytes.len();
                if size > MAX_REFERRERS && before.is_some() {
                    found.next = before;
                    break;
                }
                let row = serde_json::to_value(row).map_err(|error| {
                    HostedError::ManifestInvalid(format!("{digest} cannot be listed: {error}"))
                })?;
                found.manifests.push(row);
                before = Some(digest);
            }
            Ok(found)
        })
        .await
    }

    /// Removes all repositories and uploads of an app. May be repeated.
    pub async fn remove_app(self: &Arc<Self>, app: &AppName) -> Result<(), HostedError> {
        let app = app.clone();
        self.changing(move |hosted| {
            hosted.uploads.sweep_if(|name| *name.app() == app);
            let own = hosted.repositories().into_iter();
            for name in own.filter(|name| *name.app() == app) {
                hosted.change(&name, |own| {
                    *own = Repository::default();
                    Ok(())
                })?;
            }
            Ok(())
        })
        .await
    }

    /// Returns which manifest a repository's tag means, or whether it has a manifest.
    pub(crate) fn find(&self, name: &RepositoryName, reference: &Reference) -> Option<Digest> {
        let state = self.lock();
        let (digest, _) = state.repositories.get(name)?.manifest(reference)?;
        Some(digest)
    }

    /// Returns the apps that have a manifest of this digest.
    pub(crate) fn holders(&self, digest: &Digest) -> Vec<AppName> {
        let wanted = Reference::Digest(digest.clone());
        let state = self.lock();
        let all = state.repositories.iter();
        let with = all.filter(|(_, own)| own.manifest(&wanted).is_some());
        with.map(|(name, _)| name.app().clone()).collect()
    }

    /// Returns whether any repository needs the file of a digest.
    pub(crate) fn holds(&self, digest: &Digest) -> bool {
        let state = self.lock();
        state.repositories.values().any(|own| own.holds(digest))
    }

    /// Returns all tags as name, manifest and when it came.
    pub(crate) fn rows(&self) -> Vec<(String, Digest, Timestamp)> {
        let state = self.lock();
        let mut rows = Vec::new();
        for (name, own) in &state.repositories {
            for (tag, digest) in own.tags() {
                let by_digest = Reference::Digest(digest.clone());
                if let Some((_, entry)) = own.manifest(&by_digest) {
                    rows.push((format!("{name}:{tag}"), digest.clone(), entry.at));
                }
            }
        }
        rows
    }

    /// Lets go of what no tag needs, nobody in `keep`, and no push that may still go on. Blocks.
    pub(crate) fn expire(&self, keep: &BTreeSet<Digest>) -> Result<(), ImageError> {
        self.uploads.sweep();
        let before = self.env.now().saturating_sub(PUSH_KEEP);
        let before = before.unwrap_or(Timestamp::MIN);
        self.lock().in_hand.retain(|_, at| *at >= before);
        for name in self.repositories() {
            let expired = self.change(&name, |own| {
                own.expire(keep, before, |digest| {
                    self.lock().in_hand.contains_key(digest)
                });
                Ok(())
            });
            match expired {
                Err(HostedError::Failed(error)) => return Err(error),
                // On a full disk the sweep is what makes room: the next one looks again.
                Err(error) => tracing::warn!(%error, repository = %name, "not tidied"),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// Changes a repository: on disk, then for all to see. Blocks.
    fn change<T>(
        &self,
        name: &RepositoryName,
        change: impl FnOnce(&mut Repository) -> Result<T, HostedError>,
    ) -> Result<T, HostedError> {
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.lock().repositories.get(name).cloned();
        let mut after = before.clone().unwrap_or_default();
        let done = change(&mut after)?;
        if before.as_ref() == Some(&after) {
            return Ok(done);
        }
        let path = self.disk.repositories().join(name.file());
        if after.is_empty() {
            self.disk.remove(&path)?;
            self.lock().repositories.remove(name);
            return Ok(done);
        }
        let bytes = serde_json::to_vec(&after)
            .map_err(|error| ImageError::broken(format!("repository {name}"), error.to_string()))?;
        self.disk.write(&path, &bytes)?;
        self.lock().repositories.insert(name.clone(), after);
        Ok(done)
    }

    fn known(&self, name: &RepositoryName) -> Result<(), HostedError> {
        let known = self.lock().repositories.contains_key(name);
        known.then_some(()).ok_or(HostedError::NameUnknown)
    }

    async fn blocking<T, F>(self: &Arc<Self>, work: F) -> Result<T, HostedError>
    where
        T: Send + 'static,
        F: FnOnce(&Arc<Self>) -> Result<T, HostedError> + Send + 'static,
    {
        let hosted = Arc::clone(self);
        tokio::task::spawn_blocking(move || work(&hosted))
            .await
            .map_err(|_| HostedError::Failed(ImageError::CutOff))?
    }

    /// Like [`Self::blocking`], for what writes: when it is its turn.
    async fn changing<T, F>(self: &Arc<Self>, work: F) -> Result<T, HostedError>
    where
        T: Send + 'static,
        F: FnOnce(&Arc<Self>) -> Result<T, HostedError> + Send + 'static,
    {
        let turn = self.changes.acquire().await;
        let _turn = turn.map_err(|_| HostedError::Failed(ImageError::CutOff))?;
        self.blocking(work).await
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unknown(reference: &Reference) -> HostedError {
    HostedError::ManifestUnknown(match reference {
        Reference::Digest(digest) => digest.to_string(),
        Reference::Tag(tag) => format!("there is no tag {tag}"),
    })
}
