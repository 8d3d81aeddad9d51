//! Compose files: services of one image become process groups of one app, others apps of their own.

mod health;
mod interpolate;
mod ports;
mod service;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

pub(crate) use interpolate::env_file;

use super::draft::{Experimental, HttpService, Port, Restart, Service as ServiceSection, Vm};
use super::value::{self, table, text, texts};
use super::{
    Converted, ConvertedApp, SECRET_HERE, Unreadable, app_name, group_name, looks_secret, yaml,
};
use ports::Published;
use service::Service;

/// The group of an app of one service without a command of its own.
const APP: &str = "app";
/// The time that Docker gives a container to stop.
const STOP_TIMEOUT: &str = "10s";

/// What is read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    /// The project's name, which the file may change.
    pub(crate) name: &'a str,
    /// A name that the file does not change.
    pub(crate) rename: Option<&'a str>,
    /// The file's text.
    pub(crate) text: &'a str,
    /// What `.env` sets.
    pub(crate) variables: &'a BTreeMap<String, String>,
    /// The texts of env files, by the path in the file; see [`env_files`].
    pub(crate) files: &'a BTreeMap<String, String>,
}

/// Returns the paths of the env files that a Compose file names.
pub(crate) fn env_files(text: &str) -> Result<Vec<String>, Unreadable> {
    let tree = yaml::parse(text)?;
    let mut paths = BTreeSet::new();
    for service in table(&tree["services"]).values() {
        let listed = &service["env_file"];
        paths.extend(texts(listed));
        let long = listed.as_array().into_iter().flatten();
        paths.extend(long.filter_map(|item| value::text(&item["path"])));
    }
    Ok(paths.into_iter().collect())
}

/// Makes fly.tomls of a Compose file.
pub(crate) fn convert(source: &Source<'_>) -> Result<Converted, Unreadable> {
    let mut tree = yaml::parse(source.text)?;
    let mut missing = Vec::new();
    interpolate::fill_tree(&mut tree, "", source.variables, &mut missing);
    let Some(services) = tree["services"].as_object().filter(|map| !map.is_empty()) else {
        return Err(Unreadable("it names no services".to_owned()));
    };
    let mut out = Converted::default();
    for (at, name) in missing {
        out.note(
            at,
            format!("{name} has no value in .env: an empty text stands for it"),
        );
    }
    let said = text(&tree["name"]).and_then(|name| app_name(&name));
    let project = source.rename.map(str::to_owned).or(said);
    let project = project.unwrap_or_else(|| source.name.to_owned());
    top_level(table(&tree), &mut out);
    let read: Vec<Service> = services
        .iter()
        .map(|(name, value)| service::read(name, value, source, &mut out))
        .collect();
    let groups = ordered(grouped(read, &mut out));
    let names = named(&groups, &project);
    let hosts = hosts(&groups, &names);
    for (group, name) in groups.iter().zip(&names) {
        let app = assemble(group, name, &hosts, &mut out);
        out.apps.push(app);
    }
    Ok(out)
}

fn top_level(tree: &Map<String, Value>, out: &mut Converted) {
    for (key, value) in tree {
        match key.as_str() {
            "services" | "name" | "version" => {}
            key if key.starts_with("x-") || value::is_empty(value) => {}
            "volumes" => {
                for (name, volume) in table(value).iter().filter(|(_, v)| !value::is_empty(v)) {
                    out.note(
                        format!("volumes.{name}"),
                        format!("{volume}: volumes are Hangar's own; what is in this one has to be copied over"),
                    );
                }
            }
            "networks" => out.note("networks", "all apps here share one private network: who is reached is for the services to say"),
            "secrets" | "configs" => out.note(key, "their contents are not read: see the services that use them"),
            "include" => out.note("include", "is not read: `docker compose config` writes all into one file"),
            key => out.note(key, "has no counterpart here"),
        }
    }
}

/// Puts services together that can be groups of one app: the same image, and nothing that an app
/// has only once is different.
fn grouped(services: Vec<Service>, out: &mut Converted) -> Vec<Vec<Service>> {
    let mut groups: Vec<Vec<Service>> = Vec::new();
    for service in services {
        let alike = |group: &&mut Vec<Service>| group[0].image_key() == service.image_key();
        let mut found = groups.iter_mut().filter(alike);
        match found.next() {
            None => groups.push(vec![service]),
            Some(group) => match difference(group, &service) {
                None => group.push(service),
                Some(what) => {
                    out.note(
                        format!("services.{}", service.name),
                        format!("has the image of {} but another {what}, which an app has only once: it becomes an app of its own", group[0].name),
                    );
                    groups.push(vec![service]);
                }
            },
        }
    }
    groups
}

/// Returns what keeps a service from being a group of the app.
fn difference(group: &[Service], service: &Service) -> Option<String> {
    for other in group {
        if other.start().0 != service.start().0 {
            return Some("entrypoint".to_owned());
        }
        if (&other.stop_signal, &other.stop_timeout)
            != (&service.stop_signal, &service.stop_timeout)
        {
            return Some("stop signal or time".to_owned());
        }
        let differs = |(name, value): &(&String, &String)| {
            service.env.get(*name).is_some_and(|other| other != *value)
        };
        if let Some((name, _)) = other.env.iter().find(differs) {
            return Some(format!("value of {name}"));
        }
    }
    None
}

/// Returns the groups in the order of a first deploy: what others need comes first, the main app
/// last.
fn ordered(mut groups: Vec<Vec<Service>>) -> Vec<Vec<Service>> {
    let built = |group: &Vec<Service>| group[0].context.is_some();
    let published =
        |group: &Vec<Service>| group.iter().any(|s| s.ports.iter().any(|p| p.is_http()));
    let main = groups
        .iter()
        .position(|g| built(g) && published(g))
        .or_else(|| groups.iter().position(built))
        .or_else(|| groups.iter().position(published))
        .unwrap_or(0);
    let main = groups.remove(main);
    let mut out: Vec<Vec<Service>> = Vec::new();
    while !groups.is_empty() {
        let waits = |group: &Vec<Service>| {
            let needed = group.iter().flat_map(|s| &s.depends);
            let elsewhere = groups.iter().filter(|g| !std::ptr::eq(*g, group)).flatten();
            let names: BTreeSet<&str> = elsewhere.map(|s| s.name.as_str()).collect();
            needed.into_iter().any(|name| names.contains(name.as_str()))
        };
        // Where all wait for each other, any is as good as another.
        let next = groups.iter().position(|g| !waits(g)).unwrap_or(0);
        out.push(groups.remove(next));
    }
    out.push(main);
    out
}

/// Returns the apps' names: the main one has the project's.
fn named(groups: &[Vec<Service>], project: &str) -> Vec<String> {
    let last = groups.len().saturating_sub(1);
    let mut names: Vec<String> = Vec::new();
    for (index, group) in groups.iter().enumerate() {
        let name = if index == last {
            project.to_owned()
        } else {
            app_name(&format!("{project}-{}", group[0].name)).unwrap_or_else(|| project.to_owned())
        };
        names.push(name);
    }
    names
}

/// Returns the name of each service in DNS.
fn hosts(groups: &[Vec<Service>], names: &[String]) -> BTreeMap<String, String> {
    let mut hosts = BTreeMap::new();
    for (group, app) in groups.iter().zip(names) {
        for service in group {
            let host = if group.len() > 1 {
                format!("{}.process.{app}.internal", group_name(&service.name))
            } else {
                format!("{app}.internal")
            };
            hosts.insert(service.name.clone(), host);
        }
    }
    hosts
}

fn assemble(
    group: &[Service],
    name: &str,
    hosts: &BTreeMap<String, String>,
    out: &mut Converted,
) -> ConvertedApp {
    let mut app = ConvertedApp::default();
    name.clone_into(&mut app.draft.app);
    let first = &group[0];
    app.draft.build = first.build.clone();
    match &first.context {
        Some(context) => {
            app.draft.build.image = None;
            app.folder = folder(context, &first.name, out);
        }
        None if first.build.image.is_none() => {
            out.note(
                format!("services.{}", first.name),
                "names neither an image nor what to build",
            );
        }
        None => {}
    }
    app.draft.kill_signal = first
        .stop_signal
        .clone()
        // Docker stops by SIGTERM unless the image says other; of one that is built here it is known.
        .or_else(|| first.context.is_some().then(|| "SIGTERM".to_owned()));
    app.draft.kill_timeout = Some(
        first
            .stop_timeout
            .clone()
            .unwrap_or_else(|| STOP_TIMEOUT.to_owned()),
    );
    let entrypoint = first.start().0;
    if !entrypoint.is_empty() {
        app.draft.experimental = Some(Experimental { entrypoint });
    }
    app.draft.deploy.max_unavailable = group.iter().find_map(|s| s.max_unavailable);
    for service in group {
        one(&mut app, service, group.len() > 1, out);
    }
    for (key, value) in &mut app.draft.env {
        if let Some(changed) = replace_hosts(value, hosts) {
            out.note(
                format!("{name} env {key}"),
                format!("{value} becomes {changed}: services have other names here"),
            );
            *value = changed;
        }
    }
    let secret = app
        .draft
        .env
        .iter()
        .filter(|(name, value)| looks_secret(name) && !value.is_empty());
    let secret: Vec<String> = secret.map(|(name, _)| name.clone()).collect();
    for name in secret {
        app.draft.comment(format!("{name} = "), SECRET_HERE);
    }
    publish(&mut app, group, out);
    checks(&mut app, group);
    app
}

/// Returns the folder that is built, where it is one below.
fn folder(context: &str, service: &str, out: &mut Converted) -> Option<String> {
    let plain = context.trim_start_matches("./").trim_end_matches('/');
    if plain.contains("://") || plain.starts_with(['/', '~']) || plain.split('/').any(|p| p == "..")
    {
        out.note(
            format!("services.{service}.build.context"),
            format!("{context} is not below this folder: deploy with that folder, `hangar deploy FOLDER -c FILE`"),
        );
        return None;
    }
    (!plain.is_empty() && plain != ".").then(|| plain.to_owned())
}

/// Adds what is a service's own.
fn one(app: &mut ConvertedApp, service: &Service, several: bool, out: &mut Converted) {
    let draft = &mut app.draft;
    let command = service.start().1;
    let mut group = APP.to_owned();
    if several || !command.is_empty() {
        group = group_name(&service.name);
        draft.processes.insert(group.clone(), command);
    }
    let processes = if draft.processes.is_empty() {
        Vec::new()
    } else {
        vec![group.clone()]
    };
    draft.env.extend(service.env.clone());
    for secret in &service.secrets {
        if !app.secrets.contains(secret) {
            app.secrets.push(secret.clone());
        }
    }
    draft
        .mounts
        .extend(service.mounts.iter().map(|mount| super::draft::Mount {
            processes: processes.clone(),
            ..mount.clone()
        }));
    draft
        .restart
        .extend(service.restart.iter().map(|restart| Restart {
            processes: processes.clone(),
            ..restart.clone()
        }));
    draft.vm.extend(service.vm().into_iter().map(|vm| Vm {
        processes: processes.clone(),
        ..vm
    }));
    if let Some(count) = service.replicas {
        app.counts.insert(group, count);
    }
    if !service.depends.is_empty() {
        out.note(
            format!("services.{}.depends_on", service.name),
            format!(
                "{} is not waited for at each start: the program has to try again until it answers",
                service.depends.join(", ")
            ),
        );
    }
}

/// Makes services of the ports that are published.
fn publish(app: &mut ConvertedApp, group: &[Service], out: &mut Converted) {
    let several = !app.draft.processes.is_empty();
    let mut all: Vec<(&Service, Published)> = group
        .iter()
        .flat_map(|s| s.ports.iter().map(move |p| (s, *p)))
        .collect();
    // The one that is called web is the one that people come for.
    all.sort_by_key(|(service, port)| (!port.is_http(), service.name != "web"));
    for (service, port) in all {
        let processes = if several {
            vec![group_name(&service.name)]
        } else {
            Vec::new()
        };
        let at = format!("services.{}.ports", service.name);
        if port.is_http() && app.draft.http_service.is_none() {
            let outside = port.published.unwrap_or(port.target);
            if ![80, 443].contains(&outside) {
                out.note(
                    at,
                    format!(
                        "port {outside} becomes {}'s own address, at ports 80 and 443",
                        app.draft.app
                    ),
                );
            }
            app.draft.http_service = Some(HttpService {
                internal_port: port.target,
                auto_start_machines: Some(true),
                processes,
                ..HttpService::default()
            });
            continue;
        }
        let Some(published) = port.published else {
            out.note(
                at,
                format!(
                    "{} is published at no port of its own: write [[services]] for it",
                    port.target
                ),
            );
            continue;
        };
        let handlers = if port.is_http() {
            vec!["http".to_owned()]
        } else {
            Vec::new()
        };
        app.draft.services.push(ServiceSection {
            protocol: "tcp".to_owned(),
            internal_port: port.target,
            ports: vec![Port {
                port: published,
                handlers,
            }],
            processes,
            ..ServiceSection::default()
        });
    }
}

/// Puts the checks at the service that they ask, else at the Machine.
fn checks(app: &mut ConvertedApp, group: &[Service]) {
    let several = !app.draft.processes.is_empty();
    for service in group {
        let Some((port, check)) = &service.check else {
            continue;
        };
        let processes = if several {
            vec![group_name(&service.name)]
        } else {
            Vec::new()
        };
        let mut check = check.clone();
        let http = app.draft.http_service.as_mut().filter(|http| {
            http.internal_port == *port && http.processes == processes && check.path.is_some()
        });
        if let Some(http) = http {
            check.kind = None;
            http.checks.push(check);
        } else {
            check.port = Some(*port);
            check.processes = processes;
            app.draft.checks.insert(group_name(&service.name), check);
        }
    }
}

/// Returns a value with the hosts of other services by their names here; none where there are none.
fn replace_hosts(value: &str, hosts: &BTreeMap<String, String>) -> Option<String> {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || c == '.';
    let mut out = String::new();
    let mut rest = value;
    let mut changed = false;
    while !rest.is_empty() {
        let end = rest.find(|c| !part(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let before_ok = out.is_empty() || out.ends_with("//") || out.ends_with(['@', ',']);
        let after_ok = after.is_empty() || after.starts_with([':', '/', ',', '?']);
        // A word alone is a host only where it is the whole value or has a port or an address.
        let alone = out.is_empty() && !(after.is_empty() || port_follows(after));
        match hosts.get(word) {
            Some(host) if before_ok && after_ok && !alone => {
                out.push_str(host);
                changed = true;
            }
            _ => out.push_str(word),
        }
        let skip = after.chars().next().map_or(0, char::len_utf8);
        out.push_str(&after[..skip]);
        rest = &after[skip..];
    }
    changed.then_some(out)
}

fn port_follows(text: &str) -> bool {
    let digits = text.strip_prefix(':').unwrap_or_default();
    digits.starts_with(|c: char| c.is_ascii_digit())
}
