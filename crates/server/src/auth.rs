//! Tokens: who may call the API. Their texts are kept nowhere but in the file of the first one.

pub(crate) mod caller;
pub(crate) mod tokens;
pub(crate) mod verify;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hangar_api::Timestamp;
use hangar_api::env::Env;
use hangar_api::macaroon::{self, Macaroon};
use hangar_api::rights::Caveat;
use hangar_api::token::TokenKind;
use hangar_store::tables::{TokenRecord, Tokens};
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
/// How far a token may be from the one that was not made by another.
pub(crate) const MAX_GENERATIONS: usize = 8;

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
            let token = opaque(env);
            write_private(path, format!("{token}\n").as_bytes()).map_err(failed)?;
            Ok(token)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Returns the text of a new opaque token.
pub(crate) fn opaque(env: &Env) -> String {
    let mut bytes = [0; TOKEN_LEN];
    env.secret_bytes(&mut bytes);
    format!("{PREFIX}{}", hex::encode(&bytes))
}

/// Returns who sends an `Authorization` header; nobody when it carries no token that is good.
pub(crate) fn caller(core: &Core, header: &str) -> Option<Caller> {
    of_tokens(core, &verify::presented(header))
}

/// Returns who has these tokens; nobody when none of them is good.
pub(crate) fn of_tokens(core: &Core, tokens: &[String]) -> Option<Caller> {
    let now = core.env.now();
    let snapshot = core.cache.snapshot();
    let good = tokens
        .iter()
        .filter_map(|token| grant(core, &snapshot, token, now));
    Caller::of(good.collect(), now)
}

/// Returns what a token grants; nothing when it is not known, not genuine, revoked or over.
pub(crate) fn grant(
    core: &Core,
    snapshot: &Snapshot,
    token: &str,
    now: Timestamp,
) -> Option<Grant> {
    let (key, added) = match token.starts_with(macaroon::PREFIX) {
        true => genuine(core, snapshot, token)?,
        false => (verify::hash(token), Vec::new()),
    };
    let record = snapshot.get::<Tokens>(&key)?;
    // A macaroon's id is no opaque token's digest, and the other way round.
    if record.value.key_id.is_some() != token.starts_with(macaroon::PREFIX) {
        return None;
    }
    is_good(snapshot, &record.value, now).then_some(())?;
    let mut caveats = record.value.caveats.clone();
    let new = added
        .into_iter()
        .filter(|one| !record.value.caveats.contains(one));
    caveats.extend(new);
    Some(Grant {
        key,
        record: Arc::clone(record),
        caveats,
    })
}

/// Returns the key of a macaroon's record and its caveats, when it was made here and every caveat
/// is as it was added.
fn genuine(core: &Core, snapshot: &Snapshot, token: &str) -> Option<(String, Vec<Caveat>)> {
    let read = Macaroon::parse(token).ok()?;
    let id = String::from_utf8(read.key_id().to_vec()).ok()?;
    let record = snapshot.get::<Tokens>(&id)?;
    let key = core
        .keyring
        .macaroon_key(record.value.key_id.as_ref()?, &id)?;
    let genuine = read.is_genuine(&key);
    genuine.then(|| (id, read.caveats().cloned().collect()))
}

/// Returns whether a token is neither revoked nor over, and neither is the one that made it.
fn is_good(snapshot: &Snapshot, token: &TokenRecord, now: Timestamp) -> bool {
    let mut token = token;
    for _ in 0..=MAX_GENERATIONS {
        if token.revoked_at.is_some() || token.expires_at.is_some_and(|end| end <= now) {
            return false;
        }
        let Some(parent) = &token.parent else {
            return true;
        };
        let Some(parent) = snapshot.get::<Tokens>(parent) else {
            return false;
        };
        token = &parent.value;
    }
    false
}
