//! An app's secrets: sealed, versioned app-wide, shown to nobody again (D12).
//!
//! Each change makes a new [`SecretSet`] under the next version. A version is never changed, so
//! that a Machine keeps, and a rollback brings back, the values that it was started with.

use std::collections::BTreeMap;

use hangar_api::id::AppName;
use hangar_api::secret::{Secret, SecretStatus, SecretValues, SecretsUpdated};
use hangar_store::tables::{SealedSecret, SecretSet, SecretSets};
use hangar_store::{Snapshot, Txn};

use crate::core::{Core, MAX_TRIES, too_contended};
use crate::error::Problem;
use crate::keyring::{Keyring, KeyringError, Sealed};
use crate::unit::Unit;

/// Most secrets of an app.
const MAX_SECRETS: usize = 500;
/// Most bytes of one value.
const MAX_VALUE: usize = 64 * 1024;

/// Returns an app's secrets without their values, by name.
pub(crate) fn list(snapshot: &Snapshot, app: &AppName, version: u64) -> Vec<Secret> {
    set_of(snapshot, app, version).map_or_else(Vec::new, |set| shown(&set))
}

/// Returns an app's secrets, each with whether its managed Machines have it.
pub(crate) fn with_status(snapshot: &Snapshot, app: &AppName, version: u64) -> Vec<Secret> {
    let units = Unit::all(snapshot, app);
    let managed = units
        .iter()
        .filter(|unit| unit.spec().config.is_managed() && unit.state().is_active());
    let versions: Vec<u64> = managed.map(|unit| unit.spec().secrets_version).collect();
    let sets: BTreeMap<u64, Vec<Secret>> = versions
        .iter()
        .map(|version| (*version, list(snapshot, app, *version)))
        .collect();
    let mut secrets = list(snapshot, app, version);
    for secret in &mut secrets {
        let have = versions
            .iter()
            .filter(|version| has(sets.get(version), secret))
            .count();
        secret.status = Some(match have {
            0 => SecretStatus::Staged,
            all if all == versions.len() => SecretStatus::Deployed,
            _ => SecretStatus::Partial,
        });
    }
    secrets
}

fn has(set: Option<&Vec<Secret>>, secret: &Secret) -> bool {
    let same = |s: &Secret| s.name == secret.name && s.digest == secret.digest;
    set.is_some_and(|set| set.iter().any(same))
}

fn shown(set: &SecretSet) -> Vec<Secret> {
    let of = |(name, sealed): (&String, &SealedSecret)| Secret {
        name: name.clone(),
        digest: sealed.digest.clone(),
        created_at: sealed.created_at,
        updated_at: sealed.updated_at,
        status: None,
    };
    set.secrets.iter().map(of).collect()
}

fn set_of(snapshot: &Snapshot, app: &AppName, version: u64) -> Option<SecretSet> {
    let record = snapshot.get::<SecretSets>(&(app.clone(), version))?;
    Some(record.value.clone())
}

/// Sets and removes secrets: a value sets, `None` removes. Equal values change nothing.
pub(crate) async fn update(
    core: &Core,
    app: &AppName,
    changes: &BTreeMap<String, Option<String>>,
) -> Result<SecretsUpdated, Problem> {
    for (name, value) in changes {
        check(name, value.as_deref())?;
    }
    for _ in 0..MAX_TRIES {
        let record = core.app(app)?;
        let current = record.value.secrets_version;
        let old = set_of(&core.cache.snapshot(), app, current).unwrap_or_default();
        let version = current + 1;
        let new = changed(core, app, &old, version, changes)?;
        if new == old {
            return Ok(answer(&old, current));
        }
        if new.secrets.len() > MAX_SECRETS {
            return Err(Problem::Unprocessable(format!(
                "an app has at most {MAX_SECRETS} secrets"
            )));
        }
        let mut app_record = record.value.clone();
        app_record.secrets_version = version;
        let txn = Txn::new()
            .update(&record, &app_record)
            .create::<SecretSets>(&(app.clone(), version), &new);
        if core.try_commit(txn).await?.is_some() {
            tracing::info!(app = %app, version, "secrets changed");
            return Ok(answer(&new, version));
        }
    }
    Err(too_contended())
}

fn answer(set: &SecretSet, version: u64) -> SecretsUpdated {
    SecretsUpdated {
        secrets: shown(set),
        version,
        version_legacy: version,
    }
}

fn check(name: &str, value: Option<&str>) -> Result<(), Problem> {
    let begins = name
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    let fits = name.len() <= 255 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !begins || !fits {
        let name: String = name.chars().take(80).collect();
        return Err(Problem::Unprocessable(format!(
            "secret name {name:?} is not valid: use letters, digits and underscores, not \
             beginning with a digit"
        )));
    }
    if value.is_some_and(|value| value.len() > MAX_VALUE || value.contains('\0')) {
        return Err(Problem::Unprocessable(format!(
            "the value of secret {name} is not valid: at most {MAX_VALUE} bytes, none of them zero"
        )));
    }
    Ok(())
}

fn changed(
    core: &Core,
    app: &AppName,
    old: &SecretSet,
    version: u64,
    changes: &BTreeMap<String, Option<String>>,
) -> Result<SecretSet, KeyringError> {
    let now = core.env.now();
    let mut new = old.clone();
    for (name, value) in changes {
        let Some(value) = value else {
            new.secrets.remove(name);
            continue;
        };
        let digest = core.keyring.digest(&format!("{app}/{name}"), value)?;
        let before = old.secrets.get(name);
        if before.is_some_and(|sealed| sealed.digest == digest) {
            continue;
        }
        let Sealed { key, nonce, text } =
            core.keyring
                .seal(&core.env, &place(app, name, version), value)?;
        let sealed = SealedSecret {
            key_id: key,
            nonce,
            sealed: text,
            version,
            digest,
            created_at: before.map_or(now, |sealed| sealed.created_at),
            updated_at: now,
        };
        new.secrets.insert(name.clone(), sealed);
    }
    Ok(new)
}

/// Returns the place that a value is sealed for: its associated data.
fn place(app: &AppName, name: &str, version: u64) -> String {
    format!("{app}/{name}/{version}")
}

/// Returns the values of a version of an app's secrets, for the host of a Machine.
pub(crate) fn values(
    keyring: &Keyring,
    snapshot: &Snapshot,
    app: &AppName,
    version: u64,
) -> Result<SecretValues, KeyringError> {
    if version == 0 {
        return Ok(SecretValues::default());
    }
    let Some(record) = snapshot.get::<SecretSets>(&(app.clone(), version)) else {
        let app = app.clone();
        return Err(KeyringError::NotKept { app, version });
    };
    let mut values = BTreeMap::new();
    for (name, sealed) in &record.value.secrets {
        let text = Sealed {
            key: sealed.key_id.clone(),
            nonce: sealed.nonce.clone(),
            text: sealed.sealed.clone(),
        };
        let value = keyring.open(&place(app, name, sealed.version), &text)?;
        values.insert(name.clone(), value);
    }
    Ok(SecretValues(values))
}

/// Refuses a version whose secrets do not open: its Machine would never get to its host.
pub(crate) fn ensure_open(core: &Core, app: &AppName, version: u64) -> Result<(), KeyringError> {
    values(&core.keyring, &core.cache.snapshot(), app, version).map(drop)
}
