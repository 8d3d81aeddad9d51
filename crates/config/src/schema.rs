//! What fly.toml may hold: the sections, their keys, the type of each.
//!
//! A section is declared once, by [`section!`]: that makes the Rust type and this description of
//! it, from which reading, canonical output, the JSON Schema and the reference are made.

mod json;
mod reference;

pub use json::json_schema;
pub use reference::{not_acted_on, reference};

use std::collections::BTreeMap;

use hangar_api::duration::GoDuration;
use hangar_api::machine::service::Autostop;
use serde_json::{Map, Value as Json};

/// A section: a table with these keys, in the order in which Fly writes them.
#[derive(Debug)]
pub struct Section {
    /// Its Rust type.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// Its keys.
    pub fields: &'static [Field],
}

/// A key of a section.
#[derive(Debug)]
pub struct Field {
    /// The key.
    pub key: &'static str,
    /// What it means.
    pub about: &'static str,
    /// What its value is.
    pub kind: Kind,
    /// Where it is written although it is empty.
    pub always: Always,
}

/// What a value is. In a *pointer* kind the zero value (`""`, `false`, `0`) is kept; in a plain
/// kind it is the same as absent, as in Go.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A text.
    Text,
    /// A text that may be empty.
    TextPtr,
    /// True or false.
    Flag,
    /// True, false or unset.
    FlagPtr,
    /// A whole number.
    Int,
    /// A whole number that may be 0.
    IntPtr,
    /// A number from 0 to 4294967295, or unset.
    U32Ptr,
    /// A number, or unset.
    FloatPtr,
    /// A Go duration such as `1m30s`; a bare number counts nanoseconds.
    Duration,
    /// A list of texts.
    Texts,
    /// A table of texts.
    TextMap,
    /// A table of anything.
    AnyMap,
    /// `"off"`, `"stop"`, `"suspend"`, true or false.
    Autostop,
    /// `"never"`, `"restart"`, `"always"`, or 0 to 3.
    Persist,
    /// A table.
    Table(&'static Section),
    /// A list of tables.
    List(&'static Section),
    /// A table of tables, by name.
    Named(&'static Section),
}

/// Where an empty value is written all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Always {
    /// Nowhere.
    No,
    /// In TOML.
    Toml,
    /// In JSON and YAML.
    Json,
    /// Everywhere.
    Both,
}

/// A type that [`section!`] has made.
pub trait Described {
    /// Its description.
    const SECTION: &'static Section;
}

/// Whether a value is left out when it is written.
pub trait Blank {
    /// Returns whether there is nothing to write.
    fn is_blank(&self) -> bool;
}

impl<T> Blank for Option<T> {
    fn is_blank(&self) -> bool {
        self.is_none()
    }
}

impl<T> Blank for Vec<T> {
    fn is_blank(&self) -> bool {
        self.is_empty()
    }
}

impl<V> Blank for BTreeMap<String, V> {
    fn is_blank(&self) -> bool {
        self.is_empty()
    }
}

impl Blank for Map<String, Json> {
    fn is_blank(&self) -> bool {
        self.is_empty()
    }
}

impl Blank for bool {
    fn is_blank(&self) -> bool {
        !self
    }
}

impl Blank for i64 {
    fn is_blank(&self) -> bool {
        *self == 0
    }
}

impl Section {
    /// Returns the field of this name.
    #[must_use]
    pub fn field(&self, key: &str) -> Option<&'static Field> {
        self.fields.iter().find(|f| f.key == key)
    }

    /// Returns the field that Fly takes a key for: its own name, or one that differs in case only.
    #[must_use]
    pub fn folded(&self, key: &str) -> Option<&'static Field> {
        self.field(key)
            .or_else(|| self.fields.iter().find(|f| fold(f.key) == fold(key)))
    }

    /// Returns the names of all keys.
    #[must_use]
    pub fn keys(&self) -> Vec<&'static str> {
        self.fields.iter().map(|f| f.key).collect()
    }
}

impl Field {
    /// Returns the section that its value, or each of its values, is.
    #[must_use]
    pub fn inner(&self) -> Option<&'static Section> {
        match self.kind {
            Kind::Table(inner) | Kind::List(inner) | Kind::Named(inner) => Some(inner),
            _ => None,
        }
    }
}

/// Returns a key without case: Go's decoder also takes `ſ` for s and the Kelvin sign for k.
pub(crate) fn fold(key: &str) -> String {
    let plain = |c: char| match c {
        'ſ' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    };
    key.chars().map(plain).collect()
}

/// The Rust type of a kind.
macro_rules! kind_type {
    (Text) => { Option<String> };
    (TextPtr) => { Option<String> };
    (Flag) => { bool };
    (FlagPtr) => { Option<bool> };
    (Int) => { i64 };
    (IntPtr) => { Option<i64> };
    (U32Ptr) => { Option<u32> };
    (FloatPtr) => { Option<f64> };
    (Duration) => { Option<$crate::schema::GoDurationType> };
    (Texts) => { Vec<String> };
    (TextMap) => { std::collections::BTreeMap<String, String> };
    (AnyMap) => { serde_json::Map<String, serde_json::Value> };
    (Autostop) => { Option<$crate::schema::AutostopType> };
    (Persist) => { Option<String> };
    (Table $of:ident) => { Option<$of> };
    (List $of:ident) => { Vec<$of> };
    (Named $of:ident) => { std::collections::BTreeMap<String, $of> };
}

/// The description of a kind.
macro_rules! kind_value {
    ($kind:ident) => {
        $crate::schema::Kind::$kind
    };
    ($kind:ident $of:ident) => {
        $crate::schema::Kind::$kind(<$of as $crate::schema::Described>::SECTION)
    };
}

macro_rules! key_of {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident, $key:literal) => {
        $key
    };
}

macro_rules! always_of {
    () => {
        $crate::schema::Always::No
    };
    ($always:ident) => {
        $crate::schema::Always::$always
    };
}

/// Declares a section: `key: Kind;`, `key: List(Section);`, `name = "key": Kind;`, and `, Toml`
/// behind the kind where an empty value is written there all the same.
macro_rules! section {
    (
        $(#[doc = $about:literal])*
        $name:ident {
            $(
                $(#[doc = $doc:literal])*
                $field:ident $(= $key:literal)? : $kind:ident $(($of:ident))? $(, $always:ident)? ;
            )*
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default)]
        pub struct $name {
            $(
                $(#[doc = $doc])*
                #[serde(skip_serializing_if = "crate::schema::Blank::is_blank" $(, rename = $key)?)]
                pub $field: kind_type!($kind $($of)?),
            )*
        }

        impl $crate::schema::Described for $name {
            const SECTION: &'static $crate::schema::Section = &$crate::schema::Section {
                name: stringify!($name),
                about: concat!($($about, "\n"),*),
                fields: &[$(
                    $crate::schema::Field {
                        key: key_of!($field $(, $key)?),
                        about: concat!($($doc, "\n"),*),
                        kind: kind_value!($kind $($of)?),
                        always: always_of!($($always)?),
                    },
                )*],
            };
        }
    };
}

pub(crate) use {always_of, key_of, kind_type, kind_value, section};

/// [`GoDuration`], under a name that the macro can reach.
pub type GoDurationType = GoDuration;
/// [`Autostop`], under a name that the macro can reach.
pub type AutostopType = Autostop;
