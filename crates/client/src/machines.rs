//! Machines and their leases.

use std::collections::BTreeMap;
use std::time::Duration;

use hangar_api::event::MachineEvent;
use hangar_api::exec::{ExecRequest, ExecResponse};
use hangar_api::id::{AppName, InstanceId, MachineId};
use hangar_api::lease::{Lease, LeaseRequest};
use hangar_api::machine::{LaunchInput, Machine};
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::transport::{encode, with_query};
use crate::{Client, ClientError};

/// Which Machines to list.
#[derive(Clone, Debug, Default)]
pub struct MachineFilter {
    /// Destroyed ones too.
    pub include_deleted: bool,
}

/// What to wait for.
#[derive(Clone, Debug)]
pub struct WaitFor<'a> {
    /// `started`, `stopped`, `destroyed`, `settled`, ...
    pub state: &'a str,
    /// Of this version only.
    pub version: Option<&'a InstanceId>,
    /// At most so long, 1 to 60 s.
    pub timeout: Duration,
}

#[derive(Deserialize)]
struct Envelope {
    data: Lease,
}

impl Client {
    /// Returns an app's Machines.
    pub async fn machines(
        &self,
        app: &AppName,
        filter: &MachineFilter,
    ) -> Result<Vec<Machine>, ClientError> {
        let deleted = filter.include_deleted.then(|| "true".to_owned());
        self.get(&with_query(
            &format!("/v1/apps/{app}/machines"),
            &[("include_deleted", deleted)],
        ))
        .await
    }

    /// Returns one Machine.
    pub async fn machine(&self, app: &AppName, id: &MachineId) -> Result<Machine, ClientError> {
        self.get(&format!("/v1/apps/{app}/machines/{id}")).await
    }

    /// Creates a Machine.
    pub async fn create_machine(
        &self,
        app: &AppName,
        input: &LaunchInput,
    ) -> Result<Machine, ClientError> {
        self.post(&format!("/v1/apps/{app}/machines"), input).await
    }

    /// Replaces a Machine's configuration.
    pub async fn update_machine(
        &self,
        app: &AppName,
        id: &MachineId,
        input: &LaunchInput,
        nonce: Option<&str>,
    ) -> Result<Machine, ClientError> {
        self.act(
            Method::POST,
            &format!("/v1/apps/{app}/machines/{id}"),
            Some(input),
            nonce,
        )
        .await
    }

    /// Starts a Machine; returns once that is accepted.
    pub async fn start_machine(
        &self,
        app: &AppName,
        id: &MachineId,
        nonce: Option<&str>,
    ) -> Result<Value, ClientError> {
        self.act(
            Method::POST,
            &format!("/v1/apps/{app}/machines/{id}/start"),
            None::<&()>,
            nonce,
        )
        .await
    }

    /// Stops a Machine; returns once that is accepted.
    pub async fn stop_machine(
        &self,
        app: &AppName,
        id: &MachineId,
        signal: Option<&str>,
        timeout: Option<Duration>,
        nonce: Option<&str>,
    ) -> Result<Value, ClientError> {
        let mut body = serde_json::Map::new();
        if let Some(signal) = signal {
            body.insert("signal".to_owned(), json!(signal));
        }
        if let Some(timeout) = timeout {
            body.insert(
                "timeout".to_owned(),
                json!(format!("{}s", timeout.as_secs())),
            );
        }
        self.act(
            Method::POST,
            &format!("/v1/apps/{app}/machines/{id}/stop"),
            Some(&body),
            nonce,
        )
        .await
    }

    /// Suspends a Machine; returns once that is accepted.
    pub async fn suspend_machine(
        &self,
        app: &AppName,
        id: &MachineId,
        nonce: Option<&str>,
    ) -> Result<Value, ClientError> {
        let path = format!("/v1/apps/{app}/machines/{id}/suspend");
        self.act(Method::POST, &path, None::<&()>, nonce).await
    }

    /// Restarts a Machine; returns once that is accepted.
    pub async fn restart_machine(
        &self,
        app: &AppName,
        id: &MachineId,
        signal: Option<&str>,
        timeout: Option<Duration>,
        nonce: Option<&str>,
    ) -> Result<Value, ClientError> {
        let pairs = [
            ("signal", signal.map(str::to_owned)),
            ("timeout", timeout.map(|t| format!("{}s", t.as_secs()))),
        ];
        let path = with_query(&format!("/v1/apps/{app}/machines/{id}/restart"), &pairs);
        self.act(Method::POST, &path, None::<&()>, nonce).await
    }

    /// Destroys a Machine; returns once that is accepted.
    pub async fn destroy_machine(
        &self,
        app: &AppName,
        id: &MachineId,
        force: bool,
        nonce: Option<&str>,
    ) -> Result<Value, ClientError> {
        let path = with_query(
            &format!("/v1/apps/{app}/machines/{id}"),
            &[("force", force.then(|| "true".to_owned()))],
        );
        self.act(Method::DELETE, &path, None::<&()>, nonce).await
    }

    /// Runs a command in a started Machine and returns what it wrote.
    pub async fn exec(
        &self,
        app: &AppName,
        id: &MachineId,
        request: &ExecRequest,
    ) -> Result<ExecResponse, ClientError> {
        let path = format!("/v1/apps/{app}/machines/{id}/exec");
        let timeout = Duration::from_secs(request.timeout.unwrap_or(0));
        self.with_patience(timeout).post(&path, request).await
    }

    /// Sends a signal, such as `SIGHUP`, to a Machine's main process.
    pub async fn signal_machine(
        &self,
        app: &AppName,
        id: &MachineId,
        signal: &str,
        nonce: Option<&str>,
    ) -> Result<Value, ClientError> {
        let path = format!("/v1/apps/{app}/machines/{id}/signal");
        let body = json!({ "signal": signal });
        self.act(Method::POST, &path, Some(&body), nonce).await
    }

    /// Keeps a Machine out of the proxy until it is uncordoned.
    pub async fn cordon_machine(
        &self,
        app: &AppName,
        id: &MachineId,
        nonce: Option<&str>,
    ) -> Result<Value, ClientError> {
        let path = format!("/v1/apps/{app}/machines/{id}/cordon");
        self.act(Method::POST, &path, None::<&()>, nonce).await
    }

    /// Gives a cordoned Machine back to the proxy.
    pub async fn uncordon_machine(
        &self,
        app: &AppName,
        id: &MachineId,
        nonce: Option<&str>,
    ) -> Result<Value, ClientError> {
        let path = format!("/v1/apps/{app}/machines/{id}/uncordon");
        self.act(Method::POST, &path, None::<&()>, nonce).await
    }

    /// Returns a Machine's last events, newest first.
    pub async fn machine_events(
        &self,
        app: &AppName,
        id: &MachineId,
        limit: usize,
    ) -> Result<Vec<MachineEvent>, ClientError> {
        let path = format!("/v1/apps/{app}/machines/{id}/events?limit={limit}");
        self.get(&path).await
    }

    /// Waits for a state; fails with status 408 when the time is over.
    pub async fn wait(
        &self,
        app: &AppName,
        id: &MachineId,
        wait: &WaitFor<'_>,
    ) -> Result<Value, ClientError> {
        let pairs = [
            ("state", Some(wait.state.to_owned())),
            (
                "timeout",
                Some(wait.timeout.as_secs().clamp(1, 60).to_string()),
            ),
            ("version", wait.version.map(ToString::to_string)),
        ];
        self.get(&with_query(
            &format!("/v1/apps/{app}/machines/{id}/wait"),
            &pairs,
        ))
        .await
    }

    /// Sets one metadata key, without a new version.
    pub async fn set_metadata(
        &self,
        app: &AppName,
        id: &MachineId,
        key: &str,
        value: &str,
    ) -> Result<(), ClientError> {
        let path = format!("/v1/apps/{app}/machines/{id}/metadata/{}", encode(key));
        self.post(&path, &json!({ "value": value })).await
    }

    /// Returns a Machine's metadata.
    pub async fn metadata(
        &self,
        app: &AppName,
        id: &MachineId,
    ) -> Result<BTreeMap<String, String>, ClientError> {
        self.get(&format!("/v1/apps/{app}/machines/{id}/metadata"))
            .await
    }

    /// Removes one metadata key, without a new version.
    pub async fn delete_metadata(
        &self,
        app: &AppName,
        id: &MachineId,
        key: &str,
    ) -> Result<(), ClientError> {
        let path = format!("/v1/apps/{app}/machines/{id}/metadata/{}", encode(key));
        self.call(Method::DELETE, &path, None::<&()>, &[]).await
    }

    /// Returns who holds a Machine's lease; fails with status 404 when nobody does.
    pub async fn current_lease(&self, app: &AppName, id: &MachineId) -> Result<Lease, ClientError> {
        let path = format!("/v1/apps/{app}/machines/{id}/lease");
        Ok(self.get::<Envelope>(&path).await?.data)
    }

    /// Takes a lease, or refreshes the one that `nonce` names.
    pub async fn lease(
        &self,
        app: &AppName,
        id: &MachineId,
        request: &LeaseRequest,
        nonce: Option<&str>,
    ) -> Result<Lease, ClientError> {
        let path = format!("/v1/apps/{app}/machines/{id}/lease");
        Ok(self
            .act::<_, Envelope>(Method::POST, &path, Some(request), nonce)
            .await?
            .data)
    }

    /// Gives a lease back.
    pub async fn release_lease(
        &self,
        app: &AppName,
        id: &MachineId,
        nonce: &str,
    ) -> Result<Value, ClientError> {
        self.act(
            Method::DELETE,
            &format!("/v1/apps/{app}/machines/{id}/lease"),
            None::<&()>,
            Some(nonce),
        )
        .await
    }

    async fn act<B: serde::Serialize, T: serde::de::DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
        nonce: Option<&str>,
    ) -> Result<T, ClientError> {
        let headers: Vec<(&str, &str)> = nonce
            .map(|n| ("fly-machine-lease-nonce", n))
            .into_iter()
            .collect();
        self.call(method, path, body, &headers).await
    }
}
