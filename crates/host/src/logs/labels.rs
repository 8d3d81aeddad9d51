//! Whose log a directory holds.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;

use hangar_api::Timestamp;
use hangar_api::id::{AppName, GroupName, MachineId, Region};
use hangar_api::logs::LogQuery;
use hangar_api::machine::MachineSpec;
use hangar_init::untrusted;
use rustix::fs::{CWD, OFlags};
use serde::{Deserialize, Serialize};

const FILE: &str = "labels.json";
/// Most bytes of it: what is longer is not ours.
const MAX_FILE: u64 = 16 * 1024;

/// Whose log it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labels {
    /// The app.
    pub app: AppName,
    /// The process group.
    pub group: GroupName,
    /// The region.
    pub region: Region,
    /// When the Machine was destroyed.
    #[serde(default)]
    pub destroyed_at: Option<Timestamp>,
}

// === impl Labels ===

impl Labels {
    /// Returns the labels of a Machine that lives.
    #[must_use]
    pub fn of(spec: &MachineSpec) -> Self {
        Self {
            app: spec.app.clone(),
            group: spec.config.group_or_app(),
            region: spec.region.clone(),
            destroyed_at: None,
        }
    }

    /// Returns whether a query is about this Machine.
    #[must_use]
    pub fn matches(&self, id: &MachineId, query: &LogQuery) -> bool {
        self.app == query.app
            && query
                .group
                .as_ref()
                .is_none_or(|group| *group == self.group)
            && query
                .region
                .as_ref()
                .is_none_or(|region| *region == self.region)
            && query.machine.as_ref().is_none_or(|machine| machine == id)
    }

    /// Writes them. They are told again at the next start, so a failure is only logged.
    pub(super) fn save(&self, dir: &Path) {
        let write = || {
            std::fs::create_dir_all(dir)?;
            let temporary = dir.join("labels.json.new");
            // What was left there goes, so that the file is new and nobody else's.
            match std::fs::remove_file(&temporary) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = File::create_new(&temporary)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            std::fs::rename(&temporary, dir.join(FILE))
        };
        if let Err(error) = write() {
            tracing::warn!(dir = %dir.display(), %error, "labels of a log not written");
        }
    }
}

/// Reads the labels of all logs.
pub(super) fn load_all(dir: &Path) -> BTreeMap<MachineId, Labels> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return BTreeMap::new();
    };
    let read = |entry: std::fs::DirEntry| {
        let id = MachineId::new(entry.file_name().into_string().ok()?).ok()?;
        let file = untrusted::open(CWD, entry.path().join(FILE), OFlags::RDONLY);
        let mut text = Vec::new();
        let file = File::from(file.ok()??);
        file.take(MAX_FILE).read_to_end(&mut text).ok()?;
        Some((id, serde_json::from_slice(&text).ok()?))
    };
    entries.flatten().filter_map(read).collect()
}
