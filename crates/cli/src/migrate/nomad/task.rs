//! One task of a Nomad job.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::network::Labelled;
use super::{others, seconds};
use crate::migrate::draft::Mount;
use crate::migrate::service::Service;
use crate::migrate::value::{self, fraction, number, table, text, texts};
use crate::migrate::{Converted, volume_name};

/// Keys of a task that are read, or that say nothing of what runs.
const TASK: [&str; 16] = [
    "Name",
    "Driver",
    "Config",
    "Env",
    "Resources",
    "Services",
    "Constraints",
    "KillSignal",
    "KillTimeout",
    "Lifecycle",
    "Leader",
    "VolumeMounts",
    "LogConfig",
    "RestartPolicy",
    "ShutdownDelay",
    "Identity",
];
/// MHz that stand for one CPU.
const MHZ: f64 = 2500.0;

/// Reads a task as the service of this name.
pub(super) fn read(
    name: &str,
    at: &str,
    task: &Map<String, Value>,
    group: &Map<String, Value>,
    ports: &BTreeMap<String, Labelled>,
    out: &mut Converted,
) -> Service {
    let none = Value::Null;
    let get = |key: &str| task.get(key).unwrap_or(&none);
    others(at, task, &TASK, out);
    let mut service = Service {
        name: name.to_owned(),
        at: at.to_owned(),
        stop_signal: text(get("KillSignal")).filter(|signal| !signal.is_empty()),
        stop_timeout: seconds(get("KillTimeout"), 1, 300),
        ..Service::default()
    };
    config(
        &mut service,
        &text(get("Driver")).unwrap_or_default(),
        table(get("Config")),
        out,
    );
    let fill = Fill { ports };
    for (name, value) in table(get("Env")) {
        let value = fill.text(
            &text(value).unwrap_or_default(),
            &format!("{at} env {name}"),
            out,
        );
        service.env.insert(name.clone(), value);
    }
    for words in [&mut service.command, &mut service.entrypoint] {
        for word in words {
            *word = fill.text(word, at, out);
        }
    }
    for (label, port) in ports.iter().filter(|(_, port)| port.picked) {
        // The program was told by Nomad where to listen: it is told the same way.
        service
            .env
            .insert(format!("NOMAD_PORT_{label}"), port.inside.to_string());
    }
    resources(&mut service, table(get("Resources")), out);
    mounts(&mut service, get("VolumeMounts"), group, out);
    service
}

fn config(service: &mut Service, driver: &str, config: &Map<String, Value>, out: &mut Converted) {
    let at = service.at.clone();
    if !["docker", "podman", "containerd-driver"].contains(&driver) {
        out.note(
            format!("{at}.Driver"),
            format!("{driver} runs no image: build one that holds the program, and name it in [build] image"),
        );
    }
    for (key, value) in config {
        match key.as_str() {
            _ if value::is_empty(value) => {}
            "image" => service.build.image = text(value),
            "command" => service.command.splice(0..0, text(value)).for_each(drop),
            "args" => service.command.extend(texts(value)),
            "entrypoint" => service.entrypoint = texts(value),
            // Ports are the group's; images are pulled as they are needed.
            "ports" | "port_map" | "force_pull" | "image_pull_timeout" => {}
            "auth" => out.note(format!("{at}.{key}"), "passwords of registries are the server's: `docker login` there, or `hangar image import`"),
            "volumes" | "mount" | "mounts" => out.note(format!("{at}.{key}"), "paths of the host are not seen by Machines: use a volume, or put the files into the image"),
            _ => out.note(format!("{at}.Config.{key}"), "has no counterpart here"),
        }
    }
}

/// Fills in what Nomad would.
struct Fill<'a> {
    ports: &'a BTreeMap<String, Labelled>,
}

// === impl Fill ===

impl Fill<'_> {
    fn text(&self, text: &str, at: &str, out: &mut Converted) -> String {
        let mut filled = text.to_owned();
        for (label, port) in self.ports {
            let inside = port.inside.to_string();
            filled = filled.replace(&format!("${{NOMAD_PORT_{label}}}"), &inside);
            filled = filled.replace(
                &format!("${{NOMAD_ADDR_{label}}}"),
                &format!("0.0.0.0:{inside}"),
            );
            filled = filled.replace(&format!("${{NOMAD_HOST_PORT_{label}}}"), &inside);
        }
        if let Some(start) = filled.find("${") {
            let end = filled[start..]
                .find('}')
                .map_or(filled.len(), |end| start + end + 1);
            out.note(
                at,
                format!(
                    "{} is not filled in here: write what it stands for",
                    &filled[start..end]
                ),
            );
        }
        filled
    }
}

fn resources(service: &mut Service, resources: &Map<String, Value>, out: &mut Converted) {
    for (key, value) in resources {
        match key.as_str() {
            _ if value::is_empty(value) => {}
            "CPU" => {
                let cores = fraction(value).map(|mhz| mhz / MHZ);
                service.cpus = service.cpus.or(cores);
            }
            "Cores" => service.cpus = fraction(value),
            "MemoryMB" => service.memory_mb = service.memory_mb.or(number(value)),
            // What a task may grow to is what a Machine has.
            "MemoryMaxMB" => service.memory_mb = number(value),
            "Networks" | "DiskMB" | "IOPS" => {}
            _ => out.note(
                format!("{}.Resources.{key}", service.at),
                "has no counterpart here",
            ),
        }
    }
}

fn mounts(service: &mut Service, mounts: &Value, group: &Map<String, Value>, out: &mut Converted) {
    let volumes = group.get("Volumes").map(table);
    for mount in mounts.as_array().into_iter().flatten() {
        let name = text(&mount["Volume"]).unwrap_or_default();
        let destination = text(&mount["Destination"]).unwrap_or_default();
        let at = format!("{} volume {name}", service.at);
        if !destination.starts_with('/') {
            out.note(
                at,
                format!("{destination:?} is no absolute path: it is not mounted"),
            );
            continue;
        }
        if let Some(first) = service.mounts.first() {
            out.note(
                at,
                format!(
                    "a Machine has one volume, at {}: {destination} is not kept",
                    first.destination
                ),
            );
            continue;
        }
        let source = volumes.and_then(|all| text(&all.get(&name)?["Source"]));
        let source = source.filter(|source| !source.is_empty()).unwrap_or(name);
        out.note(
            at,
            format!("what is in {source} is not copied: {destination} begins empty"),
        );
        service.mounts.push(Mount {
            source: volume_name(&source),
            destination,
            ..Mount::default()
        });
    }
}
