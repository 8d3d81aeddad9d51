//! Taking typed values out of the tree: what has the wrong type, or a name that nobody knows, is
//! told with its place.
//!
//! A [`Table`] is asked for its keys one by one; [`Table::done`] then warns of those left.

use std::cell::RefCell;

use hangar_api::duration::GoDuration;
use serde_json::Value as Json;

use crate::problem::{Problem, Severity, Source, Span};
use crate::raw::{Entry, Node, Value, whole};
use crate::suggest;

/// Most problems that are told; after so many nobody reads on.
const MAX_PROBLEMS: usize = 200;

/// Collects problems.
pub(crate) struct Reader<'a> {
    source: &'a Source,
    problems: RefCell<Vec<Problem>>,
}

/// A table that is being read.
pub(crate) struct Table<'a> {
    reader: &'a Reader<'a>,
    pub(crate) path: String,
    pub(crate) span: Span,
    entries: &'a [Entry],
    known: Vec<&'static str>,
}

/// What a bare number means where a duration is wanted (1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bare {
    /// Milliseconds: service and top-level checks.
    Millis,
    /// Seconds: kill_timeout.
    Seconds,
    /// Nanoseconds, as Go decodes it: everywhere else. Hardly ever meant.
    Nanos,
}

// === impl Reader ===

impl<'a> Reader<'a> {
    pub(crate) fn new(source: &'a Source) -> Self {
        Self {
            source,
            problems: RefCell::new(Vec::new()),
        }
    }

    /// Returns all problems, by place.
    pub(crate) fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|p| (p.line, p.column));
        problems
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.problems.borrow().iter().any(Problem::is_error)
    }

    pub(crate) fn line(&self, span: &Span) -> Option<usize> {
        self.source.position(span.start).map(|(line, _)| line)
    }

    pub(crate) fn tell(
        &self,
        severity: Severity,
        path: &str,
        span: &Span,
        message: impl Into<String>,
        hint: Option<String>,
    ) {
        let mut problems = self.problems.borrow_mut();
        if problems.len() >= MAX_PROBLEMS {
            return;
        }
        let at = self.source.position(span.start);
        problems.push(Problem {
            severity,
            path: path.to_owned(),
            line: at.map(|(line, _)| line),
            column: at.map(|(_, column)| column),
            message: message.into(),
            hint,
            excerpt: None,
        });
    }

    pub(crate) fn error(&self, path: &str, span: &Span, message: impl Into<String>) {
        self.tell(Severity::Error, path, span, message, None);
    }

    pub(crate) fn warn(&self, path: &str, span: &Span, message: impl Into<String>) {
        self.tell(Severity::Warning, path, span, message, None);
    }

    /// Tells that a value has the wrong type.
    pub(crate) fn wrong(&self, path: &str, node: &Node, wanted: &str) {
        let is = node.value.kind();
        self.error(path, &node.span, format!("must be {wanted}, not {is}"));
    }

    /// Returns a table to read, or tells that it is none.
    pub(crate) fn table(&'a self, path: &str, node: &'a Node) -> Option<Table<'a>> {
        match &node.value {
            Value::Table(entries) => Some(Table {
                reader: self,
                path: path.to_owned(),
                span: node.span.clone(),
                entries,
                known: Vec::new(),
            }),
            _ => {
                self.wrong(path, node, "a table");
                None
            }
        }
    }

    /// Returns the items of a list, or of a single table where that is accepted.
    pub(crate) fn items(
        &self,
        path: &str,
        node: &'a Node,
        one_is_enough: bool,
    ) -> Vec<(String, &'a Node)> {
        match &node.value {
            Value::List(items) => items
                .iter()
                .enumerate()
                .map(|(i, item)| (format!("{path}[{i}]"), item))
                .collect(),
            Value::Table(_) if one_is_enough => vec![(path.to_owned(), node)],
            Value::Table(_) => {
                let hint = format!("write [[{path}]] with two brackets");
                let message = "must be a list of tables, not a single one";
                self.tell(Severity::Error, path, &node.span, message, Some(hint));
                Vec::new()
            }
            _ => {
                self.wrong(path, node, "a list of tables");
                Vec::new()
            }
        }
    }

    /// Returns a duration; `patched` fields read "" as unset.
    pub(crate) fn duration(&self, path: &str, node: &Node, bare: Bare) -> Option<GoDuration> {
        let (scale, unit) = match bare {
            Bare::Millis => (1_000_000, "milliseconds"),
            Bare::Seconds => (1_000_000_000, "seconds"),
            Bare::Nanos => (1, "nanoseconds"),
        };
        let number = match &node.value {
            Value::Int(number) => number.checked_mul(scale),
            Value::Float(number) => float_duration(*number, bare),
            Value::Text(text) if text.is_empty() && bare != Bare::Nanos => return None,
            Value::Text(text) => match text.parse::<GoDuration>() {
                Ok(duration) => return Some(duration),
                Err(error) => {
                    self.error(path, &node.span, error.to_string());
                    return None;
                }
            },
            _ if bare == Bare::Nanos => {
                self.wrong(path, node, "a duration such as \"15s\"");
                return None;
            }
            _ => {
                self.warn(path, &node.span, "is not a duration and does nothing");
                return None;
            }
        };
        let Some(nanos) = number else {
            self.error(path, &node.span, "is too long for a duration");
            return None;
        };
        if bare == Bare::Nanos {
            let message = format!("a bare number counts {unit} here");
            let hint = Some("write a text such as \"15s\"".to_owned());
            self.tell(Severity::Warning, path, &node.span, message, hint);
        }
        Some(GoDuration::from_nanos(nanos))
    }
}

/// Fractions are cut before they are counted, as Fly does.
fn float_duration(number: f64, bare: Bare) -> Option<i64> {
    match bare {
        Bare::Seconds => whole(number.trunc())?.checked_mul(1_000_000_000),
        Bare::Millis => whole(number.trunc())?.checked_mul(1_000_000),
        Bare::Nanos => whole(number.trunc()),
    }
}

// === impl Table ===

impl<'a> Table<'a> {
    /// Returns a value and remembers that the name is known. Null is taken as absent.
    pub(crate) fn take(&mut self, key: &'static str) -> Option<&'a Node> {
        self.known.push(key);
        self.entry(key)
            .map(|e| &e.node)
            .filter(|node| node.value != Value::Null)
    }

    /// Returns an entry by its exact name, else by its name in other cases, as Go decodes.
    fn entry(&self, key: &str) -> Option<&'a Entry> {
        let exact = self.entries.iter().find(|e| e.key == key);
        let folded = |e: &&Entry| e.key.eq_ignore_ascii_case(key);
        exact.or_else(|| self.entries.iter().find(folded))
    }

    pub(crate) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// Returns the place of a key, or of the table.
    pub(crate) fn place(&self, key: &str) -> Span {
        self.entry(key)
            .map_or_else(|| self.span.clone(), |e| e.span.clone())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn text(&mut self, key: &'static str) -> Option<String> {
        let node = self.take(key)?;
        match &node.value {
            Value::Text(text) | Value::Date(text) => Some(text.clone()),
            _ => {
                self.reader.wrong(&self.path_of(key), node, "a text");
                None
            }
        }
    }

    pub(crate) fn bool(&mut self, key: &'static str) -> Option<bool> {
        let node = self.take(key)?;
        if let Value::Bool(yes) = node.value {
            return Some(yes);
        }
        self.reader.wrong(&self.path_of(key), node, "true or false");
        None
    }

    pub(crate) fn int(&mut self, key: &'static str) -> Option<i64> {
        let node = self.take(key)?;
        let number = match node.value {
            Value::Int(number) => Some(number),
            Value::Float(number) => whole(number),
            _ => None,
        };
        if number.is_none() {
            let path = self.path_of(key);
            self.reader.wrong(&path, node, "a whole number");
        }
        number
    }

    /// Returns a number within the limits of its type.
    pub(crate) fn number<T: TryFrom<i64>>(&mut self, key: &'static str) -> Option<T> {
        let number = self.int(key)?;
        self.fit(key, number)
    }

    fn fit<T: TryFrom<i64>>(&self, key: &str, number: i64) -> Option<T> {
        let fits = T::try_from(number).ok();
        if fits.is_none() {
            let (path, place) = (self.path_of(key), self.place(key));
            let message = format!("{number} is out of range");
            self.reader.error(&path, &place, message);
        }
        fits
    }

    /// Returns a number that may also be written as a text, as ports of `[[services]]` may.
    pub(crate) fn loose_number<T: TryFrom<i64>>(&mut self, key: &'static str) -> Option<T> {
        let node = self.take(key)?;
        let number = match &node.value {
            Value::Int(number) => Some(*number),
            Value::Float(number) => whole(number.trunc()),
            Value::Text(text) => text.parse::<i64>().ok(),
            _ => None,
        };
        let Some(number) = number else {
            let path = self.path_of(key);
            let is = match &node.value {
                Value::Text(text) => format!("{text:?}"),
                other => other.kind().to_owned(),
            };
            let message = format!("must be a port number, not {is}");
            self.reader.error(&path, &node.span, message);
            return None;
        };
        self.fit(key, number)
    }

    pub(crate) fn float(&mut self, key: &'static str) -> Option<f64> {
        let node = self.take(key)?;
        match node.value {
            Value::Float(number) if number.is_finite() => Some(number),
            Value::Int(number) => i32::try_from(number).ok().map(f64::from),
            _ => {
                self.reader.wrong(&self.path_of(key), node, "a number");
                None
            }
        }
    }

    pub(crate) fn texts(&mut self, key: &'static str) -> Option<Vec<String>> {
        let node = self.take(key)?;
        let path = self.path_of(key);
        let Value::List(items) = &node.value else {
            self.reader.wrong(&path, node, "a list of texts");
            return None;
        };
        let mut texts = Vec::new();
        for (i, item) in items.iter().enumerate() {
            match &item.value {
                Value::Text(text) => texts.push(text.clone()),
                _ => self.reader.wrong(&format!("{path}[{i}]"), item, "a text"),
            }
        }
        Some(texts)
    }

    pub(crate) fn duration(&mut self, key: &'static str, bare: Bare) -> Option<GoDuration> {
        let node = self.take(key)?;
        self.reader.duration(&self.path_of(key), node, bare)
    }

    /// Returns a part that is only kept.
    pub(crate) fn kept(&mut self, key: &'static str) -> Option<Json> {
        self.take(key).map(Node::to_json)
    }

    /// Warns of every key that was not asked for.
    pub(crate) fn done(self) {
        for entry in self.entries {
            if self
                .known
                .iter()
                .any(|k| k.eq_ignore_ascii_case(&entry.key))
            {
                continue;
            }
            let path = self.path_of(&entry.key);
            let hint = suggest::hint(&entry.key, &self.known);
            let message = "is not a key that is known here; it does nothing";
            self.reader
                .tell(Severity::Warning, &path, &entry.span, message, hint);
        }
    }
}
