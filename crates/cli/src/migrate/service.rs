//! Services of Compose and task groups of Nomad: those of one image become process groups of one
//! app, others apps of their own.

use std::collections::{BTreeMap, BTreeSet};

use super::draft::{
    Build, Check, Experimental, HttpService, Mount, Port, Restart, Service as ServiceSection, Vm,
};
use super::{Converted, ConvertedApp, SECRET_HERE, app_name, group_name, looks_secret, shell};

/// The group of an app of one service without a command of its own.
const APP: &str = "app";

/// What a service says that an app can be made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Service {
    pub(super) name: String,
    /// Where it stands in what was read, for notes.
    pub(super) at: String,
    pub(super) build: Build,
    /// Folder that is built, relative to the file.
    pub(super) context: Option<String>,
    pub(super) command: Vec<String>,
    pub(super) entrypoint: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) secrets: Vec<String>,
    pub(super) ports: Vec<Published>,
    /// Checks, each with the port that it asks.
    pub(super) checks: Vec<(u16, Check)>,
    pub(super) replicas: Option<u64>,
    /// Where it is to run, where that was said of it alone.
    pub(super) regions: Vec<String>,
    pub(super) cpus: Option<f64>,
    pub(super) memory_mb: Option<u64>,
    pub(super) mounts: Vec<Mount>,
    pub(super) restart: Option<Restart>,
    pub(super) stop_signal: Option<String>,
    pub(super) stop_timeout: Option<String>,
    pub(super) max_unavailable: Option<f64>,
    pub(super) depends: Vec<String>,
}

/// A TCP port that others reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Published {
    /// The port that the service listens on.
    pub(super) target: u16,
    /// The port that it is reached at; none where the platform picks one.
    pub(super) published: Option<u16>,
    /// Whether it speaks HTTP.
    pub(super) http: bool,
}

// === impl Service ===

impl Service {
    /// Returns what has to be the same for services to be groups of one app.
    pub(super) fn image_key(&self) -> String {
        match (&self.context, &self.build.image) {
            // An image that is built is the same where it is built the same way.
            (Some(context), _) => format!(
                "build {context} {:?}",
                Build {
                    image: None,
                    ..self.build.clone()
                }
            ),
            (None, Some(image)) => format!("image {image}"),
            (None, None) => format!("nothing {}", self.name),
        }
    }

    /// Returns the words that the group's command and the app's entrypoint become. Compose leaves
    /// out the image's CMD where an entrypoint is set, so words move from one to the other.
    pub(super) fn start(&self) -> (Vec<String>, String) {
        let (mut entrypoint, mut command) = (self.entrypoint.clone(), self.command.clone());
        if command.is_empty() && entrypoint.len() > 1 {
            command = entrypoint.split_off(1);
        }
        (entrypoint, shell::join(&command))
    }

    pub(super) fn vm(&self) -> Option<Vm> {
        (self.cpus.is_some() || self.memory_mb.is_some())
            .then(|| Vm::at_least(self.cpus, self.memory_mb))
    }
}

/// Makes apps of services, and adds them.
pub(super) fn apps(services: Vec<Service>, project: &str, out: &mut Converted) {
    if services.is_empty() {
        return;
    }
    let groups = ordered(grouped(services, out));
    let names = named(&groups, project);
    let hosts = hosts(&groups, &names);
    for (group, name) in groups.iter().zip(&names) {
        let app = assemble(group, name, &hosts, out);
        out.apps.push(app);
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
                        service.at.clone(),
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
    let published = |group: &Vec<Service>| group.iter().any(|s| s.ports.iter().any(|p| p.http));
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
            app.folder = folder(context, &first.at, out);
        }
        None if first.build.image.is_none() => {
            out.note(first.at.clone(), "names neither an image nor what to build");
        }
        None => {}
    }
    app.draft.kill_signal = first.stop_signal.clone().filter(|signal| {
        let known = hangar_api::signal::number(signal).is_some();
        if !known {
            out.note(first.at.clone(), format!("no signal is called {signal:?}"));
        }
        known
    });
    app.draft.kill_timeout.clone_from(&first.stop_timeout);
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
fn folder(context: &str, at: &str, out: &mut Converted) -> Option<String> {
    let plain = context.trim_start_matches("./").trim_end_matches('/');
    if plain.contains("://") || plain.starts_with(['/', '~']) || plain.split('/').any(|p| p == "..")
    {
        out.note(
            format!("{at}.build.context"),
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
        .extend(service.mounts.iter().map(|mount| Mount {
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
    if !service.regions.is_empty() {
        app.pools.insert(group.clone(), service.regions.clone());
    }
    if let Some(count) = service.replicas {
        app.counts.insert(group, count);
    }
    if !service.depends.is_empty() {
        out.note(
            format!("{}.depends_on", service.at),
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
    all.sort_by_key(|(service, port)| (!port.http, service.name != "web"));
    for (service, port) in all {
        let processes = if several {
            vec![group_name(&service.name)]
        } else {
            Vec::new()
        };
        let at = format!("{}.ports", service.at);
        if port.http && app.draft.http_service.is_none() {
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
        let handlers = if port.http {
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
        let processes = if several {
            vec![group_name(&service.name)]
        } else {
            Vec::new()
        };
        for (port, check) in &service.checks {
            let mut check = check.clone();
            let http = app.draft.http_service.as_mut().filter(|http| {
                http.internal_port == *port && http.processes == processes && check.path.is_some()
            });
            if let Some(http) = http {
                check.kind = None;
                http.checks.push(check);
                continue;
            }
            check.port = Some(*port);
            check.processes.clone_from(&processes);
            let plain = group_name(&service.name);
            let numbered = |n: u32| match n {
                1 => plain.clone(),
                n => format!("{plain}-{n}"),
            };
            let free = (1..)
                .map(numbered)
                .find(|n| !app.draft.checks.contains_key(n));
            app.draft.checks.insert(free.unwrap_or(plain), check);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_replaced_where_they_are_hosts() {
        let hosts = BTreeMap::from([("db".to_owned(), "shop-db.internal".to_owned())]);
        let replaced = |value: &str| replace_hosts(value, &hosts).unwrap_or_else(|| "-".to_owned());
        assert_eq!(replaced("db"), "shop-db.internal");
        assert_eq!(replaced("db:5432"), "shop-db.internal:5432");
        assert_eq!(
            replaced("mysql://u:p@db/db"),
            "mysql://u:p@shop-db.internal/db"
        );
        assert_eq!(replaced("a:1,db:2"), "a:1,shop-db.internal:2");
        for same in ["mydb", "db/file", "data.db", "the db is up", "x=db"] {
            assert_eq!(replaced(same), "-", "{same}");
        }
    }
}
