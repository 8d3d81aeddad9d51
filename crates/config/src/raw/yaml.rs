//! YAML as a tree, with the meaning that Fly's client gives to plain scalars
//! (process-groups-and-deploy.md 1.7.10): `off` is a text, `0120` is octal.

use std::collections::BTreeMap;

use base64::Engine;
use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Tag};

use super::{Entry, MAX_DEPTH, Node, Value, syntax, utf8};
use crate::problem::{Problem, Span};

/// Most values of a file, aliases counted out: a few lines of aliases can stand for billions.
const MAX_NODES: usize = 200_000;
/// What the tags of the core schema begin with.
const CORE: &str = "tag:yaml.org,2002:";

/// Returns the text of a file: UTF-8, or UTF-16 where a byte order mark says so.
pub(super) fn decode(bytes: &[u8]) -> Result<String, Box<Problem>> {
    let wide = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let units = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]]));
        let text: Result<String, _> = char::decode_utf16(units).collect();
        text.map_err(|_| Box::new(syntax("", None, "the file is no UTF-16".to_owned())))
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => wide(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => wide(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] => utf8(rest),
        _ => utf8(bytes),
    }
}

pub(super) fn parse(text: &str) -> Result<Node, Box<Problem>> {
    let mut builder = Builder {
        text,
        starts: starts(text),
        parser: Parser::new_from_str(text),
        anchors: BTreeMap::new(),
        nodes: 0,
    };
    let root = builder.document()?;
    match root.value {
        Value::Table(_) => Ok(root),
        other => {
            let message = format!("the file holds {}, not a table", other.kind());
            Err(Box::new(syntax(text, Some(root.span.start), message)))
        }
    }
}

/// Returns where each line begins.
fn starts(text: &str) -> Vec<usize> {
    let after = text.match_indices('\n').map(|(at, _)| at + 1);
    std::iter::once(0).chain(after).collect()
}

struct Builder<'a> {
    text: &'a str,
    starts: Vec<usize>,
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    anchors: BTreeMap<usize, Node>,
    nodes: usize,
}

impl<'a> Builder<'a> {
    fn wrong(&self, span: &Span, message: String) -> Box<Problem> {
        Box::new(syntax(self.text, Some(span.start), message))
    }

    /// Returns the byte offset of a place given in lines and characters.
    fn offset(&self, line: usize, column: usize) -> usize {
        let Some(start) = self.starts.get(line.saturating_sub(1)) else {
            return self.text.len();
        };
        let rest = &self.text[*start..];
        let end = rest
            .char_indices()
            .nth(column)
            .map_or(rest.len(), |(i, _)| i);
        start + end
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Box<Problem>> {
        match self.parser.next() {
            Some(Ok((event, span))) => {
                let start = self.offset(span.start.line(), span.start.col());
                let end = self.offset(span.end.line(), span.end.col());
                Ok((event, start..end.max(start)))
            }
            Some(Err(error)) => Err(self.scan_error(&error)),
            None => Ok((Event::StreamEnd, self.text.len()..self.text.len())),
        }
    }

    fn scan_error(&self, error: &ScanError) -> Box<Problem> {
        let at = self.offset(error.marker().line(), error.marker().col());
        self.wrong(&(at..at), error.info().to_owned())
    }

    /// Reads the first document; more of them are ignored, as by Fly.
    fn document(&mut self) -> Result<Node, Box<Problem>> {
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentStart(_) | Event::Nothing => {}
                Event::StreamEnd => return Ok(Node::new(Value::Table(Vec::new()), span)),
                event => return self.node(event, span, 0),
            }
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Box<Problem>> {
        self.nodes += 1;
        if depth > MAX_DEPTH || self.nodes > MAX_NODES {
            let message = "too many values, or nested too deep".to_owned();
            return Err(self.wrong(&span, message));
        }
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let value = resolve(&text, style, tag.as_deref());
                let value = value.map_err(|message| self.wrong(&span, message))?;
                (Node::new(value, span), anchor)
            }
            Event::SequenceStart(anchor, _) => (self.list(span, depth)?, anchor),
            Event::MappingStart(anchor, _) => (self.table(span, depth)?, anchor),
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    let message = "an anchor holds itself".to_owned();
                    return Err(self.wrong(&span, message));
                };
                self.nodes += count(&node);
                (node, 0)
            }
            _ => return Err(self.wrong(&span, "a value is missing here".to_owned())),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, span: Span, depth: usize) -> Result<Node, Box<Problem>> {
        let mut items = Vec::new();
        loop {
            let (event, at) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                return Ok(Node::new(Value::List(items), span.start..at.end));
            }
            items.push(self.node(event, at, depth + 1)?);
        }
    }

    fn table(&mut self, span: Span, depth: usize) -> Result<Node, Box<Problem>> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut merged: Vec<Entry> = Vec::new();
        loop {
            let (event, at) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let plain = matches!(&event, Event::Scalar(_, ScalarStyle::Plain, ..));
            let key = self.node(event, at.clone(), depth + 1)?;
            let (event, value_at) = self.next()?;
            let node = self.node(event, value_at, depth + 1)?;
            let Value::Text(key) = key.value else {
                let message = format!("a key must be a text, not {}", key.value.kind());
                return Err(self.wrong(&at, message));
            };
            if plain && key == "<<" {
                merged.extend(self.merge(&node)?);
                continue;
            }
            if entries.iter().any(|e| e.key == key) {
                let message = format!("the key {key:?} is already there");
                return Err(self.wrong(&at, message));
            }
            entries.push(Entry {
                key,
                span: at,
                node,
            });
        }
        for entry in merged {
            if entries.iter().all(|e| e.key != entry.key) {
                entries.push(entry);
            }
        }
        Ok(Node::new(Value::Table(entries), span))
    }

    /// Returns what `<<` brings: a table, or a list of tables of which the first one counts.
    fn merge(&self, node: &Node) -> Result<Vec<Entry>, Box<Problem>> {
        match &node.value {
            Value::Table(entries) => Ok(entries.clone()),
            Value::List(items) => {
                let mut all = Vec::new();
                for item in items {
                    all.extend(self.merge(item)?);
                }
                Ok(all)
            }
            _ => Err(self.wrong(&node.span, "<< takes a table".to_owned())),
        }
    }
}

fn count(node: &Node) -> usize {
    1 + match &node.value {
        Value::List(items) => items.iter().map(count).sum(),
        Value::Table(entries) => entries.iter().map(|e| count(&e.node)).sum::<usize>(),
        _ => 0,
    }
}

/// Returns what a scalar means.
fn resolve(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    let tag = tag.map(|t| format!("{}{}", t.handle, t.suffix));
    let tag = tag.as_deref().map(|t| t.strip_prefix(CORE).unwrap_or(t));
    let plain = plain(text);
    match tag {
        None if style == ScalarStyle::Plain => Ok(plain),
        None | Some("str" | "!" | "!!str") => Ok(Value::Text(text.to_owned())),
        Some("float" | "!!float") => match plain {
            #[expect(clippy::cast_precision_loss, reason = "the file says float")]
            Value::Int(number) => Ok(Value::Float(number as f64)),
            Value::Float(number) => Ok(Value::Float(number)),
            _ => Err(format!("cannot read {text:?} as a float")),
        },
        Some("binary" | "!!binary") => {
            let bare: String = text.split_whitespace().collect();
            let bytes = base64::engine::general_purpose::STANDARD.decode(bare);
            let bytes = bytes.map_err(|e| format!("!!binary is no base64: {e}"))?;
            Ok(Value::Text(String::from_utf8_lossy(&bytes).into_owned()))
        }
        Some("int" | "bool" | "null" | "!!int" | "!!bool" | "!!null") => Ok(plain),
        Some(_) => Ok(Value::Text(text.to_owned())),
    }
}

/// Returns what a scalar without quotes means.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
            return Value::Float(f64::INFINITY);
        }
        "-.inf" | "-.Inf" | "-.INF" => return Value::Float(f64::NEG_INFINITY),
        _ => {}
    }
    let number_like = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
    if !number_like {
        return Value::Text(text.to_owned());
    }
    if let Some(moment) = moment(text) {
        return Value::Date(moment);
    }
    let bare = text.replace('_', "");
    if let Some(number) = integer(&bare) {
        return Value::Int(number);
    }
    if is_float(&bare)
        && let Ok(number) = bare.parse::<f64>()
    {
        return Value::Float(number);
    }
    Value::Text(text.to_owned())
}

/// Reads a whole number with Go's prefixes: 0x, 0b, 0o, and 0 for octal.
fn integer(text: &str) -> Option<i128> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => ("-", &text[1..]),
        b'+' => ("", &text[1..]),
        _ => ("", text),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = if let Some(rest) = lower.strip_prefix("0x") {
        (16, rest)
    } else if let Some(rest) = lower.strip_prefix("0b") {
        (2, rest)
    } else if let Some(rest) = lower.strip_prefix("0o") {
        (8, rest)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (8, &lower[1..])
    } else {
        (10, lower.as_str())
    };
    let digit = |c: char| c.is_digit(radix);
    let all = !digits.is_empty() && digits.chars().all(digit);
    let number = all.then(|| i128::from_str_radix(&format!("{sign}{digits}"), radix).ok())??;
    let range = i128::from(i64::MIN)..=i128::from(u64::MAX);
    range.contains(&number).then_some(number)
}

fn is_float(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (number, exponent) = match text.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, Some(exponent)),
        None => (text, None),
    };
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    let number = match number.split_once('.') {
        Some((whole, fraction)) => {
            (digits(whole) && (fraction.is_empty() || digits(fraction)))
                || (whole.is_empty() && digits(fraction))
        }
        None => digits(number),
    };
    let exponent = exponent.map(|e| e.strip_prefix(['-', '+']).unwrap_or(e));
    number && exponent.is_none_or(digits)
}

/// Returns a date, or a date and a time, in RFC 3339; without a zone it is UTC.
fn moment(text: &str) -> Option<String> {
    let (day, time) = match text.split_once(['T', 't', ' ']) {
        Some((day, time)) => (day, Some(time.trim_start())),
        None => (text, None),
    };
    let all_digits = |t: &str, from: usize, to: usize| {
        (from..=to).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_digit())
    };
    let mut parts = day.split('-');
    let (year, month, date) = (parts.next()?, parts.next()?, parts.next()?);
    let is_day = all_digits(year, 4, 4) && all_digits(month, 1, 2) && all_digits(date, 1, 2);
    if !is_day || parts.next().is_some() {
        return None;
    }
    let day = format!("{year}-{month:0>2}-{date:0>2}");
    let Some(time) = time else {
        return Some(format!("{day}T00:00:00Z"));
    };
    let end = time.find(['Z', '+', '-']).unwrap_or(time.len());
    let (clock, zone) = time.split_at(end);
    let mut parts = clock.split(':');
    let (hour, minute, second) = (parts.next()?, parts.next()?, parts.next()?);
    let (whole, fraction) = second.split_once('.').unwrap_or((second, "0"));
    let fits = all_digits(hour, 1, 2) && all_digits(minute, 1, 2) && all_digits(whole, 1, 2);
    if !fits || !all_digits(fraction, 1, 9) || parts.next().is_some() {
        return None;
    }
    let zone = if zone.is_empty() { "Z" } else { zone };
    Some(format!("{day}T{hour:0>2}:{minute:0>2}:{second}{zone}"))
}

/// Returns whether a text can stand without quotes and is read as itself.
pub(crate) fn is_plain_text(text: &str) -> bool {
    const OLD_BOOLS: [&str; 8] = ["y", "n", "yes", "no", "on", "off", "true", "false"];
    let lower = text.to_ascii_lowercase();
    let starts = text.starts_with(|c: char| c.is_alphabetic() || c == '/' || c == '_');
    let safe = |c: char| c.is_alphanumeric() || " _-./+@,=()".contains(c);
    starts
        && text.chars().all(safe)
        && !text.ends_with(' ')
        && !OLD_BOOLS.contains(&lower.as_str())
        && plain(text) == Value::Text(text.to_owned())
}
