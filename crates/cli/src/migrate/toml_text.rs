//! Values written as TOML in the order of their fields, every value on one line, with comments.

use std::fmt::Write as _;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// A tree whose tables keep their order.
enum Ordered {
    Scalar(Value),
    List(Vec<Ordered>),
    Table(Vec<(String, Ordered)>),
}

struct Reader;

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

impl<'de> Visitor<'de> for Reader {
    type Value = Ordered;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a value")
    }
    fn visit_bool<E>(self, value: bool) -> Result<Ordered, E> {
        Ok(Ordered::Scalar(value.into()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Ordered, E> {
        Ok(Ordered::Scalar(value.into()))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Ordered, E> {
        Ok(Ordered::Scalar(value.into()))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Ordered, E> {
        Ok(Ordered::Scalar(value.into()))
    }
    fn visit_str<E>(self, value: &str) -> Result<Ordered, E> {
        Ok(Ordered::Scalar(value.into()))
    }
    fn visit_unit<E>(self) -> Result<Ordered, E> {
        Ok(Ordered::Scalar(Value::Null))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Ordered, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Ordered::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Ordered, A::Error> {
        let mut table = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            table.push(entry);
        }
        Ok(Ordered::Table(table))
    }
}

/// Returns a value as TOML. A comment stands above the first line that begins with its text.
pub(super) fn write<T: serde::Serialize>(value: &T, comments: &[(String, String)]) -> String {
    // What is written here is text, numbers, lists and tables of them: all can be JSON and back.
    let json = serde_json::to_string(value).expect("plain data");
    let tree: Ordered = serde_json::from_str(&json).expect("what was just written");
    let mut writer = Writer {
        out: String::new(),
        waiting: comments.iter().collect(),
    };
    if let Ordered::Table(table) = tree {
        writer.table("", &table);
    }
    writer.out
}

struct Writer<'a> {
    out: String,
    waiting: Vec<&'a (String, String)>,
}

// === impl Writer ===

impl Writer<'_> {
    fn table(&mut self, path: &str, entries: &[(String, Ordered)]) {
        for (key, value) in entries {
            if let Some(text) = inline(value) {
                self.line(&format!("{} = {text}", name(key)));
            }
        }
        for (key, value) in entries {
            let path = match path {
                "" => name(key),
                path => format!("{path}.{}", name(key)),
            };
            match value {
                Ordered::Table(inner) => {
                    // A table that only holds tables is named by them.
                    if inner.is_empty() || inner.iter().any(|(_, v)| inline(v).is_some()) {
                        self.section(&format!("[{path}]"));
                    }
                    self.table(&path, inner);
                }
                Ordered::List(items) if inline(value).is_none() => {
                    for item in items {
                        if let Ordered::Table(inner) = item {
                            self.section(&format!("[[{path}]]"));
                            self.table(&path, inner);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn section(&mut self, heading: &str) {
        if !self.out.is_empty() {
            self.out.push('\n');
        }
        self.line(heading);
    }

    fn line(&mut self, line: &str) {
        let out = &mut self.out;
        self.waiting.retain(|(at, text)| {
            let here = line.starts_with(at.as_str());
            if here {
                comment(out, text);
            }
            !here
        });
        self.out.push_str(line);
        self.out.push('\n');
    }
}

/// Adds a comment; line breaks in what was read do not end it.
pub(super) fn comment(out: &mut String, text: &str) {
    for line in text.split(['\n', '\r']) {
        // A TOML comment holds no control characters but the tab.
        let line: String = line
            .chars()
            .map(|c| if c.is_control() && c != '\t' { ' ' } else { c })
            .collect();
        out.push_str(format!("# {line}").trim_end());
        out.push('\n');
    }
}

/// Returns what fits behind `key =`; none for tables and lists of them.
fn inline(value: &Ordered) -> Option<String> {
    match value {
        Ordered::Scalar(Value::String(text)) => Some(quoted(text)),
        Ordered::Scalar(Value::Null) | Ordered::Table(_) => None,
        Ordered::Scalar(other) => Some(other.to_string()),
        Ordered::List(items) => {
            let all: Option<Vec<String>> = items.iter().map(inline).collect();
            all.map(|items| format!("[{}]", items.join(", ")))
        }
    }
}

fn name(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !key.is_empty() && key.chars().all(bare) {
        key.to_owned()
    } else {
        quoted(key)
    }
}

/// Returns a text in quotes, on one line.
fn quoted(text: &str) -> String {
    let literal = text.contains(['"', '\\']) && !text.contains('\'');
    if literal && !text.chars().any(char::is_control) {
        return format!("'{text}'");
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                // Writing into a String cannot fail.
                let _infallible = write!(out, "\\u{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
