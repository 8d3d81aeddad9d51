//! From the tree to types: the whole file, and the sections that are no lists of tables.
//!
//! Accepts the flexible and legacy forms of process-groups-and-deploy.md 1.3. What has the wrong
//! type is told and left out; the caller drops a configuration with errors.

mod check;
pub(crate) mod service;
mod vm;

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use crate::app::{AppConfig, Build, Deploy, Experimental, Kept};
use crate::raw::{Node, Value};
use crate::read::{Bare, Reader, Table};

/// Sections that Fly refuses when they are null; other nulls are taken as absent.
const NEVER_NULL: [&str; 9] = [
    "env",
    "processes",
    "services",
    "mounts",
    "vm",
    "metrics",
    "checks",
    "experimental",
    "build",
];

/// Reads the whole file.
pub(crate) fn decode<'a>(reader: &'a Reader<'a>, root: &'a Node) -> AppConfig {
    let Some(mut top) = reader.table("", root) else {
        return AppConfig::default();
    };
    for key in NEVER_NULL {
        let is_null = |n: &&Node| n.value == Value::Null;
        if let Some(node) = root.get(key).filter(is_null) {
            reader.wrong(key, node, "a section");
        }
    }
    let mut config = AppConfig {
        app: top.text("app"),
        primary_region: top.text("primary_region"),
        kill_signal: top.text("kill_signal"),
        kill_timeout: kill_timeout(reader, &mut top),
        swap_size_mb: top.int("swap_size_mb"),
        console_command: top.text("console_command"),
        env: section(&mut top, "env", |n| env(reader, n)),
        processes: section(&mut top, "processes", |n| processes(reader, n)),
        experimental: top
            .take("experimental")
            .and_then(|n| experimental(reader, n)),
        build: top.take("build").and_then(|n| build(reader, n)),
        deploy: top.take("deploy").and_then(|n| deploy(reader, n)),
        http_service: top
            .take("http_service")
            .and_then(|n| service::http_service(reader, n)),
        services: section(&mut top, "services", |n| service::services(reader, n)),
        checks: section(&mut top, "checks", |n| check::top_level(reader, n)),
        files: section(&mut top, "files", |n| vm::files(reader, n)),
        restart: section(&mut top, "restart", |n| vm::restart(reader, n)),
        vm: Vec::new(),
        kept: Kept::default(),
    };
    for key in ["compute", "computes", "vm"] {
        let sections = section(&mut top, key, |n| vm::sizes(reader, key, n));
        config.vm.extend(sections);
    }
    config.kept = kept(reader, &mut top);
    top.done();
    config
}

fn section<'a, T: Default>(
    top: &mut Table<'a>,
    key: &'static str,
    read: impl FnOnce(&'a Node) -> T,
) -> T {
    top.take(key).map(read).unwrap_or_default()
}

/// `kill_timeout`, or its old place in `[experimental]`; a bare number counts seconds.
fn kill_timeout<'a>(
    reader: &'a Reader<'a>,
    top: &mut Table<'a>,
) -> Option<hangar_api::duration::GoDuration> {
    if let Some(node) = top.take("kill_timeout") {
        return reader.duration("kill_timeout", node, Bare::Seconds);
    }
    let old = top.take("experimental")?.get("kill_timeout")?;
    reader.duration("experimental.kill_timeout", old, Bare::Seconds)
}

/// `[env]`: a table, or a list of tables; what is no text is printed as Go prints it.
fn env(reader: &Reader<'_>, node: &Node) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    match &node.value {
        Value::Table(entries) => {
            let pairs = entries.iter().map(|e| (e.key.clone(), print(&e.node)));
            all.extend(pairs);
        }
        Value::List(items) => {
            for item in items {
                all.extend(env(reader, item));
            }
        }
        _ => reader.wrong("env", node, "a table"),
    }
    all
}

/// Prints a value as Go's `%v` does.
fn print(node: &Node) -> String {
    match &node.value {
        Value::Null => "<nil>".to_owned(),
        Value::Bool(yes) => yes.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Float(number) => print_float(*number),
        Value::Text(text) | Value::Date(text) => text.clone(),
        Value::List(items) => {
            let items: Vec<String> = items.iter().map(print).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Table(entries) => {
            let sorted: BTreeMap<&str, String> = entries
                .iter()
                .map(|e| (e.key.as_str(), print(&e.node)))
                .collect();
            let pairs: Vec<String> = sorted.iter().map(|(k, v)| format!("{k}:{v}")).collect();
            format!("map[{}]", pairs.join(" "))
        }
    }
}

/// Prints a float as Go does: shortest digits, with an exponent below 1e-4 and from 1e6 on.
fn print_float(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let text = format!("{number:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if number != 0.0 && !(-4..6).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", exponent.abs());
    }
    format!("{number}")
}

/// `[processes]`, or the old `[[processes]]` with `name` and `command`.
fn processes(reader: &Reader<'_>, node: &Node) -> BTreeMap<String, String> {
    let mut groups = BTreeMap::new();
    match &node.value {
        Value::Table(entries) => {
            for entry in entries {
                match &entry.node.value {
                    Value::Text(command) => {
                        groups.insert(entry.key.clone(), command.clone());
                    }
                    _ => {
                        let path = format!("processes.{}", entry.key);
                        reader.wrong(&path, &entry.node, "a command");
                    }
                }
            }
        }
        Value::List(items) => {
            for item in items {
                let Some(name) = item.get("name") else {
                    continue;
                };
                let command = item.get("command").map(print).unwrap_or_default();
                groups.insert(print(name), command);
            }
        }
        _ => reader.wrong("processes", node, "a table of groups and commands"),
    }
    groups
}

fn experimental<'a>(reader: &'a Reader<'a>, node: &'a Node) -> Option<Experimental> {
    let mut table = reader.table("experimental", node)?;
    if table.is_empty() {
        return None;
    }
    let mut words = |key| match &table.take(key)?.value {
        Value::Text(one) => Some(vec![one.clone()]),
        _ => table.texts(key),
    };
    let found = Experimental {
        cmd: words("cmd"),
        entrypoint: words("entrypoint"),
        exec: words("exec"),
        other: Map::new(),
    };
    let other = rest(
        &mut table,
        &[
            "auto_rollback",
            "enable_consul",
            "enable_etcd",
            "lazy_load_images",
            "attached",
            "machine_config",
        ],
    );
    for key in ["kill_timeout", "metrics_port", "metrics_path"] {
        table.take(key);
    }
    let mut other = other;
    other
        .entry("attached")
        .or_insert_with(|| serde_json::json!({ "secrets": {} }));
    table.done();
    Some(Experimental { other, ..found })
}

fn rest(table: &mut Table<'_>, keys: &[&'static str]) -> Map<String, Json> {
    let kept = keys
        .iter()
        .filter_map(|key| Some(((*key).to_owned(), table.kept(key)?)));
    kept.collect()
}

fn build<'a>(reader: &'a Reader<'a>, node: &'a Node) -> Option<Build> {
    let mut table = reader.table("build", node)?;
    if table.is_empty() {
        return None;
    }
    let args = table
        .take("args")
        .map(|n| texts_of(reader, "build.args", n));
    let old = table.text("build_target");
    let target = table.text("build-target");
    let build = Build {
        image: table.text("image"),
        dockerfile: table.text("dockerfile"),
        ignorefile: table.text("ignorefile"),
        args: args.unwrap_or_default(),
        target: old.or(target),
        other: rest(
            &mut table,
            &[
                "builder",
                "buildpacks",
                "settings",
                "builtin",
                "compose",
                "compression",
                "compression_level",
            ],
        ),
    };
    table.done();
    Some(build)
}

fn texts_of(reader: &Reader<'_>, path: &str, node: &Node) -> BTreeMap<String, String> {
    let Value::Table(entries) = &node.value else {
        reader.wrong(path, node, "a table");
        return BTreeMap::new();
    };
    let mut texts = BTreeMap::new();
    for entry in entries {
        match &entry.node.value {
            Value::Text(text) => {
                texts.insert(entry.key.clone(), text.clone());
            }
            _ => reader.wrong(&format!("{path}.{}", entry.key), &entry.node, "a text"),
        }
    }
    texts
}

fn deploy<'a>(reader: &'a Reader<'a>, node: &'a Node) -> Option<Deploy> {
    let mut table = reader.table("deploy", node)?;
    let deploy = Deploy {
        strategy: table.text("strategy"),
        max_unavailable: table.float("max_unavailable"),
        wait_timeout: table.duration("wait_timeout", Bare::Nanos),
        other: rest(
            &mut table,
            &[
                "release_command",
                "release_command_timeout",
                "release_command_vm",
                "seed_command",
            ],
        ),
    };
    table.done();
    Some(deploy)
}

/// The parts that only go into the Machine's configuration, or only into the definition.
fn kept<'a>(reader: &'a Reader<'a>, top: &mut Table<'a>) -> Kept {
    let mut list = |keys: &[&'static str]| {
        let mut items = Vec::new();
        for key in keys {
            let Some(node) = top.take(key) else { continue };
            let found = reader.items(key, node, *key != "statics");
            for (path, item) in found {
                match &item.value {
                    Value::Table(_) => items.push(item.to_json()),
                    _ => reader.wrong(&path, item, "a table"),
                }
            }
        }
        items
    };
    let mounts = list(&["mount", "mounts"]);
    let mut metrics = list(&["metric", "metrics"]);
    let mut statics = list(&["statics"]);
    for item in statics.iter_mut().filter_map(Json::as_object_mut) {
        // Fly writes this one in any case, and drops the groups.
        item.entry("tigris_bucket").or_insert_with(|| "".into());
        item.remove("processes");
    }
    if metrics.is_empty() {
        metrics.extend(old_metrics(top));
    }
    let other = rest(
        top,
        &[
            "host_dedication_id",
            "machine_config",
            "container",
            "machine_checks",
        ],
    );
    Kept {
        mounts,
        metrics,
        statics,
        other,
    }
}

/// `[metrics]` as `[experimental]` once spelt it.
fn old_metrics(top: &mut Table<'_>) -> Option<Json> {
    let experimental = top.take("experimental")?;
    let (port, path) = (
        experimental.get("metrics_port"),
        experimental.get("metrics_path"),
    );
    if port.is_none() && path.is_none() {
        return None;
    }
    let mut metrics = Map::new();
    for (key, node) in [("port", port), ("path", path)] {
        if let Some(node) = node {
            metrics.insert(key.to_owned(), node.to_json());
        }
    }
    Some(Json::Object(metrics))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_print_as_go_prints_them() {
        for (number, text) in [
            (1.5, "1.5"),
            (0.0, "0"),
            (100.0, "100"),
            (1e6, "1e+06"),
            (1_048_576.0, "1.048576e+06"),
            (1e-5, "1e-05"),
            (-2.25, "-2.25"),
            (f64::INFINITY, "+Inf"),
        ] {
            assert_eq!(print_float(number), text);
        }
    }
}
