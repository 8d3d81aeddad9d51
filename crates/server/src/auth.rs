//! Tokens: who may call the API. Their texts are kept nowhere but in the file of the first one.

pub(crate) mod caller;
pub(crate) mod verify;

use std::io;
use std::path::{Path, PathBuf};

use hangar_api::env::Env;
use hangar_store::tables::{TokenKind, TokenRecord, Tokens};
use hangar_store::{Cache, Snapshot, StoreError, Txn};

pub use self::caller::Caller;
use self::caller::Grant;
use crate::core::Core;
use crate::hex;
use crate::keyring::write_private;

/// What every token of ours begins with.
const PREFIX: &str = "hangar_";
/// What the first token's bearer is called.
const ADMIN: &str = "admin";
/// Random bytes of a token.
const TOKEN_LEN: usize = 32;

/// Why there is no admin token.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The file cannot be read or written.
    #[error("use the token file {path}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{path} holds no token of Hangar; remove it, and a new one is made at the next start")]
    Malformed {
        /// Where.
        path: PathBuf,
    },
    /// The store failed.
    #[error("record the admin token")]
    Store(#[from] StoreError),
}

/// Makes sure that there is an admin token: in the file, readable by its owner alone, and hashed
/// in the store. May be repeated; a token that is there is kept. Where the file holds another one
/// than before, the one before is no longer let in.
pub(crate) async fn ensure_admin(path: &Path, cache: &Cache, env: &Env) -> Result<(), AuthError> {
    let token = read_or_make(path, env)?;
    let hash = verify::hash(&token);
    if cache.get::<Tokens>(&hash).is_some() {
        return Ok(());
    }
    let record = TokenRecord {
        id: String::new(),
        name: ADMIN.to_owned(),
        user: ADMIN.to_owned(),
        created_at: env.now(),
        expires_at: None,
        kind: TokenKind::Admin,
        org: None,
        app: None,
        made_by: String::new(),
        parent: None,
        caveats: Vec::new(),
        key_id: None,
        revoked_at: None,
    };
    let mut txn = Txn::new().put::<Tokens>(&hash, &record);
    for former in cache.snapshot().all::<Tokens>() {
        if former.value.kind == TokenKind::Admin {
            txn = txn.remove(former);
        }
    }
    cache.commit(txn).await?;
    tracing::info!(path = %path.display(), "admin token made");
    Ok(())
}

fn read_or_make(path: &Path, env: &Env) -> Result<String, AuthError> {
    let failed = |source| AuthError::Io {
        path: path.to_owned(),
        source,
    };
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let token = text.trim();
            if !token.starts_with(PREFIX) {
                return Err(AuthError::Malformed {
                    path: path.to_owned(),
                });
            }
            Ok(token.to_owned())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut bytes = [0; TOKEN_LEN];
            env.secret_bytes(&mut bytes);
            let token = format!("{PREFIX}{}", hex::encode(&bytes));
            write_private(path, format!("{token}\n").as_bytes()).map_err(failed)?;
            Ok(token)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Returns who sends an `Authorization` header; nobody when it carries no token that is good.
pub(crate) fn caller(core: &Core, header: &str) -> Option<Caller> {
    let now = core.env.now();
    let snapshot = core.cache.snapshot();
    let grants = verify::presented(header)
        .into_iter()
        .filter_map(|token| opaque(&snapshot, &token))
        .filter(|record| record.expires_at.is_none_or(|end| now < end))
        .filter(|record| record.revoked_at.is_none())
        .map(|record| Grant {
            id: record.id.clone(),
            user: record.user.clone(),
            caveats: record.caveats.clone(),
        });
    Caller::of(grants.collect(), now)
}

/// Returns the record of a token whose text is all that there is to it.
fn opaque<'a>(snapshot: &'a Snapshot, token: &str) -> Option<&'a TokenRecord> {
    let record = snapshot.get::<Tokens>(&verify::hash(token))?;
    Some(&record.value).filter(|record| record.key_id.is_none())
}
