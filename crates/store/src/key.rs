//! Keys of tables: typed values to text and back.
//!
//! A key is the table's prefix and one to three parts, divided by `/`. A part is written as it
//! is, but for bytes outside `A-Z a-z 0-9 . _ -`, which are written `%XX`: any text can be a part, and
//! two different texts never meet. Numbers are padded, so that they sort as numbers.

use std::str::FromStr;

use hangar_api::certificate::Hostname;
use hangar_api::id::{
    AppName, DeploymentId, GroupName, HostId, MachineId, OpId, OrgSlug, Region, ReleaseId, SlotId,
    SnapshotId, VolumeId,
};

/// One part of a key.
pub trait KeyPart: Clone + Ord + std::fmt::Debug + Send + Sync + 'static {
    /// Returns the text, not escaped.
    fn to_part(&self) -> String;
    /// Returns the value of a text, or `None` if it is none.
    fn from_part(text: &str) -> Option<Self>;
}

/// The key of a table: one part or several.
pub trait TableKey: Clone + Ord + std::fmt::Debug + Send + Sync + 'static {
    /// Returns the escaped parts, divided by `/`.
    fn encode(&self) -> String;
    /// Returns the key of such a text, or `None` if it is none.
    fn decode(text: &str) -> Option<Self>;
}

macro_rules! text_parts {
    ($($id:ident),*) => {$(
        impl KeyPart for $id {
            fn to_part(&self) -> String {
                self.as_str().to_owned()
            }
            fn from_part(text: &str) -> Option<Self> {
                Self::from_str(text).ok()
            }
        }
    )*};
}
text_parts!(
    AppName,
    DeploymentId,
    GroupName,
    HostId,
    Hostname,
    MachineId,
    OpId,
    OrgSlug,
    Region,
    ReleaseId,
    SlotId,
    SnapshotId,
    VolumeId
);

impl KeyPart for String {
    fn to_part(&self) -> String {
        self.clone()
    }
    fn from_part(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
}

impl KeyPart for u64 {
    fn to_part(&self) -> String {
        format!("{self:020}")
    }
    fn from_part(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl<T: KeyPart> TableKey for T {
    fn encode(&self) -> String {
        escape(&self.to_part())
    }
    fn decode(text: &str) -> Option<Self> {
        T::from_part(&unescape(text)?)
    }
}

impl<A: KeyPart, B: KeyPart> TableKey for (A, B) {
    fn encode(&self) -> String {
        format!("{}/{}", self.0.encode(), self.1.encode())
    }
    fn decode(text: &str) -> Option<Self> {
        let (a, b) = text.split_once('/')?;
        Some((A::decode(a)?, B::decode(b)?))
    }
}

impl<A: KeyPart, B: KeyPart, C: KeyPart> TableKey for (A, B, C) {
    fn encode(&self) -> String {
        let (a, b, c) = (self.0.encode(), self.1.encode(), self.2.encode());
        format!("{a}/{b}/{c}")
    }
    fn decode(text: &str) -> Option<Self> {
        let (a, rest) = text.split_once('/')?;
        let (b, c) = rest.split_once('/')?;
        Some((A::decode(a)?, B::decode(b)?, C::decode(c)?))
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-".contains(&byte)
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if is_plain(byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn unescape(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        if *byte != b'%' {
            if !is_plain(*byte) {
                return None;
            }
            out.push(*byte);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        out.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_can_be_a_part_and_comes_back() {
        for text in ["", "a", "a/b", "%", "%41", "ä ö", "x\0y", "..", "a%2Fb"] {
            let key = (text.to_owned(), 7_u64);
            let encoded = key.encode();
            assert!(encoded.bytes().all(|b| b.is_ascii_graphic()), "{encoded}");
            assert_eq!(<(String, u64)>::decode(&encoded), Some(key));
        }
    }

    #[test]
    fn numbers_sort_as_numbers() {
        assert!(9_u64.encode() < 10_u64.encode());
        assert!(u64::MAX.encode() > 10_u64.encode());
    }

    #[test]
    fn a_key_of_another_shape_is_none() {
        assert_eq!(<(String, String)>::decode("alone"), None);
        assert_eq!(String::decode("a/b"), None);
        assert_eq!(String::decode("%4"), None);
        assert_eq!(String::decode("%zz"), None);
        assert_eq!(AppName::decode("Not-An-App"), None);
    }
}
