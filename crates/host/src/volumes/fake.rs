//! Volumes without a disk: sizes and one text each, for tests and simulations.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hangar_api::error::{ErrorKind, Failure};
use hangar_api::id::{SnapshotId, VolumeId};
use hangar_api::seam::{BoxFuture, Extended, VolumeCalls};
use hangar_api::volume::{BLOCK_SIZE, VolumeSource, VolumeUsage};

/// The fake. Clones share one disk.
#[derive(Clone, Debug)]
pub struct FakeVolumes(Arc<Mutex<Disk>>);

/// What a volume or snapshot holds.
#[derive(Clone, Debug, Default)]
struct Image {
    size: u64,
    text: String,
}

#[derive(Debug, Default)]
struct Disk {
    volumes: BTreeMap<VolumeId, Image>,
    snapshots: BTreeMap<SnapshotId, Image>,
    /// Bytes that all volumes may have together.
    room: u64,
    /// So many requests fail from now on.
    failing: u32,
    /// How long each request takes.
    latency: std::time::Duration,
}

// === impl FakeVolumes ===

impl FakeVolumes {
    /// Returns a disk with room for so many bytes.
    #[must_use]
    pub fn new(room: u64) -> Self {
        let disk = Disk {
            room,
            ..Disk::default()
        };
        Self(Arc::new(Mutex::new(disk)))
    }

    /// Makes the next `count` requests fail as a broken disk does.
    pub fn fail(&self, count: u32) {
        self.lock().failing = count;
    }

    /// Makes every request take this long.
    pub fn set_latency(&self, latency: std::time::Duration) {
        self.lock().latency = latency;
    }

    /// Writes into a volume, in place of what was there.
    pub fn write(&self, volume: &VolumeId, text: &str) {
        if let Some(image) = self.lock().volumes.get_mut(volume) {
            text.clone_into(&mut image.text);
        }
    }

    /// Returns what a volume holds, or `None` where there is none.
    #[must_use]
    pub fn read(&self, volume: &VolumeId) -> Option<String> {
        let disk = self.lock();
        disk.volumes.get(volume).map(|image| image.text.clone())
    }

    /// Returns how many volumes and snapshots there are.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let disk = self.lock();
        (disk.volumes.len(), disk.snapshots.len())
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the time of a request, and fails where it shall.
    async fn begin(&self) -> Result<(), Failure> {
        let latency = self.lock().latency;
        tokio::time::sleep(latency).await;
        let mut disk = self.lock();
        if disk.failing > 0 {
            disk.failing -= 1;
            let text = "work on the volume: the disk does not answer";
            return Err(Failure::new(ErrorKind::Internal, text));
        }
        Ok(())
    }
}

impl Disk {
    fn has_room(&self, more: u64) -> Result<(), Failure> {
        let taken: u64 = self.volumes.values().map(|image| image.size).sum();
        if taken.saturating_add(more) > self.room {
            let text = "insufficient resources: the disk has no room for the volume";
            return Err(Failure::new(ErrorKind::Exhausted, text));
        }
        Ok(())
    }

    fn source(&self, source: &VolumeSource) -> Result<Image, Failure> {
        match source {
            VolumeSource::Empty => Ok(Image::default()),
            VolumeSource::Snapshot { id } => {
                self.snapshots.get(id).cloned().ok_or_else(|| absent(id))
            }
            VolumeSource::Volume { id } => self.volumes.get(id).cloned().ok_or_else(|| absent(id)),
        }
    }
}

fn absent(id: &impl std::fmt::Display) -> Failure {
    Failure::new(ErrorKind::NotFound, format!("{id} is not on this host"))
}

impl VolumeCalls for FakeVolumes {
    fn make(
        &self,
        volume: VolumeId,
        size: u64,
        source: VolumeSource,
    ) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            self.begin().await?;
            let mut disk = self.lock();
            if disk.volumes.contains_key(&volume) {
                return Ok(());
            }
            let mut image = disk.source(&source)?;
            if size < image.size {
                let text = "a volume made from it needs to be as large";
                return Err(Failure::new(ErrorKind::Invalid, text));
            }
            disk.has_room(size)?;
            image.size = size;
            disk.volumes.insert(volume, image);
            Ok(())
        })
    }

    fn extend(&self, volume: VolumeId, size: u64) -> BoxFuture<'_, Result<Extended, Failure>> {
        Box::pin(async move {
            self.begin().await?;
            let mut disk = self.lock();
            let now = disk.volumes.get(&volume).ok_or_else(|| absent(&volume))?;
            let more = size.saturating_sub(now.size);
            disk.has_room(more)?;
            if let Some(image) = disk.volumes.get_mut(&volume) {
                image.size += more;
            }
            Ok(Extended::default())
        })
    }

    fn snapshot(
        &self,
        volume: VolumeId,
        snapshot: SnapshotId,
    ) -> BoxFuture<'_, Result<u64, Failure>> {
        Box::pin(async move {
            self.begin().await?;
            let mut disk = self.lock();
            let now = disk.volumes.get(&volume).cloned();
            let known = disk.snapshots.get(&snapshot).cloned();
            let image = known.or(now).ok_or_else(|| absent(&volume))?;
            let bytes = u64::try_from(image.text.len()).unwrap_or(u64::MAX);
            disk.snapshots.insert(snapshot, image);
            Ok(bytes.max(BLOCK_SIZE))
        })
    }

    fn remove_volume(&self, volume: VolumeId) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            self.begin().await?;
            self.lock().volumes.remove(&volume);
            Ok(())
        })
    }

    fn remove_snapshot(&self, snapshot: SnapshotId) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            self.begin().await?;
            self.lock().snapshots.remove(&snapshot);
            Ok(())
        })
    }

    fn usage(&self, volume: VolumeId) -> BoxFuture<'_, Result<VolumeUsage, Failure>> {
        Box::pin(async move {
            self.begin().await?;
            let disk = self.lock();
            let image = disk.volumes.get(&volume).ok_or_else(|| absent(&volume))?;
            let taken = u64::try_from(image.text.len()).unwrap_or(u64::MAX);
            let blocks = image.size / BLOCK_SIZE;
            let free = blocks.saturating_sub(taken.div_ceil(BLOCK_SIZE));
            Ok(VolumeUsage {
                blocks,
                block_size: BLOCK_SIZE,
                blocks_free: free,
                blocks_avail: free,
            })
        })
    }
}
