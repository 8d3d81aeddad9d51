//! A host's disk of volumes as the server sees it: sizes, and what was done how often.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use hangar_api::error::{ErrorKind, Failure};
use hangar_api::id::{SnapshotId, VolumeId};
use hangar_api::seam::{BoxFuture, Extended, VolumeCalls};
use hangar_api::volume::{VolumeSource, VolumeUsage};
use tokio::sync::watch;

/// What outlives the server.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    state: Arc<Mutex<State>>,
    /// Requests wait while this is set.
    held: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    volumes: BTreeMap<VolumeId, u64>,
    snapshots: BTreeMap<SnapshotId, u64>,
    full: bool,
    percent: u64,
}

impl Default for Disk {
    fn default() -> Self {
        Self {
            state: Arc::default(),
            held: watch::Sender::new(false),
        }
    }
}

impl Disk {
    /// Lets requests wait, or go on.
    pub(crate) fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    /// Has no room for anything more.
    pub(crate) fn fill(&self) {
        self.state.lock().unwrap().full = true;
    }

    pub(crate) fn sizes(&self) -> Vec<u64> {
        self.state
            .lock()
            .unwrap()
            .volumes
            .values()
            .copied()
            .collect()
    }

    pub(crate) fn snapshots(&self) -> usize {
        self.state.lock().unwrap().snapshots.len()
    }

    async fn begin(&self) {
        let mut held = self.held.subscribe();
        held.wait_for(|held| !held).await.unwrap();
    }
}

fn absent() -> Failure {
    Failure::new(ErrorKind::NotFound, "it is not on this host")
}

impl State {
    fn room(&self) -> Result<(), Failure> {
        if self.full {
            return Err(Failure::new(ErrorKind::Exhausted, "the disk is full"));
        }
        Ok(())
    }
}

impl VolumeCalls for Disk {
    fn make(
        &self,
        volume: VolumeId,
        size: u64,
        source: VolumeSource,
    ) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            self.begin().await;
            let mut state = self.state.lock().unwrap();
            let there = match &source {
                VolumeSource::Empty => true,
                VolumeSource::Snapshot { id } => state.snapshots.contains_key(id),
                VolumeSource::Volume { id } => state.volumes.contains_key(id),
            };
            state.room()?;
            if !there {
                return Err(absent());
            }
            state.volumes.entry(volume).or_insert(size);
            Ok(())
        })
    }

    fn extend(&self, volume: VolumeId, size: u64) -> BoxFuture<'_, Result<Extended, Failure>> {
        Box::pin(async move {
            self.begin().await;
            let mut state = self.state.lock().unwrap();
            state.room()?;
            *state.volumes.get_mut(&volume).ok_or_else(absent)? = size;
            Ok(Extended::default())
        })
    }

    fn snapshot(
        &self,
        volume: VolumeId,
        snapshot: SnapshotId,
    ) -> BoxFuture<'_, Result<u64, Failure>> {
        Box::pin(async move {
            self.begin().await;
            let mut state = self.state.lock().unwrap();
            state.room()?;
            let size = *state.volumes.get(&volume).ok_or_else(absent)?;
            state.snapshots.insert(snapshot, size);
            Ok(4096)
        })
    }

    fn remove_volume(&self, volume: VolumeId) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            self.begin().await;
            self.state.lock().unwrap().volumes.remove(&volume);
            Ok(())
        })
    }

    fn remove_snapshot(&self, snapshot: SnapshotId) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            self.begin().await;
            self.state.lock().unwrap().snapshots.remove(&snapshot);
            Ok(())
        })
    }

    fn usage(&self, volume: VolumeId) -> BoxFuture<'_, Result<VolumeUsage, Failure>> {
        Box::pin(async move {
            let state = self.state.lock().unwrap();
            let size = *state.volumes.get(&volume).ok_or_else(absent)?;
            let blocks = size / 4096;
            let free = blocks - blocks / 100 * state.percent;
            Ok(VolumeUsage {
                blocks,
                block_size: 4096,
                blocks_free: free,
                blocks_avail: free,
            })
        })
    }
}
