//! The file as it is written: a tree of values, each with its place in the text.
//!
//! TOML and JSON come out as the same tree; JSON values have no places.

use serde_json::{Map, Value as Json};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::problem::{Problem, Severity, Source, Span, position};

/// Longest file that is read.
const MAX_BYTES: usize = 4 << 20;
/// Longest excerpt shown with a syntax error.
const MAX_EXCERPT: usize = 120;

/// How a configuration file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// fly.toml.
    Toml,
    /// fly.json.
    Json,
    /// fly.yaml: known, and refused in words.
    Yaml,
}

/// A configuration file that parses; nothing in it is checked yet.
#[derive(Clone, Debug)]
pub struct RawConfig {
    pub(crate) root: Node,
    pub(crate) source: Source,
}

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) span: Span,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    Date(String),
    List(Vec<Node>),
    Table(Vec<Entry>),
}

/// A key with its value, in the order of the file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) span: Span,
    pub(crate) node: Node,
}

// === impl Format ===

impl Format {
    /// Returns the format of a file by its name: `.json`, `.yaml`, everything else is TOML.
    #[must_use]
    pub fn of_path(path: &str) -> Self {
        if path.ends_with(".json") {
            Self::Json
        } else if path.ends_with(".yaml") {
            Self::Yaml
        } else {
            Self::Toml
        }
    }
}

impl RawConfig {
    /// Returns the app that the file names.
    pub(crate) fn app_name(&self) -> Option<String> {
        match &self.root.get("app")?.value {
            Value::Text(name) => Some(name.clone()),
            _ => None,
        }
    }
}

/// Reads a file as a tree, or says where its syntax is wrong.
pub fn parse(text: &str, format: Format) -> Result<RawConfig, Box<Problem>> {
    if text.len() > MAX_BYTES {
        let message = format!("the file is longer than {} MiB", MAX_BYTES >> 20);
        return Err(Box::new(syntax(text, None, message)));
    }
    let root = match format {
        Format::Toml => parse_toml(text)?,
        Format::Json => parse_json(text)?,
        Format::Yaml => {
            let mut problem = syntax(text, None, "YAML is not read yet".to_owned());
            problem.hint = Some("write it as fly.toml or fly.json".to_owned());
            return Err(Box::new(problem));
        }
    };
    Ok(RawConfig {
        root,
        source: Source::new(text, format == Format::Toml),
    })
}

fn syntax(text: &str, offset: Option<usize>, message: String) -> Problem {
    let at = offset.map(|o| position(text, o));
    let excerpt = at.and_then(|(line, _)| text.lines().nth(line - 1));
    let cut = |l: &str| -> String {
        let shown = l.chars().take(MAX_EXCERPT);
        // A tab is one column here, so that the mark stands under its character.
        shown.map(|c| if c == '\t' { ' ' } else { c }).collect()
    };
    Problem {
        severity: Severity::Error,
        path: String::new(),
        line: at.map(|(line, _)| line),
        column: at.map(|(_, column)| column),
        message,
        hint: None,
        excerpt: excerpt.map(cut),
    }
}

fn parse_toml(text: &str) -> Result<Node, Box<Problem>> {
    if text.starts_with('\u{feff}') {
        let mut problem = syntax(
            text,
            Some(0),
            "the file begins with a byte order mark".into(),
        );
        problem.hint = Some("save it as UTF-8 without a byte order mark".to_owned());
        return Err(Box::new(problem));
    }
    let table = DeTable::parse(text).map_err(|error| {
        let offset = error.span().map(|s| s.start);
        let message = error.message().trim().replace('\n', ", ");
        Box::new(syntax(text, offset, message))
    })?;
    let span = table.span();
    Ok(Node {
        value: table_of(table.get_ref()),
        span,
    })
}

fn table_of(table: &DeTable<'_>) -> Value {
    let mut entries: Vec<Entry> = table
        .iter()
        .map(|(key, value)| Entry {
            key: key.get_ref().to_string(),
            span: key.span(),
            node: node_of(value),
        })
        .collect();
    entries.sort_by_key(|e| e.span.start);
    Value::Table(entries)
}

fn node_of(value: &Spanned<DeValue<'_>>) -> Node {
    let inner = match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| Value::Text(number.to_string()), Value::Int),
        DeValue::Float(number) => Value::Float(number.as_str().parse().unwrap_or(f64::NAN)),
        DeValue::Boolean(yes) => Value::Bool(*yes),
        DeValue::Datetime(date) => Value::Date(date.to_string()),
        DeValue::Array(items) => Value::List(items.iter().map(node_of).collect()),
        DeValue::Table(table) => table_of(table),
    };
    Node {
        value: inner,
        span: value.span(),
    }
}

fn parse_json(text: &str) -> Result<Node, Box<Problem>> {
    let json: Json = serde_json::from_str(text).map_err(|error| {
        let line = error.line().max(1);
        let start: usize = text
            .split_inclusive('\n')
            .take(line - 1)
            .map(str::len)
            .sum();
        let offset = start + error.column().saturating_sub(1);
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default();
        Box::new(syntax(text, Some(offset), message.to_owned()))
    })?;
    if !json.is_object() {
        let message = "the file holds no object".to_owned();
        return Err(Box::new(syntax(text, Some(0), message)));
    }
    Ok(json_node(&json))
}

fn json_node(json: &Json) -> Node {
    let value = match json {
        Json::Null => Value::Null,
        Json::Bool(yes) => Value::Bool(*yes),
        // Fly reads every JSON number as a float, and prints it as one in [env].
        Json::Number(number) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        Json::String(text) => Value::Text(text.clone()),
        Json::Array(items) => Value::List(items.iter().map(json_node).collect()),
        Json::Object(map) => Value::Table(
            map.iter()
                .map(|(key, value)| Entry {
                    key: key.clone(),
                    span: 0..0,
                    node: json_node(value),
                })
                .collect(),
        ),
    };
    Node { value, span: 0..0 }
}

// === impl Node ===

impl Node {
    /// Returns the entry of a table.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Table(entries) => entries.iter().find(|e| e.key == key).map(|e| &e.node),
            _ => None,
        }
    }

    /// Returns the tree as JSON, for the parts that are only kept.
    pub(crate) fn to_json(&self) -> Json {
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(yes) => Json::Bool(*yes),
            Value::Int(number) => Json::from(*number),
            Value::Float(number) => whole(*number).map_or_else(|| Json::from(*number), Json::from),
            Value::Text(text) | Value::Date(text) => Json::String(text.clone()),
            Value::List(items) => Json::Array(items.iter().map(Self::to_json).collect()),
            Value::Table(entries) => {
                let pairs = entries.iter().map(|e| (e.key.clone(), e.node.to_json()));
                Json::Object(pairs.collect::<Map<String, Json>>())
            }
        }
    }
}

// === impl Value ===

impl Value {
    /// Returns what it is, in words.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "true or false",
            Self::Int(_) | Self::Float(_) => "a number",
            Self::Text(_) => "a text",
            Self::Date(_) => "a date",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

/// Returns a float that is a whole number as one.
pub(crate) fn whole(number: f64) -> Option<i64> {
    let fits = number.fract() == 0.0 && number.abs() < 9e15;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "checked to be small and whole"
    )]
    fits.then_some(number as i64)
}
