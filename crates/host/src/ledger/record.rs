//! The record of one Machine, and the ledger that keeps them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hangar_api::Timestamp;
use hangar_api::env::Env;
use hangar_api::event::MachineEvent;
use hangar_api::id::MachineId;
use hangar_api::link::HostMachine;
use hangar_api::machine::MachineSpec;
use hangar_api::secret::SecretValues;
use serde::{Deserialize, Serialize};

use super::Files;
use super::seal::{HostKey, Sealed};
use crate::machine::lifecycle::State;

/// The schema of [`Record`]; a reader accepts the one before, and refuses newer ones in words.
pub const SCHEMA: u32 = 1;

/// Why the ledger cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The disk says no.
    #[error("use the host's ledger at {path}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Written by a newer Hangar.
    #[error("read {path}: it was written by a newer version (schema {found}); run that version")]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its schema.
        found: u32,
    },
    /// Not what we wrote.
    #[error("read {path}: it is damaged; restore it from a backup or remove it")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// How.
        #[source]
        source: serde_json::Error,
    },
    /// The key has another length.
    #[error("read {0}: it is not a key of 32 bytes; restore it from a backup")]
    BadKey(PathBuf),
}

/// What the server said of a Machine, with its secrets sealed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpecEntry {
    /// What it should be.
    pub spec: MachineSpec,
    /// The secrets of that version.
    pub secrets: Sealed,
}

/// All that a host remembers of a Machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// See [`SCHEMA`].
    pub schema: u32,
    /// The generation that runs, ran or is started next.
    pub active: SpecEntry,
    /// A newer generation that no op has taken yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coming: Option<SpecEntry>,
    /// Revision of the newest message about it.
    pub revision: u64,
    /// Index of its host-local address; the pool may be another after a boot.
    pub v4_index: u16,
    /// What it does.
    pub state: State,
    /// The last events, newest first.
    #[serde(default)]
    pub events: Vec<MachineEvent>,
    /// When it was destroyed.
    #[serde(default)]
    pub destroyed_at: Option<Timestamp>,
}

/// What is known of the host as a whole.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct HostRecord {
    /// See `Observed::boot`.
    boot: u64,
}

/// The records of one host. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Ledger {
    data_dir: Arc<Path>,
    files: Arc<dyn Files>,
    key: HostKey,
    env: Env,
}

// === impl Record ===

impl Record {
    /// Returns the newest generation that has come from the server.
    #[must_use]
    pub fn latest(&self) -> u64 {
        let coming = self.coming.as_ref().map(|entry| entry.spec.generation);
        coming.unwrap_or(self.active.spec.generation)
    }

    /// Returns the entry of a generation, if it is still known.
    #[must_use]
    pub fn entry(&self, generation: u64) -> Option<&SpecEntry> {
        [Some(&self.active), self.coming.as_ref()]
            .into_iter()
            .flatten()
            .find(|entry| entry.spec.generation == generation)
    }

    /// Makes a coming generation the active one once the state has gone over to it.
    pub fn promote(&mut self) {
        let taken = |entry: &SpecEntry| entry.spec.generation <= self.state.generation;
        if self.coming.as_ref().is_some_and(taken)
            && let Some(entry) = self.coming.take()
        {
            self.active = entry;
        }
    }
}

// === impl Ledger ===

impl Ledger {
    /// Opens the ledger of a data dir: reads its key, or makes one.
    pub async fn open(
        data_dir: &Path,
        files: Arc<dyn Files>,
        env: Env,
    ) -> Result<Self, LedgerError> {
        let key = HostKey::ensure(data_dir, files.as_ref(), &env).await?;
        Ok(Self {
            data_dir: data_dir.into(),
            files,
            key,
            env,
        })
    }

    /// Returns a number that grows with every call, also when the ledger was lost: the time in
    /// milliseconds, or one more than the last.
    pub async fn next_boot(&self) -> Result<u64, LedgerError> {
        let path = self.data_dir.join("host.json");
        let former: HostRecord = self.read(&path).await?.unwrap_or_default();
        let now = u64::try_from(self.env.now().as_millisecond()).unwrap_or(0);
        let boot = now.max(former.boot.saturating_add(1));
        self.write(path, &HostRecord { boot }).await?;
        Ok(boot)
    }

    /// Returns all records, by id.
    pub async fn load(&self) -> Result<Vec<Record>, LedgerError> {
        let dir = self.data_dir.join("machines");
        let listed = self.files.list(dir.clone()).await;
        let names = listed.map_err(|source| LedgerError::Io { path: dir, source })?;
        let mut records = Vec::new();
        for id in names
            .into_iter()
            .filter_map(|name| MachineId::new(name).ok())
        {
            let path = self.path(&id);
            let Some(value) = self.read::<serde_json::Value>(&path).await? else {
                continue;
            };
            let found = value.get("schema").and_then(serde_json::Value::as_u64);
            if let Some(found) = found.filter(|found| *found > u64::from(SCHEMA)) {
                let found = u32::try_from(found).unwrap_or(u32::MAX);
                return Err(LedgerError::Newer { path, found });
            }
            let record = serde_json::from_value(value);
            records.push(record.map_err(|source| LedgerError::Damaged { path, source })?);
        }
        Ok(records)
    }

    /// Writes a record; when this returns, it is on disk.
    pub async fn save(&self, record: &Record) -> Result<(), LedgerError> {
        self.write(self.path(&record.active.spec.id), record).await
    }

    /// Forgets a Machine, and removes what is left of its directory.
    pub async fn forget(&self, id: &MachineId) -> Result<(), LedgerError> {
        let path = self.data_dir.join("machines").join(id.as_str());
        let removed = self.files.remove(path.clone()).await;
        removed.map_err(|source| LedgerError::Io { path, source })
    }

    /// Seals what the server said.
    #[must_use]
    pub fn entry(&self, machine: &HostMachine) -> SpecEntry {
        SpecEntry {
            secrets: self
                .key
                .seal(&machine.secrets, &about(&machine.spec), &self.env),
            spec: machine.spec.clone(),
        }
    }

    /// Opens the secrets of an entry; `None` when they were not sealed by this host's key.
    #[must_use]
    pub fn secrets(&self, entry: &SpecEntry) -> Option<SecretValues> {
        self.key.open(&entry.secrets, &about(&entry.spec))
    }

    fn path(&self, id: &MachineId) -> PathBuf {
        let dir = self.data_dir.join("machines").join(id.as_str());
        dir.join("ledger.json")
    }

    async fn read<T: serde::de::DeserializeOwned>(
        &self,
        path: &Path,
    ) -> Result<Option<T>, LedgerError> {
        let found = self.files.read(path.to_owned()).await;
        let found = found.map_err(|source| LedgerError::Io {
            path: path.to_owned(),
            source,
        })?;
        let parse = |bytes: Vec<u8>| {
            serde_json::from_slice(&bytes).map_err(|source| LedgerError::Damaged {
                path: path.to_owned(),
                source,
            })
        };
        found.map(parse).transpose()
    }

    async fn write<T: Serialize>(&self, path: PathBuf, value: &T) -> Result<(), LedgerError> {
        let content = serde_json::to_vec(value).expect("records have text keys only");
        let written = self.files.write(path.clone(), content).await;
        written.map_err(|source| LedgerError::Io { path, source })
    }
}

/// What sealed secrets are bound to.
fn about(spec: &MachineSpec) -> String {
    format!("{}/{}/{}", spec.app, spec.id, spec.generation)
}
