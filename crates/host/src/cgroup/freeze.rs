//! Freezing a run: its processes stay where they are, and so does its memory.
//!
//! Both versions can do it, and a run has a group of each that is mounted. The second is taken
//! where it knows how (since Linux 5.2): what it has frozen can still be killed. What was begun in
//! the other is undone as well, so that a run is never frozen twice over.

use std::fs;
use std::io;
use std::path::PathBuf;

use super::{Freezer, Layout, write_value};
use crate::runtime::RunKey;

impl Layout {
    /// Begins to freeze all of a run; [`Layout::is_frozen`] tells when it is. Fails with
    /// `Unsupported` where no mounted hierarchy can do that.
    pub fn freeze(&self, key: &RunKey) -> io::Result<()> {
        let Some((group, freezer)) = self.freezers(key).next() else {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "no hierarchy of control groups here can freeze processes",
            ));
        };
        write_value(&group.join(freezer.control), freezer.freeze)
    }

    /// Lets all of a run go on. Nothing for one that is not frozen, or not there.
    pub fn thaw(&self, key: &RunKey) -> io::Result<()> {
        for (group, freezer) in self.freezers(key) {
            match write_value(&group.join(freezer.control), freezer.thaw) {
                // It was removed after we looked.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if super::is_gone(&error) => {}
                thawed => thawed?,
            }
        }
        Ok(())
    }

    /// Returns whether nothing of a run moves.
    #[must_use]
    pub fn is_frozen(&self, key: &RunKey) -> bool {
        self.freezers(key).any(|(group, freezer)| {
            let state = fs::read_to_string(group.join(freezer.state));
            state.is_ok_and(|text| text.lines().any(|line| line.trim() == freezer.frozen))
        })
    }

    /// Returns the run's groups that can be frozen, the better way first.
    fn freezers(&self, key: &RunKey) -> impl Iterator<Item = (PathBuf, Freezer)> {
        let mut all: Vec<_> = self.hierarchies.iter().collect();
        all.sort_by_key(|hierarchy| !hierarchy.v2);
        all.into_iter()
            .map(|hierarchy| (self.group(hierarchy, key), hierarchy.version().freezer()))
            .filter(|(group, freezer)| group.join(freezer.control).exists())
    }
}
