//! Removes images that nobody needs.
//!
//! First it is decided, under the lock, what stays; then what is neither needed nor pinned is
//! moved out of sight, one thing at a time, and deleted. Work that begins meanwhile pins what it
//! uses, and fetches again what is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use hangar_api::image::Pruned;
use tokio::time::Instant;

use super::{Inner, RESOLVED_KEEP, attributes};
use crate::config::ReadyImage;
use crate::digest::Digest;
use crate::disk::Disk;
use crate::error::ImageError;
use crate::pins::Kind;

/// What becomes of imported images that nothing needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Imported {
    Keep,
    RemoveUnused,
}

#[derive(Debug, Default)]
struct Live {
    blobs: BTreeSet<Digest>,
    layers: BTreeSet<Digest>,
}

impl Inner {
    pub(super) async fn prune(
        self: Arc<Self>,
        keep: Vec<String>,
        imported: Imported,
    ) -> Result<Pruned, ImageError> {
        let _one_at_a_time = self.pruning.lock().await;
        self.blocking(move |inner| {
            let mut roots: BTreeSet<Digest> = keep.iter().filter_map(|d| d.parse().ok()).collect();
            // The digests of releases may be those of indexes; their images are meant.
            let inside: Vec<_> = roots
                .iter()
                .filter_map(|d| inner.local(d, "kept").ok()?)
                .collect();
            roots.extend(inside.iter().map(|found| found.digest.clone()));
            let images = inner.forget(&mut roots, imported);
            inner.hosted.expire(&roots)?;
            let live = inner.live(&roots);
            let blobs = inner.sweep(Kind::Blob, inner.disk.blobs(), &live.blobs)?;
            let layers = inner.sweep(Kind::Layer, inner.disk.layers(), &live.layers)?;
            // After the sweep, which makes room for it on a full disk. A name that leads nowhere
            // does no harm.
            if !images.is_empty()
                && let Err(error) = inner.save_names()
            {
                tracing::warn!(%error, "could not write the names of images");
            }
            Ok(Pruned {
                images,
                bytes: blobs.saturating_add(layers),
            })
        })
        .await
    }

    /// Adds what is in use to the roots and forgets all the rest; returns the names that are gone.
    fn forget(&self, roots: &mut BTreeSet<Digest>, imported: Imported) -> Vec<String> {
        let mut state = self.lock();
        let now = Instant::now();
        state
            .resolved
            .retain(|_, at| now.duration_since(*at) < RESOLVED_KEEP);
        roots.extend(state.resolved.keys().cloned());
        if imported == Imported::Keep {
            roots.extend(state.names.imported_digests());
        }
        // An image asked for by its index's digest is there twice; one is let go, since the two
        // hold each other.
        let once: BTreeMap<String, ReadyImage> = std::mem::take(&mut state.ready)
            .into_values()
            .map(|ready| (ready.digest.clone(), ready))
            .collect();
        for (key, ready) in once {
            if let Ok(digest) = key.parse::<Digest>()
                && (roots.contains(&digest) || ready.is_shared())
            {
                roots.insert(digest);
                state.ready.insert(key, ready);
            }
        }
        let gone = state.names.retain(|digest| roots.contains(digest));
        // What has a tag here is not gone: it is only not unpacked any more.
        let gone = gone
            .into_iter()
            .filter(|(_, digest)| !self.hosted.holds(digest));
        gone.map(|(name, _)| name).collect()
    }

    fn live(&self, roots: &BTreeSet<Digest>) -> Live {
        let mut live = Live::default();
        for root in roots {
            live.blobs.insert(root.clone());
            if let Ok(Some(found)) = self.local(root, "kept") {
                live.blobs.insert(found.digest);
                live.blobs.insert(found.manifest.config.digest);
                let diff_ids = found.config.rootfs.diff_ids;
                // What was pushed here can be had nowhere else until it is unpacked.
                let packed = found.manifest.layers.into_iter().zip(&diff_ids);
                let packed = packed.filter(|(_, id)| self.disk.layer(id).is_none());
                live.blobs.extend(packed.map(|(blob, _)| blob.digest));
                live.layers.insert(attributes::layer_id(&diff_ids));
                live.layers.extend(diff_ids);
            }
        }
        live
    }

    /// Removes what is not live from a directory and returns the bytes freed.
    fn sweep(&self, kind: Kind, dir: PathBuf, live: &BTreeSet<Digest>) -> Result<u64, ImageError> {
        let mut freed = 0_u64;
        for digest in Disk::entries(&dir)? {
            if live.contains(&digest) {
                continue;
            }
            let path = dir.join(digest.hex());
            let bytes = match kind {
                Kind::Blob => std::fs::metadata(&path).map_or(0, |meta| meta.len()),
                Kind::Layer => self.disk.layer(&digest).map_or(0, |layer| layer.bytes),
            };
            let trash = self.disk.scratch();
            let moved = self.pins.unless_pinned(kind, &digest, || {
                // Asked at this very moment: a push may just have ended.
                let is_linked = kind == Kind::Blob && self.hosted.holds(&digest);
                (!is_linked).then(|| std::fs::rename(&path, trash.path()))
            });
            match moved.flatten() {
                Some(Ok(())) => freed = freed.saturating_add(bytes),
                Some(Err(e)) => return Err(ImageError::disk("remove", &path, e)),
                None => {}
            }
        }
        Ok(freed)
    }
}
