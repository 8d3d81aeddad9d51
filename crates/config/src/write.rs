//! A configuration written out in Fly's canonical form (process-groups-and-deploy.md 1.5).
//!
//! The order of the keys, and what is left out, come from the description of the sections.

mod json;
mod toml;
mod yaml;

use serde_json::{Map, Value as Json};

use crate::app::AppConfig;
use crate::raw::Format;
use crate::schema::{Always, Described, Field, Kind, Section};

/// A value on its way out: tables keep their order.
enum Out {
    /// A value without keys.
    Value(Json),
    /// A number that is written as a float.
    Float(f64),
    /// A list of values.
    List(Vec<Out>),
    /// A list of tables, not empty.
    Tables(Vec<Pairs>),
    /// A table.
    Table(Pairs),
}

type Pairs = Vec<(String, Out)>;

impl AppConfig {
    /// Returns the configuration as a JSON value, as it is stored with a release.
    #[must_use]
    pub fn definition(&self) -> Json {
        serde_json::to_value(self).unwrap_or(Json::Null)
    }

    /// Returns the configuration that was stored with a release.
    pub fn from_definition(definition: &Json) -> Result<Self, serde_json::Error> {
        serde_json::from_value(definition.clone())
    }

    /// Returns the file's text, without the comment at its head.
    #[must_use]
    pub fn write(&self, format: Format) -> String {
        let definition = self.definition();
        let pairs = section(&definition, Self::SECTION, format == Format::Toml);
        match format {
            Format::Toml => toml::text(&pairs),
            Format::Json => json::text(pairs),
            Format::Yaml => yaml::text(&pairs),
        }
    }

    /// Returns the file's text with the comment at its head that says where it comes from;
    /// JSON has none. `time` is RFC 3339.
    #[must_use]
    pub fn write_with_head(&self, format: Format, time: &str) -> String {
        let name = match format {
            Format::Toml => "toml",
            Format::Yaml => "yaml",
            Format::Json => return self.write(format),
        };
        let app = self.app.as_deref().unwrap_or_default();
        format!(
            "# fly.{name} app configuration file generated for {app} on {time}\n#\n# See https://fly.io/docs/reference/configuration/ for information about how to use this file.\n#\n\n{}",
            self.write(format)
        )
    }
}

/// Returns a section as Fly's client writes it into JSON.
pub(crate) fn to_json<T: Described + serde::Serialize>(value: &T) -> Map<String, Json> {
    let json = serde_json::to_value(value).unwrap_or(Json::Null);
    let pairs = section(&json, T::SECTION, false);
    match serde_json::to_value(Out::Table(pairs)) {
        Ok(Json::Object(map)) => map,
        _ => Map::new(),
    }
}

/// Returns the keys of a section in order, without what is empty.
fn section(json: &Json, section: &Section, for_toml: bool) -> Pairs {
    let fields = section.fields.iter();
    fields
        .filter_map(|field| {
            let out = match json.get(field.key) {
                Some(value) => value_of(value, field, for_toml)?,
                None => empty_of(field, for_toml)?,
            };
            Some((field.key.to_owned(), out))
        })
        .collect()
}

fn value_of(value: &Json, field: &Field, for_toml: bool) -> Option<Out> {
    let out = match field.kind {
        Kind::Table(inner) => {
            let pairs = section(value, inner, for_toml);
            // A part that JSON always has is one that TOML only has when something is in it.
            if for_toml && pairs.is_empty() && field.always == Always::Json {
                return None;
            }
            Out::Table(pairs)
        }
        Kind::List(inner) => {
            let items = value.as_array().into_iter().flatten();
            Out::Tables(items.map(|item| section(item, inner, for_toml)).collect())
        }
        Kind::Named(inner) => {
            let entries = value.as_object().into_iter().flatten();
            let tables = entries.map(|(name, v)| {
                let pairs = section(v, inner, for_toml);
                (name.clone(), Out::Table(pairs))
            });
            Out::Table(tables.collect())
        }
        Kind::AnyMap | Kind::TextMap => {
            let map = value.as_object().cloned().unwrap_or_default();
            Out::Table(any_pairs(&map, for_toml))
        }
        Kind::Autostop if for_toml => Out::Value(Json::from(match value {
            Json::Bool(false) => "off",
            Json::Bool(true) => "stop",
            _ => "suspend",
        })),
        Kind::FloatPtr => number(value.as_f64().unwrap_or_default(), for_toml),
        Kind::Texts => {
            let items = value.as_array().into_iter().flatten();
            Out::List(items.cloned().map(Out::Value).collect())
        }
        _ => Out::Value(value.clone()),
    };
    Some(out)
}

/// Returns what is written for a key that is not set, where something is.
fn empty_of(field: &Field, for_toml: bool) -> Option<Out> {
    let here = match field.always {
        Always::No => false,
        Always::Both => true,
        Always::Toml => for_toml,
        Always::Json => !for_toml,
    };
    if !here {
        return None;
    }
    Some(match field.kind {
        Kind::Int => Out::Value(Json::from(0)),
        Kind::List(_) => Out::List(Vec::new()),
        Kind::Table(inner) => Out::Table(section(&Json::Null, inner, for_toml)),
        _ => Out::Value(Json::from("")),
    })
}

/// Returns a value that has no description. Fly's client holds its numbers as floats, which shows
/// in TOML.
fn any(value: &Json, floats: bool) -> Out {
    match value {
        Json::Object(map) => Out::Table(any_pairs(map, floats)),
        Json::Array(items) if !items.is_empty() && items.iter().all(Json::is_object) => {
            let maps = items.iter().filter_map(Json::as_object);
            Out::Tables(maps.map(|m| any_pairs(m, floats)).collect())
        }
        Json::Array(items) => {
            // TOML has no null.
            let set = items.iter().filter(|v| !floats || !v.is_null());
            Out::List(set.map(|v| any(v, floats)).collect())
        }
        Json::Number(n) => number(n.as_f64().unwrap_or_default(), floats),
        other => Out::Value(other.clone()),
    }
}

/// Returns a number as Go writes it: TOML shows that it is a float, JSON does not.
fn number(number: f64, floats: bool) -> Out {
    if floats {
        return Out::Float(number);
    }
    if number == 0.0 {
        return Out::Value(Json::from(0));
    }
    // Shortest digits, and zeros up to the point.
    let digits = number.to_string();
    let short = number.abs() < 1e21 && !digits.contains('.');
    let whole = short.then(|| serde_json::from_str(&digits).ok()).flatten();
    Out::Value(whole.unwrap_or_else(|| Json::from(number)))
}

fn any_pairs(map: &Map<String, Json>, floats: bool) -> Pairs {
    let set = map.iter().filter(|(_, v)| !floats || !v.is_null());
    set.map(|(k, v)| (k.clone(), any(v, floats))).collect()
}

/// Puts a blank line before each line that opens a part, unless the line before has opened one
/// too: the file is read in blocks.
fn with_blank_lines(plain: &str) -> String {
    let mut text = String::with_capacity(plain.len() + plain.len() / 8);
    let mut opened = true;
    for line in plain.lines() {
        let opens = opens(line);
        if opens && !opened {
            text.push('\n');
        }
        text.push_str(line);
        text.push('\n');
        opened = opens;
    }
    text
}

/// Returns whether a line holds only a key of word characters, and what opens its value.
fn opens(line: &str) -> bool {
    let line = line.trim_start();
    let line = line
        .strip_suffix(" {")
        .or(line.strip_suffix(" ["))
        .unwrap_or(line);
    let Some(key) = line.strip_suffix(':') else {
        return false;
    };
    let key = key.strip_prefix('"').unwrap_or(key);
    let key = key.strip_suffix('"').unwrap_or(key);
    !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
