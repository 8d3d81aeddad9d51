//! The JSON Schema of fly.toml, for editors.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use super::{Described, Field, Kind, Section};
use crate::app::AppConfig;

/// What a key takes, where there is a choice.
const CHOICES: &[(&str, &str, &[&str])] = &[
    (
        "Deploy",
        "strategy",
        &["rolling", "canary", "immediate", "bluegreen"],
    ),
    ("Build", "compression", &["gzip", "zstd"]),
    ("Restart", "policy", &["always", "never", "on-failure"]),
    ("CheckSection", "type", &["http", "tcp"]),
    ("Concurrency", "type", &["connections", "requests"]),
    ("ServiceSection", "protocol", &["tcp", "udp"]),
    ("ReplayCache", "type", &["cookie", "header"]),
];

/// Returns a JSON Schema (2020-12) of the modern form of fly.toml. The older forms that are read
/// too are left out: an editor should not offer them.
#[must_use]
pub fn json_schema() -> Json {
    let mut definitions = BTreeMap::new();
    let mut schema = section(AppConfig::SECTION, &mut definitions);
    if let Some(map) = schema.as_object_mut() {
        let dialect = "https://json-schema.org/draft/2020-12/schema";
        map.insert("$schema".to_owned(), json!(dialect));
        map.insert("title".to_owned(), json!("fly.toml"));
        map.insert("$defs".to_owned(), json!(definitions));
    }
    schema
}

fn section(section: &Section, definitions: &mut BTreeMap<&'static str, Json>) -> Json {
    let mut properties = Map::new();
    for field in section.fields {
        let mut schema = value(section, field, definitions);
        if let Some(map) = schema.as_object_mut() {
            map.insert("description".to_owned(), json!(about(field.about)));
        }
        properties.insert(field.key.to_owned(), schema);
    }
    json!({
        "type": "object",
        "description": about(section.about),
        "properties": properties,
        "additionalProperties": false,
    })
}

fn value(of: &Section, field: &Field, definitions: &mut BTreeMap<&'static str, Json>) -> Json {
    if let Some(inner) = field.inner()
        && !definitions.contains_key(inner.name)
    {
        // Put in first: no section holds itself, but the next one may hold the same.
        definitions.insert(inner.name, Json::Null);
        let schema = section(inner, definitions);
        definitions.insert(inner.name, schema);
    }
    let reference = |inner: &Section| json!({ "$ref": format!("#/$defs/{}", inner.name) });
    match field.kind {
        Kind::Text | Kind::TextPtr => text(of, field),
        Kind::Flag | Kind::FlagPtr => json!({ "type": "boolean" }),
        Kind::Int | Kind::IntPtr => json!({ "type": "integer" }),
        Kind::U32Ptr => json!({ "type": "integer", "minimum": 0 }),
        Kind::FloatPtr => json!({ "type": "number" }),
        Kind::Duration => json!({
            "type": "string",
            "pattern": "^[-+]?(([0-9]+(\\.[0-9]*)?|\\.[0-9]+)(ns|us|µs|ms|s|m|h))+$",
        }),
        Kind::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        Kind::TextMap if field.key == "env" => json!({
            "type": "object",
            "additionalProperties": { "type": ["string", "number", "boolean"] },
        }),
        Kind::TextMap => {
            json!({ "type": "object", "additionalProperties": { "type": "string" } })
        }
        Kind::AnyMap => json!({ "type": "object" }),
        Kind::Autostop => json!({ "enum": ["off", "stop", "suspend", true, false] }),
        Kind::Persist => json!({ "enum": ["never", "restart", "always"] }),
        Kind::Table(inner) => reference(inner),
        Kind::List(inner) => json!({ "type": "array", "items": reference(inner) }),
        Kind::Named(inner) => {
            json!({ "type": "object", "additionalProperties": reference(inner) })
        }
    }
}

fn text(of: &Section, field: &Field) -> Json {
    let choice = CHOICES
        .iter()
        .find(|(s, k, _)| *s == of.name && *k == field.key);
    match (choice, field.key) {
        (Some((.., values)), _) => json!({ "enum": values }),
        (None, "memory" | "initial_size") => json!({ "type": ["string", "integer"] }),
        _ => json!({ "type": "string" }),
    }
}

/// Returns a docstring as one line.
pub(super) fn about(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
