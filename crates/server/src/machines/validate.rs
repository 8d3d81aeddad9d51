//! Whether a configuration can be run here. Pure: what is asked for and not done is refused in
//! words, never ignored.

use hangar_api::check::CheckConfig;
use hangar_api::machine::service::MAX_PORTS_PER_APP;
use hangar_api::machine::{Guest, LaunchInput, MachineConfig};
use serde_json::Value;

use crate::error::Problem;
use crate::volumes::attach;

/// Parts of a configuration that Hangar does not act on yet, and what they are called.
const NOT_OFFERED: [(&str, &str); 5] = [
    ("volumes", "volumes of containers"),
    ("containers", "several containers in one Machine"),
    ("processes", "several processes in one Machine"),
    ("cache_drive", "cache drives"),
    ("spot", "spot Machines"),
];

/// What may stand for what happens after an exit (machines-api.md 7.1; `never` is fly.toml's).
const RESTART_POLICIES: [&str; 5] = ["", "no", "never", "on-failure", "always"];
/// Most services of a Machine.
const MAX_SERVICES: usize = 64;
/// Most checks of a Machine, those of its services among them.
const MAX_CHECKS: usize = 64;
/// Most bytes of a check's name.
const MAX_NAME: usize = 128;
/// Most bytes of a configuration, as JSON.
const MAX_CONFIG: usize = 512 * 1024;

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
            return Err(Problem::Unsupported(format!(
                "config.{key}: {what} are not offered by this Hangar; leave {key} out"
            )));
        }
    }
    if config.guest.as_ref().is_some_and(Guest::wants_gpu) {
        return Err(Problem::Unsupported(
            "config.guest: GPUs are not offered by this Hangar; leave gpus and gpu_kind out"
                .to_owned(),
        ));
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
        if let Some((key, text)) = service.refusals().into_iter().next() {
            return Err(refused(format!("config.services: {key}: {text}")));
        }
    }
    rules(&config).map_err(refused)?;
    config
        .statics()
        .map_err(|error| refused(format!("config.{error}")))?;
    attach::check(&config.mounts).map_err(refused)?;
    sizes(&config).map_err(refused)?;
    Ok(config)
}

/// Refuses words that mean nothing here.
fn rules(config: &MachineConfig) -> Result<(), String> {
    let stop = config.stop_config.as_ref();
    let signal = stop.and_then(|stop| stop.signal.as_deref()).unwrap_or("");
    if !signal.is_empty() && hangar_api::signal::number(signal).is_none() {
        return Err(format!(
            "config.stop_config: no signal is called {signal:?}; use SIGINT, SIGTERM or another one of Linux"
        ));
    }
    let restart = config.restart.as_ref();
    let policy = restart.and_then(|r| r.policy.as_deref()).unwrap_or("");
    if !RESTART_POLICIES.contains(&policy) {
        return Err(format!(
            "config.restart: policy {policy:?} is not offered by this Hangar; use no, on-failure or always"
        ));
    }
    if let Err(error) = config.schedule() {
        return Err(format!("config.schedule: {error}"));
    }
    config.rootfs_persist().map_err(|e| e.to_string())?;
    config.rootfs_size_gb().map_err(|e| e.to_string())?;
    config.swap_mb().map_err(|e| e.to_string())?;
    let ports = config.services.iter().flat_map(|service| &service.ports);
    let asked: usize = ports.map(|port| port.range().len()).sum();
    if asked > MAX_PORTS_PER_APP {
        return Err(format!(
            "config.services: {asked} external ports are too many, an app has at most {MAX_PORTS_PER_APP}"
        ));
    }
    for (name, check) in checks(config) {
        if let Some((key, text)) = check.refusals().into_iter().next() {
            return Err(format!("config.checks: {key} of {name}: {text}"));
        }
    }
    if !config.standbys.is_empty() && !config.services.is_empty() {
        return Err("config.standbys: a Machine with services cannot be a standby".to_owned());
    }
    Ok(())
}

/// Refuses what would be more than one record can hold, in the store or of the host.
fn sizes(config: &MachineConfig) -> Result<(), String> {
    let (services, checks) = (config.services.len(), checks(config).count());
    if services > MAX_SERVICES {
        return Err(format!(
            "config.services: {services} are too many, at most {MAX_SERVICES}"
        ));
    }
    if checks > MAX_CHECKS {
        return Err(format!(
            "config.checks: {checks} with those of services are too many, at most {MAX_CHECKS}"
        ));
    }
    if let Some(name) = config.checks.keys().find(|name| name.len() > MAX_NAME) {
        let start: String = name.chars().take(40).collect();
        return Err(format!(
            "config.checks: the name {start}... is {} bytes long, at most {MAX_NAME}",
            name.len()
        ));
    }
    let bytes = serde_json::to_vec(config).map_or(usize::MAX, |json| json.len());
    if bytes > MAX_CONFIG {
        return Err(format!(
            "config is {} KiB in all, at most {}: put large files into the image",
            bytes.div_ceil(1024),
            MAX_CONFIG / 1024
        ));
    }
    Ok(())
}

/// Returns all checks, each with a name to call it by.
fn checks(config: &MachineConfig) -> impl Iterator<Item = (&str, &CheckConfig)> {
    let services = config.services.iter().flat_map(|service| &service.checks);
    let named = config
        .checks
        .iter()
        .map(|(name, check)| (name.as_str(), check));
    services
        .map(|check| ("a check of a service", check))
        .chain(named)
}

/// Returns the version of the secrets that a client's new version of a Machine starts with: 0,
/// which has none, where it asks for that.
pub(crate) fn secrets_for(current: u64, input: &LaunchInput) -> Result<u64, Problem> {
    let version = secrets_version(current, input.min_secrets_version)?;
    Ok(if input.skip_secrets { 0 } else { version })
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
            (
                r#"{"image":"x","restart":{"policy":"sometimes"}}"#,
                "no, on-failure or always",
            ),
            (
                r#"{"image":"x","checks":{"c":{"type":"script"}}}"#,
                "tcp or http",
            ),
            (
                r#"{"image":"x","services":[{"protocol":"tcp","internal_port":1,"ports":[{"port":1,"handlers":["edge_http"]}]}]}"#,
                "edge_http",
            ),
            (
                r#"{"image":"x","services":[{"protocol":"tcp","internal_port":1,"ports":[{"start_port":1000,"end_port":2000}]}]}"#,
                "at most 256",
            ),
            (r#"{"image":" "}"#, "config.image is required"),
            (r#"{"image":"x","mounts":[{"path":"data"}]}"#, "absolute"),
            (
                r#"{"image":"x","schedule":"0 3 * * *"}"#,
                "hourly, daily, weekly or monthly",
            ),
            (
                r#"{"image":"x","rootfs":{"persist":"sometimes"}}"#,
                "never, restart or always",
            ),
            (
                r#"{"image":"x","init":{"swap_size_mb":-1}}"#,
                "swap_size_mb",
            ),
            (r#"{"image":"x","guest":{"cpus":3}}"#, "number of CPUs"),
            (r#"{"image":"x","size":"huge"}"#, "unknown size"),
            (
                r#"{"image":"x","stop_config":{"signal":"SIGFOO"}}"#,
                "no signal is called \"SIGFOO\"",
            ),
            (
                r#"{"image":"x","services":[{"internal_port":1,"protocol":"sctp"}]}"#,
                "tcp or udp",
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
