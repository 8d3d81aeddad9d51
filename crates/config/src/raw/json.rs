//! JSON as a tree.
//!
//! serde_json tells where a value stands by lending its text: the place is the distance from the
//! file's beginning.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Entry, MAX_DEPTH, Node, Value, syntax};
use crate::problem::{Problem, Span};

pub(super) fn parse(text: &str) -> Result<Node, Box<Problem>> {
    let text = &without_lone_surrogates(text);
    let reader = Reader { text };
    let raw: &RawValue = serde_json::from_str(text).map_err(|e| reader.wrong(&e, 0))?;
    let root = reader.node(raw, 0)?;
    if matches!(root.value, Value::Table(_)) {
        return Ok(root);
    }
    let message = format!("the file holds {}, not an object", root.value.kind());
    Err(Box::new(syntax(text, Some(root.span.start), message)))
}

/// Half a character in an escape is U+FFFD, as in Go; the text keeps its length.
fn without_lone_surrogates(text: &str) -> Cow<'_, str> {
    if !text.contains("\\ud") && !text.contains("\\uD") {
        return Cow::Borrowed(text);
    }
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok()
    };
    let mut fixed = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(found) = text[at..].find('\\') {
        fixed.push_str(&text[at..at + found]);
        at += found;
        let (take, replace) = match (unit(at), unit(at + 6)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => (12, false),
            (Some(0xd800..=0xdfff), _) => (6, true),
            (Some(_), _) => (6, false),
            // The backslash and what it escapes, of which neither is cut in two.
            (None, _) => (
                1 + text[at + 1..].chars().next().map_or(0, char::len_utf8),
                false,
            ),
        };
        fixed.push_str(if replace {
            "\\ufffd"
        } else {
            &text[at..at + take]
        });
        at += take;
    }
    fixed.push_str(&text[at..]);
    Cow::Owned(fixed)
}

struct Reader<'a> {
    text: &'a str,
}

impl<'a> Reader<'a> {
    fn span(&self, raw: &str) -> Span {
        let start = raw
            .as_ptr()
            .addr()
            .saturating_sub(self.text.as_ptr().addr());
        start..start + raw.len()
    }

    fn wrong(&self, error: &serde_json::Error, from: usize) -> Box<Problem> {
        let text = &self.text[from..];
        let lines = text.split_inclusive('\n');
        let before = error.line().max(1) - 1;
        let start: usize = lines.take(before).map(str::len).sum();
        let offset = from + start + error.column().saturating_sub(1);
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default();
        Box::new(syntax(self.text, Some(offset), message.to_owned()))
    }

    fn node(&self, raw: &'a RawValue, depth: usize) -> Result<Node, Box<Problem>> {
        let text = raw.get();
        let span = self.span(text);
        if depth > MAX_DEPTH {
            let message = format!("values are nested more than {MAX_DEPTH} deep");
            return Err(Box::new(syntax(self.text, Some(span.start), message)));
        }
        let mut json = serde_json::Deserializer::from_str(text);
        let part = json
            .deserialize_any(PartVisitor)
            .map_err(|e| self.wrong(&e, span.start))?;
        let value = match part {
            Part::Value(value) => value,
            Part::List(items) => {
                let items = items.into_iter().map(|item| self.node(item, depth + 1));
                Value::List(items.collect::<Result<Vec<Node>, _>>()?)
            }
            Part::Table(pairs) => {
                let mut entries: Vec<Entry> = Vec::new();
                for (key, raw) in pairs {
                    let node = self.node(raw, depth + 1)?;
                    let span = self.key_before(node.span.start);
                    // Of two, the last one counts.
                    entries.retain(|e| e.key != key);
                    entries.push(Entry { key, span, node });
                }
                Value::Table(entries)
            }
        };
        Ok(Node { value, span })
    }

    /// Returns where the key of a value stands.
    fn key_before(&self, value: usize) -> Span {
        let before = self.text[..value].trim_end();
        let before = before.strip_suffix(':').unwrap_or(before).trim_end();
        let end = before.len();
        let mut start = end.saturating_sub(1);
        while let Some(quote) = before[..start].rfind('"') {
            start = quote;
            let escapes = before[..quote].bytes().rev().take_while(|b| *b == b'\\');
            if escapes.count() % 2 == 0 {
                break;
            }
        }
        start..end
    }
}

/// One level of JSON.
enum Part<'a> {
    Value(Value),
    List(Vec<&'a RawValue>),
    Table(Vec<(String, &'a RawValue)>),
}

struct PartVisitor;

impl<'de> Visitor<'de> for PartVisitor {
    type Value = Part<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Part<'de>, E> {
        Ok(Part::Value(Value::Null))
    }

    fn visit_bool<E>(self, yes: bool) -> Result<Part<'de>, E> {
        Ok(Part::Value(Value::Bool(yes)))
    }

    // Go reads every number as a float, and prints it as one in [env].
    #[expect(clippy::cast_precision_loss, reason = "as Go reads it")]
    fn visit_u64<E>(self, number: u64) -> Result<Part<'de>, E> {
        Ok(Part::Value(Value::Float(number as f64)))
    }

    #[expect(clippy::cast_precision_loss, reason = "as Go reads it")]
    fn visit_i64<E>(self, number: i64) -> Result<Part<'de>, E> {
        Ok(Part::Value(Value::Float(number as f64)))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Part<'de>, E> {
        Ok(Part::Value(Value::Float(number)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Part<'de>, E> {
        Ok(Part::Value(Value::Text(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Part<'de>, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Part::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Part<'de>, A::Error> {
        let mut table = Vec::new();
        while let Some(pair) = pairs.next_entry()? {
            table.push(pair);
        }
        Ok(Part::Table(table))
    }
}
