//! The keys that secrets are encrypted under (D12). They live in a directory beside the store,
//! never in it, so that a copy of the store alone tells no secret.
//!
//! The directory holds one file of 32 bytes a key, named `<key id>.key`; the greatest id seals,
//! every one opens. Key ids grow, so adding a file is a rotation.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use hangar_api::env::Env;
use hangar_api::id::AppName;
use sha2::{Digest as _, Sha256};

use crate::hex;

const KEY_LEN: usize = 32;
const NONCE_LEN: usize = 24;

/// Keys by id.
pub(crate) struct Keyring {
    keys: BTreeMap<String, [u8; KEY_LEN]>,
}

/// A text that only the keyring can read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sealed {
    /// Which key.
    pub(crate) key: String,
    /// The nonce, base64.
    pub(crate) nonce: String,
    /// The ciphertext with its tag, base64.
    pub(crate) text: String,
}

/// Why the keyring cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// A file cannot be read or written.
    #[error("use the keyring at {path}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is no key.
    #[error(
        "{path} is not a key of 32 bytes; put the right file back, or remove it if no secret needs it"
    )]
    Malformed {
        /// Where.
        path: PathBuf,
    },
    /// The key that a secret needs is missing.
    #[error("the keyring has no key {key}; put its file back into the keyring directory")]
    Missing {
        /// Which.
        key: String,
    },
    /// A version of an app's secrets is not there.
    #[error(
        "version {version} of the secrets of app {app} is not kept any more; deploy the app again"
    )]
    NotKept {
        /// Whose.
        app: AppName,
        /// Which.
        version: u64,
    },
    /// The text does not open: it was changed, or belongs elsewhere.
    #[error("a stored secret does not open with key {key}: it was damaged or moved")]
    Damaged {
        /// Which key.
        key: String,
    },
}

// === impl Keyring ===

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyring")
            .field("keys", &self.keys.keys().collect::<Vec<_>>())
            .finish()
    }
}

impl Keyring {
    /// Reads the keys of a directory; makes both where there are none.
    pub(crate) fn ensure(dir: &Path, env: &Env) -> Result<Self, KeyringError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| KeyringError::Io { path, source }
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(failed(dir))?;
        let mut keys = BTreeMap::new();
        for entry in fs::read_dir(dir).map_err(failed(dir))? {
            let path = entry.map_err(failed(dir))?.path();
            if path.extension().is_none_or(|extension| extension != "key") {
                continue;
            }
            let bytes = fs::read(&path).map_err(failed(&path))?;
            let key = <[u8; KEY_LEN]>::try_from(bytes)
                .map_err(|_| KeyringError::Malformed { path: path.clone() })?;
            if let Some(id) = path.file_stem().and_then(|stem| stem.to_str()) {
                keys.insert(id.to_owned(), key);
            }
        }
        if keys.is_empty() {
            let mut key = [0; KEY_LEN];
            env.secret_bytes(&mut key);
            let id = format!("{:012}", env.now().as_second());
            let path = dir.join(format!("{id}.key"));
            write_private(&path, &key).map_err(failed(&path))?;
            keys.insert(id, key);
        }
        Ok(Self { keys })
    }

    /// Encrypts a text for one place: it opens nowhere else.
    pub(crate) fn seal(&self, env: &Env, place: &str, text: &str) -> Result<Sealed, KeyringError> {
        let (id, key) = self.current()?;
        let mut nonce = [0; NONCE_LEN];
        env.secret_bytes(&mut nonce);
        let payload = Payload {
            msg: text.as_bytes(),
            aad: place.as_bytes(),
        };
        let sealed = XChaCha20Poly1305::new(&Key::from(*key))
            .encrypt(&XNonce::from(nonce), payload)
            .map_err(|_| KeyringError::Damaged { key: id.clone() })?;
        Ok(Sealed {
            key: id.clone(),
            nonce: BASE64.encode(nonce),
            text: BASE64.encode(sealed),
        })
    }

    /// Decrypts what was sealed for this place.
    pub(crate) fn open(&self, place: &str, sealed: &Sealed) -> Result<String, KeyringError> {
        let id = &sealed.key;
        let key = self
            .keys
            .get(id)
            .ok_or_else(|| KeyringError::Missing { key: id.clone() })?;
        let damaged = || KeyringError::Damaged { key: id.clone() };
        let nonce = BASE64
            .decode(&sealed.nonce)
            .ok()
            .and_then(|bytes| <[u8; NONCE_LEN]>::try_from(bytes).ok())
            .ok_or_else(damaged)?;
        let text = BASE64.decode(&sealed.text).map_err(|_| damaged())?;
        let payload = Payload {
            msg: &text,
            aad: place.as_bytes(),
        };
        let plain = XChaCha20Poly1305::new(&Key::from(*key))
            .decrypt(&XNonce::from(nonce), payload)
            .map_err(|_| damaged())?;
        String::from_utf8(plain).map_err(|_| damaged())
    }

    /// Returns 16 hexadecimal digits that change with the value and tell nothing about it.
    pub(crate) fn digest(&self, place: &str, text: &str) -> Result<String, KeyringError> {
        let (_, key) = self.current()?;
        let mut hasher = Sha256::new();
        for part in [
            b"hangar secret digest",
            key.as_slice(),
            place.as_bytes(),
            text.as_bytes(),
        ] {
            hasher.update(u64::try_from(part.len()).unwrap_or(0).to_be_bytes());
            hasher.update(part);
        }
        Ok(hex::encode(&hasher.finalize()[..8]))
    }

    /// Returns the id of the key that new macaroons are made under.
    pub(crate) fn current_id(&self) -> Result<String, KeyringError> {
        self.current().map(|(id, _)| id.clone())
    }

    /// Returns the key of one macaroon, made from a key of the ring.
    pub(crate) fn macaroon_key(&self, id: &str, token: &str) -> Option<[u8; KEY_LEN]> {
        let root = self.keys.get(id)?;
        Some(hangar_api::macaroon::derived_key(root, token.as_bytes()))
    }

    fn current(&self) -> Result<(&String, &[u8; KEY_LEN]), KeyringError> {
        self.keys
            .last_key_value()
            .ok_or_else(|| KeyringError::Missing {
                key: "of any kind".to_owned(),
            })
    }
}

/// Writes a file that only its owner can read, whole or not at all.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    match path.parent() {
        Some(dir) => fs::File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_only_where_it_was_sealed_for_and_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::real();
        let keyring = Keyring::ensure(dir.path(), &env).unwrap();
        let sealed = keyring.seal(&env, "app/A/1", "pässword").unwrap();
        assert!(!format!("{sealed:?}").contains("word"));
        let again = Keyring::ensure(dir.path(), &env).unwrap();
        assert_eq!(again.open("app/A/1", &sealed).unwrap(), "pässword");
        assert!(matches!(
            again.open("app/B/1", &sealed),
            Err(KeyringError::Damaged { .. })
        ));
        let other = tempfile::tempdir().unwrap();
        let mut stranger = Keyring::ensure(other.path(), &env).unwrap();
        assert!(stranger.open("app/A/1", &sealed).is_err());
        stranger.keys.clear();
        assert!(matches!(
            stranger.open("app/A/1", &sealed),
            Err(KeyringError::Missing { .. })
        ));
    }

    #[test]
    fn a_digest_changes_with_the_value_and_with_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::real();
        let keyring = Keyring::ensure(dir.path(), &env).unwrap();
        let digest = |text| keyring.digest("app/A", text).unwrap();
        assert_eq!(digest("x"), digest("x"));
        assert_ne!(digest("x"), digest("y"));
        assert_eq!(digest("x").len(), 16);
    }

    #[test]
    fn a_file_that_is_no_key_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("1.key"), b"short").unwrap();
        let error = Keyring::ensure(dir.path(), &Env::real()).unwrap_err();
        assert!(error.to_string().contains("1.key"), "{error}");
    }
}
