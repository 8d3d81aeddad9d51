//! What an endpoint says of itself: a [`Doc`] that its row in the table carries, and what the
//! signature of its handler shows of what it reads and answers.
//!
//! Bodies and options come from the handler's own types, so the document cannot name others than
//! those that are read and written.

mod signature;

use schemars::{JsonSchema, Schema, SchemaGenerator};

pub(super) use self::signature::Described;

/// Returns the schema of a type, and notes it among the named ones.
pub(super) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// What an endpoint's row says for readers.
#[derive(Clone, Debug)]
pub(super) struct Doc {
    /// `operationId`: Fly's where Fly has one.
    pub(super) id: &'static str,
    /// One line.
    pub(super) summary: &'static str,
    /// More than that, in Markdown; may be empty.
    pub(super) more: &'static str,
    /// Status of success; 0 when it never succeeds.
    pub(super) status: u16,
    /// What it answers, where the handler's type does not say so.
    pub(super) answer: Option<SchemaOf>,
    /// Another way to succeed.
    pub(super) or: Option<(u16, SchemaOf)>,
    /// What kind of content it answers.
    pub(super) media: &'static str,
    /// What kind of content it reads that is no JSON; empty where it does not.
    pub(super) upload: &'static str,
    /// Names of the query that are read by hand.
    pub(super) query: &'static [Asked],
    /// Headers that are read by hand.
    pub(super) headers: &'static [Asked],
    /// Headers of the answer.
    pub(super) tells: &'static [(&'static str, &'static str)],
    /// What the events of a stream hold.
    pub(super) carries: &'static [SchemaOf],
    /// Statuses of errors beyond those that follow from need and body.
    pub(super) fails: &'static [u16],
}

/// A parameter: its name, what it is (`text`, `integer`, `boolean`, `date-time`, and with `!` when
/// it must be there), and what it means.
pub(super) type Asked = (&'static str, &'static str, &'static str);

/// What the signature of a handler shows.
#[derive(Clone, Debug, Default)]
pub(super) struct Sketch {
    /// Options, from the query or a JSON body.
    pub(super) options: Option<SchemaOf>,
    /// A JSON body, and whether it must be there.
    pub(super) body: Option<(SchemaOf, Must)>,
    /// It is gated by a lease, whose nonce stands in a header.
    pub(super) lease: bool,
    /// The connection becomes another protocol's.
    pub(super) upgrade: bool,
    /// What it answers.
    pub(super) answer: Option<SchemaOf>,
    /// It answers with server-sent events.
    pub(super) events: bool,
}

/// Whether a body has to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Must {
    /// Without one the defaults hold.
    May,
    /// It is required.
    Must,
}

/// Returns the documentation of an endpoint that answers 200 with what its handler returns.
pub(super) const fn doc(id: &'static str, summary: &'static str) -> Doc {
    Doc {
        id,
        summary,
        more: "",
        status: 200,
        answer: None,
        or: None,
        media: "application/json",
        upload: "",
        query: &[],
        headers: &[],
        tells: &[],
        carries: &[],
        fails: &[],
    }
}

/// Returns the schema of a type.
pub(super) fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

// === impl Doc ===

impl Doc {
    pub(super) const fn more(self, more: &'static str) -> Self {
        Self { more, ..self }
    }

    pub(super) const fn status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    pub(super) const fn gives<T: JsonSchema>(self) -> Self {
        Self {
            answer: Some(schema_of::<T>),
            ..self
        }
    }

    pub(super) const fn or<T: JsonSchema>(self, status: u16) -> Self {
        Self {
            or: Some((status, schema_of::<T>)),
            ..self
        }
    }

    pub(super) const fn media(self, media: &'static str) -> Self {
        Self { media, ..self }
    }

    pub(super) const fn upload(self, upload: &'static str) -> Self {
        Self { upload, ..self }
    }

    pub(super) const fn query(self, query: &'static [Asked]) -> Self {
        Self { query, ..self }
    }

    pub(super) const fn headers(self, headers: &'static [Asked]) -> Self {
        Self { headers, ..self }
    }

    pub(super) const fn tells(self, tells: &'static [(&'static str, &'static str)]) -> Self {
        Self { tells, ..self }
    }

    pub(super) const fn carries(self, carries: &'static [SchemaOf]) -> Self {
        Self { carries, ..self }
    }

    pub(super) const fn fails(self, fails: &'static [u16]) -> Self {
        Self { fails, ..self }
    }

    /// It is a thing of Fly's that is refused with 501.
    pub(super) const fn refused(self) -> Self {
        Self { status: 0, ..self }
    }
}
