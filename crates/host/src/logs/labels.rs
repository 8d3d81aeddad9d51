//! Whose log a directory holds.

use std::collections::BTreeMap;
use std::path::Path;

use hangar_api::Timestamp;
use hangar_api::id::{AppName, GroupName, MachineId, Region};
use hangar_api::logs::LogQuery;
use hangar_api::machine::MachineSpec;
use serde::{Deserialize, Serialize};

const FILE: &str = "labels.json";

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
            std::fs::write(&temporary, serde_json::to_vec(self)?)?;
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
        let text = std::fs::read(entry.path().join(FILE)).ok()?;
        Some((id, serde_json::from_slice(&text).ok()?))
    };
    entries.flatten().filter_map(read).collect()
}
