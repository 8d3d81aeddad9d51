//! The named schemas of the document. A type that is read in another shape than it is written in
//! has two: `NAME` as it is written, `NAMEInput` as it is read.

use std::collections::BTreeSet;

use hangar_api::error::ErrorBody;
use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::super::described::SchemaOf;

/// Where named schemas stand.
const PLACE: &str = "#/components/schemas/";
/// Where those that are read stand until all are known.
const PLACE_READ: &str = "#/components/read/";

/// Makes schemas, and collects the named ones.
#[derive(Debug)]
pub(super) struct Schemas {
    written: SchemaGenerator,
    read: SchemaGenerator,
}

// === impl Schemas ===

impl Schemas {
    pub(super) fn new() -> Self {
        let mut written = SchemaSettings::draft2020_12().for_serialize();
        written.definitions_path = "/components/schemas".into();
        let mut read = SchemaSettings::draft2020_12().for_deserialize();
        read.definitions_path = "/components/read".into();
        let mut schemas = Self {
            written: written.into_generator(),
            read: read.into_generator(),
        };
        schemas.written.subschema_for::<ErrorBody>();
        schemas
    }

    /// Returns the schema of what is answered.
    pub(super) fn written(&mut self, of: SchemaOf) -> Value {
        tidied(of(&mut self.written), Side::Written)
    }

    /// Returns the schema of what is read.
    pub(super) fn read(&mut self, of: SchemaOf) -> Value {
        tidied(of(&mut self.read), Side::Read)
    }

    /// Returns the options of an endpoint: name, schema, and whether it must be given. What has no
    /// name of its own is left out.
    pub(super) fn options(&mut self, of: SchemaOf) -> Vec<(String, Value)> {
        let schema = self.read(of);
        let reference = schema.get("$ref").and_then(Value::as_str);
        let name = reference.and_then(|text| text.strip_prefix(PLACE_READ));
        let found = match name {
            Some(name) => self.read.definitions().get(name).cloned(),
            None => Some(schema),
        };
        let properties = found.and_then(|schema| schema.get("properties").cloned());
        let Some(Value::Object(properties)) = properties else {
            return Vec::new();
        };
        let tidy = |schema: Value| {
            let mut schema = schema;
            mend(&mut schema, Side::Read);
            without_null(&mut schema);
            schema
        };
        properties
            .into_iter()
            .map(|(name, schema)| (name, tidy(schema)))
            .collect()
    }

    /// Returns all named schemas, and points what stands in the paths to them.
    pub(super) fn put_into(mut self, paths: &mut Value) -> Value {
        let mut written = self.written.take_definitions(true);
        written
            .values_mut()
            .for_each(|schema| mend(schema, Side::Written));
        let mut read = self.read.take_definitions(true);
        read.values_mut()
            .for_each(|schema| mend(schema, Side::Read));
        echo(&mut written, &mut read);
        let apart = apart(&written, &read);
        for (name, mut schema) in read {
            rename(&mut schema, &apart);
            if apart.contains(&name) {
                written.insert(format!("{name}Input"), schema);
            } else {
                written.entry(name).or_insert(schema);
            }
        }
        rename(paths, &apart);
        keep_used(&mut written, paths);
        Value::Object(written)
    }
}

/// A Machine's configuration comes back as it was sent, so all in it is written as it is read, and
/// what may be absent may be null.
fn echo(written: &mut Map<String, Value>, read: &mut Map<String, Value>) {
    for name in reached(read, vec!["MachineConfig".to_owned()], PLACE_READ) {
        let Some(schema) = read.get_mut(&name) else {
            continue;
        };
        with_null(schema);
        let mut same = schema.clone();
        rename(&mut same, &BTreeSet::new());
        written.insert(name, same);
    }
}

/// Lets what is not required be null.
fn with_null(schema: &mut Value) {
    let required = schema.get("required").cloned().unwrap_or(json!([]));
    let required = required.as_array().cloned().unwrap_or_default();
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    for (name, property) in properties.into_iter().flatten() {
        let may_be = !required.contains(&json!(name)) && *property != json!(true);
        let null = json!("null");
        let chosen = property.get("anyOf").is_some() || property.get("$ref").is_some();
        match property.get_mut("type") {
            _ if !may_be => {}
            Some(Value::Array(kinds)) if kinds.contains(&null) => {}
            Some(Value::Array(kinds)) => kinds.push(null),
            Some(kind) => *kind = Value::Array(vec![kind.take(), null]),
            None if chosen => {
                let description = property
                    .as_object_mut()
                    .and_then(|all| all.remove("description"));
                *property = json!({ "anyOf": [property, { "type": "null" }] });
                if let Some(description) = description {
                    property["description"] = description;
                }
            }
            None => {}
        }
    }
}

/// Lets go of the schemas that nothing refers to: options that stand in the query alone.
fn keep_used(schemas: &mut Map<String, Value>, paths: &Value) {
    let used = reached(schemas, names(paths, PLACE), PLACE);
    schemas.retain(|name, _| used.contains(name));
}

/// Returns these names and all that their schemas lead to.
fn reached(schemas: &Map<String, Value>, mut next: Vec<String>, place: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    while let Some(name) = next.pop() {
        if let (Some(schema), true) = (schemas.get(&name), found.insert(name)) {
            next.extend(names(schema, place));
        }
    }
    found
}

/// Returns the names that a value refers to.
fn names(value: &Value, place: &str) -> Vec<String> {
    match value {
        Value::Object(fields) => {
            let own = fields.get("$ref").and_then(Value::as_str);
            let own = own.and_then(|text| text.strip_prefix(place));
            let below = fields.values().flat_map(|below| names(below, place));
            own.map(str::to_owned).into_iter().chain(below).collect()
        }
        Value::Array(all) => all.iter().flat_map(|below| names(below, place)).collect(),
        _ => Vec::new(),
    }
}

/// Which way a value goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Read,
    Written,
}

fn tidied(schema: Schema, side: Side) -> Value {
    let mut schema = schema.to_value();
    mend(&mut schema, side);
    schema
}

/// Returns the names whose two schemas differ, or lead to such.
fn apart(written: &Map<String, Value>, read: &Map<String, Value>) -> BTreeSet<String> {
    let shared = |name: &String, schema: &Value| {
        let mut same = schema.clone();
        rename(&mut same, &BTreeSet::new());
        written.get(name).is_none_or(|other| *other == same)
    };
    let mut apart: BTreeSet<String> = read
        .iter()
        .filter(|(name, schema)| !shared(name, schema))
        .map(|(name, _)| name.clone())
        .collect();
    loop {
        let more: Vec<String> = read
            .iter()
            .filter(|(name, schema)| {
                !apart.contains(*name) && written.contains_key(*name) && leads(schema, &apart)
            })
            .map(|(name, _)| name.clone())
            .collect();
        if more.is_empty() {
            return apart;
        }
        apart.extend(more);
    }
}

/// Returns whether a schema refers to one of these.
fn leads(schema: &Value, to: &BTreeSet<String>) -> bool {
    match schema {
        Value::Object(fields) => fields.iter().any(|(key, value)| {
            let name = value
                .as_str()
                .and_then(|text| text.strip_prefix(PLACE_READ));
            (key == "$ref" && name.is_some_and(|name| to.contains(name))) || leads(value, to)
        }),
        Value::Array(all) => all.iter().any(|one| leads(one, to)),
        _ => false,
    }
}

/// Points references to what is read to where it will stand.
fn rename(value: &mut Value, apart: &BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let name = value
                    .as_str()
                    .and_then(|text| text.strip_prefix(PLACE_READ));
                match name.map(str::to_owned) {
                    Some(name) if key == "$ref" => {
                        let suffix = if apart.contains(&name) { "Input" } else { "" };
                        *value = format!("{PLACE}{name}{suffix}").into();
                    }
                    _ => rename(value, apart),
                }
            }
        }
        Value::Array(all) => all.iter_mut().for_each(|one| rename(one, apart)),
        _ => {}
    }
}

/// Takes out what is of Rust and not of the wire: formats of its own, and defaults that say no
/// more than that a field may be absent. What is written and left out when empty is never null.
fn mend(schema: &mut Value, side: Side) {
    match schema {
        Value::Object(fields) => {
            if fields.get("default").is_some_and(Value::is_null) {
                fields.remove("default");
            }
            let own = |format: &str| format.starts_with("uint") || format.starts_with("int");
            if fields
                .get("format")
                .and_then(Value::as_str)
                .is_some_and(own)
            {
                fields.remove("format");
            }
            if side == Side::Written {
                fields.remove("default");
                let required = fields.get("required").cloned().unwrap_or(json!([]));
                if let Some(Value::Object(properties)) = fields.get_mut("properties") {
                    for (name, property) in properties {
                        let always = required
                            .as_array()
                            .is_some_and(|all| all.contains(&json!(name)));
                        if !always {
                            without_null(property);
                        }
                    }
                }
            }
            fields.values_mut().for_each(|value| mend(value, side));
        }
        Value::Array(all) => all.iter_mut().for_each(|one| mend(one, side)),
        _ => {}
    }
}

/// Takes null out of what a schema allows.
fn without_null(schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else {
        return;
    };
    if let Some(Value::Array(kinds)) = fields.get_mut("type") {
        kinds.retain(|kind| kind != "null");
        if let [only] = kinds.as_slice() {
            let only = only.clone();
            fields.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(choices)) = fields.get_mut("anyOf") {
        choices.retain(|choice| *choice != json!({"type": "null"}));
        if let [only] = choices.as_slice() {
            let only = only.clone();
            fields.remove("anyOf");
            if let Value::Object(only) = only {
                fields.extend(only);
            }
        }
    }
}
