//! One service of a Compose file, read key by key.

use serde_json::{Map, Value};

use super::interpolate::{self, fill};
use super::{Source, health, ports};
use crate::migrate::draft::{Mount, Restart};
use crate::migrate::service::Service;
use crate::migrate::value::{self, fraction, number, size_mb, table, text, texts};
use crate::migrate::{Converted, looks_secret, volume_name};

/// The time that Docker gives a container to stop.
const STOP_TIMEOUT: &str = "10s";

/// Keys that need nothing, because it is so on Hangar anyway or is only for people.
const NEEDLESS: [&str; 9] = [
    "init",
    "container_name",
    "hostname",
    "expose",
    "pull_policy",
    "develop",
    "annotations",
    "tty",
    "stdin_open",
];

/// What is said of keys that have no counterpart.
const UNCARRIED: [(&str, &str); 18] = [
    (
        "networks",
        "all apps here share one private network: others reach it by its .internal name; for a network of its own, `hangar apps create --network`",
    ),
    ("network_mode", "every Machine has a network of its own"),
    ("links", "others are reached by their .internal names"),
    (
        "extra_hosts",
        "names come from DNS: put the address into a variable",
    ),
    (
        "secrets",
        "hangar secrets set NAME=VALUE makes it a variable; [[files]] with secret_name makes it a file",
    ),
    (
        "configs",
        "put the file into the image, or name it in [[files]] with local_path",
    ),
    (
        "profiles",
        "services of all profiles are taken: leave out what you do not deploy",
    ),
    ("user", "set USER in the Dockerfile"),
    ("working_dir", "set WORKDIR in the Dockerfile"),
    (
        "privileged",
        "a Machine has the rights of a container and no more",
    ),
    ("devices", "devices of the host are not passed on"),
    ("logging", "logs go to `hangar logs`"),
    ("labels", "labels steer no proxy here: ports and checks do"),
    (
        "tmpfs",
        "the root file system of a Machine is lost with it anyway, but it is no memory",
    ),
    (
        "extends",
        "write the service out: `docker compose config` does it",
    ),
    ("env_file", "it was not read"),
    ("platform", "the image has to be for this machine"),
    ("shm_size", "the size of /dev/shm cannot be set"),
];

/// Reads a service; what has no counterpart is noted.
pub(super) fn service(
    name: &str,
    value: &Value,
    source: &Source<'_>,
    out: &mut Converted,
) -> Service {
    let mut service = Service {
        name: name.to_owned(),
        at: format!("services.{name}"),
        ..Service::default()
    };
    for (key, value) in table(value) {
        let at = format!("services.{name}.{key}");
        if value::is_empty(value) && key != "command"
            || NEEDLESS.contains(&key.as_str())
            || key.starts_with("x-")
        {
            continue;
        }
        match key.as_str() {
            "image" => service.build.image = text(value),
            "build" => build(&mut service, value, &at, out),
            "command" => service.command = words(value, &at, out),
            "entrypoint" => service.entrypoint = words(value, &at, out),
            "environment" => environment(&mut service, value, source, out),
            "env_file" => env_files(&mut service, value, source, out),
            "ports" => service.ports = ports::read(value, &at, out),
            "healthcheck" => service.checks.extend(health::read(table(value), &at, out)),
            "deploy" => deploy(&mut service, table(value), &at, out),
            "scale" => service.replicas = number(value),
            "cpus" => service.cpus = fraction(value),
            "mem_limit" => service.memory_mb = size_mb(value),
            "volumes" => volumes(&mut service, value, &at, out),
            "restart" => service.restart = text(value).and_then(|policy| restart(&policy)),
            "stop_signal" => service.stop_signal = text(value).map(|s| signal(&s)),
            "stop_grace_period" => {
                let seconds = text(value).and_then(|text| health::seconds(&text));
                service.stop_timeout = seconds.map(|n| format!("{}s", n.clamp(1.0, 300.0).ceil()));
            }
            "depends_on" => depends(&mut service, value, &at, out),
            _ => {
                let known = UNCARRIED.iter().find(|(known, _)| known == key);
                out.note(
                    at,
                    known.map_or("has no counterpart here", |(_, text)| *text),
                );
            }
        }
    }
    let built = service.context.is_some();
    if service.stop_signal.is_none() && built {
        // Docker's own; an image may say another, and of one that is built here that is known.
        service.stop_signal = Some("SIGTERM".to_owned());
    }
    let timeout = || STOP_TIMEOUT.to_owned();
    service.stop_timeout.get_or_insert_with(timeout);
    service
}

fn build(service: &mut Service, value: &Value, at: &str, out: &mut Converted) {
    if let Some(context) = text(value) {
        service.context = Some(context);
        return;
    }
    service.context = Some(".".to_owned());
    for (key, value) in table(value) {
        match key.as_str() {
            "context" => service.context = text(value),
            "dockerfile" => service.build.dockerfile = text(value),
            "target" => service.build.target = text(value),
            "args" => {
                for (name, value) in pairs(value) {
                    match value {
                        Some(value) => {
                            service.build.args.insert(name, value);
                        }
                        None => out.note(
                            format!("{at}.args.{name}"),
                            "takes its value from whoever builds: write it into [build.args]",
                        ),
                    }
                }
            }
            _ => out.note(
                format!("{at}.{key}"),
                "is not carried over: build the image yourself where you need it",
            ),
        }
    }
}

/// Returns names and values of a table, or of a list of `NAME=VALUE`; none for a name alone.
fn pairs(value: &Value) -> Vec<(String, Option<String>)> {
    if let Value::Object(map) = value {
        return map.iter().map(|(k, v)| (k.clone(), text(v))).collect();
    }
    let list = texts(value).into_iter();
    list.map(|item| match item.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (item, None),
    })
    .collect()
}

/// Returns the words of a command: Compose splits a text without a shell, as Fly does.
fn words(value: &Value, at: &str, out: &mut Converted) -> Vec<String> {
    let Some(line) = text(value) else {
        return texts(value);
    };
    match hangar_config::words::split(&line) {
        Ok(words) => words,
        Err(error) => {
            out.note(
                at,
                format!("{line:?} cannot be split ({error}): it runs by a shell"),
            );
            vec!["sh".to_owned(), "-c".to_owned(), line]
        }
    }
}

fn environment(service: &mut Service, value: &Value, source: &Source<'_>, out: &mut Converted) {
    for (name, value) in pairs(value) {
        let at = format!("services.{}.environment.{name}", service.name);
        let filled = value.as_deref().map(|value| fill(value, source.variables));
        match filled {
            Some(filled) if filled.missing.is_empty() => {
                if looks_secret(&name) && !filled.text.is_empty() {
                    out.note(at, "looks like a secret and stands in fly.toml: take it out there and set it by `hangar secrets set`");
                }
                service.env.insert(name, filled.text);
            }
            other => {
                let from = other.map_or_else(
                    || "has no value in the file".to_owned(),
                    |filled| {
                        format!(
                            "needs {}, which has no value here",
                            filled.missing.join(", ")
                        )
                    },
                );
                out.note(at, format!("{from}: set {name} by `hangar secrets set`"));
                service.env.remove(&name);
                service.secrets.push(name);
            }
        }
    }
}

fn env_files(service: &mut Service, value: &Value, source: &Source<'_>, out: &mut Converted) {
    let listed = match value {
        Value::Array(items) => items.clone(),
        one => vec![one.clone()],
    };
    for item in &listed {
        let Some(path) = text(item).or_else(|| text(&item["path"])) else {
            continue;
        };
        let at = format!("services.{}.env_file {path}", service.name);
        let Some(content) = source.files.get(&path) else {
            if item["required"] != Value::Bool(false) {
                out.note(at, "could not be read: its variables are missing");
            }
            continue;
        };
        let (pairs, bare) = interpolate::env_file(content);
        for (name, value) in pairs {
            if looks_secret(&name) && !value.is_empty() {
                out.note(format!("{at} {name}"), "looks like a secret: it is not written into fly.toml; set it by `hangar secrets set`");
                service.secrets.push(name);
            } else {
                // What stands under `environment` wins.
                service.env.entry(name).or_insert(value);
            }
        }
        service.secrets.extend(bare);
    }
}

fn deploy(service: &mut Service, deploy: &Map<String, Value>, at: &str, out: &mut Converted) {
    for (key, value) in deploy {
        let at = format!("{at}.{key}");
        match key.as_str() {
            _ if value::is_empty(value) && key != "replicas" => {}
            "replicas" => service.replicas = number(value),
            "resources" => resources(service, table(value), &at, out),
            "restart_policy" => {
                let policy = text(&value["condition"]).unwrap_or_else(|| "any".to_owned());
                let tries = number(&value["max_attempts"]);
                service.restart = restart(&policy).map(|restart| Restart {
                    retries: tries.filter(|_| restart.policy == "on-failure"),
                    ..restart
                });
                for key in ["delay", "window"].iter().filter(|k| !value[**k].is_null()) {
                    out.note(
                        format!("{at}.{key}"),
                        "restarts are spaced by Hangar itself",
                    );
                }
            }
            "update_config" => {
                let parallel = number(&value["parallelism"]).filter(|n| *n > 0);
                #[expect(clippy::cast_precision_loss, reason = "a number of Machines is small")]
                {
                    service.max_unavailable = parallel.map(|n| n as f64);
                }
                for key in table(value).keys().filter(|key| *key != "parallelism") {
                    out.note(
                        format!("{at}.{key}"),
                        "a deploy waits for checks, and puts former versions back when it fails",
                    );
                }
            }
            "mode" if value == "replicated" => {}
            "mode" => out.note(at, "one Machine on each host is not offered: set a count"),
            "placement" => out.note(
                at,
                "say regions instead: `hangar scale count N --region A,B`",
            ),
            _ => out.note(at, "has no counterpart here"),
        }
    }
}

fn resources(service: &mut Service, all: &Map<String, Value>, at: &str, out: &mut Converted) {
    for (kind, values) in all {
        for (key, value) in table(values) {
            let at = format!("{at}.{kind}.{key}");
            match (kind.as_str(), key.as_str()) {
                ("limits", "cpus") => service.cpus = fraction(value),
                ("limits", "memory") => service.memory_mb = size_mb(value),
                // Where there is no limit, what is reserved is what is needed.
                ("reservations", "cpus") => service.cpus = service.cpus.or(fraction(value)),
                ("reservations", "memory") => {
                    service.memory_mb = service.memory_mb.or(size_mb(value));
                }
                _ => out.note(at, "has no counterpart here"),
            }
        }
    }
}

fn volumes(service: &mut Service, value: &Value, at: &str, out: &mut Converted) {
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        let at = format!("{at}[{index}]");
        let (source, target) = match text(item) {
            Some(short) => {
                let mut parts = short.split(':');
                let first = parts.next().unwrap_or_default().to_owned();
                match parts.next() {
                    Some(target) => (first, target.to_owned()),
                    None => (String::new(), first),
                }
            }
            None => {
                let kind = text(&item["type"]).unwrap_or_default();
                let source = text(&item["source"]).unwrap_or_default();
                let source = if kind == "bind" {
                    format!("./{source}")
                } else {
                    source
                };
                if kind == "tmpfs" || kind == "npipe" {
                    out.note(at, format!("{kind} has no counterpart here"));
                    continue;
                }
                (source, text(&item["target"]).unwrap_or_default())
            }
        };
        if source.starts_with(['.', '/', '~']) {
            out.note(at, format!("{source} is a path of the host, which Machines do not see: put it into the image, or name it in [[files]]"));
            continue;
        }
        if let Some(first) = service.mounts.first() {
            out.note(
                at,
                format!(
                    "a Machine has one volume, at {}: {target} is not kept",
                    first.destination
                ),
            );
            continue;
        }
        if !target.starts_with('/') {
            out.note(
                at,
                format!("{target:?} is no absolute path: it is not mounted"),
            );
            continue;
        }
        let name = if source.is_empty() {
            target.as_str()
        } else {
            source.as_str()
        };
        service.mounts.push(Mount {
            source: volume_name(name),
            destination: target,
            ..Mount::default()
        });
    }
}

fn depends(service: &mut Service, value: &Value, at: &str, out: &mut Converted) {
    service.depends = match value {
        Value::Object(map) => map.keys().cloned().collect(),
        list => texts(list),
    };
    let conditions = table(value).values().filter_map(|v| text(&v["condition"]));
    if conditions
        .into_iter()
        .any(|c| c == "service_completed_successfully")
    {
        out.note(
            at,
            "a service that has to end first is best the release command: [deploy] release_command",
        );
    }
}

/// Returns the restart policy that a word of Compose's means.
fn restart(policy: &str) -> Option<Restart> {
    let (word, tries) = policy.split_once(':').unwrap_or((policy, ""));
    let policy = match word {
        "no" | "none" | "false" => "never",
        "always" | "unless-stopped" | "any" | "true" => "always",
        "on-failure" => "on-failure",
        _ => return None,
    };
    Some(Restart {
        policy: policy.to_owned(),
        retries: tries.parse().ok(),
        processes: Vec::new(),
    })
}

fn signal(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    if upper.starts_with("SIG") || upper.chars().all(|c| c.is_ascii_digit()) {
        upper
    } else {
        format!("SIG{upper}")
    }
}
