//! Checks: of services, and `[checks.NAME]`.

use std::collections::BTreeMap;

use crate::app::CheckSection;
use crate::raw::{Node, Value};
use crate::read::{Bare, Reader, Table};

/// Which keys a check has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// `services.tcp_checks`.
    Tcp,
    /// `services.http_checks`.
    Http,
    /// `http_service.checks`: Fly reads it without the flexible forms.
    HttpService,
    /// `[checks.NAME]`.
    Top,
}

/// Reads a list of checks of a service.
pub(super) fn of_service<'a>(
    reader: &'a Reader<'a>,
    table: &mut Table<'a>,
    key: &'static str,
    of: Of,
) -> Vec<CheckSection> {
    let Some(node) = table.take(key) else {
        return Vec::new();
    };
    let items = reader.items(&table.path_of(key), node, of != Of::HttpService);
    let checks = items
        .into_iter()
        .filter_map(|(path, item)| check(reader, &path, item, of));
    checks.collect()
}

/// Reads `[checks]`: a table by name, or a list with `name`.
pub(super) fn top_level<'a>(
    reader: &'a Reader<'a>,
    node: &'a Node,
) -> BTreeMap<String, CheckSection> {
    let mut checks = BTreeMap::new();
    match &node.value {
        Value::Table(entries) => {
            for entry in entries {
                let path = format!("checks.{}", entry.key);
                if let Some(found) = check(reader, &path, &entry.node, Of::Top) {
                    checks.insert(entry.key.clone(), found);
                }
            }
        }
        Value::List(items) => {
            for (i, item) in items.iter().enumerate() {
                let path = format!("checks[{i}]");
                match item.get("name").map(|n| &n.value) {
                    Some(Value::Text(name)) => {
                        if let Some(found) = check(reader, &path, item, Of::Top) {
                            checks.insert(name.clone(), found);
                        }
                    }
                    _ => reader.error(&path, &item.span, "needs a name that is a text"),
                }
            }
        }
        _ => reader.wrong("checks", node, "a table of checks"),
    }
    checks
}

fn check<'a>(reader: &'a Reader<'a>, path: &str, node: &'a Node, of: Of) -> Option<CheckSection> {
    let mut table = reader.table(path, node)?;
    let bare = if of == Of::HttpService {
        Bare::Nanos
    } else {
        Bare::Millis
    };
    let mut check = CheckSection {
        interval: table.duration("interval", bare),
        timeout: table.duration("timeout", bare),
        grace_period: table.duration("grace_period", bare),
        ..CheckSection::default()
    };
    if of == Of::Top {
        table.take("name");
        check.port = table.number("port");
        check.kind = table.text("type");
        check.processes = table.texts("processes").unwrap_or_default();
    }
    if of != Of::Tcp {
        check.method = table.text("method");
        check.path = table.text("path");
        check.protocol = table.text("protocol");
        check.tls_skip_verify = table.bool("tls_skip_verify");
        check.tls_server_name = table.text("tls_server_name");
        check.headers = headers(reader, &mut table, of);
    }
    table.done();
    Some(check)
}

/// Headers: a table, or a list of tables with `name` and `value`.
fn headers<'a>(reader: &'a Reader<'a>, table: &mut Table<'a>, of: Of) -> BTreeMap<String, String> {
    let Some(node) = table.take("headers") else {
        return BTreeMap::new();
    };
    let path = table.path_of("headers");
    match &node.value {
        Value::Table(entries) => entries
            .iter()
            .map(|e| (e.key.clone(), super::print(&e.node)))
            .collect(),
        Value::List(items) if of != Of::HttpService => {
            let mut headers = BTreeMap::new();
            for item in items {
                let Some(name) = item.get("name") else {
                    reader.error(&path, &item.span, "a header needs a name");
                    continue;
                };
                let value = item.get("value").map(super::print);
                headers.insert(super::print(name), value.unwrap_or_default());
            }
            headers
        }
        _ => {
            reader.wrong(&path, node, "a table of headers");
            BTreeMap::new()
        }
    }
}
