//! Connections that go over to another protocol: sessions and tunnels (`hangar_api::session`).

use hangar_api::id::{AppName, MachineId};
use hangar_api::session::{SESSION_PROTOCOL, SessionRequest, TUNNEL_PROTOCOL};
use http::header::{CONNECTION, CONTENT_TYPE, UPGRADE};
use http::{HeaderValue, Method};
use hyper_util::rt::TokioIo;

use crate::transport::full;
use crate::{Client, ClientError};

/// The bytes of a connection that has gone over, both ways; each way ends by itself.
pub type Upgraded = TokioIo<hyper::upgrade::Upgraded>;

impl Client {
    /// Begins a command in a started Machine whose streams stay open; returns once it runs. The
    /// connection then carries frames of `hangar_api::session`.
    pub async fn session(
        &self,
        app: &AppName,
        id: &MachineId,
        request: &SessionRequest,
    ) -> Result<Upgraded, ClientError> {
        let path = format!("/v1/apps/{app}/machines/{id}/session");
        let body =
            serde_json::to_vec(request).map_err(|e| ClientError::BadAnswer(e.to_string()))?;
        self.go_over(Method::POST, &path, body, SESSION_PROTOCOL)
            .await
    }

    /// Connects to a TCP port of a started Machine; the connection then carries its bytes.
    pub async fn tunnel(
        &self,
        app: &AppName,
        id: &MachineId,
        port: u16,
    ) -> Result<Upgraded, ClientError> {
        let path = format!("/v1/apps/{app}/machines/{id}/tunnel?port={port}");
        self.go_over(Method::GET, &path, Vec::new(), TUNNEL_PROTOCOL)
            .await
    }

    async fn go_over(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        protocol: &'static str,
    ) -> Result<Upgraded, ClientError> {
        let mut request = self.request(method, path, full(body))?;
        let headers = request.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static(protocol));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let answer = self.ask_to_upgrade(request).await?;
        let upgraded = hyper::upgrade::on(answer).await;
        upgraded
            .map(TokioIo::new)
            .map_err(|error| ClientError::Broken(error.to_string()))
    }
}
