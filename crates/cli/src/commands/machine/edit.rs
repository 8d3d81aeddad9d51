//! What flags make of a Machine's configuration (process-groups-and-deploy.md 6.2, 6.3).
//!
//! Pure: files have been read by the caller, who also sets image and command.

pub(super) mod diff;
mod extent;
pub(super) mod files;
pub(super) mod mounts;
pub(super) mod ports;

use hangar_api::machine::guest::Guest;
use hangar_api::machine::service::Autostop;
use hangar_api::machine::{MachineConfig, Schedule, Service};
use serde_json::Value;

use crate::args::{MachineConfigArgs, VmArgs};

/// Environment of a standby: the Machines that it stands by for.
pub(super) const STANDBY_FOR: &str = "FLY_STANDBY_FOR";

/// What is to be changed.
#[derive(Debug)]
pub(in crate::commands) struct Edit<'a> {
    /// As typed.
    pub(in crate::commands) args: &'a MachineConfigArgs,
    /// What `--machine-config` holds.
    pub(in crate::commands) document: Option<Value>,
    /// What `--file-*` hold: a file without a value and a secret removes one.
    pub(in crate::commands) files: Vec<hangar_api::machine::config::File>,
}

/// A changed configuration, and what has to be said about it.
#[derive(Debug)]
pub(in crate::commands) struct Edited {
    pub(in crate::commands) config: MachineConfig,
    pub(in crate::commands) notes: Vec<String>,
}

/// Returns `from` with everything changed that flags name. The error says which flag is wrong.
pub(in crate::commands) fn apply(from: MachineConfig, edit: &Edit<'_>) -> Result<Edited, String> {
    let (args, mut notes) = (edit.args, Vec::new());
    let mut config = match &edit.document {
        Some(document) => with_document(from, document)?,
        None => from,
    };
    config.guest = Some(guest(config.guest.unwrap_or_default(), &args.vm)?);
    extent::apply(&mut config, args)?;
    config.env.extend(pairs("--env", &args.env)?);
    config.metadata.extend(pairs("--metadata", &args.metadata)?);
    if let Some(skip) = args.skip_dns_registration {
        config.dns.get_or_insert_default().skip_registration = Some(skip);
    }
    config.services = ports::apply(config.services, &args.port)?;
    drop_without_ports(&mut config.services, &mut notes);
    autostart_and_stop(&mut config.services, args)?;
    if let Some(entrypoint) = &args.entrypoint {
        let words = split("--entrypoint", entrypoint)?;
        config.init.entrypoint = (!words.is_empty()).then_some(words);
    }
    if let Some(policy) = &args.restart {
        restart(&mut config, policy, &mut notes)?;
    } else if config.auto_destroy && config.restart.is_none() {
        // A Machine that restarts never comes to its end.
        config.restart.get_or_insert_default().policy = Some("no".to_owned());
    }
    if let Some(word) = &args.schedule {
        schedule(&mut config, word)?;
        if config.auto_destroy && !word.is_empty() {
            notes.push(
                "It is destroyed when its first run ends: nothing is left for its schedule to start"
                    .to_owned(),
            );
        }
    }
    if let Some(ids) = &args.standby_for {
        let ids = standbys(ids);
        config.env.insert(STANDBY_FOR.to_owned(), ids.join(","));
        config.standbys = ids;
    }
    files::merge(&mut config.files, &edit.files);
    Ok(Edited { config, notes })
}

/// Lays a document over a configuration: objects are merged, everything else is replaced, null
/// removes.
fn with_document(from: MachineConfig, document: &Value) -> Result<MachineConfig, String> {
    let wrong = |error: serde_json::Error| format!("--machine-config: {error}");
    if !document.is_object() {
        return Err("--machine-config: it must be a JSON object".to_owned());
    }
    let mut whole = serde_json::to_value(from).map_err(wrong)?;
    lay_over(&mut whole, document);
    serde_json::from_value(whole).map_err(wrong)
}

fn lay_over(under: &mut Value, over: &Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                if value.is_null() {
                    under.remove(key);
                } else {
                    lay_over(under.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (under, over) => *under = over.clone(),
    }
}

/// Returns the size that flags make of one: the preset first, then the single numbers.
pub(in crate::commands) fn guest(from: Guest, vm: &VmArgs) -> Result<Guest, String> {
    let mut guest = match &vm.vm_size {
        Some(name) => Guest::preset(name).map_err(|e| format!("--vm-size: {e}"))?,
        None => from,
    };
    if let Some(cpus) = vm.vm_cpus {
        guest.cpus = cpus;
    }
    if let Some(kind) = &vm.vm_cpu_kind {
        guest.cpu_kind.clone_from(kind);
    }
    if let Some(memory) = &vm.vm_memory {
        guest.memory_mb = memory_mb(memory).map_err(|e| format!("--vm-memory: {e}"))?;
    }
    guest.validate().map_err(|e| e.to_string())?;
    Ok(guest)
}

/// Returns memory in MB of a number or a size such as `1gb`.
pub(in crate::commands) fn memory_mb(text: &str) -> Result<u64, String> {
    let size = hangar_config::size::parse(text, hangar_config::size::Unit::MemoryMb);
    match u64::try_from(size.map_err(|e| e.to_string())?) {
        Ok(0) => Err("memory cannot be zero".to_owned()),
        Ok(size) => Ok(size),
        Err(_) => Err(format!("{text}: memory cannot be negative")),
    }
}

/// Splits NAME=VALUE arguments.
pub(in crate::commands) fn pairs(
    flag: &str,
    list: &[String],
) -> Result<Vec<(String, String)>, String> {
    list.iter()
        .map(|pair| match pair.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(format!(
                "{flag} must be provided as NAME=VALUE pairs ({pair} is invalid)"
            )),
        })
        .collect()
}

/// Splits a command like a shell would.
pub(in crate::commands) fn split(flag: &str, text: &str) -> Result<Vec<String>, String> {
    hangar_config::words::split(text).map_err(|e| format!("{flag}: {e}"))
}

/// Returns the ids of a list with commas.
pub(in crate::commands) fn standbys(list: &str) -> Vec<String> {
    let ids = list.split(',').map(str::trim).filter(|id| !id.is_empty());
    ids.map(str::to_owned).collect()
}

/// Fly's client drops them at every update; here it is said.
fn drop_without_ports(services: &mut Vec<Service>, notes: &mut Vec<String>) {
    services.retain(|service| {
        if service.ports.is_empty() {
            notes.push(format!(
                "The service {}/{} has no ports and is dropped",
                service.internal_port, service.protocol
            ));
        }
        !service.ports.is_empty()
    });
}

fn autostart_and_stop(services: &mut [Service], args: &MachineConfigArgs) -> Result<(), String> {
    for (flag, is_given) in [
        ("--autostart", args.autostart.is_some()),
        ("--autostop", args.autostop.is_some()),
    ] {
        if is_given && services.is_empty() {
            return Err(format!(
                "{flag}: the Machine has no service that it could be for; give it one with --port"
            ));
        }
    }
    let autostop = args.autostop.as_deref().map(autostop).transpose()?;
    for service in services {
        service.autostart = args.autostart.or(service.autostart);
        service.autostop = autostop.or(service.autostop);
    }
    Ok(())
}

fn autostop(text: &str) -> Result<Autostop, String> {
    let text = match text {
        "1" | "t" | "T" | "TRUE" | "True" => "true",
        "0" | "f" | "F" | "FALSE" | "False" => "false",
        other => other,
    };
    serde_json::from_value(Value::from(text))
        .map_err(|_| format!("--autostop {text:?}: use off, stop or suspend"))
}

fn restart(
    config: &mut MachineConfig,
    policy: &str,
    notes: &mut Vec<String>,
) -> Result<(), String> {
    let policy = match policy {
        "" => {
            config.restart = None;
            return Ok(());
        }
        "on-fail" => {
            notes.push(
                "The 'on-fail' restart policy is deprecated. Use 'on-failure' instead.".to_owned(),
            );
            "on-failure"
        }
        "no" | "always" | "on-failure" => policy,
        _ => {
            return Err(format!(
                "--restart {policy:?}: use no, always or on-failure"
            ));
        }
    };
    config.restart.get_or_insert_default().policy = Some(policy.to_owned());
    Ok(())
}

/// Sets a schedule; "" takes it away.
fn schedule(config: &mut MachineConfig, word: &str) -> Result<(), String> {
    if word.is_empty() {
        config.other.remove("schedule");
        return Ok(());
    }
    let one: Schedule = word.parse().map_err(|e| format!("--schedule: {e}"))?;
    let word = Value::from(one.as_str());
    config.other.insert("schedule".to_owned(), word);
    Ok(())
}

#[cfg(test)]
mod tests;
