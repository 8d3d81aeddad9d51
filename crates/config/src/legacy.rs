//! The flexible and old forms of fly.toml, turned into the one form that is decoded
//! (process-groups-and-deploy.md 1.3): tree in, tree out.
//!
//! In the order of Fly's client, because one step sees what the former has left. Keys are looked
//! for by their exact names here, as Fly does; only the last decode takes others
//! ([`crate::decode`]).

mod services;

use hangar_api::duration::GoDuration;

use crate::go;
use crate::problem::Severity;
use crate::raw::{Entry, Format, Node, Value};
use crate::read::Reader;

const SECOND: i64 = 1_000_000_000;
const MILLISECOND: i64 = 1_000_000;

/// Returns the tree in its modern form. What cannot be turned is told, and left out.
pub(crate) fn modern(reader: &Reader<'_>, root: &Node) -> Node {
    let mut root = root.clone();
    let steps: [fn(&Reader<'_>, &mut Node); 10] = [
        env,
        services::patch,
        processes,
        experimental,
        services::top_level_checks,
        compute,
        mounts,
        metrics,
        kill_timeout,
        build,
    ];
    for step in steps {
        step(reader, &mut root);
    }
    root
}

/// `[env]`: a table, or a list of tables; what is no text is printed as Go prints it.
fn env(reader: &Reader<'_>, root: &mut Node) {
    let Some(node) = root.take("env") else { return };
    let mut entries = Vec::new();
    env_of(reader, &node, &mut entries);
    root.put("env", Node::new(Value::Table(entries), node.span));
}

fn env_of(reader: &Reader<'_>, node: &Node, into: &mut Vec<Entry>) {
    match &node.value {
        Value::Table(entries) => {
            for entry in entries {
                into.retain(|e| e.key != entry.key);
                if let Value::List(_) | Value::Table(_) | Value::Null = entry.node.value {
                    let path = format!("env.{}", entry.key);
                    let shown = go::print(&entry.node);
                    let message = format!("is no text; the variable is set to {shown:?}");
                    let hint = Some("write a text, or quote a key that holds dots".to_owned());
                    reader.tell(Severity::Warning, &path, &entry.span, message, hint);
                }
                into.push(Entry {
                    node: text(go::print(&entry.node), &entry.node),
                    ..entry.clone()
                });
            }
        }
        Value::List(items) => items.iter().for_each(|item| env_of(reader, item, into)),
        _ => reader.wrong("env", node, "a table"),
    }
}

/// `[processes]`, or the old `[[processes]]` with `name` and `command`.
fn processes(reader: &Reader<'_>, root: &mut Node) {
    let Some(node) = root.take("processes") else {
        return;
    };
    match &node.value {
        Value::Table(_) => root.put("processes", node),
        Value::List(items) => {
            let mut entries: Vec<Entry> = Vec::new();
            for (i, item) in items.iter().enumerate() {
                let Some(name) = item.get("name") else {
                    let path = format!("processes[{i}]");
                    reader.warn(&path, &item.span, "has no name and does nothing");
                    continue;
                };
                let key = go::print(name);
                let command = item.get("command");
                entries.retain(|e| e.key != key);
                entries.push(Entry {
                    key,
                    span: item.span.clone(),
                    node: text(
                        command.map(go::print).unwrap_or_default(),
                        command.unwrap_or(item),
                    ),
                });
            }
            if !entries.is_empty() {
                root.put("processes", Node::new(Value::Table(entries), node.span));
            }
        }
        _ => reader.wrong("processes", &node, "a table of groups and commands"),
    }
}

fn experimental(reader: &Reader<'_>, root: &mut Node) {
    let Some(mut section) = root.take("experimental") else {
        return;
    };
    if !matches!(section.value, Value::Table(_)) {
        reader.wrong("experimental", &section, "a table");
        return;
    }
    if section.entries().is_empty() {
        return;
    }
    for key in ["cmd", "entrypoint", "exec"] {
        let Some(node) = section.take(key) else {
            continue;
        };
        if let Some(words) = words(reader, &format!("experimental.{key}"), node) {
            section.put(key, words);
        }
    }
    if let Some(node) = section.get("kill_timeout")
        && root.get("kill_timeout").is_none()
    {
        let node = duration(reader, "experimental.kill_timeout", node, SECOND);
        root.put("kill_timeout", node);
    }
    let mut old = Node::new(Value::Table(Vec::new()), section.span.clone());
    for (from, to) in [("metrics_port", "port"), ("metrics_path", "path")] {
        if let Some(node) = section.get(from) {
            old.span = node.span.clone();
            old.put(to, node.clone());
        }
    }
    if root.get("metrics").is_none() && !old.entries().is_empty() {
        root.put("metrics", old);
    }
    root.put("experimental", section);
}

/// A text is a list of one word: it is not split.
fn words(reader: &Reader<'_>, path: &str, node: Node) -> Option<Node> {
    match &node.value {
        Value::Text(_) => {
            let span = node.span.clone();
            Some(Node::new(Value::List(vec![node]), span))
        }
        Value::List(items) => {
            let mut texts = items.iter().enumerate();
            match texts.find(|(_, i)| !matches!(i.value, Value::Text(_))) {
                Some((i, item)) => {
                    reader.wrong(&format!("{path}[{i}]"), item, "a text");
                    None
                }
                None => Some(node),
            }
        }
        Value::Null => None,
        _ => {
            reader.wrong(path, &node, "a text or a list of texts");
            None
        }
    }
}

/// Returns the items of the lists under these names, one after the other, as the list of the
/// last. It is put there also where there is none: a list under another spelling is lost by it.
fn gather(reader: &Reader<'_>, root: &mut Node, keys: &[&str], number: Option<&str>) {
    let mut all = Vec::new();
    let mut span = root.span.clone();
    let mut found = false;
    for key in keys {
        let Some(node) = root.take(key) else { continue };
        found = true;
        span = node.span.clone();
        all.extend(tables(reader, key, node));
    }
    for item in &mut all {
        let value = number.and_then(|key| Some((key, item.take(key)?)));
        if let Some((key, value)) = value {
            item.put(key, text(go::print(&value), &value));
        }
    }
    let value = if found { Value::List(all) } else { Value::Null };
    if let Some(last) = keys.last() {
        root.put(last, Node::new(value, span));
    }
}

/// `[[vm]]` under its three names.
fn compute(reader: &Reader<'_>, root: &mut Node) {
    gather(reader, root, &["compute", "computes", "vm"], Some("memory"));
}

fn mounts(reader: &Reader<'_>, root: &mut Node) {
    gather(reader, root, &["mount", "mounts"], Some("initial_size"));
}

fn metrics(reader: &Reader<'_>, root: &mut Node) {
    gather(reader, root, &["metric", "metrics"], None);
}

fn kill_timeout(reader: &Reader<'_>, root: &mut Node) {
    if let Some(node) = root.take("kill_timeout") {
        let node = duration(reader, "kill_timeout", &node, SECOND);
        root.put("kill_timeout", node);
    }
}

fn build(reader: &Reader<'_>, root: &mut Node) {
    let Some(mut section) = root.take("build") else {
        return;
    };
    if !matches!(section.value, Value::Table(_)) {
        reader.wrong("build", &section, "a table");
        return;
    }
    if let Some(old) = section.take("build_target") {
        section.put("build-target", old);
    }
    if !section.entries().is_empty() {
        root.put("build", section);
    }
}

/// Returns the items of a list of tables, or of a single table.
fn tables(reader: &Reader<'_>, path: &str, node: Node) -> Vec<Node> {
    match node.value {
        Value::Table(_) => vec![node],
        Value::List(items) => {
            for (i, item) in items.iter().enumerate() {
                if !matches!(item.value, Value::Table(_)) {
                    reader.wrong(&format!("{path}[{i}]"), item, "a table");
                }
            }
            items
        }
        _ => {
            reader.wrong(path, &node, "a table or a list of tables");
            Vec::new()
        }
    }
}

fn text(text: String, like: &Node) -> Node {
    Node::new(Value::Text(text), like.span.clone())
}

/// Returns a duration as Go writes it. A number counts `nanos` each; "" and what is neither a
/// number nor a text is unset, as on Fly, and told.
fn duration(reader: &Reader<'_>, path: &str, node: &Node, nanos: i64) -> Node {
    let number = match &node.value {
        Value::Text(text) if text.is_empty() => None,
        Value::Text(_) => return node.clone(),
        // Fly's client has no case for the whole numbers of YAML.
        Value::Int(_) if reader.format == Format::Yaml => {
            let hint = Some("write a text such as \"15s\"".to_owned());
            let message = "a whole number does nothing here in YAML";
            reader.tell(Severity::Warning, path, &node.span, message, hint);
            None
        }
        Value::Int(number) => i64::try_from(*number).ok(),
        Value::Float(number) => Some(go::truncate(*number)),
        Value::Null => None,
        _ => {
            reader.warn(path, &node.span, "is not a duration and does nothing");
            None
        }
    };
    let value = number.map_or(Value::Null, |number| {
        let duration: GoDuration = go::scaled(number, nanos);
        Value::Text(duration.to_string())
    });
    Node::new(value, node.span.clone())
}
