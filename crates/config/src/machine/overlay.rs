//! `machine_config`: a Machine configuration that the rest of fly.toml is laid over.

use serde_json::{Map, Value as Json};

use super::{Inputs, MachineError};
use crate::app::AppConfig;

impl AppConfig {
    /// Returns what the configuration begins with: `machine_config`, or nothing.
    pub(super) fn overlay(&self, inputs: &Inputs) -> Result<Map<String, Json>, MachineError> {
        let build = self.build.as_ref();
        if build.is_some_and(|b| b.compose.is_some()) {
            let message = "containers from a Compose file are not there yet: `migrate compose` makes process groups of them";
            return Err(MachineError::Overlay(message.to_owned()));
        }
        let Some(given) = self.overlay_source() else {
            return Ok(Map::new());
        };
        let text = if given.starts_with('{') {
            given.as_bytes()
        } else if given.ends_with(".json") {
            let file = inputs.files.get(given).map(Vec::as_slice);
            let message = || MachineError::Overlay(format!("file {given} cannot be read"));
            file.ok_or_else(message)?
        } else {
            let message = format!("invalid machine config source: {given:?}");
            return Err(MachineError::Overlay(message));
        };
        let shown: String = given.chars().take(80).collect();
        let config: Map<String, Json> = serde_json::from_slice(text)
            .map_err(|e| MachineError::Overlay(format!("invalid machine config {shown:?}: {e}")))?;
        let mut config: Map<String, Json> = config
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .collect();
        self.choose_container(&mut config)?;
        Ok(config)
    }

    /// Returns JSON text or the name of a file with it.
    fn overlay_source(&self) -> Option<&str> {
        let experimental = self.experimental.as_ref();
        let old = experimental.and_then(|e| e.machine_config.as_deref());
        old.or(self.machine_config.as_deref())
    }

    /// Returns the key that says what the configuration begins with.
    pub(super) fn overlay_key(&self) -> &'static str {
        if self.build.as_ref().is_some_and(|b| b.compose.is_some()) {
            return "build.compose";
        }
        let old = self
            .experimental
            .as_ref()
            .and_then(|e| e.machine_config.as_ref());
        if old.is_some() {
            "experimental.machine_config"
        } else {
            "machine_config"
        }
    }

    /// Returns the file that `machine_config` names.
    fn overlay_file(&self) -> Option<&str> {
        self.overlay_source()
            .filter(|s| !s.starts_with('{') && s.ends_with(".json"))
    }

    /// Returns the paths of all files that [`Inputs::files`] should have.
    #[must_use]
    pub fn needed_files(&self) -> Vec<&str> {
        let mut files = self.local_files();
        files.extend(self.overlay_file());
        files
    }

    /// The image goes into one container: the named one, else `app`, else the first.
    fn choose_container(&self, config: &mut Map<String, Json>) -> Result<(), MachineError> {
        let Some(Json::Array(containers)) = config.get_mut("containers") else {
            return Ok(());
        };
        if containers.is_empty() {
            return Ok(());
        }
        if !containers.iter().all(Json::is_object) {
            let message = "machine_config: containers must be a list of objects";
            return Err(MachineError::Overlay(message.to_owned()));
        }
        let wanted = self.container.as_deref();
        let name = |c: &Json| c.get("name").and_then(Json::as_str).map(str::to_owned);
        let is = |wanted: &str| {
            let at = containers
                .iter()
                .position(|c| name(c).as_deref() == Some(wanted));
            at.ok_or_else(|| MachineError::Overlay(format!("container {wanted:?} not found")))
        };
        let chosen = match wanted {
            Some(wanted) => is(wanted)?,
            None => is("app").unwrap_or(0),
        };
        for (i, container) in containers.iter_mut().enumerate() {
            let has_image = container.get("image").and_then(Json::as_str);
            if i == chosen {
                container["image"] = Json::from(".");
            } else if has_image.is_none_or(str::is_empty) {
                let name = name(container).unwrap_or_default();
                let message = format!("container {name:?} must have an image specified");
                return Err(MachineError::Overlay(message));
            }
        }
        Ok(())
    }
}
