//! From a name to an image's manifest and config: looks in one place after another
//! ([`crate::places`]), and takes the first that has it.

use std::sync::Arc;

use hangar_api::id::AppName;
use hangar_api::image::ImageRef;
use tokio::time::Instant;

use super::{Described, Inner, MAX_INDEX_DEPTH};
use crate::config::ConfigBlob;
use crate::digest::Digest;
use crate::error::ImageError;
use crate::hosted::{Reference, RepositoryName};
use crate::manifest::{Document, MAX_CONFIG, MAX_MANIFEST, choose};
use crate::pins::Kind;
use crate::places::{FLY_REGISTRY, Place, places};
use crate::reference::Name;

impl Inner {
    /// Returns what a name means, and keeps it from prunes for a moment.
    pub(super) async fn resolve(
        self: &Arc<Self>,
        name: Name,
        may_use: &(dyn Fn(&AppName) -> bool + Send + Sync),
    ) -> Result<ImageRef, ImageError> {
        let (found, mut image) = self.find(&name, may_use).await?;
        let now = Instant::now();
        self.lock().resolved.insert(found.digest.clone(), now);
        image.labels = found.config.into_config().labels;
        Ok(image)
    }

    /// Returns an image's manifest and config, here on disk, and its reference.
    pub(super) async fn find(
        self: &Arc<Self>,
        name: &Name,
        may_use: &(dyn Fn(&AppName) -> bool + Send + Sync),
    ) -> Result<(Described, ImageRef), ImageError> {
        for place in places(name, self.registry.config()) {
            let found = match place {
                Place::Imported(key) => self.imported(name, &key).await?,
                Place::Here(digest) => {
                    // One that others have pushed is theirs, whoever knows its digest.
                    let holders = self.hosted.holders(&digest);
                    match holders.is_empty() || holders.iter().any(may_use) {
                        true => self.here(name, &digest).await?,
                        false => None,
                    }
                }
                Place::Embedded {
                    repository,
                    reference,
                    only,
                } => {
                    let found = match may_use(repository.app()) {
                        true => self.pushed(name, &repository, &reference, only).await?,
                        false => None,
                    };
                    if found.is_none() && only {
                        return Err(not_pushed(name, &repository));
                    }
                    found
                }
                // The client asks the mirrors and the registry, in this order.
                Place::Mirror(_) | Place::Registry(_) => {
                    let found = self.remote(name).await?;
                    let image = reference(name, &name.registry, &found.digest);
                    return Ok((found, image));
                }
            };
            if let Some(found) = found {
                return Ok(found);
            }
        }
        Err(ImageError::NotFound {
            name: name.import_key.clone(),
            reason: "no image was imported under this name; \
                     see `hangar image list` and `hangar image import`"
                .to_owned(),
        })
    }

    /// Returns the apps whose pushed image a name means.
    pub(super) fn pushed_to(&self, name: &Name) -> Vec<AppName> {
        let mut apps = Vec::new();
        for place in places(name, self.registry.config()) {
            match place {
                Place::Here(digest) => apps.extend(self.hosted.holders(&digest)),
                Place::Embedded {
                    repository,
                    reference,
                    only,
                } => {
                    let is_there = self.hosted.find(&repository, &reference).is_some();
                    if is_there || (only && apps.is_empty()) {
                        apps.push(repository.app().clone());
                    }
                }
                _ => {}
            }
        }
        apps
    }

    async fn imported(
        self: &Arc<Self>,
        name: &Name,
        key: &str,
    ) -> Result<Option<(Described, ImageRef)>, ImageError> {
        let digest = {
            let mut state = self.lock();
            let found = state.names.imported(key, name.digest.as_ref());
            if let Some(digest) = &found {
                state.resolved.insert(digest.clone(), Instant::now());
            }
            found
        };
        let Some(digest) = digest else {
            return Ok(None);
        };
        let image = key.parse::<Name>()?.imported_ref(&digest);
        let (wanted, shown) = (digest.clone(), key.to_owned());
        match self
            .blocking(move |inner| inner.local(&wanted, &shown))
            .await?
        {
            Some(found) => Ok(Some((found, image))),
            None if name.digest.is_some() => Ok(None),
            None => Err(ImageError::NotFound {
                name: name.import_key.clone(),
                reason: "it was imported, but its files are gone; import it again".to_owned(),
            }),
        }
    }

    async fn here(
        self: &Arc<Self>,
        name: &Name,
        digest: &Digest,
    ) -> Result<Option<(Described, ImageRef)>, ImageError> {
        let (wanted, shown) = (digest.clone(), name.to_string());
        let found = self
            .blocking(move |inner| inner.local(&wanted, &shown))
            .await?;
        let Some(found) = found else {
            return Ok(None);
        };
        let was_imported = {
            let state = self.lock();
            name.import_keys()
                .iter()
                .any(|key| state.names.is_imported(key))
        };
        let image = if was_imported {
            // An import that another one of the same name has replaced.
            name.imported_ref(&found.digest)
        } else {
            reference(name, &name.registry, &found.digest)
        };
        Ok(Some((found, image)))
    }

    async fn pushed(
        self: &Arc<Self>,
        name: &Name,
        repository: &RepositoryName,
        wanted: &Reference,
        only: bool,
    ) -> Result<Option<(Described, ImageRef)>, ImageError> {
        let Some(digest) = self.hosted.find(repository, wanted) else {
            return Ok(None);
        };
        let shown = name.to_string();
        let found = self
            .blocking(move |inner| inner.local(&digest, &shown))
            .await?;
        Ok(found.map(|found| {
            let host = if only { &name.registry } else { FLY_REGISTRY };
            let mut image = reference(name, host, &found.digest);
            image.repository = repository.to_string();
            (found, image)
        }))
    }

    /// Asks mirrors and registry. Where the registry cannot be reached, a tag means what it meant
    /// when it was last pulled.
    async fn remote(self: &Arc<Self>, name: &Name) -> Result<Described, ImageError> {
        let error = match self.fetch(name).await {
            Err(error @ ImageError::Registry { .. }) => error,
            other => return other,
        };
        let shown = name.to_string();
        let Some(digest) = self.lock().names.last_pulled(&shown) else {
            return Err(error);
        };
        match self
            .blocking(move |inner| inner.local(&digest, &shown))
            .await?
        {
            Some(found) => {
                tracing::warn!(%error, image = %name, "took the image that the tag last meant");
                Ok(found)
            }
            None => Err(error),
        }
    }

    /// Reads an image's manifest and config from disk, if both are here.
    pub(super) fn local(
        &self,
        digest: &Digest,
        shown: &str,
    ) -> Result<Option<Described>, ImageError> {
        let mut pins = Vec::new();
        let mut digest = digest.clone();
        for _ in 0..MAX_INDEX_DEPTH {
            pins.push(self.pins.pin(Kind::Blob, &digest));
            let Some(bytes) = self.disk.blob(&digest, MAX_MANIFEST) else {
                return Ok(None);
            };
            match Document::parse(&bytes, shown)? {
                Document::Index(choices) => {
                    digest = choose(&choices, &self.machine, shown)?.digest.clone();
                }
                Document::Image(manifest) => {
                    pins.push(self.pins.pin(Kind::Blob, &manifest.config.digest));
                    let Some(bytes) = self.disk.blob(&manifest.config.digest, MAX_CONFIG) else {
                        return Ok(None);
                    };
                    return Ok(Some(Described {
                        digest,
                        manifest,
                        config: self.config(&bytes, shown)?,
                        pins,
                    }));
                }
            }
        }
        Ok(None)
    }

    /// Gets an image's manifest and config from the registry, and keeps them.
    async fn fetch(self: &Arc<Self>, name: &Name) -> Result<Described, ImageError> {
        let shown = name.to_string();
        let mut pins = Vec::new();
        let mut wanted = name.wanted();
        for _ in 0..MAX_INDEX_DEPTH {
            let bytes = self.registry.manifest(name, &wanted).await?;
            let digest = Digest::of(&bytes);
            pins.push(self.pins.pin(Kind::Blob, &digest));
            let document = Document::parse(&bytes, &shown)?;
            let (found, text) = (digest.clone(), shown.clone());
            let here = self.blocking(move |inner| {
                inner.disk.put_blob(&bytes)?;
                inner.local(&found, &text)
            });
            // Often only the tag is new, and all that it means is here.
            if let Some(found) = here.await? {
                return Ok(found);
            }
            match document {
                Document::Index(choices) => {
                    wanted = choose(&choices, &self.machine, &shown)?.digest.to_string();
                }
                Document::Image(manifest) => {
                    pins.push(self.pins.pin(Kind::Blob, &manifest.config.digest));
                    let bytes = self
                        .registry
                        .blob(name, &manifest.config, MAX_CONFIG)
                        .await?;
                    let config = self.config(&bytes, &shown)?;
                    self.blocking(move |inner| inner.disk.put_blob(&bytes))
                        .await?;
                    return Ok(Described {
                        digest,
                        manifest,
                        config,
                        pins,
                    });
                }
            }
        }
        Err(ImageError::broken(
            format!("the index of image {shown}"),
            "it points to itself or too deep",
        ))
    }

    /// Parses a config and refuses an image that this machine cannot run.
    pub(super) fn config(&self, bytes: &[u8], shown: &str) -> Result<ConfigBlob, ImageError> {
        let config = ConfigBlob::parse(bytes, shown)?;
        if !self.machine.runs(&config.platform()) {
            return Err(ImageError::NoPlatform {
                name: shown.to_owned(),
                wanted: self.machine.to_string(),
                found: config.platform().to_string(),
            });
        }
        Ok(config)
    }
}

fn reference(name: &Name, host: &str, digest: &Digest) -> ImageRef {
    ImageRef {
        registry: host.to_owned(),
        repository: name.repository.clone(),
        tag: name.tag.clone(),
        digest: digest.to_string(),
        ..ImageRef::default()
    }
}

fn not_pushed(name: &Name, repository: &RepositoryName) -> ImageError {
    let what = match &name.digest {
        Some(digest) => digest.to_string(),
        None => format!("tag {}", name.tag),
    };
    ImageError::NotFound {
        name: name.to_string(),
        reason: format!(
            "nobody has pushed {what} of {repository} to Hangar's registry; see `hangar image list`"
        ),
    }
}
