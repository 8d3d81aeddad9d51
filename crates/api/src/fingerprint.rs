//! Fingerprints of certificates: how a person, and then a client, knows a server that has a
//! certificate of its own making.

use std::fmt;
use std::str::FromStr;

use ring::digest;
use serde::{Deserialize, Serialize};

const LEN: usize = 32;

/// The SHA-256 of a certificate's DER form. Written as `AB:CD:...`; read with or without colons.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fingerprint([u8; LEN]);

/// Why a text is no fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no fingerprint: write the 64 hexadecimal digits that the server has printed")]
pub struct InvalidFingerprint(pub String);

// === impl Fingerprint ===

impl Fingerprint {
    /// Returns the fingerprint of a certificate in DER form.
    #[must_use]
    pub fn of(der: &[u8]) -> Self {
        let mut bytes = [0; LEN];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, der).as_ref());
        Self(bytes)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs: Vec<String> = self.0.iter().map(|byte| format!("{byte:02X}")).collect();
        f.write_str(&pairs.join(":"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl FromStr for Fingerprint {
    type Err = InvalidFingerprint;

    fn from_str(text: &str) -> Result<Self, InvalidFingerprint> {
        let invalid = || InvalidFingerprint(text.chars().take(120).collect());
        let bare = text.trim();
        let bare = bare
            .strip_prefix("SHA256:")
            .unwrap_or(bare)
            .replace(':', "");
        if bare.len() != 2 * LEN || !bare.is_ascii() {
            return Err(invalid());
        }
        let mut bytes = [0; LEN];
        for (at, byte) in bytes.iter_mut().enumerate() {
            let pair = &bare[2 * at..2 * at + 2];
            *byte = u8::from_str_radix(pair, 16).map_err(|_| invalid())?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = InvalidFingerprint;

    fn try_from(text: String) -> Result<Self, InvalidFingerprint> {
        text.parse()
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        fingerprint.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_as_it_is_written_and_as_other_tools_write_it() {
        let print = Fingerprint::of(b"certificate");
        let text = print.to_string();
        assert_eq!(text.len(), 95);
        for form in [
            text.clone(),
            text.replace(':', "").to_lowercase(),
            format!("SHA256:{text} "),
        ] {
            assert_eq!(form.parse(), Ok(print), "{form}");
        }
        for bad in [
            "",
            "AB:CD",
            &text[1..],
            &text.replace('A', "G"),
            &"é".repeat(32),
        ] {
            assert!(bad.parse::<Fingerprint>().is_err(), "{bad}");
        }
        assert_ne!(print, Fingerprint::of(b"another"));
    }
}
