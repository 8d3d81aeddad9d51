//! A configuration made of the Machines that there are, for an app that was never deployed
//! (process-groups-and-deploy.md 1.5 "Remote config").

use std::collections::BTreeSet;

use hangar_api::machine::MachineConfig;
use serde_json::{Map, Value as Json, json};

use crate::app::AppConfig;
use crate::group::APP;
use crate::raw::Format;
use crate::words;

/// Variables that are made anew for each Machine.
const MADE: [&str; 3] = ["FLY_PROCESS_GROUP", "PRIMARY_REGION", "FLY_PRIMARY_REGION"];

/// A configuration, and where Machines deviate from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Rebuilt {
    /// What most of the Machines are.
    pub config: AppConfig,
    /// What it does not say of single Machines; a warning each.
    pub warnings: Vec<String>,
}

/// Returns the configuration that most of these Machines, by id, would come from; `None` where
/// there are no Machines. The one group `app` has the commonest command, and its services are the
/// commonest ones of the Machines with that command. Among equals the first counts.
#[must_use]
pub fn from_machines(app: &str, machines: &[(&str, &MachineConfig)]) -> Option<Rebuilt> {
    let mut warnings = Vec::new();
    let commands: Vec<String> = machines.iter().map(|(_, c)| command_of(c)).collect();
    let command = commonest(&commands)?.clone();
    let (same, others) = parted(machines, &commands, &command);
    if !others.is_empty() {
        let ids: Vec<&str> = others.iter().map(|(id, _)| *id).collect();
        let found: BTreeSet<&str> = commands.iter().map(String::as_str).collect();
        let found: Vec<&str> = found.into_iter().filter(|c| *c != command).collect();
        warnings.push(format!(
            "WARNING [processes]: Found these additional commands on some machines. Consider adding process groups to your fly.toml and run machines with those process groups.\n  Machine IDs that were not saved to fly.toml: {}\n  Commands they are running:\n    {}",
            ids.join(", "),
            found.join("\n    ")
        ));
    }
    let sets: Vec<String> = same
        .iter()
        .map(|(_, c)| json!(c.services).to_string())
        .collect();
    let set = commonest(&sets)?.clone();
    let (with_them, deviating) = parted(&same, &sets, &set);
    if !deviating.is_empty() {
        let ids: Vec<&str> = deviating.iter().map(|(id, _)| *id).collect();
        warnings.push(format!(
            "WARNING [services]: Found different services on some other machines. Consider adding [[services]] block to fly.toml to support them.\n  Machine IDs with different services: {}",
            ids.join(", ")
        ));
    }
    let services = services_of(with_them.first()?.1, !command.is_empty());
    let candidates = machines.iter().map(|(_, config)| {
        let definition = definition(app, config, &command, &services);
        AppConfig::from_definition(&definition).ok()
    });
    let candidates: Vec<Option<AppConfig>> = candidates.collect();
    let written = |config: &Option<AppConfig>| {
        let config = config.as_ref();
        config.map_or_else(String::new, |c| c.write(Format::Toml))
    };
    let texts: Vec<String> = candidates.iter().map(written).collect();
    let readable: Vec<String> = texts.iter().filter(|t| !t.is_empty()).cloned().collect();
    let text = commonest(&readable)?.clone();
    for ((id, config), its) in machines.iter().zip(&texts) {
        if config.mounts.len() > 1 {
            warnings.push(format!(
                "WARNING [mounts]: more than one mount attached to machine {id}; only the first is in the configuration"
            ));
        }
        if *its != text {
            let lines = differing(its, &text).join("\n    ");
            warnings.push(format!(
                "WARNING [fly.toml]: Machine {id} currently has a config that will change with the new fly.toml. It alone has:\n    {lines}"
            ));
        }
    }
    let place = texts.iter().position(|t| *t == text)?;
    let config = candidates.into_iter().nth(place)??;
    Some(Rebuilt { config, warnings })
}

/// Returns a command in one line: words are quoted one by one as Fly's client quotes them, but
/// where the result would be read as something else, as a shell would need it.
#[must_use]
pub fn quote(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|w| quote_word(w)).collect();
    words.join(" ")
}

fn quote_word(word: &str) -> String {
    const SPECIAL: &str = "!\"#$&'()*,;<=>?[]\\^`{|}~";
    let quoted = if word.contains(|c| SPECIAL.contains(c)) {
        format!("'{word}'")
    } else if word.contains(char::is_whitespace) {
        format!("\"{word}\"")
    } else {
        word.to_owned()
    };
    if words::split(&quoted).is_ok_and(|words| words == [word]) {
        return quoted;
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn command_of(config: &MachineConfig) -> String {
    quote(config.init.cmd.as_deref().unwrap_or_default())
}

/// Returns the value that is there most often, the first one among equals.
fn commonest(values: &[String]) -> Option<&String> {
    let count = |value: &&String| values.iter().filter(|v| v == value).count();
    let most = values.iter().map(|v| count(&v)).max()?;
    values.iter().find(|v| count(v) == most)
}

type Parts<'a> = Vec<(&'a str, &'a MachineConfig)>;

/// Returns the Machines with this value, and the others.
fn parted<'a>(
    machines: &[(&'a str, &'a MachineConfig)],
    values: &[String],
    value: &str,
) -> (Parts<'a>, Parts<'a>) {
    let pairs = machines.iter().copied().zip(values);
    let (with, without): (Vec<_>, Vec<_>) = pairs.partition(|(_, v)| *v == value);
    let machines = |pairs: Vec<((&'a str, &'a MachineConfig), _)>| {
        pairs.into_iter().map(|(machine, _)| machine).collect()
    };
    (machines(with), machines(without))
}

/// Returns the lines of one text that the other has not.
fn differing<'a>(one: &'a str, other: &str) -> Vec<&'a str> {
    let theirs: BTreeSet<&str> = other.lines().collect();
    one.lines().filter(|l| !theirs.contains(l)).collect()
}

/// Returns `[[services]]` for the services of a Machine.
fn services_of(config: &MachineConfig, has_command: bool) -> Json {
    let section = |service| {
        let mut section = object(json!(service));
        for (from, to) in [
            ("autostop", "auto_stop_machines"),
            ("autostart", "auto_start_machines"),
        ] {
            if let Some(value) = section.remove(from) {
                section.insert(to.to_owned(), value);
            }
        }
        let checks = section.remove("checks");
        for check in checks.iter().filter_map(Json::as_array).flatten() {
            let mut check = check_of(check);
            let list = match check.remove("type").as_ref().and_then(Json::as_str) {
                Some("tcp") => "tcp_checks",
                Some("http") => "http_checks",
                _ => continue,
            };
            let checks = section.entry(list).or_insert_with(|| json!([]));
            if let Some(checks) = checks.as_array_mut() {
                checks.push(Json::Object(check));
            }
        }
        if has_command {
            section.insert("processes".to_owned(), json!([APP]));
        }
        Json::Object(section)
    };
    Json::Array(config.services.iter().map(section).collect())
}

/// Returns a check as fly.toml has it: headers are a table.
fn check_of(check: &Json) -> Map<String, Json> {
    let mut check = object(check.clone());
    if let Some(Json::Array(headers)) = check.remove("headers") {
        let pair = |header: &Json| {
            let name = header.get("name")?.as_str()?.to_owned();
            let value = header.pointer("/values/0")?.clone();
            Some((name, value))
        };
        let table: Map<String, Json> = headers.iter().filter_map(pair).collect();
        check.insert("headers".to_owned(), Json::Object(table));
    }
    check
}

/// Returns the definition that a Machine would come from.
fn definition(app: &str, config: &MachineConfig, command: &str, services: &Json) -> Json {
    let env = config.env.iter();
    let own = env.filter(|(key, _)| !MADE.contains(&key.as_str()));
    let own: Map<String, Json> = own.map(|(k, v)| (k.clone(), json!(v))).collect();
    let checks = config.checks.iter();
    let checks: Map<String, Json> = checks
        .map(|(name, check)| (name.clone(), Json::Object(check_of(&json!(check)))))
        .collect();
    let mut all = json!({ "app": app, "env": own, "services": services, "checks": checks });
    let region = config
        .env
        .get("PRIMARY_REGION")
        .or(config.env.get("FLY_PRIMARY_REGION"));
    if let Some(region) = region {
        all["primary_region"] = json!(region);
    }
    if !command.is_empty() {
        all["processes"] = json!({ APP: command });
    }
    if let Some(mount) = config.mounts.first() {
        let mut section = json!({ "destination": mount.path });
        if !mount.name.is_empty() {
            section["source"] = json!(mount.name);
        }
        all["mounts"] = json!([section]);
    }
    if let Some(metrics) = config.other.get("metrics").filter(|m| m.is_object()) {
        all["metrics"] = json!([metrics]);
    }
    if let Some(statics) = config.other.get("statics").filter(|s| s.is_array()) {
        all["statics"] = statics.clone();
    }
    all
}

fn object(value: Json) -> Map<String, Json> {
    match value {
        Json::Object(map) => map,
        _ => Map::new(),
    }
}
