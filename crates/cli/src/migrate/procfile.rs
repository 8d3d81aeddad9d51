//! Procfile and `app.json`: process types become process groups, the formation counts and sizes.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::draft::{Check, Draft, HttpService, Restart, Vm};
use super::value::{self, fraction, number, port, table, text};
use super::{Converted, ConvertedApp, SECRET_HERE, Unreadable};
use super::{cron, group_name, looks_secret, shell};

/// The process type that gets requests.
const WEB: &str = "web";
/// The process type that runs before each release.
const RELEASE: &str = "release";
/// The port of a web process that names none.
pub(crate) const DEFAULT_PORT: u16 = 8080;

/// What is read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Source<'a> {
    /// The Procfile's text.
    pub(crate) procfile: &'a str,
    /// The text of `app.json`, where there is one.
    pub(crate) app_json: Option<&'a str>,
    /// The app's name, which `app.json` may change.
    pub(crate) name: &'a str,
    /// The port that the image says it listens on.
    pub(crate) exposed: Option<u16>,
    /// Whether there is something to build or an image is named.
    pub(crate) builds: bool,
}

/// Makes a fly.toml of a Procfile.
pub(crate) fn convert(source: &Source<'_>) -> Result<Converted, Unreadable> {
    let mut out = Converted::default();
    let mut app = ConvertedApp::default();
    source.name.clone_into(&mut app.draft.app);
    // As Heroku stops a process.
    app.draft.kill_signal = Some("SIGTERM".to_owned());
    app.draft.kill_timeout = Some("30s".to_owned());
    let lines = read(source.procfile, &mut out);
    if lines.keys().all(|name| name == RELEASE) {
        return Err(Unreadable(
            "the Procfile names no process: each line is NAME: COMMAND".to_owned(),
        ));
    }
    groups(&lines, &mut app.draft, &mut out);
    if lines.contains_key(WEB) {
        let port = source.exposed.unwrap_or(DEFAULT_PORT);
        app.draft.env.insert("PORT".to_owned(), port.to_string());
        app.draft.http_service = Some(HttpService {
            internal_port: port,
            auto_start_machines: Some(true),
            processes: vec![WEB.to_owned()],
            ..HttpService::default()
        });
    }
    if let Some(json) = source.app_json {
        let json: Value = serde_json::from_str(json)
            .map_err(|error| Unreadable(format!("app.json is no JSON: {error}")))?;
        let Value::Object(json) = json else {
            return Err(Unreadable("app.json holds no object".to_owned()));
        };
        app_json(&json, &mut app, &mut out);
    }
    if !source.builds {
        out.note(
            "Procfile",
            "there is no Dockerfile beside it, and buildpacks are not run here: add a Dockerfile \
             that makes the image, or name an image with [build] image",
        );
    }
    out.apps.push(app);
    Ok(out)
}

/// Returns process types and their command lines.
fn read(procfile: &str, out: &mut Converted) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    for (index, line) in procfile.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let at = format!("Procfile line {}", index + 1);
        let valid = |name: &str| {
            !name.is_empty()
                && name
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        };
        match line.split_once(':') {
            Some((name, command)) if valid(name.trim()) && !command.trim().is_empty() => {
                let (name, command) = (name.trim().to_owned(), command.trim().to_owned());
                if lines.insert(name.clone(), command).is_some() {
                    out.note(at, format!("{name} stands twice: the last line is taken"));
                }
            }
            _ => out.note(
                at,
                format!("is not NAME: COMMAND, so it is left out: {line}"),
            ),
        }
    }
    lines
}

fn groups(lines: &BTreeMap<String, String>, draft: &mut Draft, out: &mut Converted) {
    for (name, line) in lines {
        let at = format!("Procfile {name}");
        let (command, shell) = shell::command(line);
        if shell {
            out.note(
                at.clone(),
                "uses a shell, so it runs by `sh -c`: the image needs a shell, and its ENTRYPOINT \
                 has to be none or one that runs its arguments",
            );
        }
        if name == RELEASE {
            draft.deploy.release_command = Some(command);
            continue;
        }
        let group = group_name(name);
        if group != *name {
            out.note(
                at.clone(),
                format!("the process group is called {group}, so that it has a name in DNS"),
            );
        }
        if draft.processes.insert(group.clone(), command).is_some() {
            out.note(
                at,
                format!("another process is called {group} too: this one is taken"),
            );
        }
    }
}

fn app_json(json: &Map<String, Value>, app: &mut ConvertedApp, out: &mut Converted) {
    for (key, value) in json {
        if value::is_empty(value) {
            continue;
        }
        let at = format!("app.json {key}");
        match key.as_str() {
            // What a person reads; nothing to carry over.
            "description" | "keywords" | "website" | "repository" | "logo" | "success_url"
            | "$schema" => {}
            "name" => {
                if let Some(name) = text(value).and_then(|name| super::app_name(&name)) {
                    app.draft.app = name;
                }
            }
            "env" => env(table(value), app, out),
            "formation" => formation(table(value), app, out),
            "healthchecks" => health(table(value), app, out),
            "image" => out.note(
                at,
                "the image of Heroku's builder is of no use here: the Dockerfile names its own base",
            ),
            "addons" => addons(&at, value, out),
            "buildpacks" => out.note(at, "buildpacks are not run: a Dockerfile takes their place"),
            "scripts" => {
                for (name, script) in table(value) {
                    let script = text(script).unwrap_or_default();
                    out.note(
                        format!("app.json scripts.{name}"),
                        format!("is not run: {script:?}; run it once by `hangar machine exec`, or put it into the release command"),
                    );
                }
            }
            "environments" => out.note(
                at,
                "settings for review apps and CI are not read: make an app of its own with `hangar launch --name`",
            ),
            "stack" => out.note(at, "the stack is the Dockerfile's base image"),
            "cron" => cron(value, app, out),
            _ => out.note(at, "is not known to Hangar, so nothing is made of it"),
        }
    }
}

fn addons(at: &str, value: &Value, out: &mut Converted) {
    for addon in value.as_array().into_iter().flatten() {
        let plan = text(addon).or_else(|| text(&addon["plan"]));
        out.note(
            at,
            format!(
                "{} is not made: run it as an app of its own, and set its address by `hangar secrets set`",
                plan.unwrap_or_default()
            ),
        );
    }
}

/// Jobs that run hourly, daily, weekly or monthly become groups of one Machine with a schedule.
fn cron(value: &Value, app: &mut ConvertedApp, out: &mut Converted) {
    for (index, job) in value.as_array().into_iter().flatten().enumerate() {
        let at = format!("app.json cron[{index}]");
        let line = text(&job["command"]).unwrap_or_default();
        let when = text(&job["schedule"]).unwrap_or_default();
        let Some(schedule) = cron::schedule(&when).filter(|_| !line.trim().is_empty()) else {
            out.note(
                at,
                format!(
                    "{line:?} at {when:?} is not run: schedules are hourly, daily, weekly or monthly; run a scheduler in a process group of its own"
                ),
            );
            continue;
        };
        let mut numbers = index + 1..;
        let group = numbers.find_map(|n| {
            let name = format!("cron{n}");
            (!app.draft.processes.contains_key(&name)).then_some(name)
        });
        let Some(group) = group else { continue };
        let (command, shell) = shell::command(&line);
        if shell {
            out.note(
                at.clone(),
                "uses a shell, so it runs by `sh -c`: the image needs a shell, and its ENTRYPOINT \
                 has to be none or one that runs its arguments",
            );
        }
        out.note(
            at,
            format!(
                "{when:?} becomes {schedule}, counted from its first start, which is the deploy: start it once more at the hour that you want"
            ),
        );
        app.draft.processes.insert(group.clone(), command);
        app.draft.restart.push(Restart {
            policy: "on-failure".to_owned(),
            processes: vec![group.clone()],
            ..Restart::default()
        });
        app.counts.insert(group.clone(), 1);
        app.schedules.insert(group, schedule);
    }
}

fn env(variables: &Map<String, Value>, app: &mut ConvertedApp, out: &mut Converted) {
    for (name, value) in variables {
        let at = format!("app.json env.{name}");
        let given = text(value).or_else(|| text(&value["value"]));
        let generated = value["generator"] == "secret";
        let required = value["required"] != Value::Bool(false);
        match given {
            Some(given) => {
                let asked = port(&Value::String(given.clone())).filter(|_| name == "PORT");
                if let (Some(port), Some(service)) = (asked, &mut app.draft.http_service) {
                    service.internal_port = port;
                }
                if looks_secret(name) {
                    app.draft.comment(format!("{name} = "), SECRET_HERE);
                    out.note(
                        at,
                        "looks like a secret and stands in fly.toml: take it out there and set it by `hangar secrets set`",
                    );
                }
                app.draft.env.insert(name.clone(), given);
            }
            None if generated => {
                app.secrets.push(name.clone());
                out.note(
                    at,
                    format!("is to be made up: hangar secrets set {name}=$(openssl rand -hex 32)"),
                );
            }
            None if required => app.secrets.push(name.clone()),
            None => out.note(at, "has no value and needs none: it is not set"),
        }
    }
}

fn formation(types: &Map<String, Value>, app: &mut ConvertedApp, out: &mut Converted) {
    for (name, value) in types {
        let group = group_name(name);
        let at = format!("app.json formation.{name}");
        if !app.draft.processes.contains_key(&group) {
            out.note(at, "there is no such process in the Procfile");
            continue;
        }
        for (key, value) in table(value) {
            match key.as_str() {
                "quantity" => match number(value) {
                    Some(count) => {
                        app.counts.insert(group.clone(), count);
                    }
                    None => out.note(format!("{at}.quantity"), "is no number"),
                },
                "size" => match text(value).as_deref().and_then(dyno) {
                    Some(vm) => app.draft.vm.push(Vm {
                        processes: vec![group.clone()],
                        ..vm
                    }),
                    None => out.note(
                        format!("{at}.size"),
                        format!("{value} is not known: set the size with [[vm]]"),
                    ),
                },
                _ => out.note(format!("{at}.{key}"), "is not carried over"),
            }
        }
    }
}

/// Returns the size that stands for one of Heroku's dynos: at least its memory.
fn dyno(name: &str) -> Option<Vm> {
    Some(match name.to_ascii_lowercase().as_str() {
        "free" | "eco" | "hobby" | "basic" | "standard-1x" | "1x" => Vm::sized("shared", 1, 512),
        "standard-2x" | "2x" | "private-s" | "shield-s" => Vm::sized("shared", 1, 1024),
        "performance-m" | "private-m" | "shield-m" => Vm::sized("performance", 1, 3 * 1024),
        "performance-l" | "private-l" | "shield-l" => Vm::sized("performance", 4, 14 * 1024),
        "performance-l-ram" | "private-l-ram" => Vm::sized("performance", 4, 30 * 1024),
        "performance-xl" | "private-xl" => Vm::sized("performance", 8, 62 * 1024),
        "performance-2xl" | "private-2xl" => Vm::sized("performance", 16, 126 * 1024),
        _ => return None,
    })
}

/// Dokku's checks: those over HTTP become the proxy's for `web`, the first one only where several
/// ask for the same path.
fn health(types: &Map<String, Value>, app: &mut ConvertedApp, out: &mut Converted) {
    const READ: [&str; 7] = [
        "name",
        "type",
        "path",
        "wait",
        "timeout",
        "initialDelay",
        "description",
    ];
    for (name, checks) in types {
        for (index, check) in checks.as_array().into_iter().flatten().enumerate() {
            let at = format!("app.json healthchecks.{name}[{index}]");
            let path = text(&check["path"]);
            let service = app.draft.http_service.as_mut().filter(|_| name == WEB);
            let (Some(path), Some(service)) = (path, service) else {
                out.note(at, "is not an HTTP check of web, so it is not carried over");
                continue;
            };
            for key in table(check).keys().filter(|k| !READ.contains(&k.as_str())) {
                out.note(format!("{at}.{key}"), "is not carried over");
            }
            if service
                .checks
                .iter()
                .any(|c| c.path.as_deref() == Some(&path))
            {
                out.note(at, format!("{path} is checked already"));
                continue;
            }
            let seconds = |key: &str| {
                fraction(&check[key]).map(|n| format!("{}s", n.clamp(1.0, 60.0).round()))
            };
            service.checks.push(Check {
                path: Some(path),
                interval: Some(seconds("wait").unwrap_or_else(|| "5s".to_owned())),
                timeout: Some(seconds("timeout").unwrap_or_else(|| "5s".to_owned())),
                grace_period: seconds("initialDelay"),
                ..Check::default()
            });
        }
    }
}

#[cfg(test)]
mod tests;
