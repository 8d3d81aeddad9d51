//! Process groups: their names, the default one, and who gets which section
//! (process-groups-and-deploy.md 2.1, 2.2).

use crate::app::AppConfig;

/// The group of an app without `[processes]`.
pub const APP: &str = "app";

impl AppConfig {
    /// Returns the groups, sorted: exactly those of `[processes]`, or `app` where there are none.
    #[must_use]
    pub fn groups(&self) -> Vec<&str> {
        if self.processes.is_empty() {
            return vec![APP];
        }
        self.processes.keys().map(String::as_str).collect()
    }

    /// Returns the group that sections without `processes` belong to: `app`, else the first.
    #[must_use]
    pub fn default_group(&self) -> &str {
        let groups = self.groups();
        if groups.contains(&APP) {
            return APP;
        }
        groups.first().copied().unwrap_or(APP)
    }

    /// Returns whether a section with these `processes` is for the group. One without any is for
    /// the default group only.
    #[must_use]
    pub fn is_for(&self, processes: &[String], group: &str) -> bool {
        let unset = processes.is_empty() || processes.iter().any(String::is_empty);
        processes.iter().any(|p| p == group) || (unset && group == self.default_group())
    }
}
