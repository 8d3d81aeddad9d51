//! Volumes and their snapshots.

use std::time::Duration;

use hangar_api::id::{AppName, SnapshotId, VolumeId};
use hangar_api::volume::{
    CreateVolume, ExtendVolume, Snapshot, UpdateVolume, Volume, VolumeExtended,
};
use http::Method;

use crate::{Client, ClientError};

/// What the server waits for its host before it answers.
const WAITS: Duration = Duration::from_secs(30);

impl Client {
    /// Returns an app's volumes, those that were just destroyed too.
    pub async fn volumes(&self, app: &AppName) -> Result<Vec<Volume>, ClientError> {
        self.get(&format!("/v1/apps/{app}/volumes")).await
    }

    /// Returns one volume, measured.
    pub async fn volume(&self, app: &AppName, id: &VolumeId) -> Result<Volume, ClientError> {
        self.get(&format!("/v1/apps/{app}/volumes/{id}")).await
    }

    /// Creates a volume. One that takes long to fill comes back as it is by then.
    pub async fn create_volume(
        &self,
        app: &AppName,
        input: &CreateVolume,
    ) -> Result<Volume, ClientError> {
        let patient = self.with_patience(WAITS);
        patient
            .post(&format!("/v1/apps/{app}/volumes"), input)
            .await
    }

    /// Changes how snapshots of a volume are made and kept.
    pub async fn update_volume(
        &self,
        app: &AppName,
        id: &VolumeId,
        input: &UpdateVolume,
    ) -> Result<Volume, ClientError> {
        let path = format!("/v1/apps/{app}/volumes/{id}");
        self.call(Method::PUT, &path, Some(input), &[]).await
    }

    /// Makes a volume as large as so many GB.
    pub async fn extend_volume(
        &self,
        app: &AppName,
        id: &VolumeId,
        size_gb: u64,
    ) -> Result<VolumeExtended, ClientError> {
        let path = format!("/v1/apps/{app}/volumes/{id}/extend");
        let body = ExtendVolume { size_gb };
        let patient = self.with_patience(WAITS);
        patient.call(Method::PUT, &path, Some(&body), &[]).await
    }

    /// Destroys a volume that no Machine has.
    pub async fn destroy_volume(
        &self,
        app: &AppName,
        id: &VolumeId,
    ) -> Result<Volume, ClientError> {
        let path = format!("/v1/apps/{app}/volumes/{id}");
        let patient = self.with_patience(WAITS);
        patient.call(Method::DELETE, &path, None::<&()>, &[]).await
    }

    /// Returns a volume's snapshots, also when it is destroyed.
    pub async fn volume_snapshots(
        &self,
        app: &AppName,
        id: &VolumeId,
    ) -> Result<Vec<Snapshot>, ClientError> {
        self.get(&format!("/v1/apps/{app}/volumes/{id}/snapshots"))
            .await
    }

    /// Asks for a snapshot of a volume.
    pub async fn create_snapshot(
        &self,
        app: &AppName,
        id: &VolumeId,
    ) -> Result<Snapshot, ClientError> {
        let path = format!("/v1/apps/{app}/volumes/{id}/snapshots");
        self.post(&path, &serde_json::json!({})).await
    }

    /// Destroys a snapshot.
    pub async fn destroy_snapshot(
        &self,
        app: &AppName,
        id: &VolumeId,
        snapshot: &SnapshotId,
    ) -> Result<(), ClientError> {
        let path = format!("/v1/apps/{app}/volumes/{id}/snapshots/{snapshot}");
        self.call::<_, serde_json::Value>(Method::DELETE, &path, None::<&()>, &[])
            .await
            .map(drop)
    }
}
