//! Fly's macaroons, `fm2_...`: tokens that carry their own caveats, and that every bearer can
//! limit further and nobody can widen (superfly/macaroon `macaroon.go`; flyctl-wire.md 2.1).
//!
//! ```text
//! fm2_ base64( [ [key id, random, is a proof], location, [kind, body, kind, body, ...], tail ] )
//! tail = HMAC(... HMAC(HMAC(key, nonce), [kind, body]) ..., [kind, body])       MessagePack, SHA-256
//! ```
//!
//! Who has the last tail can add a caveat; who has the key can tell whether all of them are as
//! they were added. What is signed are the bytes that stand in the token, so that a caveat of a
//! kind that is not known here is kept as it is (and permits nothing). No I/O, no randomness.

mod msgpack;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::hmac;

use crate::Timestamp;
use crate::rights::Caveat;

/// What every macaroon begins with.
pub const PREFIX: &str = "fm2_";
/// Where macaroons of the platform are good: clients look for this one.
pub const LOCATION: &str = "https://api.fly.io/v1";
/// Most bytes of one, before base64.
pub const MAX_LEN: usize = 16 * 1024;
/// Most caveats of one.
pub const MAX_CAVEATS: usize = 64;
/// Bytes of a key and of a tail.
pub const KEY_LEN: usize = 32;
/// Random bytes of a nonce.
pub const NONCE_LEN: usize = 16;

/// A macaroon: not yet known to be genuine, unless it was minted here.
#[derive(Clone, PartialEq, Eq)]
pub struct Macaroon {
    /// The nonce as it stands in the token.
    nonce: Vec<u8>,
    key_id: Vec<u8>,
    is_proof: bool,
    location: String,
    caveats: Vec<Signed>,
    tail: Vec<u8>,
}

/// A caveat and the bytes that are signed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Signed {
    caveat: Caveat,
    /// Kind and body.
    raw: Vec<u8>,
}

/// Why a text is no macaroon, or a caveat cannot be added to one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MacaroonError {
    /// Another kind of token.
    #[error("not a macaroon: it does not begin with {PREFIX}")]
    OtherToken,
    /// What follows cannot be read.
    #[error("not a macaroon: {0}")]
    Malformed(String),
    /// Too much of it.
    #[error("a macaroon has at most {MAX_LEN} bytes and {MAX_CAVEATS} caveats")]
    TooLong,
    /// Nothing can be added.
    #[error("this macaroon is a proof, and takes no more caveats")]
    Proof,
    /// The caveat cannot be written.
    #[error("a caveat of an unknown kind cannot be added")]
    Unknown,
}

// === impl Macaroon ===

impl std::fmt::Debug for Macaroon {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The tail is the secret.
        f.debug_struct("Macaroon")
            .field("location", &self.location)
            .field("caveats", &self.caveats().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl Macaroon {
    /// Returns a new macaroon without caveats: may everything until some are added. `random`
    /// makes it another one than all that have the same key id.
    #[must_use]
    pub fn mint(key_id: &[u8], random: &[u8; NONCE_LEN], key: &[u8; KEY_LEN]) -> Self {
        let nonce = msgpack::nonce(key_id, random);
        Self {
            tail: sign(key, &nonce),
            nonce,
            key_id: key_id.to_vec(),
            is_proof: false,
            location: LOCATION.to_owned(),
            caveats: Vec::new(),
        }
    }

    /// Reads a macaroon's text.
    pub fn parse(text: &str) -> Result<Self, MacaroonError> {
        let encoded = text.strip_prefix(PREFIX).ok_or(MacaroonError::OtherToken)?;
        if encoded.len() > MAX_LEN * 4 / 3 + 4 {
            return Err(MacaroonError::TooLong);
        }
        let bytes = BASE64
            .decode(encoded)
            .map_err(|error| MacaroonError::Malformed(error.to_string()))?;
        let parts = msgpack::token(&bytes).map_err(MacaroonError::Malformed)?;
        if parts.caveats.len() > MAX_CAVEATS {
            return Err(MacaroonError::TooLong);
        }
        let caveats = parts.caveats.into_iter();
        Ok(Self {
            nonce: parts.nonce,
            key_id: parts.key_id,
            is_proof: parts.is_proof,
            location: parts.location,
            caveats: caveats
                .map(|(caveat, raw)| Signed { caveat, raw })
                .collect(),
            tail: parts.tail,
        })
    }

    /// Returns its text, which is the secret.
    #[must_use]
    pub fn text(&self) -> String {
        let caveats: Vec<&[u8]> = self.caveats.iter().map(|one| one.raw.as_slice()).collect();
        let bytes = msgpack::write_token(&self.nonce, &self.location, &caveats, &self.tail);
        format!("{PREFIX}{}", BASE64.encode(bytes))
    }

    /// Returns what names the key that it was made with.
    #[must_use]
    pub fn key_id(&self) -> &[u8] {
        &self.key_id
    }

    /// Returns where it is good.
    #[must_use]
    pub fn location(&self) -> &str {
        &self.location
    }

    /// Returns its caveats, whether genuine or not.
    pub fn caveats(&self) -> impl Iterator<Item = &Caveat> {
        self.caveats.iter().map(|one| &one.caveat)
    }

    /// Returns when it ends by its own caveats, in Unix seconds.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        fn ends(caveat: &Caveat) -> Option<i64> {
            match caveat {
                Caveat::ValidityWindow { not_after, .. } => Some(*not_after),
                Caveat::IfPresent { ifs, .. } => ifs.iter().filter_map(ends).min(),
                _ => None,
            }
        }
        let second = self.caveats().filter_map(ends).min()?;
        Timestamp::from_second(second).ok()
    }

    /// Adds a caveat. One that is there already is not added again.
    pub fn add(&mut self, caveat: &Caveat) -> Result<(), MacaroonError> {
        if self.is_proof {
            return Err(MacaroonError::Proof);
        }
        let raw = msgpack::caveat(caveat).ok_or(MacaroonError::Unknown)?;
        if self.caveats.iter().any(|one| one.raw == raw) {
            return Ok(());
        }
        self.tail = sign(&self.tail, &msgpack::one_caveat(&raw));
        self.caveats.push(Signed {
            caveat: caveat.clone(),
            raw,
        });
        if self.caveats.len() > MAX_CAVEATS || self.text().len() > MAX_LEN {
            return Err(MacaroonError::TooLong);
        }
        Ok(())
    }

    /// Returns whether it was made with this key and every caveat is as it was added. Takes as
    /// long for a tail that is nearly right as for any other.
    #[must_use]
    pub fn is_genuine(&self, key: &[u8; KEY_LEN]) -> bool {
        // Proofs are what third parties say, and this server asks none.
        if self.is_proof || self.location != LOCATION {
            return false;
        }
        let mut key = key.to_vec();
        let mut signed = self.nonce.clone();
        for caveat in &self.caveats {
            key = sign(&key, &signed);
            signed = msgpack::one_caveat(&caveat.raw);
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        hmac::verify(&key, &signed, &self.tail).is_ok()
    }
}

fn sign(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, bytes).as_ref().to_vec()
}

/// Returns the key of one token, made from a key that is kept: who knows one token's key knows no
/// other's.
#[must_use]
pub fn derived_key(root: &[u8; KEY_LEN], key_id: &[u8]) -> [u8; KEY_LEN] {
    let named = [b"hangar macaroon\0".as_slice(), key_id].concat();
    let mut key = [0; KEY_LEN];
    key.copy_from_slice(&sign(root, &named));
    key
}

#[cfg(test)]
mod tests;
