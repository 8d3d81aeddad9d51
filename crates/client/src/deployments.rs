//! Deployments: made by the client, carried out by the server.

use std::time::Duration;

use hangar_api::deployment::{CreateDeployment, DeployEvent, DeployPreview, Deployment};
use hangar_api::id::{AppName, DeploymentId};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::sse::SseParser;
use crate::transport::with_query;
use crate::{Client, ClientError};

/// Longest silence while following: the server shows every 15 s that it is alive.
const SILENCE: Duration = Duration::from_secs(60);

/// What comes while a deployment is followed.
#[derive(Clone, Debug)]
pub enum Followed {
    /// Something worth telling.
    Event(DeployEvent),
    /// It is over.
    Over(Box<Deployment>),
}

/// A deployment being followed.
#[derive(Debug)]
pub struct Follow {
    body: Incoming,
    parser: SseParser,
    last_id: String,
}

impl Client {
    /// Starts a deployment. Refused with status 409 while another one runs.
    pub async fn create_deployment(
        &self,
        app: &AppName,
        body: &CreateDeployment,
    ) -> Result<Deployment, ClientError> {
        self.post(&format!("/v1/apps/{app}/deployments"), body)
            .await
    }

    /// Returns what a deployment would do; changes nothing.
    pub async fn preview_deployment(
        &self,
        app: &AppName,
        body: &CreateDeployment,
    ) -> Result<DeployPreview, ClientError> {
        let body = CreateDeployment {
            dry_run: true,
            ..body.clone()
        };
        self.post(&format!("/v1/apps/{app}/deployments"), &body)
            .await
    }

    /// Returns a deployment.
    pub async fn deployment(
        &self,
        app: &AppName,
        id: &DeploymentId,
    ) -> Result<Deployment, ClientError> {
        self.get(&format!("/v1/apps/{app}/deployments/{id}")).await
    }

    /// Asks a deployment to turn back; returns before it has.
    pub async fn cancel_deployment(
        &self,
        app: &AppName,
        id: &DeploymentId,
    ) -> Result<Deployment, ClientError> {
        self.post(
            &format!("/v1/apps/{app}/deployments/{id}/cancel"),
            &serde_json::Value::Null,
        )
        .await
    }

    /// Returns an app's deployments, newest first.
    pub async fn deployments(&self, app: &AppName) -> Result<Vec<Deployment>, ClientError> {
        self.get(&format!("/v1/apps/{app}/deployments")).await
    }

    /// Follows a deployment from behind the event whose id is `from`, or from its beginning when
    /// that is empty.
    pub async fn follow_deployment(
        &self,
        app: &AppName,
        id: &DeploymentId,
        from: &str,
    ) -> Result<Follow, ClientError> {
        let path = with_query(
            &format!("/v1/apps/{app}/deployments/{id}/events"),
            &[("from", Some(from.to_owned()).filter(|id| !id.is_empty()))],
        );
        let body = self.stream(&path).await?;
        Ok(Follow {
            body,
            parser: SseParser::default(),
            last_id: from.to_owned(),
        })
    }
}

// === impl Follow ===

impl Follow {
    /// Returns the id to go on from after the connection broke.
    #[must_use]
    pub fn last_id(&self) -> &str {
        &self.last_id
    }

    /// Returns what comes next, or `None` when the server went away before the end: follow again
    /// from [`Follow::last_id`].
    pub async fn next(&mut self) -> Result<Option<Followed>, ClientError> {
        loop {
            while let Some(event) = self.parser.next() {
                let bad = |error: serde_json::Error| ClientError::BadAnswer(error.to_string());
                if !event.id.is_empty() {
                    self.last_id = event.id;
                }
                match event.event.as_str() {
                    "over" => {
                        return Ok(Some(Followed::Over(
                            serde_json::from_str(&event.data).map_err(bad)?,
                        )));
                    }
                    "event" | "" if !event.data.is_empty() => {
                        return Ok(Some(Followed::Event(
                            serde_json::from_str(&event.data).map_err(bad)?,
                        )));
                    }
                    _ => {}
                }
            }
            // A server that is silent for so long is gone, whatever the connection says.
            let Ok(Some(Ok(frame))) = tokio::time::timeout(SILENCE, self.body.frame()).await else {
                return Ok(None);
            };
            if let Some(chunk) = frame.data_ref()
                && !self.parser.push(chunk)
            {
                return Err(ClientError::BadAnswer("an event is too long".to_owned()));
            }
        }
    }
}
