//! The flexible forms of `[[services]]` and `[checks]`.

use super::{MILLISECOND, duration, tables, text};
use crate::go;
use crate::raw::{Entry, Node, Value};
use crate::read::Reader;

/// `[[services]]`: one or a list; an item without keys is dropped.
pub(super) fn patch(reader: &Reader<'_>, root: &mut Node) {
    let Some(node) = root.take("services") else {
        return;
    };
    let span = node.span.clone();
    let mut services = Vec::new();
    for (i, mut service) in tables(reader, "services", node).into_iter().enumerate() {
        let path = format!("services[{i}]");
        concurrency(reader, &path, &mut service);
        ports(reader, &path, &mut service);
        for key in ["tcp_checks", "http_checks"] {
            checks(reader, &path, key, &mut service);
        }
        integer(reader, &path, "internal_port", &mut service);
        if !service.entries().is_empty() {
            services.push(service);
        }
    }
    let list = Node::new(Value::List(services), span);
    root.put("services", list);
}

/// Limits: a table, or a text "soft,hard" that counts requests.
fn concurrency(reader: &Reader<'_>, path: &str, service: &mut Node) {
    let Some(node) = service.take("concurrency") else {
        return;
    };
    let path = format!("{path}.concurrency");
    let node = match &node.value {
        Value::Table(_) => node,
        Value::Text(limits) => {
            let pair = limits.split_once(',');
            let both = pair.and_then(|(s, h)| Some((go::atoi(s)?, go::atoi(h)?)));
            let Some((soft, hard)) = both else {
                let shown: String = limits.chars().take(40).collect();
                let message =
                    format!("Unknown value '{shown}' for concurrency limits: write \"soft,hard\"");
                reader.error(&path, &node.span, message);
                return;
            };
            let span = node.span.clone();
            let mut table = Node::new(Value::Table(Vec::new()), span.clone());
            let kind = Value::Text("requests".to_owned());
            table.put("type", Node::new(kind, span.clone()));
            table.put(
                "hard_limit",
                Node::new(Value::Int(hard.into()), span.clone()),
            );
            table.put("soft_limit", Node::new(Value::Int(soft.into()), span));
            table
        }
        _ => {
            reader.wrong(&path, &node, "a table with soft_limit and hard_limit");
            return;
        }
    };
    service.put("concurrency", node);
}

fn ports(reader: &Reader<'_>, path: &str, service: &mut Node) {
    let Some(node) = service.take("ports") else {
        return;
    };
    let span = node.span.clone();
    let path = format!("{path}.ports");
    let mut ports = tables(reader, &path, node);
    for (i, port) in ports.iter_mut().enumerate() {
        integer(reader, &format!("{path}[{i}]"), "port", port);
    }
    service.put("ports", Node::new(Value::List(ports), span));
}

/// A whole number, also as a text or with a fraction, which is cut.
fn integer(reader: &Reader<'_>, path: &str, key: &str, table: &mut Node) {
    let Some(node) = table.take(key) else { return };
    let number = match &node.value {
        Value::Int(number) => Some(*number),
        Value::Float(number) if number.is_finite() => Some(go::truncate(*number).into()),
        Value::Text(text) => go::atoi(text).map(i128::from),
        _ => None,
    };
    if let Some(number) = number {
        table.put(key, Node::new(Value::Int(number), node.span));
        return;
    }
    let is = match &node.value {
        Value::Text(text) => format!("{:?}", text.chars().take(40).collect::<String>()),
        other => other.kind().to_owned(),
    };
    let message = format!("must be a port number, not {is}");
    reader.error(&format!("{path}.{key}"), &node.span, message);
}

fn checks(reader: &Reader<'_>, path: &str, key: &str, service: &mut Node) {
    let Some(node) = service.take(key) else {
        return;
    };
    let span = node.span.clone();
    let path = format!("{path}.{key}");
    let mut checks = tables(reader, &path, node);
    for (i, item) in checks.iter_mut().enumerate() {
        check(reader, &format!("{path}[{i}]"), item);
    }
    if !checks.is_empty() {
        service.put(key, Node::new(Value::List(checks), span));
    }
}

/// `[checks]`: a table by name, or a list with `name`.
pub(super) fn top_level_checks(reader: &Reader<'_>, root: &mut Node) {
    let Some(node) = root.take("checks") else {
        return;
    };
    let span = node.span.clone();
    let mut entries: Vec<Entry> = Vec::new();
    match node.value {
        Value::Table(all) => {
            for mut entry in all {
                let path = format!("checks.{}", entry.key);
                if top_level_check(reader, &path, &mut entry.node) {
                    entries.push(entry);
                }
            }
        }
        Value::List(items) => {
            for (i, mut item) in items.into_iter().enumerate() {
                let path = format!("checks[{i}]");
                if !top_level_check(reader, &path, &mut item) {
                    continue;
                }
                let Some(Value::Text(key)) = item.get("name").map(|n| n.value.clone()) else {
                    reader.error(&path, &item.span, "needs a name that is a text");
                    continue;
                };
                entries.retain(|e| e.key != key);
                entries.push(Entry {
                    key,
                    span: item.span.clone(),
                    node: item,
                });
            }
        }
        _ => reader.wrong("checks", &node, "a table of checks"),
    }
    if !entries.is_empty() {
        root.put("checks", Node::new(Value::Table(entries), span));
    }
}

fn top_level_check(reader: &Reader<'_>, path: &str, node: &mut Node) -> bool {
    let is_table = matches!(node.value, Value::Table(_));
    if is_table {
        check(reader, path, node);
    } else {
        let hint = "write [checks.NAME]".to_owned();
        reader.wrong_with(path, node, "a check, which is a table", Some(hint));
    }
    is_table
}

/// Durations of checks: a bare number counts milliseconds. Headers: a table or a list.
fn check(reader: &Reader<'_>, path: &str, check: &mut Node) {
    for key in ["interval", "timeout", "grace_period"] {
        if let Some(node) = check.take(key) {
            let path = format!("{path}.{key}");
            check.put(key, duration(reader, &path, &node, MILLISECOND));
        }
    }
    let Some(node) = check.take("headers") else {
        return;
    };
    if let Some(headers) = headers(reader, &format!("{path}.headers"), &node)
        && !headers.is_empty()
    {
        check.put("headers", Node::new(Value::Table(headers), node.span));
    }
}

/// Returns headers as a table of texts, from one or from a list of `{name, value}`.
fn headers(reader: &Reader<'_>, path: &str, node: &Node) -> Option<Vec<Entry>> {
    let mut headers: Vec<Entry> = Vec::new();
    match &node.value {
        Value::Table(entries) => {
            let texts = entries.iter().map(|e| Entry {
                node: text(go::print(&e.node), &e.node),
                ..e.clone()
            });
            headers.extend(texts);
        }
        Value::List(items) => {
            for (i, item) in items.iter().enumerate() {
                let Some(name) = item.get("name") else {
                    let message = "a header is a table with name and value";
                    reader.error(&format!("{path}[{i}]"), &item.span, message);
                    return None;
                };
                let key = go::print(name);
                let value = item.get("value").map(go::print).unwrap_or_default();
                headers.retain(|e| e.key != key);
                headers.push(Entry {
                    key,
                    span: name.span.clone(),
                    node: text(value, item),
                });
            }
        }
        _ => {
            reader.wrong(path, node, "a table of headers");
            return None;
        }
    }
    Some(headers)
}
