//! Gets one layer unpacked, from wherever it comes, once.

use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use hangar_api::seam::BoxFuture;

use super::Inner;
use crate::archive::{Archive, ArchiveLayer};
use crate::digest::Digest;
use crate::error::ImageError;
use crate::layer::{Unpacked, unpack};
use crate::manifest::Blob;
use crate::pins::Kind;
use crate::reference::Name;

/// Where a layer comes from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    Registry {
        name: Name,
        blob: Blob,
    },
    Archive {
        archive: Arc<Archive>,
        layer: ArchiveLayer,
    },
}

impl Inner {
    /// Returns a layer once it is unpacked. The caller has pinned it.
    pub(super) async fn layer(
        self: &Arc<Self>,
        diff_id: &Digest,
        source: Source,
    ) -> Result<Unpacked, ImageError> {
        let make = |source: Source| {
            let (inner, diff_id) = (Arc::clone(self), diff_id.clone());
            move || -> BoxFuture<'static, _> { Box::pin(inner.make_layer(diff_id, source)) }
        };
        let landed = self.layers.run(diff_id.hex(), make(source.clone())).await;
        match landed.outcome {
            // Somebody else's source failed; ours may not.
            Err(_) if landed.joined => self.layers.run(diff_id.hex(), make(source)).await.outcome,
            outcome => outcome,
        }
    }

    async fn make_layer(
        self: Arc<Self>,
        diff_id: Digest,
        source: Source,
    ) -> Result<Unpacked, ImageError> {
        let wanted = diff_id.clone();
        if let Some(found) = self
            .blocking(move |inner| Ok(inner.disk.layer(&wanted)))
            .await?
        {
            return Ok(found);
        }
        match source {
            Source::Registry { name, blob } => {
                let pin = self.pins.pin(Kind::Blob, &blob.digest);
                if let Ok(file) = File::open(self.disk.blob_path(&blob.digest)) {
                    // It was pushed here.
                    let unpacked = self.unpacking(move |inner| {
                        inner.unpack_layer(file, &diff_id, Some(&blob.digest))
                    });
                    let unpacked = unpacked.await;
                    drop(pin);
                    return unpacked;
                }
                let scratch = self.disk.scratch();
                {
                    let _permit = self
                        .downloads
                        .acquire()
                        .await
                        .map_err(|_| ImageError::CutOff)?;
                    self.registry
                        .blob_to_file(&name, &blob, scratch.path())
                        .await?;
                }
                self.unpacking(move |inner| {
                    let file = File::open(scratch.path())
                        .map_err(|e| ImageError::disk("open", scratch.path(), e))?;
                    // The blob's digest was checked on its way to the disk.
                    inner.unpack_layer(file, &diff_id, None)
                })
                .await
            }
            Source::Archive { archive, layer } => {
                self.unpacking(move |inner| {
                    let file = archive.open_layer(&layer)?;
                    inner.unpack_layer(file, &diff_id, layer.digest.as_ref())
                })
                .await
            }
        }
    }

    /// Runs blocking work when it is its turn.
    async fn unpacking<F>(self: &Arc<Self>, work: F) -> Result<Unpacked, ImageError>
    where
        F: FnOnce(&Arc<Self>) -> Result<Unpacked, ImageError> + Send + 'static,
    {
        let turn = Arc::clone(&self.unpacks);
        let permit = turn.acquire_owned().await.map_err(|_| ImageError::CutOff)?;
        self.blocking(move |inner| {
            let done = work(inner);
            drop(permit);
            done
        })
        .await
    }

    fn unpack_layer(
        &self,
        stream: impl Read,
        diff_id: &Digest,
        blob: Option<&Digest>,
    ) -> Result<Unpacked, ImageError> {
        let (scratch, root) = self.disk.begin_layer()?;
        let layer = unpack(stream, &root)?;
        let mismatch = |what: &str, wanted: &Digest, got: &Digest| {
            ImageError::broken(
                format!("layer {wanted}"),
                format!("its {what} is {got}; get the image again"),
            )
        };
        if let Some(wanted) = blob.filter(|wanted| **wanted != layer.blob) {
            return Err(mismatch("digest", wanted, &layer.blob));
        }
        if layer.diff_id != *diff_id {
            return Err(mismatch("digest, unpacked,", diff_id, &layer.diff_id));
        }
        if layer.skipped_devices > 0 {
            tracing::warn!(
                layer = %diff_id,
                devices = layer.skipped_devices,
                "left out device nodes of an image"
            );
        }
        self.disk.commit_layer(&scratch, &layer)?;
        Ok(layer)
    }
}
