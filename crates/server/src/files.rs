//! Large files of configurations, kept beside them (`config.files[].raw_value`).
//!
//! A record of the store has less room than a Machine's files may need. What is large is stowed: cut
//! into parts by the digest of the whole, and the configuration holds a mark in its place. Marks are
//! the server's own: hosts and clients are given the files themselves.

use std::sync::Arc;
use std::time::Duration;

use hangar_api::machine::{MachineConfig, MachineSpec};
use hangar_store::tables::{
    Deployments, FilePart, FileParts, Formations, Releases, Specs, Versions,
};
use hangar_store::{Snapshot, Table, Txn};
use jiff::SignedDuration;
use sha2::{Digest as _, Sha256};

use crate::core::Core;
use crate::error::Problem;
use crate::hex;

/// What a mark begins with. No base64 does.
const MARK: &str = "stowed:";
/// A configuration whose files have no more than this, in bytes of base64, is kept as it is.
const SMALL: usize = 256 * 1024;
/// A file of no more than this stays where it is in any case.
const SMALL_FILE: usize = 16 * 1024;
/// Bytes of a part: two fit into a transaction.
const PART: usize = 400 * 1024;
/// Most parts of all files together: they are in memory too.
const MAX_PARTS: usize = 1000;
/// Files that nobody needs are looked for this often.
const COLLECT_EVERY: Duration = Duration::from_secs(30 * 60);
/// And kept at least so long: whoever stowed them may not have written the configuration yet.
const KEPT: SignedDuration = SignedDuration::from_hours(1);

/// A file that was taken out of a configuration.
#[derive(Debug)]
pub(crate) struct Stowed {
    digest: String,
    text: String,
}

/// Puts marks in place of the large files of a configuration, and returns what they stand for.
pub(crate) fn take_out(config: &mut MachineConfig) -> Result<Vec<Stowed>, Problem> {
    let texts = || config.files.iter().filter_map(|f| f.raw_value.as_deref());
    if texts().any(|text| text.starts_with(MARK) || !text.is_ascii()) {
        return Err(Problem::Invalid(
            "invalid_argument: config.files: raw_value is not base64".to_owned(),
        ));
    }
    if texts().map(str::len).sum::<usize>() <= SMALL {
        return Ok(Vec::new());
    }
    let mut stowed = Vec::new();
    for file in &mut config.files {
        let Some(text) = file.raw_value.take_if(|text| text.len() > SMALL_FILE) else {
            continue;
        };
        let digest = hex::encode(&Sha256::digest(text.as_bytes()));
        file.raw_value = Some(format!("{MARK}{digest}"));
        stowed.push(Stowed { digest, text });
    }
    Ok(stowed)
}

/// Writes files that were taken out. May be repeated.
pub(crate) async fn keep(core: &Core, stowed: &[Stowed]) -> Result<(), Problem> {
    for file in stowed {
        let parts: Vec<&[u8]> = file.text.as_bytes().chunks(PART).collect();
        if core.cache.snapshot().count::<FileParts>() + parts.len() > MAX_PARTS {
            return Err(Problem::Exhausted(
                "the large files of all machines together have reached their limit; put files \
                 into the image"
                    .to_owned(),
            ));
        }
        for (index, part) in (0..).zip(parts) {
            // It is ASCII, so that a cut is nowhere inside a character.
            let part = FilePart {
                text: String::from_utf8_lossy(part).into_owned(),
                kept_at: core.env.now(),
            };
            let key = (file.digest.clone(), index);
            core.cache
                .commit(Txn::new().put::<FileParts>(&key, &part))
                .await?;
        }
    }
    Ok(())
}

/// Returns whether a configuration has marks.
pub(crate) fn has_marks(config: &MachineConfig) -> bool {
    let is_mark = |text: &str| text.starts_with(MARK);
    config
        .files
        .iter()
        .any(|file| file.raw_value.as_deref().is_some_and(is_mark))
}

/// Puts the files back that marks stand for.
pub(crate) fn put_back(snapshot: &Snapshot, config: &mut MachineConfig) {
    for file in &mut config.files {
        let mark = file.raw_value.as_deref();
        let Some(digest) = mark.and_then(|text| text.strip_prefix(MARK)) else {
            continue;
        };
        let digest = digest.to_owned();
        let parts = snapshot.under::<FileParts, _>(&digest);
        file.raw_value = Some(parts.map(|part| part.value.text.as_str()).collect());
    }
}

/// Returns a spec as hosts get it.
pub(crate) fn whole(snapshot: &Snapshot, spec: &MachineSpec) -> MachineSpec {
    let mut spec = spec.clone();
    put_back(snapshot, &mut spec.config);
    spec
}

/// Removes files that nobody needs, from time to time, until the server stops.
pub(crate) async fn run(core: Arc<Core>) {
    loop {
        tokio::select! {
            biased;
            () = core.stop.cancelled() => return,
            () = tokio::time::sleep(COLLECT_EVERY) => {}
        }
        if let Err(error) = collect(&core).await {
            tracing::warn!(error = %error, "large files not collected");
        }
    }
}

async fn collect(core: &Core) -> Result<(), hangar_store::StoreError> {
    let snapshot = core.cache.snapshot();
    let now = core.env.now();
    let old = snapshot
        .all::<FileParts>()
        .filter(|part| now.duration_since(part.value.kept_at) > KEPT);
    let old: Vec<_> = old.map(|part| part.key.clone()).collect();
    let mut needed = String::new();
    if !old.is_empty() {
        named::<Specs>(&snapshot, &mut needed);
        named::<Versions>(&snapshot, &mut needed);
        named::<Formations>(&snapshot, &mut needed);
        named::<Deployments>(&snapshot, &mut needed);
        named::<Releases>(&snapshot, &mut needed);
    }
    drop(snapshot);
    for key in old.into_iter().filter(|key| !needed.contains(&key.0)) {
        core.cache
            .commit(Txn::new().delete::<FileParts>(&key))
            .await?;
    }
    Ok(())
}

/// Adds the digests that records of a table name.
fn named<T: Table>(snapshot: &Snapshot, needed: &mut String) {
    for record in snapshot.all::<T>() {
        let text = serde_json::to_string(&record.value).unwrap_or_default();
        for (at, _) in text.match_indices(MARK) {
            let rest = &text[at + MARK.len()..];
            needed.extend(rest.chars().take(64));
            needed.push(' ');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(files: &[&str]) -> MachineConfig {
        let files: Vec<_> = files
            .iter()
            .map(|text| serde_json::json!({"guest_path": "/f", "raw_value": text}))
            .collect();
        serde_json::from_value(serde_json::json!({"image": "x", "files": files})).unwrap()
    }

    #[test]
    fn only_what_is_large_is_taken_out() {
        let small = "a".repeat(SMALL_FILE);
        let large = "b".repeat(SMALL);
        let mut few = config(&[&large]);
        assert!(take_out(&mut few).unwrap().is_empty());
        assert!(!has_marks(&few));
        let mut many = config(&[&small, &large]);
        let stowed = take_out(&mut many).unwrap();
        assert_eq!(stowed.len(), 1);
        assert!(has_marks(&many));
        assert_eq!(many.files[0].raw_value.as_deref(), Some(small.as_str()));
        let mark = many.files[1].raw_value.clone().unwrap();
        assert_eq!(mark, format!("stowed:{}", stowed[0].digest));
        // A mark is nobody's to send: it would show another app's file.
        assert!(take_out(&mut config(&[&mark])).is_err());
    }
}
