//! The store of images on this host: who asks for an image gets it ready, once for all.
//!
//! Called by server and host, shared behind an `Arc`. Decides what is fetched, shared, kept and
//! named; how things are fetched is [`crate::registry`]'s, how they lie on disk [`crate::disk`]'s.

mod attributes;
mod flight;
mod import;
mod layers;
mod names;
mod prune;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hangar_api::env::Env;
use hangar_api::error::Failure;
use hangar_api::image::{ImageInfo, ImageRef, Pruned};
use hangar_api::seam::{BoxFuture, ImageCalls};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::config::{ConfigBlob, ReadyImage};
use crate::digest::Digest;
use crate::disk::Disk;
use crate::error::ImageError;
use crate::layer::Unpacked;
use crate::manifest::{Document, MAX_CONFIG, Manifest, choose};
use crate::pins::{Kind, Pin, Pins};
use crate::platform::Platform;
use crate::reference::Name;
use crate::registry::{Registry, RegistryConfig};

use flight::Flights;
use layers::Source;
use names::Names;

/// Layers unpacked (and hashed) at a time: more would only fight for the disk.
const PARALLEL_UNPACKS: usize = 2;
/// Layers downloaded at a time, of all images.
const PARALLEL_DOWNLOADS: usize = 3;
/// How long a resolved image is safe from prunes, so that its name can get into a release.
const RESOLVED_KEEP: Duration = Duration::from_secs(60);
/// How deep indexes may point to indexes.
const MAX_INDEX_DEPTH: usize = 3;

/// The images of this host. Cheap to clone behind its `Arc`; one store per directory.
#[derive(Debug)]
pub struct ImageStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    disk: Disk,
    env: Env,
    registry: Registry,
    machine: Platform,
    pins: Pins,
    state: Mutex<State>,
    saving: Mutex<()>,
    pruning: tokio::sync::Mutex<()>,
    images: Flights<ReadyImage>,
    layers: Flights<Unpacked>,
    unpacks: Arc<Semaphore>,
    downloads: Semaphore,
}

#[derive(Debug, Default)]
struct State {
    /// By the digest that was asked for, which may be an index's.
    ready: BTreeMap<String, ReadyImage>,
    names: Names,
    /// When a digest was last given out by `resolve`.
    resolved: BTreeMap<Digest, Instant>,
}

/// An image's manifest and config, here on disk and pinned.
struct Described {
    digest: Digest,
    manifest: Manifest,
    config: ConfigBlob,
    pins: Vec<Pin>,
}

// === impl ImageStore ===

impl ImageStore {
    /// Opens the store in `dir`, making it if need be. The caller holds the data directory's
    /// lock: what another process had half made is cleared.
    pub fn open(
        dir: impl AsRef<Path>,
        env: Env,
        registries: RegistryConfig,
    ) -> Result<Arc<Self>, ImageError> {
        let disk = Disk::open(dir.as_ref())?;
        let names = Names::read(&disk.names())?;
        Ok(Arc::new(Self(Arc::new(Inner {
            registry: Registry::new(registries, env.clone())?,
            disk,
            env,
            machine: Platform::this(),
            pins: Pins::default(),
            state: Mutex::new(State {
                names,
                ..State::default()
            }),
            saving: Mutex::default(),
            pruning: tokio::sync::Mutex::default(),
            images: Flights::default(),
            layers: Flights::default(),
            unpacks: Arc::new(Semaphore::new(PARALLEL_UNPACKS)),
            downloads: Semaphore::new(PARALLEL_DOWNLOADS),
        }))))
    }

    /// Makes an image ready: pulls what is absent, unpacks it, and returns its layers and config.
    ///
    /// Quick when it is ready already. Callers who want the same image, or images that share a
    /// layer, share the work. May be repeated, and cancelled: what is whole stays.
    pub async fn ensure(&self, image: &ImageRef) -> Result<ReadyImage, ImageError> {
        if let Some(ready) = self.0.lock().ready.get(&image.digest) {
            return Ok(ready.clone());
        }
        let name = Name::of(image)?;
        let inner = Arc::clone(&self.0);
        let make = move || -> BoxFuture<'static, _> { Box::pin(inner.prepare(name)) };
        let key = match image.digest.as_str() {
            "" => format!("{}/{}:{}", image.registry, image.repository, image.tag),
            digest => digest.to_owned(),
        };
        self.0.images.run(&key, make).await.outcome
    }

    /// Imports an image from an OCI layout (a directory), an OCI archive or a `docker save`
    /// archive under a name, which from then on means it. May be repeated.
    pub async fn import(&self, archive: PathBuf, name: &str) -> Result<ImageRef, ImageError> {
        Arc::clone(&self.0).import(archive, name.parse()?).await
    }

    /// Returns what a name means (see the crate's page) with its digest and labels. The image
    /// exists and fits this machine; its layers may still have to be pulled.
    pub async fn resolve(&self, name: &str) -> Result<ImageRef, ImageError> {
        self.0.resolve(name.parse()?).await
    }

    /// Returns the images that are ready, by name. Who uses them is for the server to add.
    pub async fn list(&self) -> Result<Vec<ImageInfo>, ImageError> {
        self.0.blocking(|inner| Ok(inner.list())).await
    }

    /// Removes everything that nobody needs: neither `keep` (digests) nor a [`ReadyImage`] that
    /// is held nor work in progress. Imported names go too when nothing needs their image.
    pub async fn prune(&self, keep: Vec<String>) -> Result<Pruned, ImageError> {
        Arc::clone(&self.0)
            .prune(keep, prune::Imported::RemoveUnused)
            .await
    }

    /// Like [`ImageStore::prune`], but imported images stay: for the daily collection.
    pub async fn collect(&self, keep: Vec<String>) -> Result<Pruned, ImageError> {
        Arc::clone(&self.0).prune(keep, prune::Imported::Keep).await
    }
}

impl ImageCalls for ImageStore {
    fn import(&self, archive: PathBuf, name: String) -> BoxFuture<'_, Result<ImageRef, Failure>> {
        Box::pin(async move { Ok(self.import(archive, &name).await?) })
    }

    fn resolve(&self, name: String) -> BoxFuture<'_, Result<ImageRef, Failure>> {
        Box::pin(async move { Ok(self.resolve(&name).await?) })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<ImageInfo>, Failure>> {
        Box::pin(async move { Ok(self.list().await?) })
    }

    fn prune(&self, keep: Vec<String>) -> BoxFuture<'_, Result<Pruned, Failure>> {
        Box::pin(async move { Ok(self.prune(keep).await?) })
    }

    fn collect(&self, keep: Vec<String>) -> BoxFuture<'_, Result<Pruned, Failure>> {
        Box::pin(async move { Ok(self.collect(keep).await?) })
    }
}

// === impl Inner ===

impl Inner {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs work that blocks (files, hashing) off the runtime's own threads.
    async fn blocking<T, F>(self: &Arc<Self>, work: F) -> Result<T, ImageError>
    where
        T: Send + 'static,
        F: FnOnce(&Arc<Self>) -> Result<T, ImageError> + Send + 'static,
    {
        let inner = Arc::clone(self);
        tokio::task::spawn_blocking(move || work(&inner))
            .await
            .map_err(|_| ImageError::CutOff)?
    }

    async fn resolve(self: &Arc<Self>, name: Name) -> Result<ImageRef, ImageError> {
        let imported = {
            let mut state = self.lock();
            let found = state.names.imported(&name);
            if let Some(digest) = &found {
                state.resolved.insert(digest.clone(), Instant::now());
            }
            found
        };
        if let Some(digest) = imported {
            let local = digest.clone();
            let key = name.to_string();
            let found = self
                .blocking(move |inner| inner.local(&local, &key))
                .await?;
            let Some(found) = found else {
                return Err(ImageError::NotFound {
                    name: name.import_key.clone(),
                    reason: "it was imported, but its files are gone; import it again".to_owned(),
                });
            };
            let mut image = name.imported_ref(&digest);
            image.labels = found.config.into_config().labels;
            return Ok(image);
        }
        let found = self.describe(&name).await?;
        let was_imported = {
            let mut state = self.lock();
            state.resolved.insert(found.digest.clone(), Instant::now());
            name.digest.is_some() && state.names.is_imported(&name)
        };
        if was_imported {
            // An import that another one of the same name has replaced.
            let mut image = name.imported_ref(&found.digest);
            image.labels = found.config.into_config().labels;
            return Ok(image);
        }
        Ok(ImageRef {
            registry: name.registry,
            repository: name.repository,
            tag: name.tag,
            digest: found.digest.to_string(),
            labels: found.config.into_config().labels,
        })
    }

    async fn prepare(self: Arc<Self>, name: Name) -> Result<ReadyImage, ImageError> {
        let found = self.describe(&name).await?;
        let blobs = found.manifest.layers.iter().cloned();
        let sources = blobs
            .map(|blob| Source::Registry {
                name: name.clone(),
                blob,
            })
            .collect();
        let asked = name.digest.clone();
        let shown = name.to_string();
        let ready = self.finish(found, sources, &shown).await?;
        {
            let mut state = self.lock();
            if let Some(asked) = asked {
                state.ready.insert(asked.to_string(), ready.clone());
            }
            let tagged = Name {
                digest: None,
                ..name
            };
            let shown = if tagged.tag.is_empty() {
                shown
            } else {
                tagged.to_string()
            };
            state.names.saw(&ready.digest, &shown, self.env.now());
        }
        if let Err(error) = self.blocking(|inner| inner.save_names()).await {
            // The image is whole; only its name in lists is lost at the next start.
            tracing::warn!(%error, "could not write the names of images");
        }
        Ok(ready)
    }

    /// Unpacks the layers of a described image and remembers it as ready.
    async fn finish(
        self: &Arc<Self>,
        found: Described,
        sources: Vec<Source>,
        shown: &str,
    ) -> Result<ReadyImage, ImageError> {
        let diff_ids = found.config.rootfs.diff_ids.clone();
        if diff_ids.len() != sources.len() {
            return Err(ImageError::broken(
                format!("image {shown}"),
                format!(
                    "its config lists {} layers, its manifest {}",
                    diff_ids.len(),
                    sources.len()
                ),
            ));
        }
        let mut pins = found.pins;
        pins.extend(diff_ids.iter().map(|id| self.pins.pin(Kind::Layer, id)));
        let work = diff_ids
            .iter()
            .zip(sources)
            .map(|(id, source)| self.layer(id, source));
        let layers = futures_util::future::try_join_all(work).await?;
        // What lies below a layer that hides everything need not be stacked.
        let first = layers.iter().rposition(|l| l.opaque_root).unwrap_or(0);
        let stack = layers[first..].to_vec();
        let on_top = attributes::layer_id(&diff_ids);
        pins.push(self.pins.pin(Kind::Layer, &on_top));
        let (layers, id) = (stack.clone(), on_top.clone());
        let needed = self
            .blocking(move |inner| inner.restore_attributes(&layers, &id))
            .await?;
        let roots = stack
            .iter()
            .map(|layer| &layer.diff_id)
            .chain(needed.then_some(&on_top));
        let roots = roots.map(|id| self.disk.layer_root(id)).collect();
        let ready = ReadyImage::pinned(&found.digest, roots, found.config.into_config(), pins);
        self.lock()
            .ready
            .insert(ready.digest.clone(), ready.clone());
        Ok(ready)
    }

    /// Finds an image's manifest and config here, else in the registry. Where the registry cannot
    /// be reached, a tag means what it meant when it was last pulled.
    async fn describe(self: &Arc<Self>, name: &Name) -> Result<Described, ImageError> {
        let shown = name.to_string();
        if let Some(digest) = name.digest.clone() {
            let shown = shown.clone();
            if let Some(found) = self
                .blocking(move |inner| inner.local(&digest, &shown))
                .await?
            {
                return Ok(found);
            }
        }
        if name.only_local {
            return Err(ImageError::NotFound {
                name: name.import_key.clone(),
                reason: "no image was imported under this name; \
                         see `hangar image list` and `hangar image import`"
                    .to_owned(),
            });
        }
        let error = match self.fetch(name).await {
            Err(error @ ImageError::Registry { .. }) => error,
            other => return other,
        };
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
    fn local(&self, digest: &Digest, shown: &str) -> Result<Option<Described>, ImageError> {
        let mut pins = Vec::new();
        let mut digest = digest.clone();
        for _ in 0..MAX_INDEX_DEPTH {
            pins.push(self.pins.pin(Kind::Blob, &digest));
            let Some(bytes) = self.disk.blob(&digest) else {
                return Ok(None);
            };
            match Document::parse(&bytes, shown)? {
                Document::Index(choices) => {
                    digest = choose(&choices, &self.machine, shown)?.digest.clone();
                }
                Document::Image(manifest) => {
                    pins.push(self.pins.pin(Kind::Blob, &manifest.config.digest));
                    let Some(bytes) = self.disk.blob(&manifest.config.digest) else {
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
    fn config(&self, bytes: &[u8], shown: &str) -> Result<ConfigBlob, ImageError> {
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

    fn list(&self) -> Vec<ImageInfo> {
        let rows = self.lock().names.rows();
        let mut images = Vec::new();
        for (name, digest, at) in rows {
            let Ok(Some(found)) = self.local(&digest, &name) else {
                continue;
            };
            let diff_ids = &found.config.rootfs.diff_ids;
            if diff_ids.iter().all(|id| self.disk.layer(id).is_some()) {
                images.push(ImageInfo {
                    name,
                    digest: digest.to_string(),
                    size: found.manifest.size(),
                    created_at: at,
                    in_use: false,
                });
            }
        }
        images
    }

    fn save_names(&self) -> Result<(), ImageError> {
        let _one_at_a_time = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = self.lock().names.to_json();
        self.disk.write(&self.disk.names(), &bytes)
    }
}
