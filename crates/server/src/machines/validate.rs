//! Whether a configuration can be run here. Pure: what is asked for and not done is refused in
//! words, never ignored.

use hangar_api::machine::{Guest, MachineConfig};
use serde_json::Value;

use crate::error::Problem;

/// Parts of a configuration that Hangar does not act on yet, and what they are called.
const NOT_OFFERED: [(&str, &str); 8] = [
    ("mounts", "volumes"),
    ("volumes", "volumes of containers"),
    ("containers", "several containers in one Machine"),
    ("processes", "several processes in one Machine"),
    ("schedule", "scheduled Machines"),
    ("statics", "static files served by the proxy"),
    ("cache_drive", "cache drives"),
    ("spot", "spot Machines"),
];

/// Returns the configuration of a request with its size filled in.
pub(crate) fn config(given: Option<MachineConfig>) -> Result<MachineConfig, Problem> {
    let missing = || Problem::Invalid("invalid_argument: config.image is required".to_owned());
    let mut config = given.ok_or_else(missing)?;
    if config.image.trim().is_empty() {
        return Err(missing());
    }
    let refused = |text: String| Problem::Invalid(format!("invalid_argument: {text}"));
    for (key, what) in NOT_OFFERED {
        let empty = match config.other.get(key) {
            None | Some(Value::Null | Value::Bool(false)) => true,
            Some(Value::Array(list)) => list.is_empty(),
            Some(Value::Object(map)) => map.is_empty(),
            Some(Value::String(text)) => text.is_empty(),
            Some(_) => false,
        };
        if !empty {
            return Err(refused(format!(
                "config.{key}: {what} are not offered by this Hangar; leave {key} out"
            )));
        }
    }
    let guest = match (config.guest.take(), config.size.as_deref()) {
        (Some(guest), _) => guest,
        (None, Some(size)) if !size.is_empty() => {
            Guest::preset(size).map_err(|error| refused(error.to_string()))?
        }
        (None, _) => Guest::default(),
    };
    guest
        .validate()
        .map_err(|error| refused(error.to_string()))?;
    config.guest = Some(guest);
    for service in &config.services {
        if service.internal_port == 0 {
            return Err(refused(
                "config.services: internal_port is required, 1 to 65535".to_owned(),
            ));
        }
        if service.protocol != "tcp" {
            return Err(refused(format!(
                "config.services: protocol {:?} is not offered by this Hangar; use tcp",
                service.protocol
            )));
        }
    }
    let stop = config.stop_config.as_ref();
    let signal = stop.and_then(|stop| stop.signal.as_deref()).unwrap_or("");
    if !signal.is_empty() && hangar_api::signal::number(signal).is_none() {
        return Err(refused(format!(
            "config.stop_config: no signal is called {signal:?}; use SIGINT, SIGTERM or another one of Linux"
        )));
    }
    if !config.standbys.is_empty() && !config.services.is_empty() {
        return Err(refused(
            "config.standbys: a Machine with services cannot be a standby".to_owned(),
        ));
    }
    Ok(config)
}

/// Returns the version of the secrets that a new version of a Machine starts with.
pub(crate) fn secrets_version(current: u64, at_least: Option<u64>) -> Result<u64, Problem> {
    match at_least {
        Some(wanted) if wanted > current => Err(Problem::Precondition(format!(
            "the app's secrets have version {current}, min_secrets_version asks for {wanted}"
        ))),
        _ => Ok(current),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str) -> Result<MachineConfig, String> {
        config(Some(serde_json::from_str(json).unwrap())).map_err(|problem| problem.to_string())
    }

    #[test]
    fn an_image_alone_is_enough_and_gets_a_size() {
        let config = check(r#"{"image":"nginx","mounts":[],"schedule":null}"#).unwrap();
        assert_eq!(config.guest, Some(Guest::default()));
        let config = check(r#"{"image":"nginx","size":"shared-cpu-2x"}"#).unwrap();
        assert_eq!(config.guest.unwrap().memory_mb, 512);
    }

    #[test]
    fn what_is_not_offered_is_refused_in_words() {
        for (json, word) in [
            (r#"{}"#, "config.image is required"),
            (r#"{"image":" "}"#, "config.image is required"),
            (r#"{"image":"x","mounts":[{"volume":"vol_1"}]}"#, "volumes"),
            (r#"{"image":"x","schedule":"daily"}"#, "schedule"),
            (r#"{"image":"x","guest":{"cpus":3}}"#, "number of CPUs"),
            (r#"{"image":"x","size":"huge"}"#, "unknown size"),
            (
                r#"{"image":"x","stop_config":{"signal":"SIGFOO"}}"#,
                "no signal is called \"SIGFOO\"",
            ),
            (
                r#"{"image":"x","services":[{"internal_port":1,"protocol":"udp"}]}"#,
                "udp",
            ),
            (
                r#"{"image":"x","services":[{"ports":[]}]}"#,
                "internal_port",
            ),
        ] {
            let error = check(json).unwrap_err();
            assert!(error.contains(word), "{json}: {error}");
        }
        assert!(config(None).is_err());
    }
}
