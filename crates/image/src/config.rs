//! What an image says about how to run it, read from its config blob.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::ImageError;
use crate::pins::Pin;
use crate::platform::Platform;

/// An image whose layers are unpacked on this host.
///
/// While a value (or a clone) lives, no prune removes the image or its layers.
#[derive(Clone, Debug)]
pub struct ReadyImage {
    /// `sha256:...` of its manifest.
    pub digest: String,
    /// Directories to stack, lowest first.
    pub layers: Vec<PathBuf>,
    /// How to run it.
    pub config: ImageConfig,
    _pins: Option<Arc<Vec<Pin>>>,
}

/// How an image wants to be run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// What is always run; `cmd` are its first arguments.
    pub entrypoint: Vec<String>,
    /// The default command, or arguments of `entrypoint`.
    pub cmd: Vec<String>,
    /// Environment. Where a name came twice, the last one.
    pub env: BTreeMap<String, String>,
    /// "", `name`, `uid`, `name:group` or `uid:gid`.
    pub user: String,
    /// The directory to start in; `/` where the image names none.
    pub workdir: String,
    /// Ports the image says it listens on, such as `8080/tcp`.
    pub exposed_ports: Vec<String>,
    /// The signal that asks it to stop, such as `SIGQUIT` or `3`.
    pub stop_signal: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// The config blob, OCI's or Docker's: only what we use, and lenient about nulls.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct ConfigBlob {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) architecture: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) variant: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) config: RunBlob,
    pub(crate) rootfs: RootBlob,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct RunBlob {
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub(crate) user: String,
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub(crate) exposed_ports: BTreeMap<String, serde_json::Value>,
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub(crate) env: Vec<String>,
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub(crate) entrypoint: Vec<String>,
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub(crate) cmd: Vec<String>,
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub(crate) working_dir: String,
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stop_signal: Option<String>,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct RootBlob {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) diff_ids: Vec<Digest>,
}

/// Docker writes `null` for what is empty.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

// === impl ReadyImage ===

impl ReadyImage {
    /// Returns an image made of any directories, which nobody protects: for fakes and tests.
    #[must_use]
    pub fn unprotected(digest: String, layers: Vec<PathBuf>, config: ImageConfig) -> Self {
        Self {
            digest,
            layers,
            config,
            _pins: None,
        }
    }

    pub(crate) fn pinned(
        digest: &Digest,
        layers: Vec<PathBuf>,
        config: ImageConfig,
        pins: Vec<Pin>,
    ) -> Self {
        Self {
            digest: digest.to_string(),
            layers,
            config,
            _pins: Some(Arc::new(pins)),
        }
    }

    /// Returns whether somebody beside this value holds the image.
    pub(crate) fn is_shared(&self) -> bool {
        self._pins
            .as_ref()
            .is_some_and(|p| Arc::strong_count(p) > 1)
    }
}

// === impl ConfigBlob ===

impl ConfigBlob {
    pub(crate) fn parse(bytes: &[u8], name: &str) -> Result<Self, ImageError> {
        serde_json::from_slice(bytes)
            .map_err(|e| ImageError::broken(format!("the config of image {name}"), e.to_string()))
    }

    pub(crate) fn platform(&self) -> Platform {
        Platform {
            os: self.os.clone(),
            architecture: self.architecture.clone(),
            variant: self.variant.clone().unwrap_or_default(),
        }
    }

    pub(crate) fn into_config(self) -> ImageConfig {
        let run = self.config;
        let pair = |text: String| match text.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => (text, String::new()),
        };
        ImageConfig {
            entrypoint: run.entrypoint,
            cmd: run.cmd,
            env: run.env.into_iter().map(pair).collect(),
            user: run.user,
            workdir: if run.working_dir.is_empty() {
                "/".to_owned()
            } else {
                run.working_dir
            },
            exposed_ports: run.exposed_ports.into_keys().collect(),
            stop_signal: run.stop_signal.filter(|s| !s.is_empty()),
            labels: run.labels,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_of_docker_are_read_as_nothing() {
        let text = br#"{"architecture":"amd64","os":"linux","config":{"Env":["A=1","A=2","B"],
            "Cmd":null,"Entrypoint":["/x"],"ExposedPorts":null,"Labels":null,"WorkingDir":"",
            "StopSignal":""},"rootfs":{"type":"layers","diff_ids":null}}"#;
        let config = ConfigBlob::parse(text, "x").unwrap().into_config();
        assert_eq!(config.entrypoint, ["/x"]);
        assert_eq!(config.env["A"], "2");
        assert_eq!(config.env["B"], "");
        assert_eq!(config.workdir, "/");
        assert_eq!(config.stop_signal, None);
    }
}
