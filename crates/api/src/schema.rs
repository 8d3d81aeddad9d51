//! JSON Schemas of what is written in another way than its Rust type says, for the API's own
//! OpenAPI document. All other types derive theirs.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::duration::GoDuration;
use crate::machine::service::Autostop;
use crate::rights::{Action, Caveat};

/// Stands for a [`crate::Timestamp`].
#[derive(Debug)]
pub struct Time;

/// Stands for what is given as text or as a number.
#[derive(Debug)]
pub struct TextOrNumber;

impl JsonSchema for TextOrNumber {
    fn schema_name() -> Cow<'static, str> {
        "TextOrNumber".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer"] })
    }
}

impl JsonSchema for Time {
    fn schema_name() -> Cow<'static, str> {
        "Timestamp".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "date-time",
            "description": "A point in time, RFC 3339.",
            "examples": ["2026-01-02T15:04:05Z"],
        })
    }
}

impl JsonSchema for GoDuration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Go's text, or a number of nanoseconds.",
            "anyOf": [{ "type": "string" }, { "type": "integer" }],
            "examples": ["15s"],
        })
    }
}

impl JsonSchema for Autostop {
    fn schema_name() -> Cow<'static, str> {
        "Autostop".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Whether idle Machines are stopped.",
            "enum": [false, true, "off", "stop", "suspend", "false", "true"],
        })
    }
}

impl JsonSchema for Caveat {
    fn schema_name() -> Cow<'static, str> {
        "Caveat".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "description": "One limit of a token, as Fly writes it.",
            "properties": {
                "type": { "description": "Its kind; a number as text where Fly has no name for it.", "type": "string" },
                "body": { "description": "What the kind asks for." },
            },
            "required": ["type"],
        })
    }
}

impl JsonSchema for Action {
    fn schema_name() -> Cow<'static, str> {
        "Action".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "What is done: letters of `rwcdC` (read, write, create, delete, control), or `*`.",
            "examples": ["r"],
        })
    }
}
