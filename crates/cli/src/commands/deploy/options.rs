//! The options of a deployment: what fly.toml says, and what the flags change.

use anyhow::Result;
use hangar_api::deployment::{DeployFilters, DeployOptions, Strategy};
use hangar_api::duration::GoDuration;

use super::DeployInput;
use crate::args::RolloutArgs;
use crate::commands::machine::guest;
use crate::error::Exit;
use crate::output;

/// Returns the options of a deployment of this definition, with what the flags change.
pub(super) fn options(
    definition: &serde_json::Value,
    input: &DeployInput,
) -> Result<DeployOptions> {
    let defaults = options_of(definition);
    let (rollout, pace) = (&input.rollout, &input.pace);
    let max_unavailable = rollout.max_unavailable.unwrap_or(defaults.max_unavailable);
    if max_unavailable <= 0.0 || !max_unavailable.is_finite() {
        return Err(Exit::Usage.with("--max-unavailable must be greater than 0"));
    }
    let wait = match &pace.wait_timeout {
        Some(text) => Some(wait_timeout(text)?),
        None => None,
    };
    let leases = match &pace.lease_timeout {
        Some(text) => lease_timeout(text)?,
        None => defaults.lease_timeout_secs,
    };
    let vm = &input.vm;
    let sized = vm.vm_size.is_some()
        || vm.vm_cpus.is_some()
        || vm.vm_cpu_kind.is_some()
        || vm.vm_memory.is_some();
    Ok(DeployOptions {
        strategy: rollout.strategy.unwrap_or(defaults.strategy),
        max_unavailable,
        max_concurrent: rollout.max_concurrent.unwrap_or(defaults.max_concurrent),
        wait_timeout_secs: wait.unwrap_or(defaults.wait_timeout_secs),
        lease_timeout_secs: leases,
        ha: input.ha.unwrap_or(defaults.ha),
        update_only: rollout.update_only,
        filters: filters(rollout),
        skip_release_command: rollout.skip_release_command,
        signal: pace.signal.clone(),
        deploy_retries: pace.deploy_retries.unwrap_or_default().0,
        rollback: !pace.no_rollback,
        // Not following a deployment is no reason for the server to look away.
        detach: false,
        smoke_checks: pace.smoke_checks.unwrap_or(defaults.smoke_checks),
        guest: sized
            .then(|| guest(hangar_api::machine::Guest::default(), vm))
            .transpose()?,
        volume_initial_size_gb: input.volume_initial_size,
        detach_volumes: input.yes,
    })
}

/// Warns where fly.toml sets a limit that the strategy does not have.
pub(super) fn warn_of_max_unavailable(definition: &serde_json::Value, strategy: Strategy) {
    let section = definition.get("deploy");
    let is_set = section.is_some_and(|section| section.get("max_unavailable").is_some());
    if is_set && matches!(strategy, Strategy::Immediate | Strategy::Bluegreen) {
        output::say(&format!(
            "Warning: max-unavailable set for non-rolling strategy '{strategy}', ignoring"
        ));
    }
}

fn filters(rollout: &RolloutArgs) -> DeployFilters {
    DeployFilters {
        process_groups: rollout.process_groups.clone(),
        only_regions: rollout.regions.clone(),
        exclude_regions: rollout.exclude_regions.clone(),
        only_machines: rollout.only_machines.clone(),
        exclude_machines: rollout.exclude_machines.clone(),
    }
}

/// Returns the options that the `[deploy]` of a definition sets; the defaults for all others.
pub(in crate::commands) fn options_of(definition: &serde_json::Value) -> DeployOptions {
    let mut options = DeployOptions::default();
    let section = definition.get("deploy");
    let get = |key: &str| section.and_then(|section| section.get(key)).cloned();
    let strategy = get("strategy").and_then(|value| serde_json::from_value(value).ok());
    if let Some(strategy) = strategy {
        options.strategy = strategy;
    }
    let wait: Option<GoDuration> =
        get("wait_timeout").and_then(|value| serde_json::from_value(value).ok());
    if let Some(wait) = wait {
        options.wait_timeout_secs = whole_seconds(wait);
    }
    if let Some(unavailable) = get("max_unavailable").and_then(|value| value.as_f64()) {
        options.max_unavailable = unavailable;
    }
    options
}

/// Returns a time in seconds, the last one begun.
fn whole_seconds(duration: GoDuration) -> u64 {
    let time = duration.to_std();
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// Reads `--wait-timeout`; `none` is 0, as long as it takes.
fn wait_timeout(text: &str) -> Result<u64> {
    match seconds("--wait-timeout", text)? {
        0 if text != NONE => {
            Err(Exit::Usage.with("--wait-timeout must be more than 0; none is as long as it takes"))
        }
        seconds => Ok(seconds),
    }
}

/// Reads `--lease-timeout`.
fn lease_timeout(text: &str) -> Result<u64> {
    let (flag, allowed) = ("--lease-timeout", DeployOptions::LEASE_TIMEOUTS);
    let seconds = seconds(flag, text)?;
    if allowed.contains(&seconds) {
        return Ok(seconds);
    }
    let (least, most) = (allowed.start(), allowed.end());
    Err(Exit::Usage.with(format!("{flag} is {least} s to {} h", most / 3600)))
}

pub(super) const NONE: &str = "none";

/// Reads a time: Go's form, a bare number of seconds, or `none` for 0.
pub(super) fn seconds(flag: &str, text: &str) -> Result<u64> {
    if text == NONE {
        return Ok(0);
    }
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(seconds);
    }
    let duration: GoDuration = text
        .parse()
        .map_err(|e| Exit::Usage.with(format!("{flag}: {e}")))?;
    Ok(whole_seconds(duration))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_gos_form_or_seconds_or_none() {
        for (text, wanted) in [("5m", 300), ("90", 90), ("none", 0), ("1500ms", 2)] {
            assert_eq!(wait_timeout(text).unwrap(), wanted, "{text}");
        }
        for bad in ["0", "soon", "-1s"] {
            let error = wait_timeout(bad).unwrap_err().to_string();
            assert!(error.contains("--wait-timeout"), "{bad}: {error}");
        }
        assert_eq!(seconds("--release-command-timeout", "0").unwrap(), 0);
        for (text, wanted) in [("5", 5), ("90s", 90), ("24h", 86_400)] {
            assert_eq!(lease_timeout(text).unwrap(), wanted, "{text}");
        }
        for bad in ["none", "4s", "25h", "long"] {
            let error = lease_timeout(bad).unwrap_err().to_string();
            assert!(error.contains("--lease-timeout"), "{bad}: {error}");
        }
    }

    #[test]
    fn the_section_of_fly_toml_gives_what_no_flag_says() {
        let definition = serde_json::json!({"deploy": {
            "strategy": "bluegreen", "wait_timeout": "2m0s", "max_unavailable": 2.0
        }});
        let options = options_of(&definition);
        assert_eq!(options.strategy, Strategy::Bluegreen);
        assert_eq!(options.wait_timeout_secs, 120);
        assert!((options.max_unavailable - 2.0).abs() < f64::EPSILON);
        assert_eq!(
            options_of(&serde_json::Value::Null),
            DeployOptions::default()
        );
    }
}
