//! TOML, as Fly's client writes it: two spaces a level, single quotes where they do, a blank line
//! before a header unless another one stands right above it.

use std::fmt::Write;

use serde_json::Value as Json;

use super::{Out, Pairs};

pub(super) fn text(pairs: &Pairs) -> String {
    let mut writer = Writer {
        text: String::new(),
        after_header: true,
    };
    writer.table(pairs, &mut Vec::new(), 0);
    writer.text
}

struct Writer {
    text: String,
    /// Whether nothing, or only a header, stands above.
    after_header: bool,
}

impl Writer {
    /// Writes what is in a table: values first, then tables.
    fn table(&mut self, pairs: &Pairs, path: &mut Vec<String>, depth: usize) {
        let is_table = |out: &Out| matches!(out, Out::Table(_) | Out::Tables(_));
        for (name, value) in pairs.iter().filter(|(_, v)| !is_table(v)) {
            self.indent(depth);
            key(&mut self.text, name);
            self.text.push_str(" = ");
            inline(&mut self.text, value);
            self.text.push('\n');
            self.after_header = false;
        }
        for (name, value) in pairs {
            path.push(name.clone());
            match value {
                Out::Table(inner) => {
                    self.header(path, depth, ["[", "]"]);
                    self.table(inner, path, depth + 1);
                }
                Out::Tables(tables) => {
                    for inner in tables {
                        self.header(path, depth, ["[[", "]]"]);
                        self.table(inner, path, depth + 1);
                    }
                }
                _ => {}
            }
            path.pop();
        }
    }

    fn header(&mut self, path: &[String], depth: usize, [open, close]: [&str; 2]) {
        if !self.after_header {
            self.text.push('\n');
        }
        self.indent(depth);
        self.text.push_str(open);
        for (i, name) in path.iter().enumerate() {
            if i > 0 {
                self.text.push('.');
            }
            key(&mut self.text, name);
        }
        self.text.push_str(close);
        self.text.push('\n');
        self.after_header = true;
    }

    fn indent(&mut self, depth: usize) {
        for _ in 0..depth {
            self.text.push_str("  ");
        }
    }
}

fn key(into: &mut String, name: &str) {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !name.is_empty() && name.chars().all(bare) {
        into.push_str(name);
    } else {
        quoted(into, name);
    }
}

fn inline(into: &mut String, value: &Out) {
    match value {
        Out::Value(Json::String(text)) => quoted(into, text),
        Out::Value(value) => into.push_str(&value.to_string()),
        Out::Float(number) if number.fract() == 0.0 => {
            let _ = write!(into, "{number}.0");
        }
        Out::Float(number) => {
            let _ = write!(into, "{number}");
        }
        Out::List(items) => {
            into.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    into.push_str(", ");
                }
                inline(into, item);
            }
            into.push(']');
        }
        Out::Table(pairs) => inline_table(into, pairs),
        Out::Tables(tables) => {
            into.push('[');
            for (i, pairs) in tables.iter().enumerate() {
                if i > 0 {
                    into.push_str(", ");
                }
                inline_table(into, pairs);
            }
            into.push(']');
        }
    }
}

fn inline_table(into: &mut String, pairs: &Pairs) {
    into.push('{');
    for (i, (name, value)) in pairs.iter().enumerate() {
        if i > 0 {
            into.push_str(", ");
        }
        key(into, name);
        into.push_str(" = ");
        inline(into, value);
    }
    into.push('}');
}

/// Writes a text: in single quotes where nothing in it must be escaped.
fn quoted(into: &mut String, text: &str) {
    let needs_escape = |c: char| c == '\'' || c.is_ascii_control();
    if !text.contains(needs_escape) {
        into.push('\'');
        into.push_str(text);
        into.push('\'');
        return;
    }
    into.push('"');
    for c in text.chars() {
        match c {
            '\\' => into.push_str("\\\\"),
            '"' => into.push_str("\\\""),
            '\u{8}' => into.push_str("\\b"),
            '\u{c}' => into.push_str("\\f"),
            '\n' => into.push_str("\\n"),
            '\r' => into.push_str("\\r"),
            '\t' => into.push_str("\\t"),
            c if c.is_ascii_control() => {
                let _ = write!(into, "\\u{:04X}", u32::from(c));
            }
            c => into.push(c),
        }
    }
    into.push('"');
}
