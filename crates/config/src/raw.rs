//! The file as it is written: a tree of values, each with its place in the text.
//!
//! TOML, JSON and YAML come out as the same tree. What differs between them is what Go makes of a
//! number ([`Format`]).

mod json;
mod toml;
mod yaml;

pub(crate) use yaml::is_plain_text;

use serde_json::{Map, Value as Json};

use crate::problem::{Problem, Severity, Source, Span, position};

/// Longest file that is read.
const MAX_BYTES: usize = 4 << 20;
/// Longest excerpt shown with a syntax error.
const MAX_EXCERPT: usize = 120;
/// Deepest nesting that is read.
const MAX_DEPTH: usize = 100;

/// How a configuration file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// fly.toml.
    Toml,
    /// fly.json.
    Json,
    /// fly.yaml.
    Yaml,
}

/// A configuration file that parses; nothing in it is checked yet.
#[derive(Clone, Debug)]
pub struct RawConfig {
    pub(crate) root: Node,
    pub(crate) source: Source,
    pub(crate) format: Format,
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
    /// Any that a format has a form for; fields take less.
    Int(i128),
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

/// Reads a file as a tree, or says where its syntax is wrong. JSON may hold bytes that are no
/// UTF-8, YAML may be UTF-16; TOML is UTF-8.
pub fn parse(bytes: &[u8], format: Format) -> Result<RawConfig, Box<Problem>> {
    if bytes.len() > MAX_BYTES {
        let message = format!("the file is longer than {} MiB", MAX_BYTES >> 20);
        return Err(Box::new(syntax("", None, message)));
    }
    let text = match format {
        Format::Json => String::from_utf8_lossy(bytes).into_owned(),
        Format::Yaml => yaml::decode(bytes)?,
        Format::Toml => utf8(bytes)?,
    };
    if text.starts_with('\u{feff}') {
        let message = "the file begins with a byte order mark";
        let mut problem = syntax(&text, Some(0), message.into());
        problem.hint = Some("save it as UTF-8 without a byte order mark".to_owned());
        return Err(Box::new(problem));
    }
    let root = match format {
        Format::Toml => toml::parse(&text)?,
        Format::Json => json::parse(&text)?,
        Format::Yaml => yaml::parse(&text)?,
    };
    Ok(RawConfig {
        root,
        source: Source::new(&text),
        format,
    })
}

/// Returns bytes as text, or where they are none.
fn utf8(bytes: &[u8]) -> Result<String, Box<Problem>> {
    String::from_utf8(bytes.to_vec()).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(bytes);
        let message = "a byte here is no UTF-8".to_owned();
        let mut problem = syntax(&text, Some(at), message);
        problem.hint = Some("save the file as UTF-8".to_owned());
        Box::new(problem)
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

// === impl Node ===

impl Node {
    pub(crate) fn new(value: Value, span: Span) -> Self {
        Self { value, span }
    }

    /// Returns the entry of a table.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entries()
            .iter()
            .find(|e| e.key == key)
            .map(|e| &e.node)
    }

    /// Returns the entries of a table; none of anything else.
    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Table(entries) => entries,
            _ => &[],
        }
    }

    /// Takes an entry out of a table.
    pub(crate) fn take(&mut self, key: &str) -> Option<Node> {
        let Value::Table(entries) = &mut self.value else {
            return None;
        };
        let at = entries.iter().position(|e| e.key == key)?;
        Some(entries.remove(at).node)
    }

    /// Puts an entry into a table, in place of the one that was there.
    pub(crate) fn put(&mut self, key: &str, node: Node) {
        if let Value::Table(entries) = &mut self.value {
            match entries.iter_mut().find(|e| e.key == key) {
                Some(entry) => entry.node = node,
                None => entries.push(Entry {
                    key: key.to_owned(),
                    span: node.span.clone(),
                    node,
                }),
            }
        }
    }

    /// Returns the tree as JSON.
    pub(crate) fn to_json(&self) -> Json {
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(yes) => Json::Bool(*yes),
            Value::Int(number) => match (i64::try_from(*number), u64::try_from(*number)) {
                (Ok(number), _) => Json::from(number),
                (_, Ok(number)) => Json::from(number),
                _ => Json::Null,
            },
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
    let negative_zero = number == 0.0 && number.is_sign_negative();
    let fits = number.fract() == 0.0 && number.abs() < 9e15 && !negative_zero;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "checked to be small and whole"
    )]
    fits.then_some(number as i64)
}
