//! From the modern tree to the canonical one: every key by its own name, every value of its type
//! (process-groups-and-deploy.md 1.2, 1.7.1 to 1.7.6).
//!
//! Driven by the description of the sections ([`crate::schema`]). What has the wrong type is told
//! and left out; the caller drops a configuration with errors.

use std::collections::BTreeMap;

use hangar_api::duration::GoDuration;

use crate::problem::Severity;
use crate::raw::{Entry, Node, Value, whole};
use crate::read::{Reader, join};
use crate::schema::{Field, Kind, Section};
use crate::suggest;

/// A key that nobody knows, or that is spelt in another case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unknown {
    /// The table it stands in, such as `http_service.checks[0]`; empty at the top.
    pub section: String,
    /// The key.
    pub key: String,
}

/// Decodes trees.
pub(crate) struct Decoder<'a> {
    reader: &'a Reader<'a>,
    pub(crate) unknown: Vec<Unknown>,
    /// Inside a key that is spelt in another case: Fly's strict check does not look there.
    inside_spelt: bool,
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(reader: &'a Reader<'a>) -> Self {
        Self {
            reader,
            unknown: Vec::new(),
            inside_spelt: false,
        }
    }

    /// Returns a table with the keys of the section, in its order.
    pub(crate) fn table(&mut self, path: &str, node: &Node, section: &Section) -> Option<Node> {
        let Value::Table(entries) = &node.value else {
            self.reader.wrong(path, node, "a table");
            return None;
        };
        let mut found: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
        // Of two spellings of a key, the later by bytes wins: Fly's client writes the table as
        // JSON, which sorts it, before it decodes it.
        let mut sorted: Vec<&Entry> = entries.iter().collect();
        sorted.sort_by(|a, b| a.key.cmp(&b.key));
        for entry in sorted {
            match section.folded(&entry.key) {
                Some(field) => {
                    if entry.key != field.key {
                        self.spelt(path, entry, field);
                    }
                    found.entry(field.key).or_default().push(entry);
                }
                None => self.stranger(path, entry, section),
            }
        }
        let mut decoded = Vec::new();
        for field in section.fields {
            let Some(entries) = found.get(field.key) else {
                continue;
            };
            let path = join(path, field.key);
            let span = entries.last().map_or(0..0, |e| e.span.clone());
            let before = self.inside_spelt;
            self.inside_spelt |= entries.iter().all(|e| e.key != field.key);
            let node = self.field(&path, entries, field);
            self.inside_spelt = before;
            if let Some(node) = node {
                decoded.push(Entry {
                    key: field.key.to_owned(),
                    span,
                    node,
                });
            }
        }
        Some(Node::new(Value::Table(decoded), node.span.clone()))
    }

    fn spelt(&mut self, path: &str, entry: &Entry, field: &Field) {
        self.unknown(path, entry);
        let at = join(path, &entry.key);
        let message = format!("is taken for {}, but not everywhere", field.key);
        let hint = Some(format!("write {}", field.key));
        self.reader
            .tell(Severity::Warning, &at, &entry.span, message, hint);
    }

    fn stranger(&mut self, path: &str, entry: &Entry, section: &Section) {
        self.unknown(path, entry);
        let at = join(path, &entry.key);
        let hint = suggest::hint(section, &entry.key);
        let message = if section.name == "CheckSection" && entry.key == "name" {
            "belongs to the old form of checks; write [checks.NAME]"
        } else {
            "is not a key that is known here; it does nothing"
        };
        self.reader
            .tell(Severity::Warning, &at, &entry.span, message, hint);
    }

    fn unknown(&mut self, path: &str, entry: &Entry) {
        if self.inside_spelt {
            return;
        }
        self.unknown.push(Unknown {
            section: path.to_owned(),
            key: entry.key.clone(),
        });
    }

    /// Returns the value of a field from all spellings of it: tables are merged, of everything
    /// else the last one counts.
    fn field(&mut self, path: &str, entries: &[&Entry], field: &Field) -> Option<Node> {
        let (last, former) = entries.split_last()?;
        let merges = matches!(
            field.kind,
            Kind::Table(_) | Kind::Named(_) | Kind::TextMap | Kind::AnyMap
        );
        let null = last.node.value == Value::Null;
        if !merges || null {
            for lost in former {
                let message = format!("does nothing: {} comes after it", field.key);
                let hint = Some(format!("write {}", field.key));
                let at = &lost.span;
                // Without its volume an app would write where nothing is kept.
                let severity = if field.key == "mounts" {
                    Severity::Refused
                } else {
                    Severity::Warning
                };
                self.reader.tell(severity, path, at, message, hint);
            }
        }
        for lost in former {
            // Also of what is lost the type must be right.
            if lost.node.value != Value::Null {
                self.value(path, &lost.node, field.kind);
            }
        }
        if null {
            return None;
        }
        if !merges || former.is_empty() {
            return self.value(path, &last.node, field.kind);
        }
        let tables = entries
            .iter()
            .flat_map(|e| e.node.entries().iter().cloned());
        let merged = Value::Table(tables.collect());
        let node = Node::new(merged, last.node.span.clone());
        self.value(path, &node, field.kind)
    }

    /// Returns a value of the kind, or `None` where it is unset or wrong.
    fn value(&mut self, path: &str, node: &Node, kind: Kind) -> Option<Node> {
        match kind {
            Kind::Table(section) => self.table(path, node, section),
            Kind::List(section) => self.list(path, node, section),
            Kind::Named(section) => self.named(path, node, section),
            Kind::TextMap => self.texts_by_name(path, node),
            Kind::AnyMap => match &node.value {
                Value::Table(_) => Some(node.clone()),
                _ => {
                    self.reader.wrong(path, node, "a table");
                    None
                }
            },
            Kind::Texts => self.texts(path, node),
            _ => self.scalar(path, node, kind),
        }
    }

    fn list(&mut self, path: &str, node: &Node, section: &Section) -> Option<Node> {
        let Value::List(items) = &node.value else {
            let hint = matches!(node.value, Value::Table(_))
                .then(|| format!("write [[{}]] with two brackets", bare(path)));
            self.reader.wrong_with(path, node, "a list of tables", hint);
            return None;
        };
        let mut decoded = Vec::new();
        for (i, item) in items.iter().enumerate() {
            let path = format!("{path}[{i}]");
            let empty = Node::new(Value::Table(Vec::new()), item.span.clone());
            // Fly's client falls over a check that is null.
            let is_check = matches!(section.name, "HttpCheck" | "TcpCheck");
            let item = if item.value == Value::Null && !is_check {
                let message = "is null, which is an empty item";
                self.reader.warn(&path, &item.span, message);
                &empty
            } else {
                item
            };
            decoded.extend(self.table(&path, item, section));
        }
        Some(Node::new(Value::List(decoded), node.span.clone()))
    }

    fn named(&mut self, path: &str, node: &Node, section: &Section) -> Option<Node> {
        let Value::Table(entries) = &node.value else {
            self.reader.wrong(path, node, "a table of tables");
            return None;
        };
        let mut decoded = Vec::new();
        for entry in entries {
            let path = join(path, &entry.key);
            let node = self.table(&path, &entry.node, section);
            decoded.extend(node.map(|node| Entry {
                node,
                ..entry.clone()
            }));
        }
        Some(Node::new(Value::Table(decoded), node.span.clone()))
    }

    fn texts_by_name(&mut self, path: &str, node: &Node) -> Option<Node> {
        let Value::Table(entries) = &node.value else {
            self.reader.wrong(path, node, "a table of texts");
            return None;
        };
        let mut decoded = Vec::new();
        for entry in entries {
            let text = self.text(&join(path, &entry.key), &entry.node);
            decoded.extend(text.map(|text| Entry {
                node: Node::new(Value::Text(text), entry.node.span.clone()),
                ..entry.clone()
            }));
        }
        Some(Node::new(Value::Table(decoded), node.span.clone()))
    }

    fn texts(&mut self, path: &str, node: &Node) -> Option<Node> {
        let Value::List(items) = &node.value else {
            let hint = match &node.value {
                Value::Text(text) => Some(format!("write {} = [{text:?}]", key(path))),
                _ => None,
            };
            self.reader.wrong_with(path, node, "a list of texts", hint);
            return None;
        };
        let mut decoded = Vec::new();
        for (i, item) in items.iter().enumerate() {
            let text = self.text(&format!("{path}[{i}]"), item);
            decoded.extend(text.map(|text| Node::new(Value::Text(text), item.span.clone())));
        }
        Some(Node::new(Value::List(decoded), node.span.clone()))
    }

    /// Returns a text; null is an empty one.
    fn text(&self, path: &str, node: &Node) -> Option<String> {
        match &node.value {
            Value::Text(text) | Value::Date(text) => Some(text.clone()),
            Value::Null => Some(String::new()),
            _ => {
                self.reader.wrong(path, node, "a text");
                None
            }
        }
    }

    fn scalar(&self, path: &str, node: &Node, kind: Kind) -> Option<Node> {
        let value = match kind {
            Kind::Text => Value::Text(self.text(path, node).filter(|t| !t.is_empty())?),
            Kind::TextPtr => Value::Text(self.text(path, node)?),
            Kind::Flag | Kind::FlagPtr => match node.value {
                Value::Bool(yes) => Value::Bool(yes),
                _ => {
                    self.reader.wrong(path, node, "true or false");
                    return None;
                }
            },
            Kind::Int | Kind::IntPtr => Value::Int(self.int(path, node)?.into()),
            Kind::U32Ptr => {
                let number = self.int(path, node)?;
                if u32::try_from(number).is_err() {
                    let message = format!("{number} is out of range: 0 to {}", u32::MAX);
                    self.reader.error(path, &node.span, message);
                    return None;
                }
                Value::Int(number.into())
            }
            Kind::FloatPtr => match node.value {
                Value::Int(_) | Value::Float(_) => node.value.clone(),
                _ => {
                    self.reader.wrong(path, node, "a number");
                    return None;
                }
            },
            Kind::Duration => Value::Text(self.duration(path, node)?.to_string()),
            Kind::Autostop => self.autostop(path, node)?,
            Kind::Persist => Value::Text(self.persist(path, node)?),
            _ => return None,
        };
        Some(Node::new(value, node.span.clone()))
    }

    fn int(&self, path: &str, node: &Node) -> Option<i64> {
        let number = match &node.value {
            Value::Int(number) => i64::try_from(*number).ok(),
            Value::Float(number) if *number == 0.0 => Some(0),
            Value::Float(number) => whole(*number),
            Value::Text(text) => {
                let hint = if key(path) == "memory_mb" {
                    format!("write memory = {text:?}")
                } else {
                    format!("write {} without quotes, as a whole number", key(path))
                };
                self.reader
                    .wrong_with(path, node, "a whole number", Some(hint));
                return None;
            }
            _ => {
                self.reader.wrong(path, node, "a whole number");
                return None;
            }
        };
        if number.is_none() {
            let message = "must be a whole number, and not that large";
            self.reader.error(path, &node.span, message);
        }
        number
    }

    /// A bare number counts nanoseconds: hardly ever meant.
    fn duration(&self, path: &str, node: &Node) -> Option<GoDuration> {
        let number = match &node.value {
            Value::Text(text) => match text.parse::<GoDuration>() {
                Ok(duration) => return Some(duration),
                Err(error) => {
                    self.reader.error(path, &node.span, error.to_string());
                    return None;
                }
            },
            Value::Int(number) => i64::try_from(*number).unwrap_or(i64::MAX),
            Value::Float(number) => crate::go::truncate(*number),
            _ => {
                self.reader.wrong(path, node, "a duration such as \"15s\"");
                return None;
            }
        };
        let message = "a bare number counts nanoseconds here";
        let hint = Some("write a text such as \"15s\"".to_owned());
        self.reader
            .tell(Severity::Warning, path, &node.span, message, hint);
        Some(GoDuration::from_nanos(number))
    }

    /// JSON writes off and stop as booleans.
    fn autostop(&self, path: &str, node: &Node) -> Option<Value> {
        match &node.value {
            Value::Bool(yes) => Some(Value::Bool(*yes)),
            Value::Text(text) => match text.as_str() {
                "off" => Some(Value::Bool(false)),
                "stop" => Some(Value::Bool(true)),
                "suspend" => Some(node.value.clone()),
                other => {
                    let shown: String = other.chars().take(40).collect();
                    let message = format!(
                        "invalid autostop string value {shown:?}: write off, stop or suspend"
                    );
                    self.reader.error(path, &node.span, message);
                    None
                }
            },
            _ => {
                let wanted = "\"off\", \"stop\", \"suspend\", true or false";
                self.reader.wrong(path, node, wanted);
                None
            }
        }
    }

    fn persist(&self, path: &str, node: &Node) -> Option<String> {
        let name = match &node.value {
            Value::Text(text) => text.as_str(),
            Value::Int(_) | Value::Float(_) => match self.int(path, node)? {
                0 => "none",
                1 => "never",
                2 => "restart",
                3 => "always",
                _ => "",
            },
            _ => {
                let wanted = "\"never\", \"restart\" or \"always\"";
                self.reader.wrong(path, node, wanted);
                return None;
            }
        };
        match (name, &node.value) {
            ("none", _) => None,
            ("", Value::Text(_)) => None,
            ("never" | "restart" | "always", _) => Some(name.to_owned()),
            _ => {
                let message = "invalid persist_rootfs value: write never, restart or always";
                self.reader.error(path, &node.span, message);
                None
            }
        }
    }
}

/// Tells every number that JSON has no form for: Fly's client makes JSON of the whole file,
/// unknown keys included.
pub(crate) fn refuse_nan(reader: &Reader<'_>, path: &str, node: &Node) {
    match &node.value {
        Value::Float(number) if !number.is_finite() => {
            reader.error(path, &node.span, "is no number that can be used");
        }
        Value::List(items) => {
            for (i, item) in items.iter().enumerate() {
                refuse_nan(reader, &format!("{path}[{i}]"), item);
            }
        }
        Value::Table(entries) => {
            for entry in entries {
                refuse_nan(reader, &join(path, &entry.key), &entry.node);
            }
        }
        _ => {}
    }
}

/// Returns the last key of a path.
fn key(path: &str) -> &str {
    let last = path.rsplit('.').next().unwrap_or(path);
    last.split('[').next().unwrap_or(last)
}

/// Returns a path without indexes, as a header in TOML names it.
fn bare(path: &str) -> String {
    let parts = path.split('.').map(|p| p.split('[').next().unwrap_or(p));
    parts.collect::<Vec<_>>().join(".")
}
