//! Volumes and snapshots of a host: files of the data directory, worked on by the helper.
//!
//! Called by the server through [`VolumeCalls`], and by the container runtime, which mounts them.
//! What is true of a volume is its image and who holds its lock, never anything here. An image is
//! removed only when that is asked for by name: what nobody knows stays where it is.

pub mod fake;

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hangar_api::error::{ErrorKind, Failure};
use hangar_api::id::{SnapshotId, VolumeId};
use hangar_api::seam::{BoxFuture, Extended, VolumeCalls};
use hangar_api::volume::{VolumeSource, VolumeUsage};

use crate::helper::client::Helper;
use crate::helper::volume::VolumeRequest;
use crate::helper::{Reply, Request};

/// How often a request is tried when the helper dies meanwhile.
const HELPER_TRIES: u32 = 4;

/// See the module.
#[derive(Debug)]
pub struct DiskVolumes {
    helper: Arc<Helper>,
    volumes: PathBuf,
    snapshots: PathBuf,
}

// === impl DiskVolumes ===

impl DiskVolumes {
    pub(crate) fn new(helper: Arc<Helper>, data_dir: &Path) -> io::Result<Self> {
        let made = |name: &str| -> io::Result<PathBuf> {
            let dir = data_dir.join(name);
            let mut dirs = std::fs::DirBuilder::new();
            dirs.recursive(true).mode(0o700).create(&dir)?;
            Ok(dir)
        };
        Ok(Self {
            helper,
            volumes: made("volumes")?,
            snapshots: made("snapshots")?,
        })
    }

    /// Lets go of what workers left that were killed. For the start of a host, before its
    /// Machines; may be repeated.
    pub async fn settle(&self) -> Result<(), Failure> {
        let dirs = vec![self.volumes.clone(), self.snapshots.clone()];
        let is_empty = |dir: &PathBuf| std::fs::read_dir(dir).is_ok_and(|mut d| d.next().is_none());
        if dirs.iter().all(is_empty) {
            return Ok(());
        }
        self.ask(VolumeRequest::Settle { dirs }).await.map(drop)
    }

    /// Returns the file that holds a volume.
    #[must_use]
    pub fn image(&self, volume: &VolumeId) -> PathBuf {
        self.volumes.join(format!("{volume}.img"))
    }

    fn snapshot_image(&self, snapshot: &SnapshotId) -> PathBuf {
        self.snapshots.join(format!("{snapshot}.img"))
    }

    async fn ask(&self, request: VolumeRequest) -> Result<Reply, Failure> {
        let request = Request::Volume(request);
        let mut last = String::new();
        for _ in 0..HELPER_TRIES {
            let reply = self.helper.ask(&request).await;
            match reply.error {
                None => return Ok(reply),
                Some(message) if !reply.transient => {
                    let kind = reply.kind.unwrap_or(ErrorKind::Internal);
                    return Err(Failure::new(kind, message));
                }
                Some(message) => last = message,
            }
        }
        Err(Failure::new(ErrorKind::Unavailable, last))
    }
}

impl VolumeCalls for DiskVolumes {
    fn make(
        &self,
        volume: VolumeId,
        size: u64,
        source: VolumeSource,
    ) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            let from = match &source {
                VolumeSource::Empty => None,
                VolumeSource::Snapshot { id } => Some(self.snapshot_image(id)),
                VolumeSource::Volume { id } => Some(self.image(id)),
            };
            let image = self.image(&volume);
            let request = VolumeRequest::Make { image, size, from };
            self.ask(request).await.map(drop)
        })
    }

    fn extend(&self, volume: VolumeId, size: u64) -> BoxFuture<'_, Result<Extended, Failure>> {
        Box::pin(async move {
            let image = self.image(&volume);
            let reply = self.ask(VolumeRequest::Extend { image, size }).await?;
            Ok(Extended {
                needs_restart: reply.waits,
            })
        })
    }

    fn snapshot(
        &self,
        volume: VolumeId,
        snapshot: SnapshotId,
    ) -> BoxFuture<'_, Result<u64, Failure>> {
        Box::pin(async move {
            let (image, to) = (self.image(&volume), self.snapshot_image(&snapshot));
            let reply = self.ask(VolumeRequest::Copy { image, to }).await?;
            Ok(reply.bytes)
        })
    }

    fn remove_volume(&self, volume: VolumeId) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            let image = self.image(&volume);
            self.ask(VolumeRequest::Remove { image }).await.map(drop)
        })
    }

    fn remove_snapshot(&self, snapshot: SnapshotId) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            let image = self.snapshot_image(&snapshot);
            self.ask(VolumeRequest::Remove { image }).await.map(drop)
        })
    }

    fn usage(&self, volume: VolumeId) -> BoxFuture<'_, Result<VolumeUsage, Failure>> {
        Box::pin(async move {
            let image = self.image(&volume);
            let reply = self.ask(VolumeRequest::Usage { image }).await?;
            Ok(reply.usage.unwrap_or_default())
        })
    }
}
