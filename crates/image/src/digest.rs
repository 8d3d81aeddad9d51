//! SHA-256 digests, and readers that compute them on the way. Used all over this crate.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::ImageError;

const PREFIX: &str = "sha256:";
const HEX_LEN: usize = 64;

/// A SHA-256 digest, written `sha256:<64 hex digits>`. Safe to use as a file name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// Computes the digest of what is read through it.
#[derive(Debug)]
pub(crate) struct HashReader<R> {
    inner: R,
    hash: Sha256,
    len: u64,
}

/// Computes the digest of what is written through it.
#[derive(Clone, Debug)]
pub(crate) struct HashWriter<W> {
    inner: W,
    hash: Sha256,
    len: u64,
}

// === impl Digest ===

impl Digest {
    /// Returns the digest of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::finish(Sha256::new_with_prefix(bytes))
    }

    fn finish(hash: Sha256) -> Self {
        let mut text = String::with_capacity(HEX_LEN);
        for byte in hash.finalize() {
            for nibble in [byte >> 4, byte & 15] {
                text.push(char::from(b"0123456789abcdef"[usize::from(nibble)]));
            }
        }
        Self(text)
    }

    /// Returns the 64 hex digits.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.0
    }
}

impl FromStr for Digest {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        let hex = text.strip_prefix(PREFIX).unwrap_or_default();
        let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if hex.len() == HEX_LEN && hex.bytes().all(lower) {
            return Ok(Self(hex.to_owned()));
        }
        Err(ImageError::broken(
            format!("digest {text:?}"),
            "expected sha256: and 64 lower-case hex digits",
        ))
    }
}

impl TryFrom<String> for Digest {
    type Error = ImageError;

    fn try_from(text: String) -> Result<Self, ImageError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// === impl HashReader ===

impl<R> HashReader<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            len: 0,
        }
    }

    /// Returns the digest of what was read and how much it was.
    pub(crate) fn finish(self) -> (Digest, u64) {
        (Digest::finish(self.hash), self.len)
    }
}

impl<R: Read> Read for HashReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.hash.update(&buf[..n]);
        self.len = self.len.saturating_add(n.try_into().unwrap_or(u64::MAX));
        Ok(n)
    }
}

// === impl HashWriter ===

impl<W> HashWriter<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            len: 0,
        }
    }

    /// Returns the digest of what was written, how much it was, and the writer.
    pub(crate) fn finish(self) -> (Digest, u64, W) {
        (Digest::finish(self.hash), self.len, self.inner)
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }
}

impl<W: Write> Write for HashWriter<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.hash.update(&buf[..n]);
        self.len = self.len.saturating_add(n.try_into().unwrap_or(u64::MAX));
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn the_digest_of_nothing_is_the_known_one() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
    }

    #[test]
    fn a_digest_that_could_be_a_path_is_refused() {
        let other = "sha512:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for text in [
            "",
            "sha256:",
            "sha256:../../etc/passwd",
            other,
            &EMPTY.to_uppercase(),
        ] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
        assert!(EMPTY.parse::<Digest>().is_ok());
    }
}
