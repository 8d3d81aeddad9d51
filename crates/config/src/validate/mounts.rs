//! `[[mounts]]`.

use super::Check;
use crate::app::Mount;
use crate::size::{self, Unit};

impl Check<'_> {
    pub(super) fn mounts(&self) {
        for (i, mount) in self.config.mounts.iter().enumerate() {
            self.mount(&format!("mounts[{i}]"), mount);
        }
        for group in self.config.groups() {
            let mut all = self.config.mounts.iter().enumerate();
            let mut of_it = all
                .by_ref()
                .filter(|(_, m)| self.config.is_for(&m.processes, group));
            let (_, second) = (of_it.next(), of_it.next());
            if let Some((i, _)) = second {
                let message =
                    format!("group '{group}' has more than one [[mounts]] section defined");
                self.tell(self.more_mounts, &format!("mounts[{i}]"), message, None);
            }
        }
    }

    fn mount(&self, path: &str, mount: &Mount) {
        let name = mount.source.as_deref().unwrap_or_default();
        if mount.source.is_none() {
            self.refuse(path, "has no source, so no volume can be found for it");
        }
        match mount.destination.as_deref() {
            None => self.refuse(path, "has no destination"),
            Some(place) if !place.starts_with('/') => {
                let message = format!("destination {place:?} is no absolute path");
                self.refuse(&format!("{path}.destination"), message);
            }
            Some(_) => {}
        }
        self.gigabytes(path, name, "initial_size", mount.initial_size.as_deref());
        if mount
            .snapshot_retention
            .is_some_and(|days| !(1..=60).contains(&days))
        {
            let message = format!(
                "mount '{name}' has a snapshot_retention value which is not between 1 and 60 days inclusive"
            );
            self.error(&format!("{path}.snapshot_retention"), message);
        }
        let increment = mount.auto_extend_size_increment.as_deref();
        let increment = self.gigabytes(path, name, "auto_extend_size_increment", increment);
        let limit = mount.auto_extend_size_limit.as_deref();
        let limit = self.gigabytes(path, name, "auto_extend_size_limit", limit);
        let threshold = mount.auto_extend_size_threshold;
        if threshold == 0 && increment == 0 && limit == 0 {
            return;
        }
        let mut errors = Vec::new();
        if threshold != 0 && increment == 0 && limit == 0 {
            errors.push((
                "auto_extend_size_threshold",
                "auto_extend_size_threshold, auto_extend_size_increment and auto_extend_size_limit must be all defined or none",
            ));
        }
        if !(50..=99).contains(&threshold) {
            let message = "auto_extend_size_threshold must be between 50 and 99";
            errors.push(("auto_extend_size_threshold", message));
        }
        if !(1..=100).contains(&increment) {
            let message = "auto_extend_size_increment must be between 1GB and 100GB";
            errors.push(("auto_extend_size_increment", message));
        }
        if limit != 0 && !(1..=500).contains(&limit) {
            let message = "auto_extend_size_limit must be between 1GB and 500GB";
            errors.push(("auto_extend_size_limit", message));
        }
        for (key, message) in errors {
            self.error(
                &format!("{path}.{key}"),
                format!("mount '{name}' {message}"),
            );
        }
    }

    /// Returns a size in GB, 0 where there is none; tells one that is none or too small.
    fn gigabytes(&self, path: &str, mount: &str, key: &str, text: Option<&str>) -> i64 {
        let Some(text) = text else { return 0 };
        let path = format!("{path}.{key}");
        let (has, with) = match key {
            "initial_size" => ("an initial_size", "initial_size"),
            "auto_extend_size_limit" => ("an auto_extend_size_limit", key),
            _ => ("an auto_extend_size_increment", key),
        };
        match size::parse(text, Unit::VolumeGb) {
            Err(error) => {
                let message =
                    format!("mount '{mount}' with {with} '{text}' will fail because of: {error}");
                self.error(&path, message);
                0
            }
            Ok(gb) => {
                if gb < 1 {
                    let message = format!(
                        "mount '{mount}' has {has} '{text}' value which is smaller than 1GB"
                    );
                    self.error(&path, message);
                }
                gb
            }
        }
    }
}
