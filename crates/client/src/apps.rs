//! Apps, secrets, releases and what the platform offers.

use hangar_api::app::{App, AppCreated, AppList, CreateApp};
use hangar_api::edge::EdgeMap;
use hangar_api::id::{AppName, SlotId};
use hangar_api::region::{RegionInfo, Slot};
use hangar_api::release::Release;
use hangar_api::secret::{SecretList, SecretsUpdate, SecretsUpdated};
use http::Method;
use serde::Deserialize;

use crate::transport::with_query;
use crate::{Client, ClientError};

#[derive(Deserialize)]
struct Regions {
    regions: Vec<RegionInfo>,
}

#[derive(Deserialize)]
struct SlotList {
    slots: Vec<Slot>,
}

impl Client {
    /// Returns all apps that may be read.
    pub async fn apps(&self) -> Result<AppList, ClientError> {
        self.get("/v1/apps").await
    }

    /// Returns one app.
    pub async fn app(&self, app: &AppName) -> Result<App, ClientError> {
        self.get(&format!("/v1/apps/{app}")).await
    }

    /// Creates an app. Without an organisation, it is of the only one that the token may make apps
    /// in, else of `personal`.
    pub async fn create_app(
        &self,
        app: &AppName,
        org: Option<&str>,
        network: Option<&str>,
    ) -> Result<AppCreated, ClientError> {
        let body = CreateApp {
            name: Some(app.to_string()),
            org_slug: org.map(str::to_owned),
            network: network.map(str::to_owned),
            ..CreateApp::default()
        };
        self.post("/v1/apps", &body).await
    }

    /// Destroys an app with all its Machines.
    pub async fn delete_app(&self, app: &AppName) -> Result<(), ClientError> {
        self.call(
            Method::DELETE,
            &format!("/v1/apps/{app}?force=true"),
            None::<&()>,
            &[],
        )
        .await
    }

    /// Returns names and digests of an app's secrets.
    pub async fn secrets(&self, app: &AppName) -> Result<SecretList, ClientError> {
        self.get(&format!("/v1/apps/{app}/secrets")).await
    }

    /// Sets and removes secrets. Machines see them when they are next updated or started.
    pub async fn update_secrets(
        &self,
        app: &AppName,
        update: &SecretsUpdate,
    ) -> Result<SecretsUpdated, ClientError> {
        self.post(&format!("/v1/apps/{app}/secrets"), update).await
    }

    /// Returns the newest releases, newest first.
    pub async fn releases(&self, app: &AppName, limit: usize) -> Result<Vec<Release>, ClientError> {
        self.get(&with_query(
            &format!("/v1/apps/{app}/releases"),
            &[("limit", Some(limit.to_string()))],
        ))
        .await
    }

    /// Returns one release.
    pub async fn release(&self, app: &AppName, version: u64) -> Result<Release, ClientError> {
        self.get(&format!("/v1/apps/{app}/releases/{version}"))
            .await
    }

    /// Returns once the server answers; needs no token.
    pub async fn health(&self) -> Result<(), ClientError> {
        self.get::<serde_json::Value>("/v1/health").await?;
        Ok(())
    }

    /// Returns the regions there are slots in.
    pub async fn regions(&self) -> Result<Vec<RegionInfo>, ClientError> {
        Ok(self.get::<Regions>("/v1/platform/regions").await?.regions)
    }

    /// Returns the slots that Machines are placed on.
    pub async fn slots(&self) -> Result<Vec<Slot>, ClientError> {
        Ok(self.get::<SlotList>("/v1/platform/slots").await?.slots)
    }

    /// Marks a slot lost, or takes the mark off. May be repeated.
    pub async fn mark_slot(&self, slot: &SlotId, lost: bool) -> Result<Slot, ClientError> {
        let mark = if lost { "lost" } else { "back" };
        let path = format!("/v1/platform/slots/{slot}/{mark}");
        self.post(&path, &serde_json::json!({})).await
    }

    /// Returns where the proxy listens.
    pub async fn edge(&self) -> Result<EdgeMap, ClientError> {
        self.get("/v1/platform/edge").await
    }
}
