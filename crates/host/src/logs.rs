//! The logs of this host's Machines: the host's own lines, and reading everything merged.
//!
//! `init` writes what the program says into segments of `logs/<machine>/`; the host writes what it
//! has to say (runner, health checks, proxy) into segments of its own beside them
//! ([`hangar_init::logfile`]). Nothing is copied, so nothing doubles after a crash. A small
//! `labels.json` in the same directory says whose log it is, also for [`KEPT`] after the Machine
//! was destroyed.

mod follow;
mod labels;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hangar_api::env::Env;
use hangar_api::id::MachineId;
use hangar_api::logs::Provider;
use hangar_api::machine::MachineSpec;
use hangar_init::logfile::{Family, SegmentWriter, Source};

pub use labels::Labels;

/// Logs of a destroyed Machine are kept this long.
pub const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// The logs of one host. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LogStore {
    dir: Arc<Path>,
    env: Env,
    labels: Arc<Mutex<BTreeMap<MachineId, Labels>>>,
}

// === impl LogStore ===

impl LogStore {
    /// Opens the logs of a data dir: reads whose they are.
    #[must_use]
    pub fn open(data_dir: &Path, env: Env) -> Self {
        let dir: Arc<Path> = data_dir.join("logs").into();
        Self {
            labels: Arc::new(Mutex::new(labels::load_all(&dir))),
            dir,
            env,
        }
    }

    /// Returns the directory of a Machine's segments.
    #[must_use]
    pub fn dir(&self, machine: &MachineId) -> PathBuf {
        self.dir.join(machine.as_str())
    }

    /// Makes a Machine's directory and says whose log it is. May be repeated.
    pub fn label(&self, spec: &MachineSpec) {
        let labels = Labels::of(spec);
        let mut all = self.lock();
        if all.get(&spec.id) != Some(&labels) {
            labels.save(&self.dir(&spec.id));
            all.insert(spec.id.clone(), labels);
        }
    }

    /// Says that a Machine is gone: its log goes [`KEPT`] later.
    pub fn mark_destroyed(&self, machine: &MachineId) {
        let now = self.env.now();
        let mut all = self.lock();
        if let Some(labels) = all.get_mut(machine).filter(|l| l.destroyed_at.is_none()) {
            labels.destroyed_at = Some(now);
            labels.save(&self.dir(machine));
        }
    }

    /// Writes a line about a Machine. A line that cannot be written is lost: nothing waits for it.
    pub fn write(
        &self,
        machine: &MachineId,
        provider: Provider,
        error: bool,
        start: u64,
        text: &str,
    ) {
        let source = match provider {
            Provider::App => Source::App,
            Provider::Runner => Source::Runner,
            Provider::Proxy => Source::Proxy,
            Provider::Health => Source::Health,
        };
        let dir = self.dir(machine);
        let opened = std::fs::create_dir_all(&dir)
            .and_then(|()| std::fs::File::open(&dir))
            .and_then(|open| SegmentWriter::open(open.into(), Family::Host));
        match opened {
            Ok(mut writer) => {
                let now = u64::try_from(self.env.now().as_microsecond()).unwrap_or(0);
                writer.push(now, source, error, start, text.as_bytes());
            }
            Err(error) => tracing::debug!(%machine, %error, "log line not written"),
        }
    }

    /// Removes the logs of Machines that were destroyed more than [`KEPT`] ago.
    pub fn sweep(&self) {
        let from = self.env.now().saturating_sub(KEPT);
        let Ok(from) = from else { return };
        let mut all = self.lock();
        let old = |labels: &Labels| labels.destroyed_at.is_some_and(|at| at < from);
        let gone: Vec<MachineId> = all
            .iter()
            .filter(|(_, labels)| old(labels))
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            match std::fs::remove_dir_all(self.dir(&id)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(machine = %id, %error, "old log not removed");
                }
                _ => drop(all.remove(&id)),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<MachineId, Labels>> {
        self.labels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
