//! JSON, as Go writes it.

use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use super::{Out, Pairs, with_blank_lines};

pub(super) fn text(pairs: Pairs) -> String {
    let plain = serde_json::to_string_pretty(&Out::Table(pairs)).unwrap_or_default();
    // These stand in texts only, where Go escapes them.
    let escapes = [
        ('<', "\\u003c"),
        ('>', "\\u003e"),
        ('&', "\\u0026"),
        ('\u{2028}', "\\u2028"),
        ('\u{2029}', "\\u2029"),
    ];
    let plain = escapes
        .iter()
        .fold(plain, |text, (c, escape)| text.replace(*c, escape));
    with_blank_lines(&plain)
}

impl Serialize for Out {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Value(value) => value.serialize(serializer),
            Self::Float(number) => number.serialize(serializer),
            Self::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    list.serialize_element(item)?;
                }
                list.end()
            }
            Self::Tables(tables) => {
                let mut list = serializer.serialize_seq(Some(tables.len()))?;
                for table in tables {
                    list.serialize_element(&Ordered(table))?;
                }
                list.end()
            }
            Self::Table(pairs) => Ordered(pairs).serialize(serializer),
        }
    }
}

struct Ordered<'a>(&'a Pairs);

impl Serialize for Ordered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}
