//! Tables: what kind of value lives under which prefix, and how it is written.
//!
//! A value is written as JSON in an envelope, `{"v":1,"d":...}`, where `v` is the form that the
//! table had when it was written. A reader takes its own form and the one before; it refuses
//! every other in words, so that an old binary never reads half of what a new one wrote.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::backend::{Entry, Revision};
use crate::error::StoreError;
use crate::key::{KeyPart, TableKey};

/// A kind of record. Implemented by a marker type; see [`crate::tables`].
pub trait Table: Copy + std::fmt::Debug + Send + Sync + 'static {
    /// What names a record.
    type Key: TableKey;
    /// What a record holds.
    type Value: Serialize + DeserializeOwned + Clone + std::fmt::Debug + Send + Sync + 'static;
    /// Where the records live: a word with a `/` behind it.
    const PREFIX: &'static str;
    /// The form that values are written in. One more whenever an older binary would misread it;
    /// a new optional field is no new form.
    const FORM: u32 = 1;

    /// Turns a value of the form before into one of today's.
    fn upgrade(older: serde_json::Value) -> serde_json::Value {
        older
    }
}

/// A record of a table as it was read.
#[derive(Clone, Debug)]
pub struct Record<T: Table> {
    /// Its key.
    pub key: T::Key,
    /// Its value.
    pub value: T::Value,
    /// The revision that last put it: give it to a transaction to be refused when it changed.
    pub mod_revision: Revision,
    /// The revision that created it.
    pub create_revision: Revision,
}

#[derive(Serialize)]
struct EnvelopeOut<'a, V> {
    v: u32,
    d: &'a V,
}

#[derive(Deserialize)]
struct EnvelopeIn<'a> {
    v: u32,
    #[serde(borrow)]
    d: &'a RawValue,
}

/// Returns the whole key of a record.
pub(crate) fn full_key<T: Table>(key: &T::Key) -> String {
    format!("{}{}", T::PREFIX, key.encode())
}

/// Returns what the keys of all records begin with whose first part is this one.
pub(crate) fn prefix_under<T: Table, P: KeyPart>(first: &P) -> String {
    format!("{}{}/", T::PREFIX, first.encode())
}

/// Returns the bytes of a value in its envelope.
pub(crate) fn encode<T: Table>(key: &str, value: &T::Value) -> Result<Vec<u8>, StoreError> {
    let envelope = EnvelopeOut {
        v: T::FORM,
        d: value,
    };
    serde_json::to_vec(&envelope).map_err(|source| StoreError::Malformed {
        key: key.to_owned(),
        source,
    })
}

/// Reads an entry of the table.
pub(crate) fn decode<T: Table>(entry: &Entry) -> Result<Record<T>, StoreError> {
    let key = decode_key::<T>(&entry.key)?;
    let malformed = |source| StoreError::Malformed {
        key: entry.key.to_string(),
        source,
    };
    let envelope: EnvelopeIn<'_> = serde_json::from_slice(&entry.value).map_err(malformed)?;
    let text = envelope.d.get();
    let value = if envelope.v == T::FORM {
        serde_json::from_str(text).map_err(malformed)?
    } else if envelope.v.checked_add(1) == Some(T::FORM) && envelope.v > 0 {
        let older = serde_json::from_str(text).map_err(malformed)?;
        serde_json::from_value(T::upgrade(older)).map_err(malformed)?
    } else {
        return Err(StoreError::OtherForm {
            key: entry.key.to_string(),
            found: envelope.v,
            oldest: T::FORM.saturating_sub(1).max(1),
            newest: T::FORM,
        });
    };
    Ok(Record {
        key,
        value,
        mod_revision: entry.mod_revision,
        create_revision: entry.create_revision,
    })
}

/// Reads the key of a record from its whole key.
pub(crate) fn decode_key<T: Table>(full: &str) -> Result<T::Key, StoreError> {
    full.strip_prefix(T::PREFIX)
        .and_then(T::Key::decode)
        .ok_or_else(|| StoreError::InvalidKey {
            key: full.chars().take(80).collect(),
            rule: "it is not a key of its table",
        })
}
