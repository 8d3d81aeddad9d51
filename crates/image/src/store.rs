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
mod resolve;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hangar_api::env::Env;
use hangar_api::error::Failure;
use hangar_api::id::AppName;
use hangar_api::image::{ImageInfo, ImageRef, Pruned};
use hangar_api::seam::{BoxFuture, ImageCalls, MayUse};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::config::{ConfigBlob, ReadyImage};
use crate::digest::Digest;
use crate::disk::Disk;
use crate::error::ImageError;
use crate::hosted::Hosted;
use crate::layer::Unpacked;
use crate::manifest::Manifest;
use crate::pins::{Kind, Pin, Pins};
use crate::places::FLY_REGISTRY;
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
    disk: Arc<Disk>,
    env: Env,
    registry: Registry,
    hosted: Arc<Hosted>,
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
        let disk = Arc::new(Disk::open(dir.as_ref())?);
        let names = Names::read(&disk.names())?;
        let pins = Pins::default();
        let hosted = Hosted::open(Arc::clone(&disk), pins.clone(), env.clone())?;
        Ok(Arc::new(Self(Arc::new(Inner {
            registry: Registry::new(registries, env.clone())?,
            hosted,
            disk,
            env,
            machine: Platform::this(),
            pins,
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

    /// Returns the registry that is embedded in this store.
    #[must_use]
    pub fn hosted(&self) -> Arc<Hosted> {
        Arc::clone(&self.0.hosted)
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
        self.0.resolve(name.parse()?, &|_| true).await
    }

    /// Like [`ImageStore::resolve`], but what was pushed to an app is found only when it may be
    /// used.
    pub async fn resolve_for(&self, name: &str, may_use: MayUse) -> Result<ImageRef, ImageError> {
        self.0.resolve(name.parse()?, &*may_use).await
    }

    /// Returns the apps whose pushed image a name means, by tag or digest.
    #[must_use]
    pub fn pushed_to(&self, name: &str) -> Vec<AppName> {
        let name = name.parse().ok();
        name.map_or(Vec::new(), |name| self.0.pushed_to(&name))
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

    fn resolve_for(
        &self,
        name: String,
        may_use: MayUse,
    ) -> BoxFuture<'_, Result<ImageRef, Failure>> {
        Box::pin(async move { Ok(self.resolve_for(&name, may_use).await?) })
    }

    fn pushed_to(&self, name: &str) -> Vec<AppName> {
        self.pushed_to(name)
    }

    fn is_imported(&self, name: &str) -> bool {
        let Ok(name) = name.parse::<Name>() else {
            return false;
        };
        let state = self.0.lock();
        let mut keys = name.import_keys().into_iter();
        keys.any(|key| state.names.is_imported(&key))
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

    async fn prepare(self: Arc<Self>, name: Name) -> Result<ReadyImage, ImageError> {
        let (found, _) = self.find(&name, &|_| true).await?;
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

    fn list(&self) -> Vec<ImageInfo> {
        let mut images = Vec::new();
        let mut row = |name: String, found: Described, at| {
            images.push(ImageInfo {
                name,
                digest: found.digest.to_string(),
                size: found.manifest.size(),
                created_at: at,
                in_use: false,
            });
        };
        let rows = self.lock().names.rows();
        for (name, digest, at) in rows {
            let Ok(Some(found)) = self.local(&digest, &name) else {
                continue;
            };
            let diff_ids = &found.config.rootfs.diff_ids;
            let is_ready = diff_ids.iter().all(|id| self.disk.layer(id).is_some());
            // One that was pushed here stands below its tags.
            let is_pushed = !self.lock().names.is_imported(&name) && self.hosted.holds(&digest);
            if is_ready && !is_pushed {
                row(name, found, at);
            }
        }
        for (name, digest, at) in self.hosted.rows() {
            let name = format!("{FLY_REGISTRY}/{name}");
            // Not everything that is pushed is an image that runs here.
            if let Ok(Some(found)) = self.local(&digest, &name) {
                row(name, found, at);
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
