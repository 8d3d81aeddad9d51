//! Sealing secrets under the host's own key (D12): what a host keeps so that it can start its
//! Machines again without a server.
//!
//! XChaCha20-Poly1305 with a fresh nonce for each value; Machine and generation are bound in, so
//! that one record's secrets cannot be read as another's.

use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use hangar_api::env::Env;
use hangar_api::secret::SecretValues;
use serde::{Deserialize, Serialize};

use super::{Files, LedgerError};

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;

/// The host's own key.
#[derive(Clone)]
pub struct HostKey(XChaCha20Poly1305);

/// Secrets, sealed. Safe to write anywhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// Which key: the only one so far is 1.
    key: u32,
    nonce: String,
    text: String,
}

// === impl HostKey ===

impl fmt::Debug for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HostKey(hidden)")
    }
}

impl HostKey {
    /// Reads the key at `keyring/host.key`, or makes it (mode 0600) where there is none.
    pub async fn ensure(
        data_dir: &Path,
        files: &dyn Files,
        env: &Env,
    ) -> Result<Self, LedgerError> {
        let path = data_dir.join("keyring").join("host.key");
        let io = |source| LedgerError::Io {
            path: path.clone(),
            source,
        };
        if let Some(found) = files.read(path.clone()).await.map_err(io)? {
            let key = <[u8; KEY_BYTES]>::try_from(found.as_slice())
                .map_err(|_| LedgerError::BadKey(path.clone()))?;
            return Ok(Self::from_bytes(key));
        }
        let mut key = [0_u8; KEY_BYTES];
        env.secret_bytes(&mut key);
        files.write(path.clone(), key.to_vec()).await.map_err(io)?;
        Ok(Self::from_bytes(key))
    }

    fn from_bytes(key: [u8; KEY_BYTES]) -> Self {
        Self(XChaCha20Poly1305::new(&Key::from(key)))
    }

    /// Seals secrets; `about` is bound in and must be given again to open them.
    #[must_use]
    pub fn seal(&self, secrets: &SecretValues, about: &str, env: &Env) -> Sealed {
        let mut nonce = [0_u8; NONCE_BYTES];
        env.secret_bytes(&mut nonce);
        let plain = serde_json::to_vec(secrets).expect("a map of texts is JSON");
        let payload = Payload {
            msg: &plain,
            aad: about.as_bytes(),
        };
        let sealed = self
            .0
            .encrypt(&XNonce::from(nonce), payload)
            .expect("the text is shorter than the cipher's limit of 256 GiB");
        Sealed {
            key: 1,
            nonce: STANDARD.encode(nonce),
            text: STANDARD.encode(sealed),
        }
    }

    /// Opens what was sealed; `None` when it was not sealed by this key for `about`.
    #[must_use]
    pub fn open(&self, sealed: &Sealed, about: &str) -> Option<SecretValues> {
        let nonce = <[u8; NONCE_BYTES]>::try_from(STANDARD.decode(&sealed.nonce).ok()?).ok()?;
        let text = STANDARD.decode(&sealed.text).ok()?;
        let payload = Payload {
            msg: &text,
            aad: about.as_bytes(),
        };
        let plain = self.0.decrypt(&XNonce::from(nonce), payload).ok()?;
        serde_json::from_slice(&plain).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sealed_secrets_open_only_with_their_key_and_for_what_they_were_sealed() {
        let env = Env::simulated(1);
        let files = super::super::MemoryFiles::default();
        let key = HostKey::ensure(Path::new("/d"), &files, &env)
            .await
            .unwrap();
        let again = HostKey::ensure(Path::new("/d"), &files, &env)
            .await
            .unwrap();
        let other = HostKey::from_bytes([7; KEY_BYTES]);
        let secrets = SecretValues([("TOKEN".to_owned(), "s3cret".to_owned())].into());
        let sealed = key.seal(&secrets, "m/1", &env);
        assert!(!serde_json::to_string(&sealed).unwrap().contains("s3cret"));
        assert_eq!(again.open(&sealed, "m/1"), Some(secrets));
        assert_eq!(again.open(&sealed, "m/2"), None);
        assert_eq!(other.open(&sealed, "m/1"), None);
    }
}
