//! YAML in blocks, with the names and the order of JSON.

use serde_json::Value as Json;

use super::{Out, Pairs, with_blank_lines};
use crate::raw::is_plain_text;

pub(super) fn text(pairs: &Pairs) -> String {
    let mut text = String::new();
    if pairs.is_empty() {
        return "{}\n".to_owned();
    }
    table(&mut text, pairs, 0, false);
    with_blank_lines(&text)
}

/// Writes a table; `begun` says that its first key stands behind a dash.
fn table(into: &mut String, pairs: &Pairs, depth: usize, begun: bool) {
    for (i, (name, value)) in pairs.iter().enumerate() {
        if i > 0 || !begun {
            indent(into, depth);
        }
        scalar_text(into, name);
        into.push(':');
        below(into, value, depth);
    }
}

/// Writes the value of a key.
fn below(into: &mut String, value: &Out, depth: usize) {
    match value {
        Out::Table(pairs) if !pairs.is_empty() => {
            into.push('\n');
            table(into, pairs, depth + 1, false);
        }
        Out::Tables(tables) if !tables.is_empty() => {
            into.push('\n');
            for pairs in tables {
                dash(into, depth + 1);
                item_table(into, pairs, depth + 1);
            }
        }
        Out::List(items) if !items.is_empty() => {
            into.push('\n');
            list(into, items, depth + 1);
        }
        _ => {
            into.push(' ');
            scalar(into, value);
            into.push('\n');
        }
    }
}

fn list(into: &mut String, items: &[Out], depth: usize) {
    for item in items {
        dash(into, depth);
        match item {
            Out::Table(pairs) => item_table(into, pairs, depth),
            Out::List(inner) if !inner.is_empty() => {
                into.push('\n');
                list(into, inner, depth + 1);
            }
            Out::Tables(tables) if !tables.is_empty() => {
                into.push('\n');
                for pairs in tables {
                    dash(into, depth + 1);
                    item_table(into, pairs, depth + 1);
                }
            }
            _ => {
                into.push(' ');
                scalar(into, item);
                into.push('\n');
            }
        }
    }
}

fn item_table(into: &mut String, pairs: &Pairs, depth: usize) {
    if pairs.is_empty() {
        into.push_str(" {}\n");
    } else {
        into.push(' ');
        table(into, pairs, depth + 1, true);
    }
}

fn dash(into: &mut String, depth: usize) {
    indent(into, depth);
    into.push('-');
}

fn scalar(into: &mut String, value: &Out) {
    match value {
        Out::Value(Json::String(text)) => scalar_text(into, text),
        Out::Value(value) => into.push_str(&value.to_string()),
        Out::Float(number) => into.push_str(&Json::from(*number).to_string()),
        Out::Table(_) => into.push_str("{}"),
        Out::List(_) | Out::Tables(_) => into.push_str("[]"),
    }
}

/// Writes a text: in double quotes unless it is sure to be read as a text without them.
fn scalar_text(into: &mut String, text: &str) {
    if is_plain_text(text) {
        into.push_str(text);
    } else {
        // What JSON escapes, YAML reads.
        into.push_str(&Json::from(text).to_string());
    }
}

fn indent(into: &mut String, depth: usize) {
    for _ in 0..depth {
        into.push_str("  ");
    }
}
